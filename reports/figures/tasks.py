"""Figures of single tasks: needles found, words lost, contexts reconstructed and asked about, rates achieved."""

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from pandas import DataFrame

from pcc_bench.reports.figures import style

PALE = "#fefefe"  # white, but not the paper's: a page in dark mode turns only the paper dark


def heat_map(frame: DataFrame) -> Figure:
    """Share of needles found by depth and length (`frames.needles`), a panel a method, the percentage in each cell."""
    groups = list(frame.groupby("method", sort=False))
    across = min(len(groups), 2)
    depths, lengths = sorted(frame["depth"].unique()), sorted(frame["length"].unique())
    height = 0.75 + -(-len(groups) // across) * (0.35 + 0.17 * len(depths))
    figure, panels = style.canvas(height, len(groups), across, sharex=True, sharey=True)
    edges = (np.arange(len(lengths) + 1) - 0.5, np.arange(len(depths) + 1) - 0.5)
    for panel, (name, rows) in zip(panels, groups, strict=True):
        cells = rows.pivot(index="depth", columns="length", values="value").reindex(index=depths, columns=lengths)
        panel.pcolormesh(
            *edges, cells.to_numpy(dtype=float), cmap="cividis", vmin=0, vmax=1, edgecolors=style.PAPER, linewidth=1
        )
        panel.set_ylim(len(depths) - 0.5, -0.5)  # the beginning of the context is on top
        for (line, column), value in np.ndenumerate(cells.to_numpy(dtype=float)):
            ink, text = "black" if value > 0.5 else PALE, "" if math.isnan(value) else f"{100 * value:.0f}"
            panel.text(column, line, text, ha="center", va="center", color=ink)
        panel.set_xticks(range(len(lengths)), [f"{length:g}" for length in lengths])
        panel.set_yticks(range(len(depths)), [f"{100 * depth:g} %" for depth in depths])
        panel.grid(visible=False)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        panel.set_title(str(name))
    figure.supxlabel("context (tokens); in the cells: found, %")
    figure.supylabel("depth of the needle")
    return figure


def classes(frame: DataFrame) -> Figure:
    """Share of words of each class that a reconstruction gets wrong (`frames.errors`), a bar a method."""
    kinds, looks = list(frame["kind"].unique()), style.looks(frame["method"])
    thick = 0.8 / len(looks)
    figure, (panel,) = style.canvas(0.9 + 0.11 * len(kinds) * (len(looks) + 1))
    for number, (name, look) in enumerate(looks.items()):
        rows = frame[frame["method"] == name].set_index("kind").reindex(kinds)
        heights = np.arange(len(kinds)) + (number - (len(looks) - 1) / 2) * thick
        bar: dict[str, Any] = {"facecolor": look.colour, "edgecolor": "white", "hatch": look.hatch, "linewidth": 0}
        panel.barh(heights, rows["value"], 0.9 * thick, label=name, **bar)
        panel.hlines(heights, rows["low"], rows["high"], colors=style.INK, linewidth=0.9)
    panel.set_yticks(range(len(kinds)), kinds)
    panel.tick_params(axis="y", length=0)
    panel.invert_yaxis()
    panel.grid(visible=False, axis="y")
    panel.set_xlim(left=0)
    panel.set_xlabel("wrong in the reconstruction (%)")
    return style.legend(figure)


GROUPS = 5


def reconstruction_and_answers(frame: DataFrame) -> Figure:
    """Each context's answers over its reconstruction (`frames.pairs`), and means of equal shares of the contexts."""
    figure, (panel,) = style.canvas(2.6)
    looks = style.looks(frame["method"])
    for name, rows in frame.groupby("method", sort=False):
        look = looks[str(name)]
        panel.scatter(rows["reconstruction"], rows["answers"], s=5, c=look.colour, alpha=0.25, linewidths=0)
        ranked = rows.sort_values("reconstruction", kind="stable")[["reconstruction", "answers"]]
        shares = np.array_split(np.arange(len(ranked)), min(GROUPS, len(ranked)))
        means = DataFrame([ranked.iloc[share].mean() for share in shares])
        correlation = rows["reconstruction"].corr(rows["answers"], method="spearman")
        label = str(name) if np.isnan(correlation) else f"{name} (rho {correlation:+.2f})"
        panel.plot(means["reconstruction"], means["answers"], color=look.colour, marker=look.marker, label=label)
    panel.set_xlabel("reconstruction of the context (token accuracy)")
    panel.set_ylabel("its questions (F1)")
    return style.legend(figure)


def achieved(frame: DataFrame) -> Figure:
    """Achieved compression beside what was asked for (`frames.ratios`), a line a run, its middle context marked."""
    runs = frame.groupby("run", sort=False)["requested"].first().sort_values(kind="stable")
    figure, (panel,) = style.canvas(1.2 + 0.165 * len(runs))
    looks = style.looks(runs.index)
    for place, (name, requested) in enumerate(runs.items()):
        ratios, look = frame.loc[frame["run"] == name, "ratio"], looks[str(name)]
        panel.hlines(place, ratios.min(), ratios.max(), colors=look.colour, linewidth=3, alpha=0.45)
        panel.plot(np.median(ratios), place, "o", color=look.colour, label="_nolegend_")
        panel.plot(requested, place, "D", color=style.INK, markerfacecolor="none", markersize=5.5, label="requested")
    panel.plot([], [], "o", color=style.INK, label="achieved: the middle context")
    panel.plot([], [], color=style.INK, linewidth=3, alpha=0.45, label="least to greatest context")
    panel.set_yticks(range(len(runs)), [str(name) for name in runs.index])
    panel.set_ylim(len(runs) - 0.4, -0.6)
    panel.tick_params(axis="y", length=0)
    panel.grid(visible=False, axis="y")
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlabel("source tokens per position")
    return style.legend(figure)
