"""Quality against compression and cost, and memory against length; names stand on their lines."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from pandas import DataFrame, Series

from pcc_bench.reports.figures import style
from pcc_bench.reports.figures.style import Look

Points = npt.NDArray[np.float64]

DISTANCES = (5, 10, 17, 26, 40)  # points from the mark
SIDES = ((1, 0), (1, 1), (1, -1), (0, 1), (0, -1), (-1, 1), (-1, -1), (-1, 0))
ALONG = (1.0, 0.75, 0.5, 0.25, 0.0)  # where a level line may carry its name, in shares of the axis
FAR = 12  # points from which on a thin line leads to the mark
MARK, STROKE = 4.0, 1.5  # pixels around points and lines that stay free
GAP = 2.0  # points between two names
STEP = 4.0  # pixels between the boxes that cover a line


@dataclass(frozen=True)
class Named:
    """A line with its name."""

    name: str  # what is written; "" for a line that names must not cover and that has none
    colour: str  # of the text
    points: Points  # `[points, 2]`, in data's units, in the order they are joined; one row of (nan, y) is a level line
    bars: Points | None = None  # `[points, 2]`, low and high ends of their intervals; nan where there is none

    @property
    def level(self) -> bool:
        return bool(np.isnan(self.points[0, 0]))


def named_series(frame: DataFrame, x: str, looks: Mapping[str, Look]) -> list[Named]:
    """The lines of a frame with columns `method`, `value` and the one that is x; nan in that is a level line."""
    lines = []
    for name, rows in frame.groupby("method", sort=False):
        values = rows.sort_values(x)[[x, "value", "low", "high"]].to_numpy(dtype=float)
        lines.append(Named(str(name), looks[str(name)].colour, values[:, :2], values[:, 2:]))
    return lines


def write_names(panel: Axes, lines: Sequence[Named]) -> None:
    """Write the name of each line beside one of its points, its last one if there is room; of level lines, on them."""
    figure = panel.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    frame, point = panel.get_window_extent(), figure.dpi / 72
    panel_box = np.array([frame.x0, frame.y0 + GAP * point, frame.x1, frame.y1])  # no name stands on the axis
    taken = np.array([box for line in lines for box in _covered(panel, line, panel_box)])
    names = np.empty((0, 4))
    for line in sorted(filter(lambda line: line.name, lines), key=lambda line: (line.level, len(line.points))):
        note = panel.annotate(line.name, (0, 0), xycoords="figure pixels", color=line.colour, annotation_clip=False)
        extent = note.get_window_extent()
        size = np.array([extent.width, extent.height])
        starts, offsets = np.array(list(_places(panel, line, panel_box, point))).swapaxes(0, 1)
        corners = starts + offsets - size * (1 - np.sign(offsets)) / 2  # beside the point, above or under it
        boxes = np.hstack([corners, corners + size])
        best = int(np.argmin(_costs(boxes, taken, names, panel_box)))
        start, box = starts[best], boxes[best]
        note.remove()
        if not line.level and np.hypot(*offsets[best]) > FAR * point:
            ends = panel.transAxes.inverted().transform([start, np.clip(start, box[:2], box[2:])])
            look: dict[str, Any] = {"color": line.colour, "linewidth": 0.5, "alpha": 0.8, "label": "_nolegend_"}
            panel.plot(*ends.T, transform=panel.transAxes, **look)
        x, y = panel.transAxes.inverted().transform(box[:2])
        text = panel.text(x, y, line.name, transform=panel.transAxes, color=line.colour, va="bottom", ha="left")
        text.set_in_layout(False)  # the axes stay where they were when the places were chosen
        names = np.vstack([names, box + GAP * point * np.array([-1, -1, 1, 1])])


def _covered(panel: Axes, line: Named, panel_box: Points) -> Iterator[Points]:
    """Boxes over a line and its marks: `[left, bottom, right, top]` in pixels."""
    if line.level:
        y = panel.transData.transform((1.0, line.points[0, 1]))[1]
        yield np.array([panel_box[0], y - STROKE, panel_box[2], y + STROKE])
        return
    places = panel.transData.transform(line.points)
    for place in places:
        yield np.concatenate([place - MARK, place + MARK])
    if line.bars is not None:
        ends = [panel.transData.transform(np.column_stack([line.points[:, 0], end])) for end in line.bars.T]
        for low, high in zip(*ends, strict=True):
            if not np.isnan([low, high]).any():
                yield np.concatenate([low - MARK, high + MARK])
    for start, end in itertools.pairwise(places):
        count = max(2, int(np.hypot(*(end - start)) / STEP))
        for place in start + np.linspace(0, 1, count)[:, None] * (end - start):
            yield np.concatenate([place - STROKE, place + STROKE])


def _places(panel: Axes, line: Named, panel_box: Points, point: float) -> Iterator[Points]:
    """Where a name may stand, the best first: `[2, 2]` in pixels, a point of the line and an offset from it."""
    if line.level:
        y = panel.transData.transform((1.0, line.points[0, 1]))[1]
        for share, up in itertools.product(ALONG, (1, -1)):
            x = panel_box[0] + share * (panel_box[2] - panel_box[0])
            yield np.array([(x, y), (np.sign(0.5 - share) * point, 3 * up * point)])
        return
    points = panel.transData.transform(line.points)[::-1]
    for distance, start, side in itertools.product(DISTANCES, points, SIDES):
        yield np.array([start, np.array(side) * distance * point])


def _costs(boxes: Points, taken: Points, names: Points, panel_box: Points) -> Points:
    """How bad each place is: names and lines that it covers, what of it is outside the panel, and how late it comes."""
    low, high = panel_box[:2] - boxes[:, :2], boxes[:, 2:] - panel_box[2:]
    outside = np.maximum(np.concatenate([low, high], axis=1), 0).max(axis=1)

    def overlaps(others: Points) -> Points:
        beside = (boxes[:, None, 2] < others[None, :, 0]) | (boxes[:, None, 0] > others[None, :, 2])
        above = (boxes[:, None, 3] < others[None, :, 1]) | (boxes[:, None, 1] > others[None, :, 3])
        counts: Points = (~(beside | above)).sum(axis=1)
        return counts

    covered = 10_000 * overlaps(names) + 100 * overlaps(taken)
    costs: Points = covered + 1000 * (outside > 0) + 10 * outside + np.arange(len(boxes))
    return costs


def against_rate(frame: DataFrame, measure: str) -> Figure:
    """A score over achieved compression (`frames.scores`), a line a method with its name; level ones have no rate."""
    figure, (panel,) = style.canvas(3.3)
    looks = style.looks(frame["method"])
    _draw_rates(panel, frame, looks, frame["rate"], "achieved compression (source tokens per position)")
    panel.set_ylabel(measure)
    write_names(panel, named_series(frame, "rate", looks))
    return figure


def by_set(frame: DataFrame, measure: str) -> Figure:
    """The same, a panel a data set (column `set`)."""
    groups = list(frame.groupby("set", sort=False))
    across = min(len(groups), style.sheet().panels)
    height = 0.9 + 1.45 * -(-len(groups) // across)
    figure, panels = style.canvas(height, len(groups), across, sharex=True, sharey=True)
    looks = style.looks(frame["method"])
    for number, (panel, (name, rows)) in enumerate(zip(panels, groups, strict=True)):
        lowest = number + across >= len(groups)
        _draw_rates(panel, rows, looks, frame["rate"], "achieved compression" if lowest else "")
        panel.set_title(str(name))
        panel.tick_params(labelbottom=lowest)
        panel.set_ylabel("" if number % across else measure)
    return style.legend(figure)


def _draw_rates(panel: Axes, frame: DataFrame, looks: Mapping[str, Look], rates: Series[float], label: str) -> None:
    """Lines over a logarithmic axis of `rates`, a tick at each power of two (of four, where there would be many)."""
    for _, row in frame[frame["rate"].isna()].iterrows():
        look = looks[row["method"]]
        panel.axhline(
            row["value"], color=look.colour, linestyle=look.dash, linewidth=look.width, label=row["method"], zorder=1
        )
        panel.axhspan(row["low"], row["high"], color=look.colour, alpha=0.08, linewidth=0, zorder=0)
    for name, rows in frame.dropna(subset="rate").groupby("method", sort=False):
        rows, look = rows.sort_values("rate"), looks[str(name)]
        _draw_intervals(panel, rows, "rate", look, 1.0, 0.7)
        panel.plot(rows["rate"], rows["value"], label=str(name), linestyle=look.dash, **look.line)
    low, high = math.floor(math.log2(rates.min())), math.ceil(math.log2(rates.max()))
    low, high = (low, high) if high > low else (low - 1, high + 1)
    panel.set_xscale("log", base=2)
    panel.set_xlim(2 ** (low - 0.15), 2 ** (high + 0.15))
    step = 1 if high - low < 8 else 2
    panel.xaxis.set_major_locator(FixedLocator([2.0**power for power in range(low, high + 1, step)]))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    panel.set_xlabel(label)


def _draw_intervals(panel: Axes, rows: DataFrame, x: str, look: Look, width: float, alpha: float) -> None:
    known = rows.dropna(subset=["low", "high"])
    panel.vlines(known[x], known["low"], known["high"], colors=look.colour, linewidth=width, alpha=alpha)


def pareto(frame: DataFrame, measure: str, cost: str) -> Figure:
    """Quality over cost (`frames.PRICED`); the points that nothing beats in both are filled and joined by steps."""
    figure, (panel,) = style.canvas(3.1)
    front = on_front(frame)
    edge = frame[front].sort_values("cost")
    panel.step(edge["cost"], edge["value"], where="post", color=style.INK, linewidth=0.7, alpha=0.6, zorder=1)
    looks = style.looks(frame["method"])
    for name, rows in frame.groupby("method", sort=False):
        look, rows = looks[str(name)], rows.sort_values("cost")
        panel.plot(rows["cost"], rows["value"], color=look.colour, linewidth=look.width, linestyle=look.dash, alpha=0.7)
        _draw_intervals(panel, rows, "cost", look, 0.8, 0.6)
        faces = [look.colour if best else style.PAPER for best in front[rows.index]]
        mark: dict[str, Any] = {"s": 26, "marker": look.marker, "edgecolors": look.colour, "linewidths": 0.9}
        panel.scatter(rows["cost"], rows["value"], c=faces, zorder=3, **mark)
    panel.set_xscale("log")
    wide = frame["cost"].max() > 30 * frame["cost"].min()
    panel.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.margins(x=0.12, y=0.18)
    panel.set_xlabel(cost)
    panel.set_ylabel(measure)
    corners = edge[["cost", "value"]].to_numpy(dtype=float).repeat(2, axis=0)
    steps = np.column_stack([corners[1:, 0], corners[:-1, 1]])  # of the front, which goes on level and then up
    write_names(panel, [*named_series(frame, "cost", looks), Named("", style.INK, steps)])
    return figure


def on_front(frame: DataFrame) -> Series[bool]:
    """For each row, whether no other row costs no more and scores no less, and is better in one of them."""
    cost, value = (frame[name].to_numpy() for name in ("cost", "value"))
    no_dearer, no_worse = cost <= cost[:, None], value >= value[:, None]
    better = (cost < cost[:, None]) | (value > value[:, None])
    return Series(~(no_dearer & no_worse & better).any(axis=1), index=frame.index)


def memory(frame: DataFrame) -> Figure:
    """Peak memory over the input's length (`frames.memory`), as in the paper's figure; only measurements are solid."""
    figure, (panel,) = style.canvas(2.6)
    looks = style.looks(frame["series"])
    for (series, source), rows in frame.groupby(["series", "source"], sort=False):
        rows, look = rows.sort_values("tokens"), looks[str(series)]
        line = look.line if source == "measured" else look.line | {"linestyle": "--", "markerfacecolor": "none"}
        panel.plot(rows["tokens"], rows["gigabytes"], label=f"{series} ({source})", **line)
    batches = frame.groupby("tokens")["batch"].first()
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_locator(FixedLocator(sorted(frame["tokens"].unique())))
    panel.xaxis.set_minor_locator(NullLocator())

    def size(tokens: float, _: int | None) -> str:
        length = f"{tokens / 1024:g}k" if tokens >= 1024 else f"{tokens:g}"
        return f"{batches.get(round(tokens), '')}x{length}"

    panel.xaxis.set_major_formatter(FuncFormatter(size))
    panel.set_ylim(bottom=0)
    panel.set_xlabel("input (sequences x tokens)")
    panel.set_ylabel("peak memory (GB)")
    return style.legend(figure)
