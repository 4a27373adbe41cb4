"""RULER's tasks on generated text: any length, in the decoder's tokens, without a download."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import accumulate, pairwise, product
from random import Random
from typing import Any, Self

from pcc_bench.core.documents import read_json_lines
from pcc_bench.core.errors import UsageError
from pcc_bench.tasks.lab.passages import draw_document
from pcc_bench.tasks.lab.world import VERSION, distinct, integer, pick, seeded, shuffle, words
from pcc_bench.tasks.metadata import TokenCounter, numbers, whole, wholes
from pcc_bench.tasks.metrics.squad_answers.squad_answers import contains
from pcc_bench.tasks.rows import real_folder
from pcc_bench.tasks.task import QuestionTask

LENGTHS, DEPTHS = (1024, 2048, 4096), (0.0, 0.25, 0.5, 0.75, 1.0)
PER_CELL = 5
LONGEST = 10_000_000  # decoder tokens: no window is longer, and a text of them takes minutes to generate
SHORTEST = 6  # decoder tokens of a sentence of the narrative, on average: more in fact, for every tokenizer
FEW = 4  # keys, values and queries where there are several, and hops of a chain of variables: RULER's own numbers
ADJECTIVES = words(
    "ancient brave calm clever crimson dusty eager faint gentle golden hollow humble icy jolly keen lively mellow "
    "narrow noisy pale proud quiet rapid rusty secret shiny silent sleepy steep sturdy tender tidy velvet vivid wild "
    "wise"
)
NOUNS = words(
    "anchor basket beacon bridge candle canyon castle copper cradle falcon forest garden hammer harbor island jacket "
    "kettle ladder lantern meadow mirror needle orchard pepper pillow pocket rocket saddle shovel spider temple ticket "
    "tunnel valley wagon window"
)
_SENTENCES = re.compile(r"(?<=[.?!])\s+")


class RulerTask(QuestionTask):
    """Something hidden in a narrative of the lab's, and a question about it, in RULER's words.

    Besides lm-eval's own, the YAML has the keys `draw` (what is hidden: one of this module's functions) and `by_depth`
    (the first sentence of it stands at each of `depths`, the others anywhere; else all of them stand anywhere).
    Settings: `lengths` (decoder tokens of the context, never more and at most a sentence fewer), `depths`, `per_cell`,
    `seed`.
    """

    OWN = ("draw", "by_depth")

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        metadata = self.config.metadata
        lengths = wholes(metadata, "lengths", LENGTHS, 64, LONGEST)
        depths = numbers(metadata, "depths", DEPTHS, 0, 1)
        per_cell = whole(metadata, "per_cell", PER_CELL, most=10_000)
        # As many rows of a length with depths as without; a row's text and needles are the same at all depths.
        count, places = (per_cell, depths) if self._by_depth else (per_cell * len(depths), [None])
        docs, dropped = [], Counter[str]()
        for length, number in product(lengths, range(count)):
            random = seeded("ruler", self.config.task, self.seed, length, number)
            hidden = self._draw(random)
            narrative = Narrative.drawn(random, length, self.counter)
            elsewhere = [random.random() for _ in hidden.sentences]
            for depth in places:
                hay = narrative.hide(hidden, sorted(elsewhere) if depth is None else [depth, *elsewhere[1:]], length)
                if hay is None:
                    dropped[f"what is hidden is longer than {length} tokens"] += 1
                    continue
                place = "" if depth is None else f"{depth:g}-"
                doc: dict[str, Any] = {"id": f"{length}-{place}{number}", "context": hay[0]}
                doc |= {"question": hidden.question, "opening": hidden.opening, "answers": list(hidden.answers)}
                doc |= {"every": hidden.every, "length": length, "depth": depth}
                docs.append({**doc, "tokens": hay[1], "found_depth": hay[2]})
        if not docs:
            raise UsageError(f"nothing of {self.config.task} fits into lengths={lengths}: pass longer ones")
        source = {"source": "generated", "place": "generated narratives", "dataset": "ruler", "split": "test"}
        settings = {"protocol": "strict", "lengths": {"tokens": lengths}, "tokenizer": self.counter.name}
        self.take(docs, dropped, **source, **settings, seed=self.seed, hub=None, world_version=VERSION)


def score_references(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """The share of the references in the answer where every one is asked for, else whether any is in it."""
    held = [contains(results[0], answer) for answer in doc["answers"]]
    return {"contains": sum(held) / len(held) if doc["every"] else max(held)}


@dataclass(frozen=True)
class Hidden:
    sentences: tuple[str, ...]  # in their order; the first is what has a depth, where the task has one
    question: str  # behind the text
    opening: str  # the beginning of the answer, which the model is given
    answers: tuple[str, ...]  # references
    every: bool = True  # all of them are asked for; else any one is right


@dataclass(frozen=True)
class Narrative:
    """Sentences of the lab's about its people, with the decoder tokens of each."""

    sentences: Sequence[str]
    sizes: Sequence[int]
    counter: TokenCounter

    @classmethod
    def drawn(cls, random: Random, tokens: int, counter: TokenCounter) -> Self:
        sentences = _SENTENCES.split(draw_document(random, tokens // SHORTEST + 1, split="test"))
        return cls(sentences, _sizes(sentences, counter), counter)

    def hide(self, hidden: Hidden, places: Sequence[float], length: int) -> tuple[str, int, float] | None:
        """As much of it as fits `length`, with the hidden sentences between its own; None where those alone are longer.

        `places`, from 0 (the beginning) to 1: of the hidden sentences; those at the same place keep their order. With
        the text come its tokens, and the depth of the first of them: tokens before it over those of all but it.
        """
        sizes = _sizes(hidden.sentences, self.counter)
        count = sum(size <= length - sum(sizes) for size in accumulate(self.sizes))
        while count >= 0:
            where = [round(place * count) for place in places]
            sentences: list[str] = []
            before, last = "", 0
            for n in sorted(range(len(where)), key=where.__getitem__):  # stable: a chain keeps its order
                sentences += self.sentences[last : where[n]]
                last = where[n]
                if n == 0:
                    before = " ".join(sentences)
                sentences.append(hidden.sentences[n])
            text = " ".join([*sentences, *self.sentences[last:count]])
            tokens = self.counter.count(text)
            if tokens <= length:
                return (text, tokens, self.counter.count(before) / max(tokens - sizes[0], 1))
            count -= 1  # where sentences meet, a tokenizer may need a token more
        return None


def _sizes(sentences: Sequence[str], counter: TokenCounter) -> list[int]:
    """Decoder tokens of sentences, each behind a blank as in the middle of a text."""
    return [len(ids) for ids in counter.ids([f" {sentence}" for sentence in sentences])]


def single(random: Random, keys: int = 1, values: int = 1, queries: int = 1) -> Hidden:
    """Numbers under keys; those of the first `queries` keys are asked for, the others distract."""
    names = shuffle(random, distinct(keys, lambda: f"{pick(random, ADJECTIVES)}-{pick(random, NOUNS)}"))
    drawn = shuffle(random, distinct(keys * values, lambda: str(integer(random, 10**6, 10**7 - 1))))
    of_key = {name: drawn[n * values : (n + 1) * values] for n, name in enumerate(names)}
    asked = names[:queries]
    sentences = [f"One of the special magic numbers for {key} is: {n}." for key in names for n in of_key[key]]
    answers = tuple(n for key in asked for n in of_key[key])
    subject = asked[0] if queries == 1 else ", ".join(asked[:-1]) + f", and {asked[-1]}"
    what, number, verb = "What is the", "number", "is"
    if len(answers) > 1:
        what, number, verb = "What are all the", "numbers", "are"
    where = f"special magic {number} for {subject} mentioned in the provided text"
    return Hidden(tuple(sentences), f"{what} {where}?", f"The {where} {verb}", answers)


multikey = partial(single, keys=FEW)
multivalue = partial(single, values=FEW)
multiquery = partial(single, keys=FEW, queries=FEW)


def variables(random: Random) -> Hidden:
    """A chain of variables, each given the value of the one before; all of them are asked for."""
    names = distinct(FEW + 1, lambda: "".join(chr(65 + integer(random, 0, 25)) for _ in range(5)))
    shuffle(random, names)
    value = str(integer(random, 10**4, 10**5 - 1))
    chain = [f"VAR {names[0]} = {value}."]
    chain += [f"VAR {name} = VAR {before}." for before, name in pairwise(names)]
    question = f"Find all variables that are assigned the value {value} in the text above."
    opening = "According to the chain of variable assignment in the text above, "
    opening += f"{len(names)} variables are assigned the value {value}, they are:"
    return Hidden(tuple(chain), question, opening, tuple(names))


@cache
def real_rows() -> Sequence[Mapping[str, Any]]:
    return [row for _, row in read_json_lines(real_folder() / "squad" / "validation.jsonl")]


def paragraph(random: Random) -> Hidden:
    row = pick(random, real_rows())
    context, answers = " ".join(row["context"].split()), tuple(dict.fromkeys(row["answers"]["text"]))
    return Hidden((context,), f"Question: {row['question'].strip()}", "Answer:", answers, every=False)
