"""The sentences under a table: what its numbers are of, and what they can be compared with."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pcc_bench.reports.ceiling import ceilings
from pcc_bench.reports.table import Cell, Column
from pcc_bench.reports.tables.lines import Line

PAPERS_DECODER = re.compile(r"llama-?3-?8b", re.IGNORECASE)
CERTAINTIES = {
    "C": "official code or figure",
    "Q": "quoted by a later paper",
    "Q?": "presumed to be the paper's, not verified",
    "B": "a summary of the PDF",
    "Q+B": "both of these",
}
INTERVALS = (
    "[low, high]: 95 % interval, contexts being what is drawn. Bold: the best method, and those that a paired test "
    "(5 %, Holm) does not tell from it; ceilings and floors do not compete."
)
NORMALISED = "normalised: 0 is no context, 100 the full context."
ELSEWHERE = "Published values are of other data or another decoder than the measured ones: compare shapes only."
Columns = Sequence[tuple[Column, Sequence[Cell]]]


def as_the_paper(line: Line) -> bool:
    """Was a line measured with the paper's decoder, on rows from the hub?"""
    sources = {run.tasks[task].population.source for run in line.runs for task in line.tasks & set(run.tasks)}
    return sources == {"hub"} and bool(PAPERS_DECODER.search(line.row.decoder))


def about(lines: Sequence[Line], columns: Columns) -> list[str]:
    """What the measured numbers are.

    Args:
        lines: Measured lines.
        columns: All columns with their cells.
    """
    notes = [INTERVALS] if lines else []
    if any(cell.normalised is not None for _, cells in columns for cell in cells):
        notes.append(NORMALISED)
    runs = [run for line in lines for run in line.runs]
    warnings = ceilings(runs, frozenset(task for line in lines for task in line.tasks))
    return [*warnings, *notes, *_counts(columns), *_bare(lines)]


def _counts(columns: Columns) -> list[str]:
    """Rows and contexts of each group of columns."""
    counts: dict[str, dict[str, None]] = {}
    for column, cells in columns:
        for cell in cells:
            if cell.n is not None:
                on = f" on {cell.contexts:,} contexts" if cell.contexts is not None else ""
                seeds = f", mean of {cell.seeds} seeds" if cell.seeds > 1 else ""
                counts.setdefault(column.group, {})[f"{cell.n:,} rows{on}{seeds}"] = None
    return [f"{group}: {' or '.join(says)}." for group, says in counts.items()]


def _bare(lines: Sequence[Line]) -> list[str]:
    """The runs whose samples are not there."""
    asked = [(run, task) for line in lines for run in line.runs for task in run.tasks if task in line.tasks]
    bare = sorted({run.id for run, task in asked if not run.tasks[task].logged})
    what = "intervals are from lm-eval's standard errors, and nothing is tested."
    return [f"No samples of {', '.join(bare)}: {what}"] if bare else []


def about_published(lines: Sequence[Line], columns: Columns) -> list[str]:
    """What the marks of published values mean, and who the later papers are."""
    told = [(column.source, cell.paper) for column, cells in columns for cell in cells if cell.paper]
    marks = {published.certainty for source, published in told if source is None}
    says = "; ".join(f"{mark}: {CERTAINTIES[mark]}" for mark in CERTAINTIES if mark in marks)
    notes = [f"The paper's values with their certainty: {says}."] if says else []
    notes += [f"{source}: {where}." for source, where in sorted({(s, p.source) for s, p in told if s is not None})]
    return [*notes, ELSEWHERE] if told and lines and not all(map(as_the_paper, lines)) else notes
