"""Training curves."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from pandas import DataFrame

from pcc_bench.reports import learning
from pcc_bench.reports.figures import palette, style


@style.applied()
def curves(frame: DataFrame) -> Figure:
    """What is measured while training, a panel a measure, a line a run.

    Args:
        frame: Columns `run` (label), `step`, `measure` (label of the panel's axis), `value`.
    """
    measures = list(dict.fromkeys(frame["measure"]))
    figure, panels = style.canvas(0.5 + 1.25 * len(measures), len(measures), sharex=True)
    looks = palette.looks(frame["run"])
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
def over_tokens(frame: DataFrame) -> Figure:
    """What is measured on held-out rows over the tokens trained on, with a line that is drawn on to ten times as many.

    Args:
        frame: That of `learning.over_tokens`.
    """
    measures = list(dict.fromkeys(frame["measure"]))
    figure, panels = style.canvas(0.6 + 1.35 * len(measures), len(measures), sharex=True)
    looks = palette.looks(frame["run"])
    for panel, measure in zip(panels, measures, strict=True):
        for run, rows in frame[frame["measure"] == measure].groupby("run", sort=False):
            look = looks[str(run)]
            points = rows[rows["part"] == learning.MEASURED].sort_values("tokens")
            fit, ahead = rows[rows["part"] != learning.MEASURED], rows[rows["part"] == learning.AHEAD]
            panel.plot(points["tokens"], points["value"], look.marker, color=look.colour, label=str(run))
            panel.plot(fit["tokens"], fit["value"], color=look.colour, linestyle="--", linewidth=0.8)
            panel.vlines(ahead["tokens"], ahead["low"], ahead["high"], colors=look.colour, linewidth=1.0, alpha=0.7)
        panel.set_xscale("log")
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(FuncFormatter(lambda tokens, _: _short(tokens)))
        panel.set_ylabel(measure)
    panels[-1].set_xlabel("context tokens trained on")
    style.legend(figure, panels)
    return figure


@style.applied()
def held_against(frame: DataFrame) -> Figure:
    """Held-out losses of runs after equal tokens, with their intervals, a panel a measure.

    Args:
        frame: That of `learning.held_against`.
    """
    measures, runs = (list(dict.fromkeys(frame[name])) for name in ("measure", "run"))
    figure, panels = style.canvas(0.5 + len(measures) * (0.6 + 0.17 * len(runs)), len(measures))
    for panel, measure in zip(panels, measures, strict=True):
        rows = frame[frame["measure"] == measure]
        places = [runs.index(run) for run in rows["run"]]
        look = palette.looks(runs)[runs[0]]
        panel.hlines(places, rows["low"], rows["high"], colors=look.colour, linewidth=1.0, alpha=0.7)
        panel.plot(rows["value"], places, look.marker, color=look.colour)
        panel.set_yticks(range(len(runs)), runs)
        panel.set_ylim(len(runs) - 0.5, -0.5)
        panel.set_xlabel(measure)
    return figure


def _short(tokens: float) -> str:
    """A power of ten as a tick: 10k, 1M."""
    unit, letter = next(((u, x) for u, x in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if tokens >= u), (1.0, ""))
    return f"{tokens / unit:g}{letter}"
