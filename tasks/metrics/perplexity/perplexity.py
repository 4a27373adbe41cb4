"""Perplexity a token and a byte, for `evaluate.load`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from .scores import score_log_likelihood, weighted_perplexity


class Perplexity(evaluate.Metric):  # type: ignore[misc]
    """Perplexity over texts from their log-likelihoods; see `scores.weighted_perplexity`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Perplexity a token (a tokenizer decides it) and a byte (comparable across decoders).",
            citation="Dai et al., Pretraining Context Compressor for Large Language Models, ACL 2025",
            inputs_description="predictions: log-likelihoods; tokens: how many each sums up; references: the texts.",
            features=datasets.Features(
                {
                    "predictions": datasets.Value("float64"),
                    "tokens": datasets.Value("int64"),
                    "references": datasets.Value("string"),
                }
            ),
        )

    def _compute(
        self, predictions: Sequence[float], tokens: Sequence[int], references: Sequence[str]
    ) -> dict[str, Any]:
        rows = [score_log_likelihood(*row) for row in zip(predictions, tokens, references, strict=True)]
        return {name: weighted_perplexity([row[name] for row in rows]) for name in rows[0]}
