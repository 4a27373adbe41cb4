"""Rows of WSC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pcc_bench.tasks.icl.labels import label_of


def read(row: Mapping[str, Any]) -> dict[str, Any]:
    """A sentence, a noun phrase and a pronoun of it; flat as on the hub, or nested as in SuperGLUE's own files."""
    spans = row.get("target", row)
    return {
        "id": str(row.get("idx", "")),
        "text": row["text"],
        "span1_text": spans["span1_text"],
        "span2_text": spans["span2_text"],
        "label": label_of(row["label"], ("no", "yes")),
    }
