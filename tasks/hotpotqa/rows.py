"""Rows of HotpotQA (distractor setting)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pcc_bench.tasks.example import Dropped, Example


def read(row: Mapping[str, Any]) -> Example | Dropped:
    """A row with all its paragraphs: the two supporting ones and the distractors."""
    return _example(row, set(row["context"]["title"]))


def read_gold(row: Mapping[str, Any]) -> Example | Dropped:
    """A row with its supporting paragraphs only."""
    return _example(row, set(row["supporting_facts"]["title"]))


def _example(row: Mapping[str, Any], titles: set[str]) -> Example:
    context = row["context"]
    paragraphs = [
        f"{title}\n{''.join(sentences)}"
        for title, sentences in zip(context["title"], context["sentences"], strict=True)
        if title in titles
    ]
    return Example(id=row["id"], context="\n\n".join(paragraphs), question=row["question"], answers=[row["answer"]])
