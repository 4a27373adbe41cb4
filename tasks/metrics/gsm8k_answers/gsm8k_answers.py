"""Numbers of worked solutions, for `evaluate.load`."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

import datasets
import evaluate

from .scores import EXTRACTIONS, extracted, is_result


class Gsm8kAnswers(evaluate.Metric):  # type: ignore[misc]
    """Share of solutions with the right number; see `scores.extracted`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Exact match of the numbers that worked solutions come to, 0 to 1.",
            citation="Cobbe et al., Training Verifiers to Solve Math Word Problems, 2021 (arXiv:2110.14168)",
            inputs_description=f"predictions, references: worked solutions; extraction: {', '.join(EXTRACTIONS)}.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(
        self, predictions: Sequence[str], references: Sequence[str], extraction: str = "pcc-number"
    ) -> dict[str, Any]:
        pairs = zip(predictions, references, strict=True)
        return {"exact_match": mean(float(is_result(extracted(p, r, extraction), r)) for p, r in pairs)}
