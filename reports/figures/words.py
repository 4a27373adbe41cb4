"""Figures in words, for readers who can't see them: the numbers of the frame, none but these."""

from __future__ import annotations

import pandas as pd


def over(frame: pd.DataFrame, series: str, x: str, y: str, at: str = "{:.3g}", digits: int = 1) -> str:
    """A sentence a series: its values in the order of x, or its first and last where there are many.

    Args:
        frame: What is drawn.
        series: Column that names them.
        x: Column of the axis; nan for a level line.
        y: Column of the values.
        at: How a place on the axis is written.
        digits: Of the values, after the point.
    """
    sentences = []
    for name, rows in frame.groupby(series, sort=False):
        rows = rows.sort_values(x)
        few = rows if len(rows) <= 6 else rows.iloc[[0, -1]]
        points = [
            f"{value:.{digits}f}" + (f" at {at.format(place)}" if place == place else "")
            for place, value in zip(few[x], few[y], strict=True)
        ]
        sentences.append(f"{name}: {', '.join(points)}.")
    return " ".join(sentences)


def spread(frame: pd.DataFrame, series: str, y: str, digits: int = 1) -> str:
    """A sentence a series: its least and greatest value."""
    ends = frame.groupby(series, sort=False)[y].agg(["min", "max"])
    return " ".join(f"{name}: {low:.{digits}f} to {high:.{digits}f}." for name, low, high in ends.itertuples())


def listed(frame: pd.DataFrame, series: str, kind: str, y: str, digits: int = 1) -> str:
    """A sentence a series: the value of each kind."""
    return " ".join(
        f"{name}: " + ", ".join(f"{row[kind]} {row[y]:.{digits}f}" for _, row in rows.iterrows()) + "."
        for name, rows in frame.groupby(series, sort=False)
    )
