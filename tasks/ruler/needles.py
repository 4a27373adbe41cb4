"""What RULER hides in a text, and what it asks: needles, chains of variables, a real paragraph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from random import Random

from pcc_bench.core.documents import read_json_lines
from pcc_bench.tasks.lab.draws import integer, pick, shuffle
from pcc_bench.tasks.shipped_rows import real_folder

ADJECTIVES = (
    *(
        "ancient",
        "brave",
        "calm",
        "clever",
        "crimson",
        "dusty",
        "eager",
        "faint",
        "gentle",
        "golden",
        "hollow",
        "humble",
    ),
    *("icy", "jolly", "keen", "lively", "mellow", "narrow", "noisy", "pale", "proud", "quiet", "rapid", "rusty"),
    *("secret", "shiny", "silent", "sleepy", "steep", "sturdy", "tender", "tidy", "velvet", "vivid", "wild", "wise"),
)
NOUNS = (
    *("anchor", "basket", "beacon", "bridge", "candle", "canyon", "castle", "copper", "cradle", "falcon", "forest"),
    *("garden", "hammer", "harbor", "island", "jacket", "kettle", "ladder", "lantern", "meadow", "mirror", "needle"),
    *("orchard", "pepper", "pillow", "pocket", "rocket", "saddle", "shovel", "spider", "temple", "ticket", "tunnel"),
    *("valley", "wagon", "window"),
)
FEW = 4  # keys, values and queries where there are several, and hops of a chain of variables: RULER's own numbers
Draw = Callable[[Random], "Hidden"]


@dataclass(frozen=True)
class Hidden:
    """What goes into a text.

    Attributes:
        sentences: In their order; the first is what has a depth, where the task has one.
        question: Behind the text.
        opening: The beginning of the answer, which the model is given.
        answers: References.
        every: All of them are asked for; else any one is right.
    """

    sentences: tuple[str, ...]
    question: str
    opening: str
    answers: tuple[str, ...]
    every: bool = True


def needles(random: Random, keys: int = 1, values: int = 1, queries: int = 1) -> Hidden:
    """Numbers under keys; those of the first `queries` keys are asked for, the others distract."""
    names = _distinct(random, keys, lambda: f"{pick(random, ADJECTIVES)}-{pick(random, NOUNS)}")
    numbers = _distinct(random, keys * values, lambda: str(integer(random, 10**6, 10**7 - 1)))
    of_key = {name: numbers[n * values : (n + 1) * values] for n, name in enumerate(names)}
    asked = names[:queries]
    sentences = [f"One of the special magic numbers for {key} is: {n}." for key in names for n in of_key[key]]
    answers = tuple(n for key in asked for n in of_key[key])
    subject = asked[0] if queries == 1 else ", ".join(asked[:-1]) + f", and {asked[-1]}"
    if len(answers) == 1:
        question = f"What is the special magic number for {subject} mentioned in the provided text?"
        opening = f"The special magic number for {subject} mentioned in the provided text is"
    else:
        question = f"What are all the special magic numbers for {subject} mentioned in the provided text?"
        opening = f"The special magic numbers for {subject} mentioned in the provided text are"
    return Hidden(tuple(sentences), question, opening, answers)


def single(random: Random) -> Hidden:
    """A number under a key."""
    return needles(random)


def multikey(random: Random) -> Hidden:
    """The number of one of several keys."""
    return needles(random, keys=FEW)


def multivalue(random: Random) -> Hidden:
    """All numbers of a key."""
    return needles(random, values=FEW)


def multiquery(random: Random) -> Hidden:
    """The numbers of several keys."""
    return needles(random, keys=FEW, queries=FEW)


def variables(random: Random) -> Hidden:
    """A chain of variables, each given the value of the one before; all of them are asked for."""
    names = _distinct(random, FEW + 1, lambda: "".join(chr(65 + integer(random, 0, 25)) for _ in range(5)))
    value = str(integer(random, 10**4, 10**5 - 1))
    chain = [f"VAR {names[0]} = {value}."]
    chain += [f"VAR {name} = VAR {before}." for before, name in pairwise(names)]
    return Hidden(
        tuple(chain),
        f"Find all variables that are assigned the value {value} in the text above.",
        "According to the chain of variable assignment in the text above, "
        f"{len(names)} variables are assigned the value {value}, they are:",
        tuple(names),
    )


def paragraph(random: Random) -> Hidden:
    """A real paragraph and a question that it answers (the SQuAD rows that ship)."""
    context, question, answers = pick(random, _shipped())
    return Hidden((context,), f"Question: {question}", "Answer:", answers, every=False)


@cache
def _shipped() -> Sequence[tuple[str, str, tuple[str, ...]]]:
    rows = (row for _, row in read_json_lines(real_folder() / "squad" / "validation.jsonl"))
    return [
        (" ".join(row["context"].split()), row["question"].strip(), tuple(dict.fromkeys(row["answers"]["text"])))
        for row in rows
    ]


def _distinct(random: Random, count: int, draw: Callable[[], str]) -> list[str]:
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        drawn[draw()] = None
    return shuffle(random, list(drawn))
