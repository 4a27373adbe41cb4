"""Rows of SQuAD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pcc_bench.tasks.example import Dropped, Example, answer_texts


def read(row: Mapping[str, Any]) -> Example | Dropped:
    """A SQuAD row; the unanswerable ones of SQuAD 2.0 are left out, as in the paper."""
    answers = answer_texts(row["answers"])
    if not answers:
        return Dropped("unanswerable")
    return Example(id=row["id"], context=row["context"], question=row["question"], answers=answers)
