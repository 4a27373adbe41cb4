"""Figures on disk: vectors, pixels, and the numbers they show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.figure
from pandas import DataFrame

from pcc_bench.core import escaping
from pcc_bench.core.documents import replaced, write_text
from pcc_bench.reports.figures.style import COLUMN, PAGE, Sheet, applied, drawn_for

FORMATS = ("svg", "pdf", "png")


@dataclass(frozen=True)
class Figure:
    """A figure that was written.

    Attributes:
        key: Name of its files.
        title: One line.
        alt: What it shows, for readers who can't see it.
        svg: Vector, text as shapes.
        pdf: Vector, for LaTeX.
        png: 300 dots an inch.
        csv: The data that is drawn.
        page: Vector, for a window: wider, its text larger.
    """

    key: str
    title: str
    alt: str
    svg: Path
    pdf: Path
    png: Path
    csv: Path
    page: Path


def save(
    draw: Callable[[DataFrame], matplotlib.figure.Figure], frame: DataFrame, key: str, title: str, alt: str, out: Path
) -> Figure:
    """Write a figure in all formats, and its data beside it; the same data gives the same bytes.

    Args:
        draw: Draws the frame, for the sheet in use.
        frame: What it shows.
        key: Name of the files.
        title: One line.
        alt: What it shows, in words.
        out: Folder, made where it is missing.
    """
    paths = {kind: out / f"{key}.{kind}" for kind in (*FORMATS, "csv")}
    wide = out / f"{key}-page.svg"
    _write(draw, frame, COLUMN, [paths[kind] for kind in FORMATS])
    _write(draw, frame, PAGE, [wide])
    safe = frame.map(lambda value: escaping.csv_cell(value) if isinstance(value, str) else value)
    write_text(paths["csv"], safe.to_csv(index=False, lineterminator="\n"))
    return Figure(key, title, alt, paths["svg"], paths["pdf"], paths["png"], paths["csv"], wide)


def _write(
    draw: Callable[[DataFrame], matplotlib.figure.Figure], frame: DataFrame, sheet: Sheet, paths: Sequence[Path]
) -> None:
    no_date = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    with drawn_for(sheet), applied():
        drawn = draw(frame)
        drawn.draw_without_rendering()
        drawn.set_layout_engine("none")  # it is laid out now, and once is enough
        for path in paths:
            kind = path.suffix.removeprefix(".")
            with replaced(path) as part:
                drawn.savefig(part, format=kind, metadata=no_date[kind])
