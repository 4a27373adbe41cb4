"""What quality costs, and what memory a length takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox
from pandas import DataFrame, Series

from pcc_bench.reports.figures import style

PLACES = ((4, 3), (4, -8), (-4, 3), (-4, -8), (0, 7), (0, -12), (10, 0), (-10, 0))  # points from the marker


@style.applied()
def pareto(frame: DataFrame, measure: str, cost: str) -> Figure:
    """Quality over cost; the points that nothing beats in both are filled, named and joined by steps.

    Args:
        frame: Columns `method`, `label` (what stands at the point, e.g. "4x"; "" for nothing), `cost`, `value`, `low`,
            `high` (ends of the 95 % interval, nan where unknown).
        measure: What the score is, for the axis.
        cost: What the cost is, with its unit.
    """
    figure, (panel,) = style.canvas(2.6)
    front = on_front(frame)
    edge = frame[front].sort_values("cost")
    panel.step(edge["cost"], edge["value"], where="post", color=style.INK, linewidth=0.7, alpha=0.6, zorder=1)
    looks = style.looks(frame["method"])
    for name, rows in frame.groupby("method", sort=False):
        look = looks[str(name)]
        panel.plot(rows["cost"], rows["value"], color=look.colour, linewidth=0.5, alpha=0.6, zorder=1)
        known = rows.dropna(subset=["low", "high"])
        panel.vlines(known["cost"], known["low"], known["high"], colors=look.colour, linewidth=0.8, alpha=0.6)
        faces = [look.colour if best else "none" for best in front[rows.index]]
        panel.scatter(
            rows["cost"], rows["value"], s=22, marker=look.marker, c=faces, edgecolors=look.colour, linewidths=0.9,
            label=str(name),
        )  # fmt: skip
    panel.set_xscale("log")
    wide = frame["cost"].max() > 30 * frame["cost"].min()
    panel.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.margins(x=0.12, y=0.12)
    panel.set_xlabel(cost)
    panel.set_ylabel(measure)
    style.legend(figure, [panel])
    for handle in figure.legends[0].legend_handles if figure.legends else ():
        handle.set_facecolor(handle.get_edgecolor())  # type: ignore[union-attr]
    _name_points(figure, panel, frame, front)
    return figure


def on_front(frame: DataFrame) -> Series[bool]:
    """For each row, whether no other row costs no more and scores no less, and is better in one of them."""
    cost, value = frame["cost"].to_numpy(), frame["value"].to_numpy()
    beaten = [
        bool(np.any((cost <= mine) & (value >= score) & ((cost < mine) | (value > score))))
        for mine, score in zip(cost, value, strict=True)
    ]
    return ~Series(beaten, index=frame.index, dtype=bool)


@style.applied()
def memory(frame: DataFrame) -> Figure:
    """Peak memory over the input's length, as in the paper's figure.

    Args:
        frame: Columns `series` (label), `tokens` (of one input), `batch`, `gigabytes`, `source` ("measured",
            "predicted" or "paper"; only what was measured is filled and solid).
    """
    figure, (panel,) = style.canvas(2.6)
    looks = style.looks(frame["series"])
    for (series, source), rows in frame.groupby(["series", "source"], sort=False):
        rows = rows.sort_values("tokens")
        look, measured = looks[str(series)], source == "measured"
        panel.plot(
            rows["tokens"],
            rows["gigabytes"],
            color=look.colour,
            marker=look.marker,
            linestyle="-" if measured else "--",
            markerfacecolor=look.colour if measured else "none",
            label=f"{series} ({source})",
        )
    lengths = sorted(frame["tokens"].unique())
    batches = frame.groupby("tokens")["batch"].first()
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_locator(FixedLocator(lengths))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{batches.get(round(value), '')}x{_short(value)}"))
    panel.set_ylim(bottom=0)
    panel.set_xlabel("input (sequences x tokens)")
    panel.set_ylabel("peak memory (GB)")
    style.legend(figure, [panel])
    return figure


def _short(tokens: float) -> str:
    return f"{tokens / 1024:g}k" if tokens >= 1024 else f"{tokens:g}"


def _name_points(figure: Figure, panel: Axes, frame: DataFrame, front: Series[bool]) -> None:
    """Write the labels of the front beside their points, where they cover no point and no other label."""
    figure.draw_without_rendering()
    places = panel.transData.transform(frame[["cost", "value"]].to_numpy(dtype=float))
    taken = [Bbox.from_bounds(x - 3, y - 3, 6, 6) for x, y in places]
    for _, row in frame[front & (frame["label"] != "")].iterrows():
        notes = [_note(panel, row, place) for place in PLACES]
        covered = [sum(note.get_window_extent().overlaps(other) for other in taken) for note in notes]
        chosen = notes[covered.index(min(covered))]
        taken.append(chosen.get_window_extent())
        for note in notes:
            if note is not chosen:
                note.remove()


def _note(panel: Axes, row: Series[Any], place: tuple[int, int]) -> Annotation:
    side = "center" if not place[0] else "left" if place[0] > 0 else "right"
    note = panel.annotate(
        row["label"], (row["cost"], row["value"]), place, textcoords="offset points", ha=side, fontsize=6
    )
    note.set_in_layout(False)  # the axes stay where they were when the places were chosen
    return note
