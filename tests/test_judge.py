"""The gate's arithmetic on several comparisons at once: none fails by their number alone."""

from __future__ import annotations

import numpy as np
import pytest

from pcc_bench.gate import judge


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
    assert judge.decide(np.array(p_drop), np.ones(len(p_drop)), 0.05)[0].tolist() == fails


def test_passing_is_not_adjusted_and_never_beside_a_failure() -> None:
    fails, passes = judge.decide(np.array([0.001, 1.0, 1.0]), np.array([0.04, 0.04, 0.06]), 0.05)
    assert fails.tolist() == [True, False, False]
    assert passes.tolist() == [False, True, False]
