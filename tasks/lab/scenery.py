"""Sentences that state nothing anybody asks for: weather, streets, markets."""

from __future__ import annotations

from random import Random

from pcc_bench.tasks.lab.draws import pick
from pcc_bench.tasks.lab.words import CITIES

PLACES = ("market", "park", "station", "bridge", "school", "square", "garden", "river")
_MOODS = ("quiet", "full", "wet", "cold", "warm", "open", "old")
_FEELS = ("quiet", "cold", "warm")
_TIMES = ("morning", "evening", "night", "week", "winter", "summer")
_TEMPLATES = (
    "The {place} was {mood} that {time}.",
    "It rained all {time}.",
    "The sun was out that {time}.",
    "It was {feel} at the {place} all {time}.",
    "There was music at the {place} that {time}.",
    "The {place} is near the {other}.",
    "The train to {city} was late that {time}.",
    "The {place} in {city} was {mood}.",
    "People talked about the rain in {city} all {time}.",
    "The road from the {place} to the {other} was {mood}.",
)


def scenery(random: Random) -> str:
    """One such sentence."""
    place = pick(random, PLACES)
    other = PLACES[(PLACES.index(place) + 1 + int(random.random() * (len(PLACES) - 1))) % len(PLACES)]
    template = pick(random, _TEMPLATES)
    mood, feel, time = pick(random, _MOODS), pick(random, _FEELS), pick(random, _TIMES)
    return template.format(place=place, other=other, mood=mood, feel=feel, time=time, city=pick(random, CITIES))
