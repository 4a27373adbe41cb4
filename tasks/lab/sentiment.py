"""Sentences about films, good or bad, in SST-2's row format."""

from __future__ import annotations

from random import Random
from typing import Any

from pcc_bench.tasks.lab.draws import pick

POSITIVE = ("good", "great", "lovely", "clever", "funny", "fresh", "brilliant", "bright", "rich", "strong")
NEGATIVE = ("bad", "poor", "dull", "slow", "silly", "stale", "weak", "flat", "boring", "cheap")
_PARTS = ("film", "story", "music", "cast", "end", "writer", "singing")
_DEGREES = ("", "very ", "so ", "really ")
_NOT = ("not ", "never ", "not at all ")


def draw_review(random: Random, *, positive: bool) -> str:
    """A lower-case sentence with its punctuation apart, as SST-2 has them.

    What counts is the last clause: "the story is dull , but the film is great ." is positive.
    """
    draw = random.random()
    if draw < 0.4:
        return f"{_clause(random, pick(random, _PARTS), positive)} ."
    first, second = _two(random, _PARTS)
    if draw < 0.65:
        return f"{_clause(random, first, positive)} , and {_clause(random, second, positive)} ."
    if draw < 0.85:
        return f"{_clause(random, first, not positive)} , but the film as a whole is {_judgement(random, positive)} ."
    one, other = _two(random, POSITIVE if positive else NEGATIVE)
    return f"it is a {one} and {other} film ."


def draw_row(random: Random, index: int) -> dict[str, Any]:
    """A row {"idx", "sentence", "label"}; of the rows 2k and 2k + 1 one is positive."""
    positive = index % 2 == 0
    return {"idx": index, "sentence": draw_review(random, positive=positive), "label": int(positive)}


def _two(random: Random, words: tuple[str, ...]) -> tuple[str, str]:
    """Two different words."""
    first = int(random.random() * len(words))
    step = 1 + int(random.random() * (len(words) - 1))
    return words[first], words[(first + step) % len(words)]


def _clause(random: Random, part: str, positive: bool) -> str:
    verb = "is" if random.random() < 0.5 else "was"
    return f"the {part} {verb} {_judgement(random, positive)}"


def _judgement(random: Random, positive: bool) -> str:
    """An adjective of the wanted kind, or one of the other kind denied."""
    if random.random() < 0.3:
        return pick(random, _NOT) + _adjective(random, not positive)
    return pick(random, _DEGREES) + _adjective(random, positive)


def _adjective(random: Random, positive: bool) -> str:
    return pick(random, POSITIVE if positive else NEGATIVE)
