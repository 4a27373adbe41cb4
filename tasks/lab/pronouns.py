"""Sentences with a pronoun and a candidate for what it stands for, in the row format of SuperGLUE's WSC."""

from __future__ import annotations

from random import Random
from typing import Any

from pcc_bench.tasks.lab.draws import integer, pick
from pcc_bench.tasks.lab.scenery import PLACES
from pcc_bench.tasks.lab.words import THINGS, article
from pcc_bench.tasks.lab.world import Person, draw_names, draw_person

# {A} and {B} are the two, {p} the pronoun, {its} its possessive; the letter is the one that {p} stands for.
_BY_GENDER = (
    "{A} met {B} at the {place} and then {p} went home.",
    "{A} was at the {place} with {B} when {p} began to sing.",
    "{A} walked to the {place} with {B} because {p} had a free day.",
)
_BY_FACT = {
    "job": ("{A} is {ja} and {B} is {jb}. In the evening {p} talked about the work of {j}.",),
    "pet": ("{A} has {ja} and {B} has {jb}. In the evening {p} went home to {its} {bare}.",),
    "city": ("{A} lives in {ja} and {B} lives in {jb}. Then {p} went home to {j}.",),
    "food": ("{A} likes to eat {ja} and {B} likes to eat {jb}. In the evening {p} had {j}.",),
    "hobby": ("{A} enjoys {ja} and {B} enjoys {jb}. The next day {p} had time for {j}.",),
}
_BY_GRAMMAR = (
    ("A", "{A} gave {n} {things} to {B} and now {p} has {n} {things} less."),
    ("B", "{A} gave {n} {things} to {B} and now {p} has {n} {things} more."),
    ("A", "{A} asked {B} for help because {p} could not do the work alone."),
    ("B", "{A} asked {B} for help because {p} could do the work best."),
    ("A", "{A} thanked {B} because {p} had been helped."),
    ("B", "{A} thanked {B} because {p} had helped."),
)


def draw_row(random: Random, index: int, *, split: str = "train") -> dict[str, Any]:
    """A row {"text", "target", "idx", "label"}; of the rows 2k and 2k + 1 one is true.

    Indices count words apart by blanks, as SuperGLUE's do.
    """
    a, b, referent, text = _draw_text(random, split)
    label = index % 2 == 0
    candidate = referent if label else (b if referent is a else a)
    words = text.split()
    pronoun = "she" if referent.gender == "f" else "he"
    target = {
        "span2_index": words.index(pronoun),
        "span1_index": _find(words, candidate),
        "span1_text": candidate.name,
        "span2_text": pronoun,
    }
    return {"text": text, "target": target, "idx": index, "label": label}


def _find(words: list[str], person: Person) -> int:
    return next(at for at in range(len(words)) if words[at : at + 2] == [person.first, person.last])


def _draw_text(random: Random, split: str) -> tuple[Person, Person, Person, str]:
    """The two people, the one that the pronoun stands for, and the text."""
    draw = random.random()
    by_gender = draw < 1 / 3
    a, b = _draw_two(random, split, apart=by_gender)
    words = {"A": a.name, "B": b.name, "place": pick(random, PLACES), "things": pick(random, THINGS)}
    if by_gender:
        referent, template = pick(random, (a, b)), pick(random, _BY_GENDER)
    elif draw < 2 / 3:
        referent = pick(random, (a, b))
        template = _fact_template(random, a, b, referent, words)
    else:
        letter, template = pick(random, _BY_GRAMMAR)
        referent = a if letter == "A" else b
    words |= {"p": "she", "its": "her"} if referent.gender == "f" else {"p": "he", "its": "his"}
    return a, b, referent, template.format(n=integer(random, 2, 20), **words)


def _draw_two(random: Random, split: str, *, apart: bool) -> tuple[Person, Person]:
    """Two people, of two genders where only that tells them apart, and with two jobs."""
    while True:
        a, b = (draw_person(random, name) for name in draw_names(random, split, 2))
        if a.attributes["job"] != b.attributes["job"] and not (apart and a.gender == b.gender):
            return a, b


def _fact_template(random: Random, a: Person, b: Person, referent: Person, words: dict[str, str]) -> str:
    """A template about an attribute in which the two differ, with its words added."""
    attribute = pick(random, [key for key in _BY_FACT if a.attributes[key] != b.attributes[key]])
    one, other = a.attributes[attribute], b.attributes[attribute]
    value = one if referent is a else other
    named = attribute in ("job", "pet")
    words |= {
        "ja": f"{article(one)} {one}" if named else one,
        "jb": f"{article(other)} {other}" if named else other,
        "j": f"{article(value)} {value}" if named else value,
        "bare": value,
    }
    return pick(random, _BY_FACT[attribute])
