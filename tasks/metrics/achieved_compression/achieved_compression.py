"""Achieved compression: what a memory really takes in the decoder's input."""

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import evaluate


def compression(records: Sequence[Mapping[str, Any]]) -> float | None:
    """Source tokens per position of memory, boundary vectors counted: the ratio of the sums over samples' accounts.

    None (JSON's null) where no memory is left (`no-context`).
    """
    positions = sum(record["slots"] + record["boundary"] for record in records)
    return sum(record["source_tokens"] for record in records) / positions if positions else None


class AchievedCompression(evaluate.Metric):  # type: ignore[misc]
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Achieved compression of a population: the ratio of the sums, boundary vectors counted.",
            citation="Dai et al., Pretraining Context Compressor for Large Language Models, ACL 2025",
            inputs_description="predictions: slots; boundary: boundary vectors; references: source tokens.",
            features=datasets.Features(
                dict.fromkeys(("predictions", "boundary", "references"), datasets.Value("int64"))
            ),
        )

    def _compute(
        self, predictions: Sequence[int], boundary: Sequence[int], references: Sequence[int]
    ) -> dict[str, Any]:
        names, rows = ("source_tokens", "slots", "boundary"), zip(references, predictions, boundary, strict=True)
        return {"compression": compression([dict(zip(names, row, strict=True)) for row in rows])}
