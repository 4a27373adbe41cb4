"""One style for all figures: sizes of a paper's column, colours that colour-blind readers can tell apart, no dates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.typing import RcKeyType
from pandas import DataFrame

from pcc_bench.reports.figures.palette import GRID, INK, Look

WIDTH = 3.3  # inches: a column of a two-column paper


@dataclass(frozen=True)
class Sheet:
    """What a figure is drawn for.

    Attributes:
        width: Inches.
        text: Size of the text, points.
        panels: Small panels side by side.
    """

    width: float
    text: float
    panels: int

    @property
    def scale(self) -> float:
        """Of heights, which are given for a column of a paper."""
        return self.text / COLUMN.text


COLUMN = Sheet(WIDTH, 7, 2)  # of a paper, and of a phone
PAGE = Sheet(10.0, 9.5, 4)  # of the report in a window
_sheet: ContextVar[Sheet] = ContextVar("sheet", default=COLUMN)

STYLE: dict[RcKeyType, Any] = {
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "errorbar.capsize": 0,
    "figure.constrained_layout.h_pad": 0.04,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.04,
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "grid.color": GRID,
    "grid.linewidth": 0.4,
    "hatch.linewidth": 0.5,
    "legend.columnspacing": 1.2,
    "legend.frameon": False,
    "legend.handlelength": 1.7,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,  # text that can be searched, and that publishers accept
    "savefig.dpi": 300,
    "text.parse_math": False,  # a name with dollars is a name
    "svg.fonttype": "path",
    "svg.hashsalt": "pcc_bench",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


SIZED: tuple[RcKeyType, ...] = (
    *("font.size", "axes.labelsize", "axes.titlesize", "legend.fontsize", "xtick.labelsize", "ytick.labelsize"),
)


@contextmanager
def applied() -> Iterator[None]:
    """Within it (or in a function under `@applied()`), figures are drawn in the style, for the sheet in use."""
    with matplotlib.rc_context(STYLE | dict.fromkeys(SIZED, _sheet.get().text)):
        yield


@contextmanager
def drawn_for(sheet: Sheet) -> Iterator[None]:
    """Within it, figures are drawn for a sheet."""
    before = _sheet.set(sheet)
    try:
        yield
    finally:
        _sheet.reset(before)


def panels_across(count: int) -> int:
    """How many of so many small panels stand side by side."""
    return min(count, _sheet.get().panels)


def canvas(height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure as wide as the sheet.

    Args:
        height: Inches of a column of a paper; a page's figure is taller as its text is larger.
        rows: Panels from top to bottom.
        columns: Panels side by side.
        **options: Of matplotlib's `subplots` (`sharex`, ...).

    Returns:
        The figure and its panels, row by row.
    """
    sheet = _sheet.get()
    figure = Figure(figsize=(sheet.width, height * sheet.scale))
    panels = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, [panel for row in panels for panel in row]


def legend(figure: Figure, panels: Iterable[Axes]) -> None:
    """One legend under the figure, where it covers nothing, in as many columns as its labels leave room for."""
    parts: dict[str, Artist] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            parts.setdefault(label, handle)
    if parts:
        longest = max(map(len, parts))
        columns = max(1, int(72 * _sheet.get().width / ((0.6 * longest + 4) * _sheet.get().text)))
        figure.legend(parts.values(), parts.keys(), loc="outside lower center", ncols=min(columns, len(parts)))


def ratio_axis(panel: Axes, ratios: Sequence[float], label: str) -> None:
    """Make x a logarithmic axis of ratios, a tick at each power of two (of four, where there would be many)."""
    low, high = math.floor(math.log2(min(ratios))), math.ceil(math.log2(max(ratios)))
    low, high = (low, high) if high > low else (low - 1, high + 1)
    panel.set_xscale("log", base=2)
    panel.set_xlim(2 ** (low - 0.15), 2 ** (high + 0.15))
    step = 1 if high - low < 8 else 2
    panel.xaxis.set_major_locator(FixedLocator([2.0**power for power in range(low, high + 1, step)]))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    panel.set_xlabel(label)


def with_intervals(panel: Axes, rows: DataFrame, x: str, look: Look, label: str) -> None:
    """A line through `value` over the column `x`, with bars from `low` to `high` where they are known."""
    rows = rows.sort_values(x)
    known = rows.dropna(subset=["low", "high"])
    panel.vlines(known[x], known["low"], known["high"], colors=look.colour, linewidth=1.0, alpha=0.7)
    panel.plot(
        rows[x],
        rows["value"],
        color=look.colour,
        marker=look.marker,
        linewidth=look.width,
        linestyle=look.dash,
        label=label,
    )
