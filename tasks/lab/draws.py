"""Draws that are the same on every Python: only `Random.random` is promised to stay as it is."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

Item = TypeVar("Item")


def seeded(*parts: object) -> Random:
    """A generator of its own for a piece of the world, named by its parts (seed, split, task, index)."""
    return Random("-".join(map(str, parts)))


def pick(random: Random, items: Sequence[Item]) -> Item:
    """One of the items."""
    return items[int(random.random() * len(items))]


def integer(random: Random, low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    return low + int(random.random() * (high - low + 1))


def shuffle(random: Random, items: list[Item]) -> list[Item]:
    """The items in a drawn order (in place; returned for convenience)."""
    for last in range(len(items) - 1, 0, -1):
        other = int(random.random() * (last + 1))
        items[last], items[other] = items[other], items[last]
    return items
