"""The people of the lab's world, drawn in small casts; train and test share words but no full name."""

from __future__ import annotations

import zlib
from random import Random
from typing import NamedTuple

from pcc_bench.tasks.lab.draws import integer, pick, shuffle
from pcc_bench.tasks.lab.words import (
    CITIES,
    COMPANIES,
    FOODS,
    HOBBIES,
    JOBS,
    MEN,
    MONTHS,
    PETS,
    SURNAMES,
    THINGS,
    WOMEN,
)

VERSION = 1  # to be raised whenever the same seed gives another text
TEST_SHARE = 8  # one pair of first name and surname in eight is for tests
RELATIONS = ("colleague", "cousin", "neighbour")
COMPANY_ATTRIBUTE = "seat"

Name = tuple[str, str]


class Person(NamedTuple):
    """Somebody of a passage.

    Attributes:
        name: First name and surname.
        first: First name.
        last: Surname.
        gender: `f` or `m`.
        attributes: Attribute -> value: the keys of `facts.TEMPLATES`, such as `city`, `job`, `books`, `colleague`.
    """

    name: str
    first: str
    last: str
    gender: str
    attributes: dict[str, str]


class Cast(NamedTuple):
    """The people of a passage, and the city of each company they work for."""

    people: list[Person]
    seats: dict[str, str]


def is_test_name(first: str, last: str) -> bool:
    """Whether this pair of names is kept for tests; the same on any machine."""
    return zlib.crc32(f"{first} {last}".encode()) % TEST_SHARE == 0


def _names(*, test: bool) -> tuple[Name, ...]:
    return tuple((f, s) for f in WOMEN + MEN for s in SURNAMES if is_test_name(f, s) is test)


NAMES = {"train": _names(test=False), "test": _names(test=True)}
_WOMEN = frozenset(WOMEN)


def names_of(split: str) -> tuple[Name, ...]:
    """The names that a split may use: `train` has its own, every other split those of tests."""
    return NAMES["train" if split == "train" else "test"]


def draw_names(random: Random, split: str, count: int) -> list[Name]:
    """Distinct full names."""
    names = names_of(split)
    drawn: dict[Name, None] = {}
    while len(drawn) < count:
        drawn[pick(random, names)] = None
    return list(drawn)


def draw_alike_names(random: Random, split: str, count: int) -> list[Name]:
    """Distinct full names, each with the first name or the surname of the first one as far as there are such."""
    names = names_of(split)
    first, last = pick(random, names)
    alike = [name for name in names if (name[0] == first) != (name[1] == last)]
    drawn = dict.fromkeys([(first, last), *shuffle(random, alike)[: count - 1]])
    while len(drawn) < count:
        drawn[pick(random, names)] = None
    return list(drawn)


def draw_cast(random: Random, split: str, count: int, *, alike: bool = False) -> Cast:
    """People with all their attributes.

    Args:
        random: The generator.
        split: `train` or another, see `names_of`.
        count: How many people.
        alike: Names are near-duplicates, and so are lives: people share values with the first one.
    """
    names = (draw_alike_names if alike else draw_names)(random, split, count)
    people = [draw_person(random, name) for name in names]
    if alike:
        _share_values(random, people)
    _relate(random, people)
    seats = {person.attributes["company"]: pick(random, CITIES) for person in people}
    return Cast(people, seats)


def draw_person(random: Random, name: Name) -> Person:
    """A person with all attributes but those that need other people."""
    first, last = name
    attributes = {
        "city": pick(random, CITIES),
        "birthplace": pick(random, CITIES),
        "birthday": f"{integer(random, 1, 28)} {pick(random, MONTHS)} {integer(random, 1900, 1999)}",
        "job": pick(random, JOBS),
        "company": pick(random, COMPANIES),
        "food": pick(random, FOODS),
        "hobby": pick(random, HOBBIES),
        "pet": pick(random, PETS),
        pick(random, THINGS): str(integer(random, 2, 99)),
        pick(random, THINGS): str(integer(random, 2, 99)),
    }
    return Person(f"{first} {last}", first, last, "f" if first in _WOMEN else "m", attributes)


def _share_values(random: Random, people: list[Person]) -> None:
    """Let the others have a quarter of the first one's values, and count the same things."""
    model = people[0].attributes
    for person in people[1:]:
        mine = person.attributes
        for thing in [key for key in mine if key in _THINGS]:
            del mine[thing]
        for key, value in model.items():
            if key in _THINGS:
                mine[key] = str(integer(random, 2, 99))
            elif random.random() < 0.25:
                mine[key] = value


def _relate(random: Random, people: list[Person]) -> None:
    """Pair people up, at most once a relation; colleagues share the company, neighbours the city."""
    order = list(range(len(people)))
    for relation in RELATIONS:
        shuffle(random, order)
        for a, b in zip(order[::2], order[1::2], strict=False):
            one, other = people[a].attributes, people[b].attributes
            if relation == "colleague":
                other["company"] = one["company"]
            elif relation == "neighbour":
                other["city"] = one["city"]
            one[relation] = people[b].name


_THINGS = frozenset(THINGS)
