"""What the paper found, asked of the lab's figures: `pcc-bench lab findings`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from pcc_bench.lab.measure import QUESTION_SETS, TRACKING, Measured

FULL, NONE = "lab-llama, full-context", "lab-llama, no-context"
NEAR = 0.9  # of the full context's F1 counts as near it


class Verdict(StrEnum):
    """What the lab says of a claim."""

    AGREES = "agrees"
    DISAGREES = "disagrees"
    UNDECIDED = "undecided"
    MISSING = "not measured"


@dataclass(frozen=True)
class Figure:
    """A figure with half its 95 % interval; sums and differences take the two as independent, which is cautious.

    Attributes:
        value: The figure.
        half: Half the width of its interval.
    """

    value: float
    half: float

    def __sub__(self, other: Figure) -> Figure:
        return Figure(self.value - other.value, math.hypot(self.half, other.half))

    def __mul__(self, factor: float) -> Figure:
        return Figure(self.value * factor, self.half * abs(factor))

    def __str__(self) -> str:
        return f"{self.value:.1f} ± {self.half:.1f}"


@dataclass(frozen=True)
class Claim:
    """A finding of the paper.

    Attributes:
        text: What it says, in the lab's terms.
        models: Models whose figures it takes, in the order in which `above` gets them.
        above: Differences that are all above 0 where the claim holds.
    """

    text: str
    models: tuple[str, ...]
    above: Callable[..., Sequence[Figure]]


CLAIMS = (
    Claim(
        f"4x is near the full context (at least {NEAR:.0%} of its F1)",
        ("pcc-lab-4x", FULL),
        lambda four, full: [four - full * NEAR],
    ),
    Claim(
        "16x lies between 4x and 64x",
        ("pcc-lab-4x", "pcc-lab-16x", "pcc-lab-64x"),
        lambda four, sixteen, most: [four - sixteen, sixteen - most],
    ),
    Claim(
        "64x collapses: it keeps less than half of what the context is worth",
        ("pcc-lab-64x", FULL, NONE),
        lambda most, full, none: [(full - none) * 0.5 - (most - none)],
    ),
    Claim(
        "without pretraining F1 is less than half",
        ("pcc-lab-4x", "pcc-lab-4x-no-pretraining"),
        lambda four, fresh: [four * 0.5 - fresh],
    ),
    Claim(
        "both objectives are needed: each alone is worse",
        ("pcc-lab-4x", "pcc-lab-4x-reconstruction", "pcc-lab-4x-completion"),
        lambda both, reconstruction, completion: [both - reconstruction, both - completion],
    ),
    Claim(
        "boundary vectors help",
        ("pcc-lab-4x", "pcc-lab-4x-no-boundaries"),
        lambda marked, plain: [marked - plain],
    ),
    Claim(
        "the encoder's size matters less than the rate",
        ("pcc-lab-4x", "pcc-lab-16x", "pcc-lab-large-4x"),
        lambda lite, sixteen, large: [(lite - sixteen) - (large - lite), (lite - sixteen) - (lite - large)],
    ),
)


def findings(measured: Sequence[Measured]) -> pd.DataFrame:
    """A row a claim: what it says, the lab's figures, the verdict.

    Args:
        measured: The figures of a record. F1 is the mean over the four question sets.
    """
    scores = {model: _mean_f1(measured, model) for model in {figure.model for figure in measured}}
    rows = [_judged(claim, scores) for claim in CLAIMS]
    rows.append(_tracking(measured))
    return pd.DataFrame(rows, columns=["the paper says", "the lab measured (F1)", "verdict"])


def _mean_f1(measured: Sequence[Measured], model: str) -> Figure | None:
    found = [
        figure
        for figure in measured
        if figure.model == model and figure.metric == "f1" and figure.task in QUESTION_SETS
    ]
    if len(found) != len(QUESTION_SETS):
        return None
    halves = [(figure.high - figure.low) / 2 for figure in found]
    return Figure(sum(figure.value for figure in found) / len(found), math.hypot(*halves) / len(found))


def _judged(claim: Claim, scores: dict[str, Figure | None]) -> tuple[str, str, str]:
    taken = [scores.get(model) for model in claim.models]
    figures = [figure for figure in taken if figure is not None]
    if len(figures) < len(taken):
        absent = ", ".join(model for model, figure in zip(claim.models, taken, strict=True) if figure is None)
        return claim.text, f"{absent}: no figure", Verdict.MISSING
    told = ", ".join(f"{model} {figure}" for model, figure in zip(claim.models, figures, strict=True))
    return claim.text, told, verdict(claim.above(*figures))


def verdict(differences: Sequence[Figure]) -> Verdict:
    """Agrees where all are above 0 with their intervals, disagrees where any is below 0 with its interval."""
    if all(figure.value - figure.half > 0 for figure in differences):
        return Verdict.AGREES
    if any(figure.value + figure.half < 0 for figure in differences):
        return Verdict.DISAGREES
    return Verdict.UNDECIDED


def _tracking(measured: Sequence[Measured]) -> tuple[str, str, str]:
    text = "how well a context is reconstructed tells how well its questions are answered"
    found = next((figure for figure in measured if figure.task == TRACKING), None)
    if found is None:
        return text, "no figure", Verdict.MISSING
    told = f"{found.model}: rank correlation {found.value:.2f} [{found.low:.2f}, {found.high:.2f}], n = {found.n}"
    half = (found.high - found.low) / 2
    return text, told, verdict([Figure((found.high + found.low) / 2, half)])
