"""What training brings: held-out measures over the tokens trained on, and runs held against each other."""

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.stats
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullLocator
from pandas import DataFrame

from pcc_bench import stats
from pcc_bench.reports.figures import style
from pcc_bench.reports.figures.style import Look
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


class Trend:
    """A least-squares line over the logarithm of tokens, through values, or through their logarithms: a power law.

    At least three points with different tokens. A power law, as losses follow, never goes below zero.
    """

    def __init__(self, tokens: npt.ArrayLike, values: npt.ArrayLike, power: bool = False) -> None:
        self.x, y, self.power = np.log10(np.asarray(tokens, dtype=float)), np.asarray(values, dtype=float), power
        self.fit = scipy.stats.linregress(self.x, np.log10(y) if power else y)

    def at(self, tokens: float, level: float = 0.95) -> tuple[float, float, float]:
        """The value there, and both ends of the interval in which a further measurement would lie."""
        points, away = len(self.x), math.log10(tokens) - self.x.mean()
        value = self.fit.intercept + self.fit.slope * math.log10(tokens)
        error = self.fit.stderr * math.sqrt((points + 1) * self.x.var() + away**2)
        half = float(scipy.stats.t.ppf((1 + level) / 2, points - 2)) * error
        low, middle, high = (10**end if self.power else end for end in (value - half, value, value + half))
        return float(middle), float(low), float(high)


def held_out(run: Training) -> Iterator[tuple[str, str, str]]:
    """The measures of a run: column of its evaluation, label of the measure, and what the run is called there."""
    for base, axis in MEASURES.items():
        for column in map(str, run.evaluation.columns):
            if rate := re.fullmatch(rf"{base}(?:_(\d+)x)?", column):
                yield column, axis, f"{run.name} {rate[1]}x" if rate[1] else run.name


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
            ends = [phase.get("until") or 0 for phase in run.recipe.get("phases") or []]
            before = tokens[run.evaluation["step"] <= max(ends, default=0)]  # the last phase
            last = known[known["tokens"] > (float(before.max()) if len(before) else 0.0)]
            parts.append(known.assign(part=MEASURED, low=math.nan, high=math.nan, points=0, run=label, measure=axis))
            if len(last) >= POINTS:
                line = Trend(last["tokens"], last["value"], _is_loss(axis))
                first, end = last["tokens"].min(), MORE * last["tokens"].max()
                places = np.geomspace(first, end, 20 if line.power else 3)
                fit = pd.DataFrame(map(line.at, places), columns=["value", "low", "high"])
                part = [FITTED] * (len(fit) - 1) + [AHEAD]
                parts.append(fit.assign(tokens=places, part=part, points=len(last), run=label, measure=axis))
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


def _panels(
    frame: DataFrame, height: float, each: float, label: str
) -> tuple[Figure, list[tuple[Axes, str, Look, DataFrame]]]:
    """A figure with a panel a measure; and panel, name, look and rows of every line."""
    groups = list(frame.groupby("measure", sort=False))
    figure, panels = style.canvas(height + each * len(groups), len(groups), sharex=True)
    looks, lines = style.looks(frame["run"]), []
    for panel, (measure, rows) in zip(panels, groups, strict=True):
        panel.set_ylabel(str(measure))
        lines += [(panel, str(run), looks[str(run)], line) for run, line in rows.groupby("run", sort=False)]
    panels[-1].set_xlabel(label)
    return figure, lines


def curves(frame: DataFrame) -> Figure:
    """What is measured while training (`over_steps`), a panel a measure, a line a run."""
    figure, lines = _panels(frame, 0.5, 1.25, "training step")
    for panel, name, look, rows in lines:
        rows = rows.sort_values("step")
        line: dict[str, Any] = {"color": look.colour, "marker": look.marker, "markevery": max(1, len(rows) // 6)}
        panel.plot(rows["step"], rows["value"], label=name, **line)
    return style.legend(figure)


def curves_over_tokens(frame: DataFrame) -> Figure:
    """What is measured on held-out rows over the tokens trained on (`over_tokens`), with fits to ten times as many."""
    figure, lines = _panels(frame, 0.6, 1.35, "context tokens trained on")
    for panel, name, look, rows in lines:
        points = rows[rows["part"] == MEASURED].sort_values("tokens")
        fit, ahead = rows[rows["part"] != MEASURED], rows[rows["part"] == AHEAD]
        panel.plot(points["tokens"], points["value"], look.marker, color=look.colour, label=name)
        panel.plot(fit["tokens"], fit["value"], color=look.colour, linestyle="--", linewidth=0.8)
        panel.vlines(ahead["tokens"], ahead["low"], ahead["high"], colors=look.colour, linewidth=1.0, alpha=0.7)
    for panel in figure.axes:
        panel.set_xscale("log")
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    return style.legend(figure)


def losses_compared(frame: DataFrame) -> Figure:
    """Held-out losses of runs after equal tokens (`held_against`) with intervals, a panel a measure."""
    groups = list(frame.groupby("measure", sort=False))
    sizes = [len(rows) for _, rows in groups]
    height = 0.5 + 0.6 * len(groups) + 0.17 * sum(sizes)
    figure, panels = style.canvas(height, len(groups), height_ratios=[size + 2 for size in sizes])
    look = style.looks(frame["run"].unique())[frame["run"].iloc[0]]
    for panel, (measure, rows) in zip(panels, groups, strict=True):
        places = range(len(rows))
        panel.hlines(places, rows["low"], rows["high"], colors=look.colour, linewidth=1.0, alpha=0.7)
        panel.plot(rows["value"], places, look.marker, color=look.colour)
        panel.set_yticks(places, rows["run"])
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.set_xlabel(str(measure))
    return figure
