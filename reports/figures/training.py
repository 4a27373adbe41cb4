"""What training brings: held-out measures over the tokens trained on, and runs held against each other."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.stats
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullLocator
from pandas import DataFrame

from pcc_bench import stats
from pcc_bench.reports.figures import style
from pcc_bench.results.collection import Results, Training

MEASURES = {
    "ae_loss": "reconstruction\n(nats a token)",
    "next_token_loss": "completion\n(nats a token)",
    "rag_loss": "answers\n(nats a token)",
    "bleu": "BLEU",
}
POINTS = 4  # fewest that a line is fitted to
MORE = 10  # times the tokens that a fit is asked about
SEED = 0
MEASURED, FITTED, AHEAD = "measured", "fit", f"{MORE}x"
COLUMNS = ["run", "measure", "tokens", "value", "low", "high", "part", "points"]


@dataclass(frozen=True)
class Line:
    """A least-squares line over the logarithm of tokens, through values, or through their logarithms: a power law."""

    slope: float  # for each tenfold of tokens
    points: int  # how many it goes through
    power: bool  # it is a power law, as losses follow; it never goes below zero
    _mean: tuple[float, float]
    _spread: float
    _error: float

    @classmethod
    def through(cls, tokens: npt.ArrayLike, values: npt.ArrayLike, power: bool = False) -> Line:
        """Fit it; at least three points with different tokens."""
        x, y = np.log10(np.asarray(tokens, dtype=float)), np.asarray(values, dtype=float)
        y = np.log10(y) if power else y
        spread = float(((x - x.mean()) ** 2).sum())
        slope = float(((x - x.mean()) * (y - y.mean())).sum() / spread)
        residuals = y - y.mean() - slope * (x - x.mean())
        error = math.sqrt(float((residuals**2).sum()) / (len(x) - 2))
        return cls(slope, len(x), power, (float(x.mean()), float(y.mean())), spread, error)

    def at(self, tokens: float, level: float = 0.95) -> tuple[float, float, float]:
        """The value there, and both ends of the interval in which a further measurement would lie."""
        away = math.log10(tokens) - self._mean[0]
        value = self._mean[1] + self.slope * away
        scale = self._error * math.sqrt(1 + 1 / self.points + away**2 / self._spread)
        half = float(scipy.stats.t.ppf((1 + level) / 2, self.points - 2)) * scale
        ends = value, value - half, value + half
        return (10 ** ends[0], 10 ** ends[1], 10 ** ends[2]) if self.power else ends


def held_out(run: Training) -> Iterator[tuple[str, str, str]]:
    """The measures of a run: column of its evaluation, label of the measure, and what the run is called there."""
    for base, axis in MEASURES.items():
        for column in run.evaluation.columns:
            rate = re.fullmatch(rf"{base}(?:_(\d+)x)?", str(column))
            if rate:
                yield str(column), axis, f"{run.name} {rate[1]}x" if rate[1] else run.name


def over_steps(results: Results) -> pd.DataFrame:
    """Held-out measurements: `run`, `step`, `measure`, `value`."""
    parts = [
        pd.DataFrame({"run": label, "step": run.evaluation["step"], "measure": axis, "value": run.evaluation[column]})
        for run in results.trainings
        for column, axis, label in held_out(run)
    ]
    parts.sort(key=lambda part: list(MEASURES.values()).index(part["measure"].iloc[0]))
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["run", "step", "measure", "value"])
    return frame.dropna(subset="value")


def over_tokens(results: Results) -> pd.DataFrame:
    """Held-out measures over training tokens, where a run has several, with fits to those of its last phase.

    Returns:
        `run`, `measure`, `tokens`, `value`; `part` says whether it was measured, is the fit, or the fit's value at ten
        times the tokens, with `low` and `high`; `points`: those the fit goes through, 0 without one.
    """
    parts = []
    for run in results.trainings:
        tokens = tokens_of(run)
        for column, axis, label in held_out(run):
            known = pd.DataFrame({"tokens": tokens, "value": run.evaluation[column]}).dropna()
            known = known[known["tokens"] > 0].drop_duplicates("tokens", keep="last")
            if len(known) < 2:
                continue
            ends = [phase.get("until") or 0 for phase in run.recipe.get("phases") or [] if isinstance(phase, dict)]
            before = tokens[run.evaluation["step"] <= max(ends, default=0)]  # the last phase
            last = known[known["tokens"] > (float(before.max()) if len(before) else 0.0)]
            parts.append(known.assign(part=MEASURED, low=math.nan, high=math.nan, points=0, run=label, measure=axis))
            if len(last) >= POINTS:
                power = _is_loss(axis)
                line = Line.through(last["tokens"], last["value"], power)
                first, end = last["tokens"].min(), MORE * last["tokens"].max()
                *along, end = np.geomspace(first, end, 20 if power else 3).tolist()
                places = [*((at, FITTED) for at in along), (end, AHEAD)]
                fit = [(at, *line.at(at), part, line.points, label, axis) for at, part in places]
                names = ["tokens", "value", "low", "high", "part", "points", "run", "measure"]
                parts.append(pd.DataFrame(fit, columns=names))
    return pd.concat(parts, ignore_index=True)[COLUMNS] if parts else pd.DataFrame(columns=COLUMNS)


def tokens_of(run: Training) -> pd.Series:
    """Context tokens that a run had trained on at each measurement; older runs say it in their log only."""
    if "tokens_seen" in run.evaluation:
        return run.evaluation["tokens_seen"]
    steps = run.evaluation["step"] if "step" in run.evaluation else pd.Series(dtype=float)
    if "tokens_seen" not in run.log:
        return pd.Series(math.nan, index=steps.index)
    seen = run.log.dropna(subset=["tokens_seen"])
    at = [0.0, *seen["step"]], [0.0, *seen["tokens_seen"]]
    return pd.Series(np.interp(steps, *at), index=steps.index)


def sentences(frame: pd.DataFrame) -> list[str]:
    """What each fit says of ten times the tokens."""
    texts = []
    for (run, measure), rows in frame.groupby(["run", "measure"], sort=False):
        last = rows[rows["part"] == MEASURED].sort_values("tokens").iloc[-1]
        for _, ahead in rows[rows["part"] == AHEAD].iterrows():
            texts.append(
                f"{run}, {str(measure).replace(chr(10), ' ')}: {last['value']:.2f} after {last['tokens']:,.0f} tokens; "
                f"{MORE} times as many would bring {ahead['value']:.2f} [{ahead['low']:.2f}, {ahead['high']:.2f}] "
                f"({'power law' if _is_loss(measure) else 'line over the logarithm of tokens'} through "
                f"{ahead['points']} measurements of the last phase, 95 %; nothing says that it goes on)."
            )
    return texts


def held_against(results: Results) -> pd.DataFrame:
    """Runs on the same held-out rows after equal tokens: `run`, `measure`, `value`, `low`, `high`, `tokens`.

    Tokens are those of the run that saw fewest; of the others the last measurement up to there. Intervals: bootstrap of
    rows. Empty where fewer than two runs kept losses by row.
    """
    parts = []
    by_measure: dict[str, list[tuple[str, pd.DataFrame]]] = {}
    for run in results.trainings:
        seen = dict(zip(run.evaluation.get("step", ()), tokens_of(run), strict=True))
        for column, axis, label in held_out(run):
            rows = run.rows[run.rows["measure"] == column] if len(run.rows) else run.rows
            if len(rows):
                mine = rows.assign(tokens_seen=[seen.get(step, math.nan) for step in rows["step"]])
                by_measure.setdefault(axis, []).append((label, mine.dropna(subset="tokens_seen")))
    for axis, runs in by_measure.items():
        fewest = min(float(losses["tokens_seen"].max()) for _, losses in runs)
        last = [(label, losses[losses["tokens_seen"] <= fewest].iloc[-1]) for label, losses in runs]
        sizes = {tuple(losses["tokens"]) for _, losses in last}
        if len(runs) < 2 or len(sizes) > 1 or not fewest:
            continue
        for label, losses in last:
            data = stats.Clusters(*(np.asarray(losses[name], dtype=float) for name in ("nll", "tokens")))
            low, high = map(float, stats.paired_bootstrap(data, np.random.default_rng(SEED)))
            parts.append((label, axis, float(data.mean), low, high, float(losses["tokens_seen"])))
    return pd.DataFrame(parts, columns=["run", "measure", "value", "low", "high", "tokens"])


def _is_loss(measure: object) -> bool:
    return "nats" in str(measure)


@style.applied()
def curves(frame: DataFrame) -> Figure:
    """What is measured while training (`over_steps`), a panel a measure, a line a run."""
    measures = list(dict.fromkeys(frame["measure"]))
    figure, panels = style.canvas(0.5 + 1.25 * len(measures), len(measures), sharex=True)
    looks = style.looks(frame["run"])
    for panel, measure in zip(panels, measures, strict=True):
        for run, rows in frame[frame["measure"] == measure].groupby("run", sort=False):
            rows = rows.sort_values("step")
            look = looks[str(run)]
            every = max(1, len(rows) // 6)
            panel.plot(
                rows["step"], rows["value"], color=look.colour, marker=look.marker, markevery=every, label=str(run)
            )
        panel.set_ylabel(measure)
    panels[-1].set_xlabel("training step")
    style.legend(figure, panels)
    return figure


@style.applied()
def curves_over_tokens(frame: DataFrame) -> Figure:
    """What is measured on held-out rows over the tokens trained on (`over_tokens`), with fits to ten times as many."""
    measures = list(dict.fromkeys(frame["measure"]))
    figure, panels = style.canvas(0.6 + 1.35 * len(measures), len(measures), sharex=True)
    looks = style.looks(frame["run"])
    for panel, measure in zip(panels, measures, strict=True):
        for run, rows in frame[frame["measure"] == measure].groupby("run", sort=False):
            look = looks[str(run)]
            points = rows[rows["part"] == MEASURED].sort_values("tokens")
            fit, ahead = rows[rows["part"] != MEASURED], rows[rows["part"] == AHEAD]
            panel.plot(points["tokens"], points["value"], look.marker, color=look.colour, label=str(run))
            panel.plot(fit["tokens"], fit["value"], color=look.colour, linestyle="--", linewidth=0.8)
            panel.vlines(ahead["tokens"], ahead["low"], ahead["high"], colors=look.colour, linewidth=1.0, alpha=0.7)
        panel.set_xscale("log")
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.set_ylabel(measure)
    panels[-1].set_xlabel("context tokens trained on")
    style.legend(figure, panels)
    return figure


@style.applied()
def losses_compared(frame: DataFrame) -> Figure:
    """Held-out losses of runs after equal tokens (`held_against`) with intervals, a panel a measure."""
    groups = list(frame.groupby("measure", sort=False))
    sizes = [len(rows) for _, rows in groups]
    height = 0.5 + 0.6 * len(groups) + 0.17 * sum(sizes)
    figure, panels = style.canvas(height, len(groups), height_ratios=[size + 2 for size in sizes])
    look = style.looks(list(frame["run"].unique()))[frame["run"].iloc[0]]
    for panel, (measure, rows) in zip(panels, groups, strict=True):
        places = range(len(rows))
        panel.hlines(places, rows["low"], rows["high"], colors=look.colour, linewidth=1.0, alpha=0.7)
        panel.plot(rows["value"], places, look.marker, color=look.colour)
        panel.set_yticks(places, rows["run"])
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.set_xlabel(str(measure))
    return figure
