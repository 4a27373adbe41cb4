"""Achieved compression: what a memory really takes in the decoder's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def compression(records: Sequence[Mapping[str, Any]]) -> float | None:
    """Achieved compression of a population: source tokens per position of memory, boundary vectors counted.

    Args:
        records: The account of each sample: `source_tokens`, `slots`, `boundary`.

    Returns:
        The ratio of the sums; None (JSON's null) where no memory is left (`no-context`).
    """
    positions = sum(record["slots"] + record["boundary"] for record in records)
    return sum(record["source_tokens"] for record in records) / positions if positions else None
