"""Training curves."""

from __future__ import annotations

from matplotlib.figure import Figure
from pandas import DataFrame

from pcc_bench.reports.figures import palette, style


@style.applied()
def curves(frame: DataFrame) -> Figure:
    """What is measured while training, a panel a measure, a line a run.

    Args:
        frame: Columns `run` (label), `step`, `measure` (label of the panel's axis), `value`.
    """
    measures = list(dict.fromkeys(frame["measure"]))
    figure, panels = style.canvas(0.5 + 1.25 * len(measures), len(measures), sharex=True)
    looks = palette.looks(frame["run"])
    for panel, measure in zip(panels, measures, strict=True):
        for run, rows in frame[frame["measure"] == measure].groupby("run", sort=False):
            rows = rows.sort_values("step")
            look = looks[str(run)]
            every = max(1, len(rows) // 6)
            panel.plot(
                rows["step"], rows["value"], color=look.colour, marker=look.marker, markevery=every, label=str(run)
            )
        panel.set_ylabel(measure)
    panels[-1].set_xlabel("training step")
    style.legend(figure, panels)
    return figure
