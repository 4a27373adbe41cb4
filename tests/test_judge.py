"""The gate's arithmetic on several comparisons at once: none fails by their number alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pcc_bench import stats
from pcc_bench.gate.compare import decide, judge
from pcc_bench.gate.policy import Policy, Rule
from pcc_bench.gate.scores import Scores


@pytest.mark.parametrize(
    ("p_drop", "fails"),
    [
        ([0.03, 0.9], [False, False]),  # 2 x 0.03 > 0.05: one of two comparisons does so by chance alone
        ([0.02, 0.9], [True, False]),
        ([0.02, 0.04], [True, True]),  # Holm's second step: 0.04 is held against 0.05, not against 0.025
        ([0.04], [True]),
    ],
)
def test_drops_are_adjusted_for_the_number_of_comparisons(p_drop: list[float], fails: list[bool]) -> None:
    assert decide(np.array(p_drop), np.ones(len(p_drop)), 0.05)[0].tolist() == fails


def test_passing_is_not_adjusted_and_never_beside_a_failure() -> None:
    fails, passes = decide(np.array([0.001, 1.0, 1.0]), np.array([0.04, 0.04, 0.06]), 0.05)
    assert fails.tolist() == [True, False, False]
    assert passes.tolist() == [False, True, False]


@pytest.mark.parametrize(("count", "alpha"), [(1, 0.05), (1, 0.01), (4, 0.05)])
def test_the_detectable_drop_is_that_of_the_error_rate_each_comparison_has(count: int, alpha: float) -> None:
    before, after = np.random.default_rng(0).integers(0, 2, (2, 300)).astype(float)
    contexts = [("task", row) for row in range(300)]
    scores = [Scores(f"task{n}", "em", Rule(absolute=0.0), True, 1, before, after, contexts) for n in range(count)]
    lines = judge([*scores, replace(scores[0], unit="told", gated=False)], Policy(power=0.9), alpha)
    found = stats.estimate(stats.clustered(after - before, contexts), 1.0)
    assert [line.detectable for line in lines[:-1]] == pytest.approx(
        [float(found.detectable(alpha / count, 0.9))] * count
    )
    assert lines[-1].detectable == pytest.approx(float(found.detectable(alpha, 0.9)))
