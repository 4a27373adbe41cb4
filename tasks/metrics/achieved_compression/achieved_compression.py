"""Achieved compression: what a memory really takes in the decoder's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import evaluate


def compression(records: Sequence[Mapping[str, Any]]) -> float | None:
    """Achieved compression of a population: source tokens per position of memory, boundary vectors counted.

    Args:
        records: The account of each sample: `source_tokens`, `slots`, `boundary`.

    Returns:
        The ratio of the sums; None (JSON's null) where no memory is left (`no-context`).
    """
    positions = sum(record["slots"] + record["boundary"] for record in records)
    return sum(record["source_tokens"] for record in records) / positions if positions else None


class AchievedCompression(evaluate.Metric):  # type: ignore[misc]
    """Source tokens per position of memory over a population; see `compression`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Achieved compression of a population: the ratio of the sums, boundary vectors counted.",
            citation="Dai et al., Pretraining Context Compressor for Large Language Models, ACL 2025",
            inputs_description="predictions: slots; boundary: boundary vectors; references: source tokens.",
            features=datasets.Features(
                {name: datasets.Value("int64") for name in ("predictions", "boundary", "references")}
            ),
        )

    def _compute(
        self, predictions: Sequence[int], boundary: Sequence[int], references: Sequence[int]
    ) -> dict[str, Any]:
        rows = zip(references, predictions, boundary, strict=True)
        records = [dict(zip(("source_tokens", "slots", "boundary"), row, strict=True)) for row in rows]
        return {"compression": compression(records)}
