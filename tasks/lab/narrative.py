"""Plain documents of any length whose later sentences lean on the earlier ones."""

from __future__ import annotations

from random import Random

from pcc_bench.tasks.lab.draws import integer, pick, shuffle
from pcc_bench.tasks.lab.facts import Fact, ask, clause, facts_of, state
from pcc_bench.tasks.lab.scenery import PLACES, scenery
from pcc_bench.tasks.lab.world import RELATIONS, draw_cast

_OPENINGS = ("As said before,", "Later", "In the evening", "Then", "The next day", "As we know,", "In the morning")
_EVENTS = (
    "went to the {place}",
    "came back from the {place}",
    "met a friend at the {place}",
    "was seen near the {place}",
    "walked to the {place}",
    "went home",
)


def draw_document(random: Random, sentences: int, *, split: str = "train") -> str:
    """A narrative: people come in with some facts; then they do things, and their facts return in other words.

    Args:
        random: The generator.
        sentences: How many sentences it has.
        split: Whose names it may use.
    """
    cast = draw_cast(random, split, max(2, min(40, sentences // 10)))
    genders = {person.name: person.gender for person in cast.people}
    waiting = [shuffle(random, facts) for facts in facts_of(cast)[:-1]]
    told: list[Fact] = []
    lines: list[str] = []
    while len(lines) < sentences:
        # Somebody new as long as there is somebody, sooner in a document that has little to lean on.
        if waiting and random.random() * (len(told) + 4) < 6:
            lines += _introduce(random, waiting.pop(), genders, told)
        else:
            lines.append(_go_on(random, told))
    return " ".join(lines[:sentences])


def _introduce(random: Random, facts: list[Fact], genders: dict[str, str], told: list[Fact]) -> list[str]:
    """Two to five facts about one person."""
    lines = []
    pronoun = None
    for fact in facts[: integer(random, 2, 5)]:
        lines.append(state(random, fact, pronoun if random.random() < 0.7 else None)[0])
        told.append(fact)
        pronoun = None if fact.attribute in RELATIONS else genders[fact.subject]
    return lines


def _go_on(random: Random, told: list[Fact]) -> str:
    """An event with what was said before, a question with its answer, a fact again, or scenery."""
    fact = pick(random, told)
    draw = random.random()
    if draw < 0.55:
        event = pick(random, _EVENTS).replace("{place}", pick(random, PLACES))
        return f"{pick(random, _OPENINGS)} {fact.subject}, {clause(random, fact.attribute, fact.value)}, {event}."
    if draw < 0.7:
        return f"{ask(random, fact.attribute, fact.subject)} {state(random, fact)[0]}"
    if draw < 0.85:
        return state(random, fact)[0]
    return scenery(random)
