"""The paper's findings asked of the lab's figures."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pcc_bench.lab.check import (
    AGREES,
    DISAGREES,
    FULL,
    MISSING,
    NONE,
    OTHERS,
    UNDECIDED,
    Interval,
    _sum,
    findings,
    verdict,
)
from pcc_bench.lab.skills import QUESTION_SETS, Measured


def figures(model: str, f1: float, half: float = 1.0) -> list[Measured]:
    sizes = {"low": f1 - half, "high": f1 + half, "n": 200}
    return [Measured(model=model, task=task, metric="f1", value=f1, **sizes) for task in QUESTION_SETS]


def verdicts(measured: Sequence[Measured]) -> dict[str, str]:
    frame = findings(measured)
    return dict(zip(frame["the paper says"], frame["verdict"], strict=True))


@pytest.mark.parametrize(("four", "said"), [(85.0, AGREES), (60.0, DISAGREES), (72.0, UNDECIDED)])
def test_a_claim_is_judged_by_the_interval_of_its_difference(four: float, said: str) -> None:
    told = verdicts([*figures(FULL, 80.0), *figures("pcc-lab-4x", four)])
    assert told["4x is near the full context (at least 90% of its F1)"] == said


def test_a_claim_of_two_parts_fails_with_either() -> None:
    better, worse = Interval(5, 1), Interval(-5, 1)
    assert verdict([better, better]) == AGREES
    assert verdict([better, worse]) == DISAGREES
    assert verdict([better, Interval(0, 1)]) == UNDECIDED


def test_what_was_not_measured_is_named_and_not_judged() -> None:
    frame = findings(figures(FULL, 80.0) + figures(NONE, 5.0))
    row = frame[frame["the paper says"].str.startswith("64x collapses")].iloc[0]
    assert row["verdict"] == MISSING
    assert row["the lab measured (F1)"].endswith("; no figure of pcc-lab-64x")


def test_nothing_measured_judges_nothing() -> None:
    assert set(findings([])["verdict"]) == {MISSING}


def test_a_model_that_answered_some_of_the_question_sets_has_no_figure() -> None:
    told = verdicts([*figures(FULL, 80.0), *figures("pcc-lab-4x", 85.0)[:3]])
    assert told["4x is near the full context (at least 90% of its F1)"] == MISSING


@pytest.mark.parametrize(
    ("large", "large_sixteen", "said"),
    [
        (48.0, 22.0, AGREES),  # a step of the rate is worth 28, one of the size 2 or 0
        (40.0, 20.0, AGREES),
        (80.0, 70.0, DISAGREES),  # 19 against 30 and 48
        (50.0, 40.5, UNDECIDED),  # 18.8 against 18.5
    ],
)
def test_the_size_is_set_against_the_rate_at_both_rates(large: float, large_sixteen: float, said: str) -> None:
    measured = [*figures("pcc-lab-4x", 50.0), *figures("pcc-lab-16x", 22.0)]
    told = verdicts([*measured, *figures("pcc-lab-large-4x", large), *figures("pcc-lab-large-16x", large_sixteen)])
    assert told["the encoder's size matters less than the rate"] == said


@pytest.mark.parametrize(("phi3", "said"), [(30.0, AGREES), (1.0, DISAGREES), (5.2, UNDECIDED)])
def test_memories_must_help_each_of_the_other_decoders(phi3: float, said: str) -> None:
    measured = [figure for other in OTHERS for figure in figures(f"lab-{other}, no-context", 5.0)]
    for other, f1 in zip(OTHERS, (30.0, 30.0, phi3), strict=True):
        measured += figures(f"pcc-lab-4x-{other}", f1)
    text = "after light tuning other decoders answer better with 4x memories than without the context"
    assert verdicts(measured)[text] == said


def test_a_figure_that_enters_a_difference_twice_weighs_twice() -> None:
    assert _sum({"a": 1.5, "b": -0.5}, {"a": Interval(10, 2), "b": Interval(4, 2)}).half == pytest.approx(10**0.5)


def test_a_mean_of_question_sets_is_surer_than_one_of_them() -> None:
    frame = findings([*figures(FULL, 80.0, 4.0), *figures("pcc-lab-4x", 78.0, 4.0)])
    assert "pcc-lab-4x 78.0 ± 2.0" in frame["the lab measured (F1)"].iloc[0]


def test_answers_follow_reconstruction_where_the_correlation_is_above_zero() -> None:
    found = Measured(model="m", task="tracking", metric="spearman", value=0.4, low=0.2, high=0.6, n=100)
    assert verdicts([found])["how well a context is reconstructed tells how well its questions are answered"] == (
        AGREES
    )
