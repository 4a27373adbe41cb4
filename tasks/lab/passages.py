"""Passages of a wanted size: facts of several people, in runs or interleaved, and sentences beside the point."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from pcc_bench.tasks.lab.draws import integer, pick, shuffle
from pcc_bench.tasks.lab.facts import Fact, facts_of, state
from pcc_bench.tasks.lab.scenery import scenery
from pcc_bench.tasks.lab.world import RELATIONS, Cast, draw_cast

_RUNS = (1, 2, 3, 12)  # longest run of facts about one person in a passage: from interleaved to one after the other


class Stated(NamedTuple):
    """A fact with its place: `text[start:end]` is the sentence, `text[value_start:]` starts with the value."""

    fact: Fact
    start: int
    end: int
    value_start: int


class Passage(NamedTuple):
    """A text and everything it states; each pair of subject and attribute is stated at most once."""

    text: str
    stated: list[Stated]
    sentences: list[str]
    cast: Cast


def draw_passage(
    random: Random,
    facts: int,
    people: int | None = None,
    fillers: int = 0,
    *,
    split: str = "train",
    alike: bool = False,
    hops: int = 1,
) -> Passage:
    """A passage about a cast of its own.

    Args:
        random: The generator.
        facts: How many facts it states, one a sentence.
        people: How many people it is about; None: drawn. At least one for each 8 facts, whatever is asked for.
        fillers: How many sentences state nothing.
        split: Whose names it may use, see `world.names_of`.
        alike: The people are near-duplicates of each other.
        hops: 2 to choose facts that make chains (a colleague, and where that colleague lives).
    """
    fewest = max(hops, -(-facts // 8))
    wanted = people if people is not None else integer(random, fewest, max(fewest, 2, facts // 3))
    cast = draw_cast(random, split, max(fewest, wanted), alike=alike)
    if hops > 1:
        chosen = chains(random, cast, facts)
    elif alike:
        chosen = _the_same_of_all(random, cast, facts)
    else:
        chosen = shuffle(random, _flat(facts_of(cast)))[:facts]
    return write(random, _runs(random, chosen), cast, fillers)


def write(random: Random, runs: Sequence[Sequence[Fact]], cast: Cast, fillers: int = 0) -> Passage:
    """State the facts of each run in turn; within a run, She and He may stand for the person.

    A pronoun never follows a sentence that names somebody else or states nothing, so that it has one reading.
    """
    genders = {person.name: person.gender for person in cast.people}
    left = sum(map(len, runs))
    sentences: list[str] = []
    stated: list[Stated] = []
    position = 0
    for run in runs:
        pronoun = None
        for fact in run:
            while fillers and random.random() * (fillers + left) < fillers:
                sentence = scenery(random)
                sentences.append(sentence)
                position += len(sentence) + 1
                fillers -= 1
                pronoun = None
            sentence, offset = state(random, fact, pronoun if random.random() < 0.7 else None)
            end = position + len(sentence)
            stated.append(Stated(fact, position, end, position + offset))
            sentences.append(sentence)
            position = end + 1
            left -= 1
            pronoun = None if fact.attribute in RELATIONS else genders.get(fact.subject)
    sentences += [scenery(random) for _ in range(fillers)]
    return Passage(" ".join(sentences), stated, sentences, cast)


def _flat(groups: list[list[Fact]]) -> list[Fact]:
    return [fact for group in groups for fact in group]


def _the_same_of_all(random: Random, cast: Cast, count: int) -> list[Fact]:
    """Facts attribute by attribute, each of everybody who has it, so that an answer has rivals."""
    of_attribute: dict[str, list[Fact]] = {}
    for fact in _flat(facts_of(cast)):
        of_attribute.setdefault(fact.attribute, []).append(fact)
    return _flat(shuffle(random, list(of_attribute.values())))[:count]


def chains(random: Random, cast: Cast, count: int) -> list[Fact]:
    """Facts of which many lean on each other: relations and companies first, then what is said of those named."""
    everything = shuffle(random, _flat(facts_of(cast)))
    links = [fact for fact in everything if fact.attribute in RELATIONS or fact.attribute == "company"]
    chosen: dict[Fact, None] = {}
    for link in links:
        if len(chosen) + 2 > count or len(chosen) > count * 2 // 3:
            break
        ends = [fact for fact in everything if fact.subject == link.value and fact.attribute not in RELATIONS]
        chosen[link] = None
        chosen.update(dict.fromkeys(ends[:2]))
    chosen.update(dict.fromkeys(everything[:count]))
    return list(chosen)[:count]


def _runs(random: Random, facts: list[Fact]) -> list[list[Fact]]:
    """The facts, subject by subject, cut into runs, in a drawn order."""
    longest = pick(random, _RUNS)
    of_subject: dict[str, list[Fact]] = {}
    for fact in facts:
        of_subject.setdefault(fact.subject, []).append(fact)
    runs = [
        group[start : start + longest]
        for group in (shuffle(random, group) for group in of_subject.values())
        for start in range(0, len(group), longest)
    ]
    return shuffle(random, runs)
