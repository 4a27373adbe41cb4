"""What the paper found, asked of the lab's figures: `pcc-bench lab findings`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from pcc_bench.lab.skills import QUESTION_SETS, TRACKING, Measured

FULL, NONE = "lab-llama, full-context", "lab-llama, no-context"
FOUR, SIXTEEN, MOST = "pcc-lab-4x", "pcc-lab-16x", "pcc-lab-64x"
LARGE, LARGE_SIXTEEN = "pcc-lab-large-4x", "pcc-lab-large-16x"
ICAE, COCOM, AUTOCOMPRESSOR, LLMLINGUA2 = "icae-lab-4x", "cocom-lab-4x", "autocompressor-lab-4x", "llmlingua2-lab"
OTHERS = ("mistral", "qwen2", "phi3")  # decoders to which the 4x compressor was taken
NEAR = 0.9  # of the full context's F1 counts as near it


class Verdict(StrEnum):
    """What the lab says of a claim."""

    AGREES = "agrees"
    DISAGREES = "disagrees"
    UNDECIDED = "undecided"
    MISSING = "not measured"


@dataclass(frozen=True)
class Figure:
    """A figure with half its 95 % interval."""

    value: float
    half: float  # half the width of its interval

    def __str__(self) -> str:
        return f"{self.value:.1f} ± {self.half:.1f}"


@dataclass(frozen=True)
class Claim:
    """A finding of the paper."""

    text: str  # what it says, in the lab's terms
    # weighted sums of models' F1, by model, that are all above 0 where the claim holds
    above: Sequence[Mapping[str, float]]

    @property
    def models(self) -> list[str]:
        """Models whose figures it takes."""
        return list(dict.fromkeys(model for weights in self.above for model in weights))


def _larger(effect: Mapping[str, float], other: Mapping[str, float]) -> list[dict[str, float]]:
    """What is above 0 where an effect is larger than another one, whichever sign that has."""
    models = dict.fromkeys([*effect, *other])
    return [{model: effect.get(model, 0) + sign * other.get(model, 0) for model in models} for sign in (-1, 1)]


_RATE = {FOUR: 0.5, SIXTEEN: -0.5, LARGE: 0.5, LARGE_SIXTEEN: -0.5}  # from 16x to 4x, the mean of both sizes
_SIZES = ({LARGE: 1, FOUR: -1}, {LARGE_SIXTEEN: 1, SIXTEEN: -1})  # from Lite to Large, at each rate

CLAIMS = (
    Claim(f"4x is near the full context (at least {NEAR:.0%} of its F1)", [{FOUR: 1, FULL: -NEAR}]),
    Claim("16x lies between 4x and 64x", [{FOUR: 1, SIXTEEN: -1}, {SIXTEEN: 1, MOST: -1}]),
    Claim(
        "64x collapses: it keeps less than half of what the context is worth",
        [{MOST: -1, FULL: 0.5, NONE: 0.5}],  # half of (full - none), less (64x - none)
    ),
    Claim("without pretraining F1 is less than half", [{FOUR: 0.5, f"{FOUR}-no-pretraining": -1}]),
    Claim(
        "both objectives are needed: each alone is worse",
        [{FOUR: 1, f"{FOUR}-reconstruction": -1}, {FOUR: 1, f"{FOUR}-completion": -1}],
    ),
    Claim("boundary vectors help", [{FOUR: 1, f"{FOUR}-no-boundaries": -1}]),
    Claim(
        "the encoder's size matters less than the rate",
        [weights for size in _SIZES for weights in _larger(_RATE, size)],
    ),
    Claim(
        "after light tuning other decoders answer better with 4x memories than without the context",
        [{f"{FOUR}-{other}": 1, f"lab-{other}, no-context": -1} for other in OTHERS],
    ),
    Claim(
        "trained for another decoder, 4x memories answer better than no context",
        [{"pcc-lab-mistral-4x": 1, "lab-mistral, no-context": -1}],
    ),
    Claim(
        "PCC is above ICAE, COCOM and AutoCompressor at 4x",
        [{FOUR: 1, rival: -1} for rival in (ICAE, COCOM, AUTOCOMPRESSOR)],
    ),
    Claim("PCC is above LLMLingua-2 at 4x", [{FOUR: 1, LLMLINGUA2: -1}]),
    Claim(
        "ICAE is above COCOM, and COCOM above AutoCompressor",
        [{ICAE: 1, COCOM: -1}, {COCOM: 1, AUTOCOMPRESSOR: -1}],
    ),
)


def findings(measured: Sequence[Measured]) -> pd.DataFrame:
    """A row a claim: what it says, the lab's figures, the verdict.

    Args:
        measured: The figures of a record. F1 is the mean over the four question sets.
    """
    scores = {model: _mean_f1(measured, model) for model in {figure.model for figure in measured}}
    rows = [_judged(claim, scores) for claim in CLAIMS]
    text = "how well a context is reconstructed tells how well its questions are answered"
    tracking = next((figure for figure in measured if figure.task == TRACKING), None)
    if tracking is None:
        rows.append((text, "no figure", Verdict.MISSING))
    else:
        low, high = tracking.low, tracking.high
        figure = f"{tracking.model}: rank correlation {tracking.value:.2f} [{low:.2f}, {high:.2f}], n = {tracking.n}"
        rows.append((text, figure, verdict([Figure((high + low) / 2, (high - low) / 2)])))
    return pd.DataFrame(rows, columns=["the paper says", "the lab measured (F1)", "verdict"])


def _mean_f1(measured: Sequence[Measured], model: str) -> Figure | None:
    each = [
        figure
        for figure in measured
        if figure.model == model and figure.metric == "f1" and figure.task in QUESTION_SETS
    ]
    if len(each) != len(QUESTION_SETS):
        return None
    halves = [(figure.high - figure.low) / 2 for figure in each]
    return Figure(sum(figure.value for figure in each) / len(each), math.hypot(*halves) / len(each))


def _judged(claim: Claim, scores: Mapping[str, Figure | None]) -> tuple[str, str, str]:
    figures = {model: figure for model in claim.models if (figure := scores.get(model)) is not None}
    values = ", ".join(f"{model} {figure}" for model, figure in figures.items())
    absent = [model for model in claim.models if model not in figures]
    if absent:
        missing = f"no figure of {', '.join(absent)}"
        return claim.text, f"{values}; {missing}" if values else missing, Verdict.MISSING
    return claim.text, values, verdict([_sum(weights, figures) for weights in claim.above])


def _sum(weights: Mapping[str, float], figures: Mapping[str, Figure]) -> Figure:
    """A weighted sum. It takes the errors of models as independent: cautious, since they answered the same rows."""
    value = sum(weight * figures[model].value for model, weight in weights.items())
    return Figure(value, math.hypot(*(weight * figures[model].half for model, weight in weights.items())))


def verdict(differences: Sequence[Figure]) -> Verdict:
    """Agrees where all are above 0 with their intervals, disagrees where any is below 0 with its interval."""
    if all(figure.value - figure.half > 0 for figure in differences):
        return Verdict.AGREES
    if any(figure.value + figure.half < 0 for figure in differences):
        return Verdict.DISAGREES
    return Verdict.UNDECIDED
