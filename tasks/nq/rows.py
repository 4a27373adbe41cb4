"""Rows of Natural Questions, of two kinds that are two populations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pcc_bench.tasks.example import Dropped, Example, answer_texts

POSITIVE_PASSAGES = "positive_passages"
GOLD_PASSAGE = "gold_passage"


def read(row: Mapping[str, Any]) -> Example | Dropped:
    """A row of Tevatron/wikipedia-nq (the paper's), or one of the {question, answers, ctxs} kind."""
    return _gold_passage(row) if "ctxs" in row else _positive_passages(row)


def _positive_passages(row: Mapping[str, Any]) -> Example | Dropped:
    passages = [passage["text"] for passage in row["positive_passages"]]
    if not passages:
        return Dropped("no positive passage")
    return Example(
        id=row["query_id"],
        context="\n\n".join(passages),
        question=row["query"],
        answers=answer_texts(row["answers"]),
        kind=POSITIVE_PASSAGES,
    )


def _gold_passage(row: Mapping[str, Any]) -> Example | Dropped:
    passages = [passage["text"] for passage in row["ctxs"] if passage["isgold"]]
    if not passages:
        return Dropped("no gold passage")
    return Example(
        context="\n\n".join(passages),
        question=row["question"],
        answers=answer_texts(row["answers"]),
        kind=GOLD_PASSAGE,
    )
