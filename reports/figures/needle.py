"""Where in a context a fact is found again."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame

from pcc_bench.reports.figures import style

PALE = "#fefefe"  # white, but not the paper's: a page in dark mode turns only the paper dark


@style.applied()
def heat_map(frame: DataFrame) -> Figure:
    """Share of needles found by depth and length, a panel a method, the percentage in each cell.

    Args:
        frame: Columns `method`, `depth` (0: beginning, 1: end), `length` (tokens), `value` (0 to 1), one row a cell.
    """
    names = list(dict.fromkeys(frame["method"]))
    columns = min(len(names), 2)
    lines = -(-len(names) // columns)
    depths, lengths = sorted(frame["depth"].unique()), sorted(frame["length"].unique())
    figure, panels = style.canvas(0.75 + lines * (0.35 + 0.17 * len(depths)), lines, columns, sharex=True, sharey=True)
    for panel, name in zip(panels, names, strict=False):
        cells = frame[frame["method"] == name].pivot(index="depth", columns="length", values="value")
        cells = cells.reindex(index=depths, columns=lengths)
        edges = (np.arange(len(lengths) + 1) - 0.5, np.arange(len(depths) + 1) - 0.5)
        panel.pcolormesh(*edges, cells.to_numpy(dtype=float), cmap="cividis", vmin=0, vmax=1, linewidth=0)
        panel.set_ylim(len(depths) - 0.5, -0.5)  # the beginning of the context is on top
        for (line, column), value in ((place, cells.iloc[place]) for place in _places(len(depths), len(lengths))):
            ink = "black" if value > 0.5 else PALE
            text = "" if math.isnan(value) else f"{100 * value:.0f}"
            panel.text(column, line, text, ha="center", va="center", color=ink)
        panel.set_xticks(range(len(lengths)), [f"{length:g}" for length in lengths])
        panel.set_yticks(range(len(depths)), [f"{100 * depth:g} %" for depth in depths])
        panel.grid(visible=False)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        panel.set_title(str(name))
    for panel in panels[len(names) :]:
        panel.remove()
    figure.supxlabel("context (tokens); in the cells: found, %")
    figure.supylabel("depth of the needle")
    return figure


def _places(lines: int, columns: int) -> list[tuple[int, int]]:
    return [(line, column) for line in range(lines) for column in range(columns)]
