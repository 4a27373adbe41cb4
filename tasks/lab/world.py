"""The lab's world: its words, draws that are the same on every Python, and its people, in small casts."""

import zlib
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import NamedTuple, TypeVar


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WOMEN = words(
    "Alice Amy Anna Clara Diana Elena Ella Emma Grace Helen Irene Jane Julia Kate Laura Lily Lucy Maria Mary Nora Rose "
    "Ruth Sara Sophie"
)
MEN = words(
    "Adam Bruno David Felix Frank George Henry Hugo Ivan Jack James John Leo Luke Mark Max Noah Oscar Paul Peter "
    "Robert Simon Tom Victor"
)
SURNAMES = words(
    "Adams Allen Bell Black Brown Clark Cole Davis Evans Ford Foster Gray Green Hall Harris Hill Hunt Jones Kelly King "
    "Lewis Mason Moore Morris Nelson Owens Palmer Parker Perry Price Quinn Reed Ross Scott Shaw Smith Stone Turner "
    "Walker Ward Watson Webb West White Wilson Wood Wright Young"
)
CITIES = words(
    "Athens Basel Bergen Berlin Bonn Boston Bristol Cairo Chicago Dallas Delhi Denver Dublin Geneva Hamburg Leeds Lima "
    "Lisbon London Lyon Madrid Miami Milan Munich Naples Oslo Oxford Paris Prague Quito Riga Rome Tokyo Turin Venice "
    "Vienna Warsaw York Zagreb Zurich"
)
JOBS = words(
    "actor artist baker banker barber builder butcher clerk cook dentist doctor driver editor engineer farmer gardener "
    "guard judge lawyer miner nurse painter pilot poet sailor singer tailor teacher waiter writer"
)
COMPANIES = words(
    "Altra Bexton Corvia Delmar Fintra Gorma Hexta Jolvar Kestro Lumera Mirvo Nordan Orbino Pexa Quanta Rondel Sylva "
    "Tarvo Ultera Vantor Wexly Xenta Yorvik Zentro"
)
FOODS = words("bread cake cheese fruit honey pasta pizza rice salad soup")
HOBBIES = words("chess dancing fishing hiking painting reading running singing skating swimming")
PETS = words("cat dog duck goat horse owl parrot rabbit")
THINGS = words("books chairs clocks coins cups hats keys lamps maps pens")
MONTHS = words("January February March April May June July August September October November December")


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


Item = TypeVar("Item")


def seeded(*parts: object) -> Random:
    """A generator of its own for a piece of the world, named by its parts (seed, split, task, index)."""
    return Random("-".join(map(str, parts)))


def pick(random: Random, items: Sequence[Item]) -> Item:
    return items[int(random.random() * len(items))]


def draw_two(random: Random, items: Sequence[Item]) -> tuple[Item, Item]:
    first = int(random.random() * len(items))
    step = 1 + int(random.random() * (len(items) - 1))
    return items[first], items[(first + step) % len(items)]


def integer(random: Random, low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    return low + int(random.random() * (high - low + 1))


def distinct(count: int, draw: Callable[[], Item], drawn: Iterable[Item] = ()) -> list[Item]:
    """So many different items: those that are there, then drawn ones."""
    items = dict.fromkeys(drawn)
    while len(items) < count:
        items[draw()] = None
    return list(items)


def shuffle(random: Random, items: list[Item]) -> list[Item]:
    """The items in a drawn order (in place; returned for convenience)."""
    for last in range(len(items) - 1, 0, -1):
        other = int(random.random() * (last + 1))
        items[last], items[other] = items[other], items[last]
    return items


VERSION = 1  # to be raised whenever the same seed gives another text
TEST_SHARE = 8  # one pair of first name and surname in eight is for tests
RELATIONS = ("colleague", "cousin", "neighbour")

Name = tuple[str, str]


class Person(NamedTuple):
    name: str  # first name and surname
    first: str
    last: str
    gender: str  # `f` or `m`
    attributes: dict[str, str]  # the keys are those of `facts.STATEMENTS`, such as `city`, `job`, `books`, `colleague`


class Cast(NamedTuple):
    """The people of a passage, and the city of each company they work for."""

    people: list[Person]
    seats: dict[str, str]


def is_test_name(first: str, last: str) -> bool:
    """The same on any machine."""
    return zlib.crc32(f"{first} {last}".encode()) % TEST_SHARE == 0


NAMES: dict[str, tuple[Name, ...]] = {
    split: tuple((f, s) for f in WOMEN + MEN for s in SURNAMES if is_test_name(f, s) is (split == "test"))
    for split in ("train", "test")
}


def draw_names(random: Random, split: str, count: int, *, alike: bool = False) -> list[Name]:
    """Distinct full names that a split may use: `train` has its own, every other split those of tests.

    `alike`: each with the first name or the surname of the first one, as far as there are such.
    """
    names = NAMES["train" if split == "train" else "test"]
    drawn: list[Name] = []
    if alike:
        first, last = pick(random, names)
        others = [name for name in names if (name[0] == first) != (name[1] == last)]
        drawn = [(first, last), *shuffle(random, others)[: count - 1]]
    return distinct(count, lambda: pick(random, names), drawn)


def draw_cast(random: Random, split: str, count: int, *, alike: bool = False) -> Cast:
    """People with all their attributes.

    `alike`: names are near-duplicates, and so are lives: people share values with the first one.
    """
    people = [draw_person(random, name) for name in draw_names(random, split, count, alike=alike)]
    if alike:  # the others have a quarter of the first one's values, and count the same things
        model = people[0].attributes
        for person in people[1:]:
            mine = person.attributes
            for thing in [key for key in mine if key in THINGS]:
                del mine[thing]
            for key, value in model.items():
                if key in THINGS:
                    mine[key] = str(integer(random, 2, 99))
                elif random.random() < 0.25:
                    mine[key] = value
    order = list(range(len(people)))
    for relation in RELATIONS:  # in pairs, at most once a relation; colleagues share the company, neighbours the city
        shuffle(random, order)
        for a, b in zip(order[::2], order[1::2], strict=False):
            one, other = people[a].attributes, people[b].attributes
            if relation == "colleague":
                other["company"] = one["company"]
            elif relation == "neighbour":
                other["city"] = one["city"]
            one[relation] = people[b].name
    return Cast(people, {person.attributes["company"]: pick(random, CITIES) for person in people})


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
    return Person(f"{first} {last}", first, last, "f" if first in WOMEN else "m", attributes)
