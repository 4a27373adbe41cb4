"""RULER's score: which of the references an answer contains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pcc_bench.tasks.metrics.squad_answers.scores import contains


def score_references(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """The share of the references in the answer where every one is asked for, else whether any is in it."""
    held = [contains(results[0], answer) for answer in doc["answers"]]
    return {"contains": sum(held) / len(held) if doc["every"] else max(held)}
