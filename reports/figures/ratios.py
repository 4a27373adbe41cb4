"""What a rate really gives."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from pandas import DataFrame

from pcc_bench.reports.figures import style


@style.applied()
def achieved(frame: DataFrame) -> Figure:
    """Achieved compression over the context's length, a mark a context, with the requested rate as a level line.

    Args:
        frame: Columns `run` (label), `requested` (nan for none), `tokens` (of the context), `ratio` (achieved,
            boundary vectors counted).
    """
    figure, (panel,) = style.canvas(2.6)
    looks = style.looks(frame["run"])
    for name, rows in frame.groupby("run", sort=False):
        look = looks[str(name)]
        panel.scatter(
            rows["tokens"], rows["ratio"], s=12, marker=look.marker, c=look.colour, linewidths=0, alpha=0.6,
            label=str(name),
        )  # fmt: skip
        for rate in rows["requested"].dropna().unique():
            panel.axhline(rate, color=look.colour, linewidth=0.9, linestyle="--")
    panel.set_yscale("log", base=2)
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.set_xlabel("context (decoder tokens)")
    panel.set_ylabel("achieved compression")
    style.legend(figure, [panel])
    return figure
