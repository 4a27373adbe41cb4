"""Achieved compression, for `evaluate.load`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from .scores import compression


class AchievedCompression(evaluate.Metric):  # type: ignore[misc]
    """Source tokens per position of memory over a population; see `scores.compression`."""

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
