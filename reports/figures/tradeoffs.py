"""Quality against compression and cost, and memory against length; names stand on their lines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import textalloc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from pandas import DataFrame, Series

from pcc_bench.reports.figures import style
from pcc_bench.reports.figures.style import Look


def write_names(panel: Axes, frame: DataFrame, x: str, looks: Mapping[str, Look], *more: DataFrame) -> None:
    """Write each method's name beside its last point in `x`, of a level line (nan there) at the panel's right end.

    Names cover no point, interval or line, those of `more` (columns `x` and `value`) neither.
    """
    lines = [rows.sort_values(x) for _, rows in frame.groupby("method", sort=False)]
    lines.sort(key=lambda rows: (bool(rows[x].isna().all()), len(rows)))
    last = [rows.fillna({x: panel.get_xlim()[1]}).iloc[-1] for rows in lines]
    level = [DataFrame({x: panel.get_xlim(), "value": value}) for value in frame.loc[frame[x].isna(), "value"]]
    bars = [DataFrame({x: place, "value": bar}) for place, *bar in frame[[x, "low", "high"]].dropna().to_numpy()]
    covered = [rows.dropna(subset=x) for rows in (*lines, *level, *bars, *more)]
    colours, points = [looks[row["method"]].colour for row in last], frame.dropna(subset=x)
    artists: Any = textalloc.allocate(  # distances are shares of the panel
        panel,
        [row[x] for row in last],
        [row["value"] for row in last],
        [str(row["method"]) for row in last],
        x_scatter=points[x].to_numpy(),
        y_scatter=points["value"].to_numpy(),
        x_lines=[rows[x].to_numpy() for rows in covered if len(rows)],
        y_lines=[rows["value"].to_numpy() for rows in covered if len(rows)],
        textsize=style.sheet().text,
        textcolor=colours,
        linecolor=colours,
        linewidth=0.5,
        plot_kwargs={"label": "_nolegend_"},
        nbr_candidates=300,
        min_distance=0.015,
        max_distance=0.3,
        avoid_label_lines_overlap=True,
    )
    for artist in filter(None, (*artists[2], *artists[3])):  # a name beside its point has no leader
        artist.set_in_layout(False)  # the axes stay where they were when the places were chosen


def against_rate(frame: DataFrame, measure: str) -> Figure:
    """A score over achieved compression (`frames.scores`), a line a method with its name; level ones have no rate."""
    figure, (panel,) = style.canvas(3.3)
    looks = style.looks(frame["method"])
    _draw_rates(panel, frame, looks, frame["rate"], "achieved compression (source tokens per position)")
    panel.set_ylabel(measure)
    write_names(panel, frame, "rate", looks)
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
    steps = {"cost": corners[1:, 0], "value": corners[:-1, 1]}  # of the front, which goes on level and then up
    write_names(panel, frame, "cost", looks, DataFrame(steps))
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
