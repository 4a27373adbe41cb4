"""Extraction of the number from a worked solution: lm-eval's way, with the answer's account, and by its value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from lm_eval.api.filter import Filter
from lm_eval.api.registry import register_filter
from lm_eval.filters.extraction import RegexFilter


class Extracted(str):
    """A part of an answer; `record` is the accounting of the answer, if it has one."""

    record: dict[str, Any] | None

    def __new__(cls, text: str, record: dict[str, Any] | None) -> Extracted:
        """A text with the accounting of what it was extracted from."""
        part = super().__new__(cls, text)
        part.record = record
        return part

    def __reduce__(self) -> tuple[type[Extracted], tuple[str, dict[str, Any] | None]]:
        return Extracted, (str(self), self.record)


@register_filter("pcc_regex")
class AccountedRegexFilter(RegexFilter):  # type: ignore[misc]
    """lm-eval's `regex` filter; what it extracts keeps the accounting of the whole answer."""

    def apply(self, resps: Iterable[Sequence[str]], docs: Sequence[dict[str, Any]]) -> Iterable[list[str]]:
        """Extract from every answer of every row."""
        rows = [list(answers) for answers in resps]
        return [
            [Extracted(text, getattr(answer, "record", None)) for text, answer in zip(found, answers, strict=True)]
            for found, answers in zip(super().apply(rows, docs), rows, strict=True)
        ]


# A number as people write it: 18, 1,234.50, .5, -$3. A dash between two numbers is no sign.
_NUMBER = re.compile(
    r"(?:(?<![\w.)])[-\u2212])?(?:\$[-\u2212]?)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+", re.ASCII
)
_RESULT = re.compile(r"####(.*)")


def number_of(solution: str) -> Decimal | None:
    """The result of a worked solution: the first number after `####`, else its last number; None without one."""
    marked = _RESULT.search(solution)
    numbers = _NUMBER.findall(marked[1]) if marked else []
    text = numbers[0] if numbers else next(reversed(_NUMBER.findall(solution)), "")
    plain = text.replace(",", "").replace("$", "").replace("\u2212", "-")
    return Decimal(plain) if plain else None


@register_filter("pcc_number")
class NumberFilter(Filter):  # type: ignore[misc]
    """Compares by value: what has the value of the row's own result is spelled as it is there."""

    def apply(self, resps: Iterable[Sequence[str]], docs: Sequence[dict[str, Any]]) -> Iterable[list[str]]:
        """The result of every answer of every row."""
        return [
            [Extracted(_spelled(answer, doc.get("answer", "")), getattr(answer, "record", None)) for answer in answers]
            for answers, doc in zip(resps, docs, strict=True)
        ]


def _spelled(answer: str, solution: str) -> str:
    value = number_of(answer)
    if value is None:
        return "[invalid]"  # as lm-eval's filters have it
    own = solution.rpartition("#### ")[2]
    return own if value == number_of(own) else f"{value:f}"
