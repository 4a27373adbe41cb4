"""Where a needle goes into a long text, measured in decoder tokens."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

_PRONOUN = re.compile(r"\s*(?:He|She|His|Her|It|Its|They|Their)\b")
TOLERANCE = 4  # tokens that a needle's middle may be off; a word of rare letters has more


@dataclass(frozen=True)
class Cell:
    """What is varied.

    Attributes:
        length: Decoder tokens of the whole context (a word more or less).
        depth: Where the needle's middle is wanted, from 0 (the beginning) to 1.
        distance: Decoder tokens from the needle's middle to the nearest end of a segment (the context's own two ends
            among them); None where it may be any.
    """

    length: int
    depth: float
    distance: int | None


@dataclass(frozen=True)
class Placed:
    """A context with its needle.

    Attributes:
        text: The context.
        length: Its decoder tokens.
        start: Decoder tokens before the needle.
        middle: Of the needle, in decoder tokens from the beginning.
        distance: From there to the nearest end of a segment.
    """

    text: str
    length: int
    start: int
    middle: float
    distance: float


class Text:
    """A text cut into words, with the decoder tokens before each.

    Args:
        text: The text.
        tokenizer: The decoder's, a fast one.
    """

    def __init__(self, text: str, tokenizer: PreTrainedTokenizerBase) -> None:
        self.text = text
        encoded = tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
        )
        ends = [end for _, end in encoded["offset_mapping"]]
        self.tokens = len(ends)
        # A place to cut: before a blank. `before` counts the tokens that end there or earlier.
        self.places = [0, *(i for i, char in enumerate(text) if char.isspace()), len(text)]
        self.before = [bisect_left(ends, place + 1) for place in self.places]
        # Before a pronoun a needle would be taken for what it stands for ("The pet of Adam is a cat. He has a dog.").
        self.sentences = [
            n
            for n, place in enumerate(self.places)
            if (n == 0 or text[place - 1] in ".!?") and not _PRONOUN.match(text, place)
        ]

    def at(self, tokens: int) -> int:
        """The number of the first place with at least so many tokens before it."""
        return min(bisect_left(self.before, tokens), len(self.places) - 1)

    def between(self, first: int, last: int) -> str:
        """The text from one place to another, without blanks around it."""
        return self.text[self.places[first] : self.places[last]].strip()


def middle(cell: Cell, needle: int, segment: int) -> float | None:
    """Where a needle's middle goes: as near to the wanted depth as its distance to a segment's end allows.

    Args:
        cell: What is wanted.
        needle: Decoder tokens of the needle.
        segment: Decoder tokens of a segment.

    Returns:
        Tokens from the beginning; None where no place of the context is so far from, or so near to, a segment's end.
    """
    low, high = needle / 2, cell.length - needle / 2
    wanted = min(max(cell.depth * cell.length, low), high)
    if cell.distance is None:
        return wanted
    ends = ends_of_segments(cell.length, segment)
    places = [end + side * cell.distance for end in ends for side in (-1, 1)]
    fits = [place for place in places if low <= place <= high and distance_to_end(place, ends) == cell.distance]
    return min(fits, key=lambda place: abs(place - wanted)) if fits else None


def ends_of_segments(length: int, segment: int) -> list[int]:
    """Tokens from the beginning to each end of a segment, the context's beginning and end among them."""
    return [*range(0, length, segment), length]


def distance_to_end(place: float, ends: Sequence[int]) -> float:
    """Tokens to the nearest."""
    return min(abs(place - end) for end in ends)


def place(cell: Cell, needle: str, hay: Text, tokenizer: PreTrainedTokenizerBase, segment: int) -> Placed | None:
    """Put a needle between two sentences of a text.

    The text begins in the middle of a sentence where that is what brings the needle to its place; what follows the
    needle is cut at a word.

    Args:
        cell: What is wanted.
        needle: A sentence.
        hay: A longer text; its beginning is what is used.
        tokenizer: The decoder's.
        segment: Decoder tokens of a segment.

    Returns:
        The context, as measured when it is done; None where the cell has no such place.
    """
    size = _count(needle, tokenizer)
    target = middle(cell, size, segment)
    if target is None:
        return None
    start = round(target - size / 2)
    sentence = next((n for n in hay.sentences if hay.before[n] >= start), hay.sentences[-1])
    first = hay.at(hay.before[sentence] - start)
    last = hay.at(hay.before[sentence] + cell.length - size - start)
    before, after = hay.between(first, sentence), hay.between(sentence, last)
    text = " ".join(part for part in (before, needle, after) if part)
    tokens_before, length = _count(before, tokenizer) if before else 0, _count(text, tokenizer)
    found = tokens_before + size / 2
    distance = distance_to_end(found, ends_of_segments(length, segment))
    return Placed(text, length, tokens_before, found, distance)


def _count(text: str, tokenizer: PreTrainedTokenizerBase) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))
