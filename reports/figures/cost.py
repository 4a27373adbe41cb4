"""What quality costs, and what memory a length takes."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from pandas import DataFrame, Series

from pcc_bench.reports.figures import labels, palette, style


@style.applied()
def pareto(frame: DataFrame, measure: str, cost: str) -> Figure:
    """Quality over cost; the points that nothing beats in both are filled and joined by steps.

    Args:
        frame: Columns `method`, `cost`, `value`, `low`, `high` (ends of the 95 % interval, nan where unknown).
        measure: What the score is, for the axis.
        cost: What the cost is, with its unit.
    """
    figure, (panel,) = style.canvas(3.1)
    front = on_front(frame)
    edge = frame[front].sort_values("cost")
    panel.step(edge["cost"], edge["value"], where="post", color=palette.INK, linewidth=0.7, alpha=0.6, zorder=1)
    looks = palette.looks(frame["method"])
    for name, rows in frame.groupby("method", sort=False):
        look, rows = looks[str(name)], rows.sort_values("cost")
        panel.plot(rows["cost"], rows["value"], color=look.colour, linewidth=look.width, linestyle=look.dash, alpha=0.7)
        known = rows.dropna(subset=["low", "high"])
        panel.vlines(known["cost"], known["low"], known["high"], colors=look.colour, linewidth=0.8, alpha=0.6)
        faces = [look.colour if best else palette.PAPER for best in front[rows.index]]
        panel.scatter(
            rows["cost"], rows["value"], s=26, marker=look.marker, c=faces, edgecolors=look.colour, linewidths=0.9,
            zorder=3,
        )  # fmt: skip
    panel.set_xscale("log")
    wide = frame["cost"].max() > 30 * frame["cost"].min()
    panel.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.margins(x=0.12, y=0.12)
    panel.set_xlabel(cost)
    panel.set_ylabel(measure)
    corners = edge[["cost", "value"]].to_numpy(dtype=float).repeat(2, axis=0)
    steps = np.column_stack([corners[1:, 0], corners[:-1, 1]])  # of the front, which goes on level and then up
    labels.write(panel, [*labels.of_series(frame, "cost", looks), labels.Named("", palette.INK, steps)])
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
    looks = palette.looks(frame["series"])
    for (series, source), rows in frame.groupby(["series", "source"], sort=False):
        rows = rows.sort_values("tokens")
        look, measured = looks[str(series)], source == "measured"
        panel.plot(
            rows["tokens"],
            rows["gigabytes"],
            color=look.colour,
            marker=look.marker,
            linestyle="-" if measured else "--",
            linewidth=look.width,
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
