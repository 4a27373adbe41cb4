"""The report as one HTML page: no network, no framework, everything inside; it can be mailed."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pcc_bench.core import escaping
from pcc_bench.core.documents import write_text
from pcc_bench.reports.browser import Browser, embed
from pcc_bench.reports.cards import Card, method_facts, source_facts
from pcc_bench.reports.figures import Figure
from pcc_bench.reports.figures.draw import axis_label
from pcc_bench.reports.figures.frames import in_order, names
from pcc_bench.reports.figures.style import GRID, INK
from pcc_bench.reports.table import Cell, Column, Row, Table
from pcc_bench.results.collection import Results
from pcc_bench.results.run import Run

TITLE = "pcc_bench report"
DASH = "\u2013"
# The page's colours change with the reader's; a figure's ink, grid and paper go with them.
THEMED = {INK: "var(--figure-ink)", GRID: "var(--figure-grid)", "#ffffff": "var(--paper)"}


@dataclass(frozen=True)
class CellView:
    """A cell as it is printed; `published` where nothing was measured and the text is somebody else's."""

    text: str
    published: bool
    sort: float | None
    bold: bool
    interval: str
    details: tuple[str, ...]


@dataclass(frozen=True)
class RowView:
    """A line as it is printed; `kind` is its class in the style sheet."""

    label: str
    kind: str
    cells: tuple[CellView, ...]


