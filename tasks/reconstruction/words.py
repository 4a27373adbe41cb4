"""Words of a text, the classes whose errors are counted apart, and how two sequences are aligned."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

from pcc_bench.tasks.metrics.text_overlap.scripts import SPACELESS

CLASSES = ("number", "date", "name", "rare", "boundary")
RARE = 0.01  # a word is rare that stands in at most this share of the documents (and always if in one only)

_LETTERS = rf"(?:(?![{SPACELESS}])\w)+"
_WORD = re.compile(rf"[{SPACELESS}]|{_LETTERS}(?:[.,'\u2019-]{_LETTERS})*")
_MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
_DATE = re.compile(
    rf"\b\d{{1,2}}(?:st|nd|rd|th)? (?:of )?(?:{_MONTH})(?:,? \d{{4}})?\b"  # 3 May 1981
    rf"|\b(?:{_MONTH}) \d{{1,2}}(?:st|nd|rd|th)?(?:,? \d{{4}})?\b"  # May 3, 1981
    rf"|\b(?:{_MONTH}),? \d{{4}}\b"
    r"|\b\d{4}-\d{2}-\d{2}\b|\b\d{1,2}[/.]\d{1,2}[/.]\d{2,4}\b"
    r"|\b(?:1[0-9]|20)\d{2}\b"  # a year
)
# What stands before a sentence's first word: the text's start, or the end of another sentence (and quotation marks).
_START = re.compile(r"(?:^|[.!?:;\n][\"'\u201d\u2019)]*\s*|[\"\u201c\u2018(]\s*)$")

Span = tuple[int, int]


def word_spans(text: str) -> list[Span]:
    """Where the words are: letters and digits, with what joins them inside (3,000; Anna's; mid-May).

    Each character of a script without blanks is a word.
    """
    return [match.span() for match in _WORD.finditer(text)]


def words(text: str) -> list[str]:
    """The words, in order."""
    return [text[start:end] for start, end in word_spans(text)]


def rare_words(texts: Iterable[str]) -> set[str]:
    """Words (in lower case) that stand in few of the texts."""
    counts: Counter[str] = Counter()
    number = 0
    for text in texts:
        number += 1
        counts.update({word.lower() for word in words(text)})
    return {word for word, count in counts.items() if count <= max(1, RARE * number)}


def classes(text: str, rare: set[str], cuts: Sequence[int]) -> dict[str, list[int]]:
    """The numbers (from 0) of the words of each class; a word may be in several.

    Args:
        text: A document.
        rare: Words in lower case.
        cuts: Characters where a segment ends and the next begins.

    Returns:
        `number`: has a digit and is in no date. `date`: day and month, month and year, or a year from 1000 to 2099.
        `name`: begins with a capital inside a sentence, months and I left out. `rare`: see `rare_words`. `boundary`:
        stands across the end of a segment, or next to it on either side.
    """
    spans = word_spans(text)
    dates = [match.span() for match in _DATE.finditer(text)]
    found: dict[str, list[int]] = {name: [] for name in CLASSES}
    for i, (start, end) in enumerate(spans):
        word = text[start:end]
        if any(first < end and start < last for first, last in dates):
            found["date"].append(i)
        elif any(char.isdigit() for char in word):
            found["number"].append(i)
        elif _is_name(text, start, word):
            found["name"].append(i)
        if word.lower() in rare:
            found["rare"].append(i)
    found["boundary"] = sorted({i for cut in cuts for i in _around(spans, cut)})
    return found


def _is_name(text: str, start: int, word: str) -> bool:
    if not word[0].isupper() or word in ("I", *_MONTH.split("|")) or word.startswith(("I'", "I\u2019")):
        return False
    return _START.search(text[max(0, start - 8) : start]) is None


def _around(spans: Sequence[Span], cut: int) -> list[int]:
    """The word across a cut, or the words next to it."""
    before = max((i for i, (start, _) in enumerate(spans) if start < cut), default=None)
    if before is None or before + 1 == len(spans):
        return []
    return [before] if spans[before][1] > cut else [before, before + 1]


def aligned(expected: Sequence[Hashable], found: Sequence[Hashable]) -> list[int]:
    """The items of `expected` (their numbers) that stand in `found` in the same order, as many as there can be.

    A longest common subsequence, found with whole rows of the table as the bits of an integer (Hyyrö 2004), so that
    a thousand words take milliseconds.
    """
    places: dict[Hashable, int] = {}
    for i, item in enumerate(expected):
        places[item] = places.get(item, 0) | 1 << i
    full = (1 << len(expected)) - 1
    row, rows = full, []
    for item in found:
        matches = row & places.get(item, 0)
        row = ((row + matches) | (row - matches)) & full
        rows.append(row)
    kept: list[int] = []
    i, j = len(expected), len(found)
    while i and j:
        bit = 1 << (i - 1)
        if rows[j - 1] & bit:
            i -= 1
            continue
        j -= 1
        if not j or rows[j - 1] & bit:
            i -= 1
            kept.append(i)
    return kept[::-1]
