"""Perplexity of texts from their log-likelihoods: a token, which a tokenizer decides, and a byte, which none does."""

import math
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate


def score_log_likelihood(log_likelihood: float, tokens: int, text: str) -> dict[str, tuple[float, int]]:
    """The scores of one text, for `weighted_perplexity`: its log-likelihood (nats) with its tokens, with its bytes."""
    return {"perplexity": (log_likelihood, tokens), "byte_perplexity": (log_likelihood, len(text.encode()))}


def weighted_perplexity(pairs: Sequence[tuple[float, int]]) -> float:
    """Perplexity over all texts: the exponential of minus the sum of log-likelihoods over the sum of units."""
    units = sum(units for _, units in pairs)
    if not units:
        raise ValueError("perplexity of no units: there is nothing to divide the log-likelihoods by")
    exponent = -sum(log_likelihood for log_likelihood, _ in pairs) / units
    try:
        return math.exp(exponent)
    except OverflowError:
        raise ValueError(f"perplexity exp({exponent:g}) is greater than a float can be") from None


class Perplexity(evaluate.Metric):  # type: ignore[misc]
    def _info(self) -> evaluate.MetricInfo:
        kinds = {"predictions": "float64", "tokens": "int64", "references": "string"}
        return evaluate.MetricInfo(
            description="Perplexity a token (a tokenizer decides it) and a byte (comparable across decoders).",
            citation="Dai et al., Pretraining Context Compressor for Large Language Models, ACL 2025",
            inputs_description="predictions: log-likelihoods; tokens: how many each sums up; references: the texts.",
            features=datasets.Features({name: datasets.Value(kind) for name, kind in kinds.items()}),
        )

    def _compute(
        self, predictions: Sequence[float], tokens: Sequence[int], references: Sequence[str]
    ) -> dict[str, Any]:
        rows = [score_log_likelihood(*row) for row in zip(predictions, tokens, references, strict=True)]
        return {name: weighted_perplexity([row[name] for row in rows]) for name in rows[0]}
