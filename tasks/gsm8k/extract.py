"""Extraction of the number from a worked solution; lm-eval's own filter, which would lose the answer's account."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

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
