"""Rows of SST-2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pcc_bench.tasks.icl.labels import label_of


def read(row: Mapping[str, Any]) -> dict[str, Any]:
    """A sentence and its label."""
    return {
        "id": str(row.get("idx", "")),
        "sentence": row["sentence"],
        "label": label_of(row["label"], ("negative", "positive")),
    }
