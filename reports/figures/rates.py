"""Quality against compression."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from pcc_bench.reports.figures import labels, palette, style

ACHIEVED = "achieved compression (source tokens per position)"


@style.applied()
def against_rate(frame: DataFrame, measure: str) -> Figure:
    """A score over achieved compression, a line a method with its name on it; full and no context are level lines.

    Args:
        frame: Columns `method`, `rate` (achieved; nan for a level line), `value`, and `low` and `high`, the ends of its
            95 % interval (nan where unknown).
        measure: What the score is, for the axis.
    """
    figure, (panel,) = style.canvas(3.3)
    looks = palette.looks(frame["method"])
    _draw(panel, frame, looks)
    panel.set_ylabel(measure)
    style.ratio_axis(panel, frame["rate"].dropna().tolist(), ACHIEVED)
    labels.write(panel, labels.of_series(frame, "rate", looks))
    return figure


@style.applied()
def by_set(frame: DataFrame, measure: str) -> Figure:
    """The same, a panel a data set.

    Args:
        frame: As for `against_rate`, with a column `set`.
        measure: What the score is, for the axis.
    """
    sets = list(dict.fromkeys(frame["set"]))
    across = style.panels_across(len(sets))
    lines = -(-len(sets) // across)
    figure, panels = style.canvas(0.9 + 1.45 * lines, lines, across, sharex=True, sharey=True)
    looks = palette.looks(frame["method"])
    for number, (panel, name) in enumerate(zip(panels, sets, strict=False)):
        _draw(panel, frame[frame["set"] == name], looks)
        panel.set_title(name)
        lowest = number + across >= len(sets)
        style.ratio_axis(panel, frame["rate"].dropna().tolist(), "achieved compression" if lowest else "")
        panel.tick_params(labelbottom=lowest)
        panel.set_ylabel("" if number % across else measure)
    for panel in panels[len(sets) :]:
        panel.remove()
    style.legend(figure, panels[: len(sets)])
    return figure


def _draw(panel: Axes, frame: DataFrame, looks: dict[str, palette.Look]) -> None:
    for _, row in frame[frame["rate"].isna()].iterrows():
        look = looks[row["method"]]
        panel.axhline(
            row["value"], color=look.colour, linestyle=look.dash, linewidth=look.width, label=row["method"], zorder=1
        )
        panel.axhspan(row["low"], row["high"], color=look.colour, alpha=0.08, linewidth=0, zorder=0)
    for name, rows in frame.dropna(subset="rate").groupby("method", sort=False):
        style.with_intervals(panel, rows, "rate", looks[str(name)], str(name))
