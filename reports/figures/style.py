"""One style for all figures: sizes of a paper's column, colours that colour-blind readers can tell apart, no dates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.typing import RcKeyType
from pandas import DataFrame

WIDTH = 3.3  # inches: a column of a two-column paper
INK, GRID = "#262626", "#d4d4d4"
# Okabe and Ito (2008), without the yellow, which white paper swallows.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b6b6b")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
HATCHES = ("", "//", "..", "xx", "--", "\\\\", "++")
# The same method looks the same in every figure.
KNOWN = ("PCC-Lite", "PCC-Large", "ICAE", "COCOM", "AutoCompressor", "LLMLingua-2", "PCC", "PISCO", "BM25 context")
FULL, NONE = "full context", "no context"

STYLE: dict[RcKeyType, Any] = {
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 7.5,
    "errorbar.capsize": 0,
    "figure.constrained_layout.h_pad": 0.04,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.04,
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 7,
    "grid.color": GRID,
    "grid.linewidth": 0.4,
    "hatch.linewidth": 0.5,
    "legend.columnspacing": 1.2,
    "legend.fontsize": 7,
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
    "xtick.labelsize": 7,
    "ytick.color": INK,
    "ytick.labelsize": 7,
}


@dataclass(frozen=True)
class Look:
    """How one method is drawn: no two differ in colour alone."""

    colour: str
    marker: str
    hatch: str


ENDS = {FULL: Look(INK, "*", ""), NONE: Look(INK, "p", "")}  # ceiling and floor are no methods


@contextmanager
def applied() -> Iterator[None]:
    """Within it (or in a function under `@applied()`), figures are drawn in the style."""
    with matplotlib.rc_context(STYLE):
        yield


def canvas(height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure one column wide.

    Args:
        height: Inches.
        rows: Panels from top to bottom.
        columns: Panels side by side.
        **options: Of matplotlib's `subplots` (`sharex`, ...).

    Returns:
        The figure and its panels, row by row.
    """
    figure = Figure(figsize=(WIDTH, height))
    panels = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, [panel for row in panels for panel in row]


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """A look for each label: known methods always have theirs, others take what is free, in the order given."""
    wanted = list(dict.fromkeys(labels))
    numbers = {label: KNOWN.index(label) for label in wanted if label in KNOWN}
    others = [label for label in wanted if label not in numbers and label not in ENDS]
    free = (number for number in range(len(KNOWN) + len(others)) if number not in numbers.values())
    numbers |= {label: next(free) for label in others}
    return {label: ENDS.get(label) or _look(numbers[label]) for label in wanted}


def _look(number: int) -> Look:
    shift = number // len(COLOURS)  # the second round of colours meets other hatches
    hatch = HATCHES[(number + shift) % len(HATCHES)]
    return Look(COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)], hatch)


def legend(figure: Figure, panels: Iterable[Axes]) -> None:
    """One legend under the figure, where it covers nothing, in as many columns as its labels leave room for."""
    parts: dict[str, Artist] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            parts.setdefault(label, handle)
    if parts:
        longest = max(map(len, parts))
        columns = 3 if longest <= 15 else 2 if longest <= 26 else 1
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
    panel.plot(rows[x], rows["value"], color=look.colour, marker=look.marker, label=label)
