"""Quality against compression."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from pcc_bench.reports.figures import style

DASHES = {style.FULL: "--", style.NONE: ":"}
ACHIEVED = "achieved compression (source tokens per position)"


@style.applied()
def against_rate(frame: DataFrame, measure: str) -> Figure:
    """A score over achieved compression, a line a method; what has no rate (full, no context) is a level line.

    Args:
        frame: Columns `method`, `rate` (achieved; nan for a level line), `value`, and `low` and `high`, the ends of its
            95 % interval (nan where unknown).
        measure: What the score is, for the axis.
    """
    figure, (panel,) = style.canvas(2.5)
    _draw(panel, frame, style.looks(frame.dropna(subset="rate")["method"]))
    panel.set_ylabel(measure)
    style.ratio_axis(panel, frame["rate"].dropna().tolist(), ACHIEVED)
    style.legend(figure, [panel])
    return figure


@style.applied()
def by_set(frame: DataFrame, measure: str) -> Figure:
    """The same, a panel a data set.

    Args:
        frame: As for `against_rate`, with a column `set`.
        measure: What the score is, for the axis.
    """
    sets = list(dict.fromkeys(frame["set"]))
    lines = -(-len(sets) // 2)
    figure, panels = style.canvas(0.7 + 1.45 * lines, lines, 2, sharex=True, sharey=True)
    looks = style.looks(frame.dropna(subset="rate")["method"])
    for number, (panel, name) in enumerate(zip(panels, sets, strict=False)):
        _draw(panel, frame[frame["set"] == name], looks)
        panel.set_title(name)
        lowest = number + 2 >= len(sets)
        style.ratio_axis(panel, frame["rate"].dropna().tolist(), "achieved compression" if lowest else "")
        panel.tick_params(labelbottom=lowest)
        panel.set_ylabel("" if number % 2 else measure)
    for panel in panels[len(sets) :]:
        panel.remove()
    style.legend(figure, panels[: len(sets)])
    return figure


def _draw(panel: Axes, frame: DataFrame, looks: dict[str, style.Look]) -> None:
    for _, row in frame[frame["rate"].isna()].iterrows():
        dash = DASHES.get(row["method"], "-.")
        panel.axhline(row["value"], color=style.INK, linestyle=dash, linewidth=0.9, label=row["method"])
        panel.axhspan(row["low"], row["high"], color=style.INK, alpha=0.1, linewidth=0)
    for name, rows in frame.dropna(subset="rate").groupby("method", sort=False):
        style.with_intervals(panel, rows, "rate", looks[str(name)], str(name))
