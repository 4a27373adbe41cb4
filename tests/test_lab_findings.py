"""The paper's findings asked of the lab's figures."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pcc_bench.lab.findings import FULL, NONE, Figure, Verdict, findings, verdict
from pcc_bench.lab.measure import QUESTION_SETS, Measured


def figures(model: str, f1: float, half: float = 1.0) -> list[Measured]:
    sizes = {"low": f1 - half, "high": f1 + half, "n": 200}
    return [Measured(model=model, task=task, metric="f1", value=f1, **sizes) for task in QUESTION_SETS]


def verdicts(measured: Sequence[Measured]) -> dict[str, str]:
    frame = findings(measured)
    return dict(zip(frame["the paper says"], frame["verdict"], strict=True))


@pytest.mark.parametrize(
    ("four", "said"), [(85.0, Verdict.AGREES), (60.0, Verdict.DISAGREES), (72.0, Verdict.UNDECIDED)]
)
def test_a_claim_is_judged_by_the_interval_of_its_difference(four: float, said: Verdict) -> None:
    told = verdicts([*figures(FULL, 80.0), *figures("pcc-lab-4x", four)])
    assert told["4x is near the full context (at least 90% of its F1)"] == said


def test_a_claim_of_two_parts_fails_with_either() -> None:
    better, worse = Figure(5, 1), Figure(-5, 1)
    assert verdict([better, better]) == Verdict.AGREES
    assert verdict([better, worse]) == Verdict.DISAGREES
    assert verdict([better, Figure(0, 1)]) == Verdict.UNDECIDED


def test_what_was_not_measured_is_named_and_not_judged() -> None:
    frame = findings(figures(FULL, 80.0) + figures(NONE, 5.0))
    row = frame[frame["the paper says"].str.startswith("64x collapses")].iloc[0]
    assert row["verdict"] == Verdict.MISSING
    assert row["the lab measured (F1)"] == "pcc-lab-64x: no figure"


def test_a_mean_of_question_sets_is_surer_than_one_of_them() -> None:
    frame = findings([*figures(FULL, 80.0, 4.0), *figures("pcc-lab-4x", 78.0, 4.0)])
    assert "pcc-lab-4x 78.0 ± 2.0" in frame["the lab measured (F1)"].iloc[0]


def test_answers_follow_reconstruction_where_the_correlation_is_above_zero() -> None:
    found = Measured(model="m", task="tracking", metric="spearman", value=0.4, low=0.2, high=0.6, n=100)
    assert verdicts([found])["how well a context is reconstructed tells how well its questions are answered"] == (
        Verdict.AGREES
    )
