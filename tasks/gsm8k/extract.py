"""The filter that extracts the number of a worked solution, with the answer's account."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lm_eval.api.filter import Filter
from lm_eval.api.registry import register_filter

from pcc_bench.tasks.metrics.gsm8k_answers.scores import extracted


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


@register_filter("pcc_number")
class NumberFilter(Filter):  # type: ignore[misc]
    """Extracts numbers; see `metrics/gsm8k_answers` for the extractions."""

    def __init__(self, extraction: str = "pcc-number") -> None:
        self.extraction = extraction

    def apply(self, resps: Iterable[Sequence[str]], docs: Sequence[dict[str, Any]]) -> Iterable[list[str]]:
        """The number of every answer of every row."""
        return [
            [
                Extracted(extracted(answer, doc.get("answer", ""), self.extraction), getattr(answer, "record", None))
                for answer in answers
            ]
            for answers, doc in zip(resps, docs, strict=True)
        ]
