"""What a rate really gives."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from pandas import DataFrame

from pcc_bench.reports.figures import palette, style


@style.applied()
def achieved(frame: DataFrame) -> Figure:
    """Achieved compression beside what was asked for, a line a run: over all its contexts, the middle one marked.

    Args:
        frame: Columns `run` (label), `requested` (nan for none), `tokens` (of the context), `ratio` (achieved,
            boundary vectors counted), a row a context.
    """
    runs = frame.groupby("run", sort=False)["requested"].first().sort_values(kind="stable")
    figure, (panel,) = style.canvas(1.2 + 0.165 * len(runs))
    looks = palette.looks(runs.index)
    for place, (name, requested) in enumerate(runs.items()):
        ratios, look = frame.loc[frame["run"] == name, "ratio"], looks[str(name)]
        panel.hlines(place, ratios.min(), ratios.max(), colors=look.colour, linewidth=3, alpha=0.45)
        panel.plot(np.median(ratios), place, color=look.colour, marker="o", linestyle="none", label="_nolegend_")
        panel.plot(
            requested, place, color=palette.INK, marker="D", markerfacecolor="none", markersize=5.5, linestyle="none",
            label="requested",
        )  # fmt: skip
    panel.plot([], [], color=palette.INK, marker="o", linestyle="none", label="achieved: the middle context")
    panel.plot([], [], color=palette.INK, linewidth=3, alpha=0.45, label="least to greatest context")
    panel.set_yticks(range(len(runs)), [str(name) for name in runs.index])
    panel.set_ylim(len(runs) - 0.4, -0.6)
    panel.tick_params(axis="y", length=0)
    panel.grid(visible=False, axis="y")
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlabel("compression (source tokens per position)")
    style.legend(figure, [panel])
    return figure
