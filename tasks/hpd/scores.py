"""Scores of role play: perplexity of the reference response, and its rank among responses that are wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pcc_bench.tasks.metrics.perplexity.scores import score_log_likelihood


def score_responses(doc: Mapping[str, Any], answers: Sequence[tuple[float, int]]) -> dict[str, Any]:
    """Scores of a row (lm-eval's `process_results`).

    Args:
        doc: The row; its `candidates` are the reference response and the negative ones.
        answers: Log-likelihood and decoder tokens of each candidate.

    Returns:
        `perplexity` and `byte_perplexity`: the reference's log-likelihood with its tokens and its bytes, for
        `weighted_perplexity` over the rows. With negatives, `ranking_acc`: whether the reference has the lowest mean
        token NLL; `mrr`: one over its rank. A tie counts against it.
    """
    logprob, tokens = answers[0]
    scores: dict[str, Any] = score_log_likelihood(logprob, tokens, doc["candidates"][0])
    if len(answers) > 1:
        nlls = [-total / count for total, count in answers]
        rank = sum(nll <= nlls[0] for nll in nlls)  # itself among them
        scores |= {"ranking_acc": float(rank == 1), "mrr": 1 / rank}
    return scores