@dataclass(frozen=True)
class TableView:
    """A table as it is printed; `groups` are headings over several columns, with their number."""

    key: str
    title: str
    groups: tuple[tuple[str, int], ...]
    headings: tuple[str, ...]
    rows: tuple[RowView, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class FigureView:
    """A figure with its vectors and data inside."""

    key: str
    title: str
    alt: str
    svg: Markup
    csv: str


@dataclass(frozen=True)
class View:
    """All that the template prints."""

    title: str
    subtitle: str
    counts: tuple[tuple[str, str], ...]
    headlines: tuple[str, ...]
    notes: tuple[str, ...]
    tables: tuple[TableView, ...]
    figures: tuple[FigureView, ...]
    browser: Browser
    cards: tuple[Card, ...]
    provenance: tuple[Card, ...]


def write(results: Results, tables: Sequence[Table], figures: Sequence[Figure], out: Path) -> Path:
    """Write `index.html`.

    Args:
        results: What was read.
        tables: In the order of the page.
        figures: As drawn.
        out: Folder, made where it is missing.

    Returns:
        The page.

    Raises:
        UsageError: The folder can't be written to.
    """
    path = out / "index.html"
    write_text(path, render(view(results, tables, figures)))
    return path


def view(results: Results, tables: Sequence[Table], figures: Sequence[Figure]) -> View:
    """Everything the page says, as text."""
    called = names(results.runs)
    runs = in_order(results.runs)
    return View(
        title=TITLE,
        subtitle=_subtitle(results.runs),
        counts=_counts(results, tables, figures),
        headlines=tuple(filter(None, map(headline, tables))),
        notes=results.notes,
        tables=tuple(table_view(table) for table in tables),
        figures=tuple(figure_view(figure) for figure in figures),
        browser=embed(results),
        cards=tuple(Card(called[run.id], method_facts(run)) for run in runs),
        provenance=tuple(Card(called[run.id], source_facts(run)) for run in runs),
    )


def render(shown: View) -> str:
    """The page. Whatever comes from results is escaped; only our own script may run, and nothing is loaded."""
    script, style = _template("report.js"), _template("report.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _environment().get_template("report.html").render(
        view=shown, script=Markup(script), style=Markup(style), script_hash=f"sha256-{digest}"
    )  # fmt: skip


@cache
def _environment() -> Environment:
    loader = PackageLoader("pcc_bench.reports", "templates")
    return Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: escaping.visible(value) if type(value) is str else value,  # no control characters
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _template(name: str) -> str:
    return _environment().loader.get_source(_environment(), name)[0]  # type: ignore[union-attr]


# ---------------------------------------------------------------- overview


def _subtitle(runs: Sequence[Run]) -> str:
    sources = _distinct(task.population.source for run in runs for task in run.tasks.values())
    decoders = _distinct(Path(run.decoder).name for run in runs)
    parts = [f"data: {', '.join(sources)}" if sources else "", f"decoder: {', '.join(decoders)}" if decoders else ""]
    return "; ".join(part for part in parts if part) or "published numbers only"


def _counts(results: Results, tables: Sequence[Table], figures: Sequence[Figure]) -> tuple[tuple[str, str], ...]:
    tasks = [task for run in results.runs for task in run.tasks.values()]
    counts = {
        "runs": len(results.runs),
        "methods": len({run.method for run in results.runs}),
        "tasks": len({task.name for task in tasks}),
        "scored rows": sum(task.scored for task in tasks),
        "training logs": len(results.trainings),
        "tables": len(tables),
        "figures": len(figures),
    }
    return tuple((name, f"{count:,}") for name, count in counts.items() if count)


def headline(table: Table) -> str:
    """The measured cells of a table's main column in one sentence; "" where there are none."""
    column = next((column for column in table.columns if column.key == table.headline), None)
    if column is None:
        return ""
    measured = [(row, table.cell(row.key, column.key)) for row in table.rows if row.runs]
    said = [
        f"{row.label} {cell.value:.{column.digits}f}{' (best)' if cell.best else ''}"
        for row, cell in measured
        if cell.value is not None
    ]
    return f"{table.title}. {axis_label(column)}: {', '.join(said)}." if said else ""


# ---------------------------------------------------------------- tables


def table_view(table: Table) -> TableView:
    """A table in print."""
    groups = tuple((group, len(list(columns))) for group, columns in groupby(column.group for column in table.columns))
    rows = tuple(_row(row, cells, table) for row, cells in table.lines())
    headings = tuple(_heading(column) for column in table.columns)
    return TableView(table.key, table.title, groups, headings, rows, table.notes)


def _heading(column: Column) -> str:
    unit = f" ({column.unit})" if column.unit else ""
    return f"{column.name}{unit}" + (f", {column.source}" if column.source else "")


def _row(row: Row, cells: Sequence[Cell], table: Table) -> RowView:
    kind = row.role if row.role != "method" or row.runs else "published"
    shown = tuple(cell_view(cell, column, table) for cell, column in zip(cells, table.columns, strict=True))
    return RowView(row.label, kind, shown)


def cell_view(cell: Cell, column: Column, table: Table) -> CellView:
    """A cell in print: the measured value, or what is published where nothing was measured."""
    number = cell.value if cell.value is not None else cell.paper.value if cell.paper else None
    text = cell.text or DASH
    if cell.value is not None:
        text = f"{cell.value:.{column.digits}f}"
    elif cell.paper:
        text = cell.paper.printed
    interval = ""
    if cell.low is not None and cell.high is not None:
        interval = f"{cell.low:.{column.digits}f} to {cell.high:.{column.digits}f}"
    return CellView(
        text,
        cell.value is None and cell.paper is not None,
        number,
        cell.best or cell.tied,
        interval,
        tuple(_details(cell, column, table)),
    )


def _details(cell: Cell, column: Column, table: Table) -> Iterable[str]:
    if cell.n is not None:
        yield f"n {cell.n:,}"
    if cell.seeds > 1:
        yield f"{cell.seeds} seeds"
    if cell.ratio is not None:
        yield f"{cell.ratio:.2f}x achieved"
    if cell.normalised is not None:
        yield f"{cell.normalised:.0f} of 100"
    if cell.paper and cell.value is not None:
        yield f"{column.source or 'paper'} {cell.paper.printed}"
        if table.comparable and cell.difference is not None:
            yield f"difference {cell.difference:+.{column.digits}f}"
    if cell.paper:
        yield f"certainty {cell.paper.certainty}"


# ---------------------------------------------------------------- figures


def figure_view(figure: Figure) -> FigureView:
    """A figure with its files inside."""
    data = base64.b64encode(figure.csv.read_bytes()).decode()
    svg = inline_svg(figure.svg.read_text(encoding="utf-8"), figure.key)
    image = Markup('<svg role="img" aria-label="{}"').format(escaping.visible(f"{figure.title}. {figure.alt}"))
    return FigureView(
        figure.key, figure.title, figure.alt, Markup(svg.replace("<svg", image, 1)), f"data:text/csv;base64,{data}"
    )


def inline_svg(text: str, key: str) -> str:
    """A vector file as an element of the page: ids of its own, the page's colours, no size of its own."""
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{key}-", text)
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )
    for colour, variable in THEMED.items():
        text = text.replace(colour, variable)
    return text


def _distinct(values: Iterable[Any]) -> list[str]:
    return sorted({str(value) for value in values if value})
