"""Rows of GSM8K."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def read(row: Mapping[str, Any]) -> dict[str, Any]:
    """A problem and its worked solution, which ends with `#### 18`."""
    if "#### " not in row["answer"]:
        raise ValueError("the answer has no line '#### <number>'")
    return {"question": row["question"], "answer": row["answer"]}
