"""Figures of single tasks: needles found, words lost, contexts reconstructed and asked about, rates achieved."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from pandas import DataFrame

from pcc_bench.reports.figures import style

PALE = "#fefefe"  # white, but not the paper's: a page in dark mode turns only the paper dark


@style.applied()
def heat_map(frame: DataFrame) -> Figure:
    """Share of needles found by depth and length (`frames.needles`), a panel a method, the percentage in each cell."""
    names = list(dict.fromkeys(frame["method"]))
    columns = min(len(names), 2)
    lines = -(-len(names) // columns)
    depths, lengths = sorted(frame["depth"].unique()), sorted(frame["length"].unique())
    figure, panels = style.canvas(0.75 + lines * (0.35 + 0.17 * len(depths)), lines, columns, sharex=True, sharey=True)
    for panel, name in zip(panels, names, strict=False):
        cells = frame[frame["method"] == name].pivot(index="depth", columns="length", values="value")
        cells = cells.reindex(index=depths, columns=lengths)
        edges = (np.arange(len(lengths) + 1) - 0.5, np.arange(len(depths) + 1) - 0.5)
        panel.pcolormesh(
            *edges, cells.to_numpy(dtype=float), cmap="cividis", vmin=0, vmax=1, edgecolors=style.PAPER, linewidth=1
        )
        panel.set_ylim(len(depths) - 0.5, -0.5)  # the beginning of the context is on top
        for (line, column), value in ((place, cells.iloc[place]) for place in np.ndindex(len(depths), len(lengths))):
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


@style.applied()
def classes(frame: DataFrame) -> Figure:
    """Share of words of each class that a reconstruction gets wrong (`frames.errors`), a bar a method."""
    kinds, methods = list(dict.fromkeys(frame["kind"])), list(dict.fromkeys(frame["method"]))
    thick = 0.8 / len(methods)
    figure, (panel,) = style.canvas(0.9 + 0.11 * len(kinds) * (len(methods) + 1))
    looks = style.looks(methods)
    for number, name in enumerate(methods):
        rows = frame[frame["method"] == name].set_index("kind").reindex(kinds)
        heights = np.arange(len(kinds)) + (number - (len(methods) - 1) / 2) * thick
        look = looks[name]
        panel.barh(
            heights, rows["value"], 0.9 * thick, facecolor=look.colour, edgecolor="white", hatch=look.hatch, label=name,
            linewidth=0,
        )  # fmt: skip
        panel.hlines(heights, rows["low"], rows["high"], colors=style.INK, linewidth=0.9)
    panel.set_yticks(range(len(kinds)), kinds)
    panel.tick_params(axis="y", length=0)
    panel.invert_yaxis()
    panel.grid(visible=False, axis="y")
    panel.set_xlim(left=0)
    panel.set_xlabel("wrong in the reconstruction (%)")
    style.legend(figure, [panel])
    return figure


GROUPS = 5


@style.applied()
def reconstruction_and_answers(frame: DataFrame, reconstruction: str, answers: str) -> Figure:
    """Each context's answers over its reconstruction (`frames.pairs`), and means of equal shares of the contexts."""
    figure, (panel,) = style.canvas(2.6)
    looks = style.looks(frame["method"])
    for name, rows in frame.groupby("method", sort=False):
        look = looks[str(name)]
        panel.scatter(rows["reconstruction"], rows["answers"], s=5, c=look.colour, alpha=0.25, linewidths=0)
        ranked = rows.sort_values("reconstruction", kind="stable")
        shares = [ranked.iloc[part] for part in np.array_split(np.arange(len(ranked)), min(GROUPS, len(ranked)))]
        means = DataFrame([share[["reconstruction", "answers"]].mean() for share in shares])
        correlation = rows["reconstruction"].corr(rows["answers"], method="spearman")
        label = str(name) if np.isnan(correlation) else f"{name} (rho {correlation:+.2f})"
        panel.plot(means["reconstruction"], means["answers"], color=look.colour, marker=look.marker, label=label)
    panel.set_xlabel(f"reconstruction of the context ({reconstruction})")
    panel.set_ylabel(f"its questions ({answers})")
    style.legend(figure, [panel])
    return figure


@style.applied()
def achieved(frame: DataFrame) -> Figure:
    """Achieved compression beside what was asked for (`frames.ratios`), a line a run, its middle context marked."""
    runs = frame.groupby("run", sort=False)["requested"].first().sort_values(kind="stable")
    figure, (panel,) = style.canvas(1.2 + 0.165 * len(runs))
    looks = style.looks(runs.index)
    for place, (name, requested) in enumerate(runs.items()):
        ratios, look = frame.loc[frame["run"] == name, "ratio"], looks[str(name)]
        panel.hlines(place, ratios.min(), ratios.max(), colors=look.colour, linewidth=3, alpha=0.45)
        panel.plot(np.median(ratios), place, color=look.colour, marker="o", linestyle="none", label="_nolegend_")
        panel.plot(
            requested, place, color=style.INK, marker="D", markerfacecolor="none", markersize=5.5, linestyle="none",
            label="requested",
        )  # fmt: skip
    panel.plot([], [], color=style.INK, marker="o", linestyle="none", label="achieved: the middle context")
    panel.plot([], [], color=style.INK, linewidth=3, alpha=0.45, label="least to greatest context")
    panel.set_yticks(range(len(runs)), [str(name) for name in runs.index])
    panel.set_ylim(len(runs) - 0.4, -0.6)
    panel.tick_params(axis="y", length=0)
    panel.grid(visible=False, axis="y")
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlabel("source tokens per position")
    style.legend(figure, [panel])
    return figure
