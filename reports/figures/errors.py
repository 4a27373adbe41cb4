"""What gets lost."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame

from pcc_bench.reports.figures import palette, style


@style.applied()
def classes(frame: DataFrame) -> Figure:
    """Share of words of each class that a reconstruction gets wrong, a bar a method.

    Args:
        frame: Columns `method`, `kind` (numbers, names, ...), `value` (percent), `low`, `high` (ends of the 95 %
            interval, nan where unknown).
    """
    kinds, methods = list(dict.fromkeys(frame["kind"])), list(dict.fromkeys(frame["method"]))
    thick = 0.8 / len(methods)
    figure, (panel,) = style.canvas(0.9 + 0.11 * len(kinds) * (len(methods) + 1))
    looks = palette.looks(methods)
    for number, name in enumerate(methods):
        rows = frame[frame["method"] == name].set_index("kind").reindex(kinds)
        heights = np.arange(len(kinds)) + (number - (len(methods) - 1) / 2) * thick
        look = looks[name]
        panel.barh(
            heights, rows["value"], 0.9 * thick, facecolor=look.colour, edgecolor="white", hatch=look.hatch, label=name,
            linewidth=0,
        )  # fmt: skip
        panel.hlines(heights, rows["low"], rows["high"], colors=palette.INK, linewidth=0.9)
    panel.set_yticks(range(len(kinds)), kinds)
    panel.tick_params(axis="y", length=0)
    panel.invert_yaxis()
    panel.grid(visible=False, axis="y")
    panel.set_xlim(left=0)
    panel.set_xlabel("wrong in the reconstruction (%)")
    style.legend(figure, [panel])
    return figure
