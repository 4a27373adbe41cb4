"""SQuAD exact match, F1 and substring accuracy, for `evaluate.load`."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

import datasets
import evaluate

from .scores import PROTOCOLS, score_qa
from .scores import references as scored_against


class SquadAnswers(evaluate.Metric):  # type: ignore[misc]
    """Scores of short answers, each the best over the references; see `scores.score_qa`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Exact match, F1 and substring accuracy of short answers, 0 to 1.",
            citation="Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text, EMNLP 2016",
            inputs_description=f"predictions: texts; references: lists of texts; protocol: {', '.join(PROTOCOLS)}.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Sequence(datasets.Value("string"))}
            ),
        )

    def _compute(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]], protocol: str = "strict"
    ) -> dict[str, Any]:
        rows = [
            score_qa({"answers": scored_against(answers, protocol)}, [prediction])
            for prediction, answers in zip(predictions, references, strict=True)
        ]
        return {name: mean(row[name] for row in rows) for name in rows[0]}
