"""Does a memory that can be read out also answer?"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame

from pcc_bench.reports.figures import palette, style

GROUPS = 5


@style.applied()
def reconstruction_and_answers(frame: DataFrame, reconstruction: str, answers: str) -> Figure:
    """Each context's answers over its reconstruction, and the means of equal shares of the contexts.

    Args:
        frame: Columns `method`, `reconstruction` and `answers`, a row a context.
        reconstruction: Name of the first score, for the axis.
        answers: Name of the second.
    """
    figure, (panel,) = style.canvas(2.6)
    looks = palette.looks(frame["method"])
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
