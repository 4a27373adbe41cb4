"""Scores of in-context learning: options by mean token NLL, numbers of worked solutions, spread over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from pcc_bench.tasks.metrics.gsm8k_answers.scores import is_result


@dataclass(frozen=True)
class OptionScores:
    """What a decoder says about the options of a row.

    Attributes:
        sums: Log-likelihood of each option.
        tokens: Decoder tokens of each option.
        free: Mean token NLL of each option after the content-free input; None without calibration.
    """

    sums: Sequence[float]
    tokens: Sequence[int]
    free: Sequence[float] | None

    @property
    def nlls(self) -> list[float]:
        """Mean token NLL of each option."""
        return [-total / count for total, count in zip(self.sums, self.tokens, strict=True)]

    @property
    def calibrated(self) -> list[float] | None:
        """The same, less that after the content-free input: what the input says for an option, not its bias."""
        if self.free is None:
            return None
        return [nll - bias for nll, bias in zip(self.nlls, self.free, strict=True)]


def score_options(doc: Mapping[str, Any], seeds: Sequence[OptionScores]) -> dict[str, Any]:
    """Accuracies of a row, each the mean over the demonstration seeds (lm-eval's `process_results`).

    Returns:
        `acc`: the option of the highest log-likelihood, lm-eval's measure. `acc_token`: of the lowest mean token NLL.
        `acc_calibrated`: of the lowest calibrated one, the paper's measure; only with calibration. `seed_spread`: the
        last of these for each seed; only with several seeds.
    """
    label = doc["label"]
    right = {
        "acc": [_first_lowest([-total for total in seed.sums]) == label for seed in seeds],
        "acc_token": [_first_lowest(seed.nlls) == label for seed in seeds],
    }
    calibrated = [seed.calibrated for seed in seeds]
    if all(scores is not None for scores in calibrated):
        right["acc_calibrated"] = [_first_lowest(scores) == label for scores in calibrated if scores is not None]
    return _over_seeds(right, list(right)[-1])


def score_number(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Whether the numbers extracted from the solutions, one a demonstration seed, are the reference's."""
    return _over_seeds({"exact_match": [is_result(number, doc["answer"]) for number in results]}, "exact_match")


def seed_spread(rows: Sequence[Sequence[float]]) -> float:
    """Standard deviation of the score over the demonstration seeds.

    Args:
        rows: For each row, its score for each seed.

    Returns:
        The sample standard deviation (n - 1) of the seeds' means.
    """
    return stdev(mean(scores) for scores in zip(*rows, strict=True)) if rows else math.nan


def _over_seeds(right: Mapping[str, Sequence[bool]], headline: str) -> dict[str, Any]:
    scores: dict[str, Any] = {name: mean(map(float, values)) for name, values in right.items()}
    each = [float(value) for value in right[headline]]
    return {**scores, "seed_spread": each} if len(each) > 1 else scores


def _first_lowest(scores: Sequence[float]) -> int:
    return min(range(len(scores)), key=scores.__getitem__)
