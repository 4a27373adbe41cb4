"""From lines and columns to a table: values, intervals, what is best, and what was published beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pcc_bench import stats
from pcc_bench.reports import measure, paper
from pcc_bench.reports.paper import Known
from pcc_bench.reports.table import Cell, Column, Published, Role, Row, Table
from pcc_bench.reports.tables.lines import FULL, NONE, ROLES, TUNED, Line, Score, Spec, label, provenance
from pcc_bench.reports.tables.notes import about, about_published, as_the_paper

ALPHA = 0.05


def build(
    key: str,
    title: str,
    lines: Sequence[Line],
    specs: Sequence[Spec],
    headline: str | None = None,
    aliases: dict[str, str] | None = None,
    notes: Iterable[str] = (),
) -> Table:
    """A table; columns in which nothing is known are left out.

    Args:
        key: As in `Table`; also of the published cells.
        title: As in `Table`.
        lines: Measured lines, in order; may be none.
        specs: Measured columns.
        headline: As in `Table`; dropped with its column.
        aliases: Published method -> method of our lines it is taken to be.
        notes: Sentences of this table alone.
    """
    known, again = ([_renamed(cell, aliases or {}) for cell in read(key)] for read in (paper.cells, paper.reruns))
    rows = [_with_ratio(line) for line in lines] + _published_rows(lines, [*known, *again])
    columns: list[tuple[Column, list[Cell]]] = []
    for spec in specs:
        scores = [_score(line, spec) for line in lines]
        cells = _ranked(rows, scores, spec) + [Cell()] * (len(rows) - len(lines))
        beside = [known_cell(known, row, spec.dataset, spec.metric, spec.shown) for row in rows]
        told = [c.model_copy(update={"paper": p}) for c, p in zip(cells, beside, strict=True)]
        columns.append((spec.column, _normalised(rows, told)))
    columns += [(column, cells) for spec in specs for column, cells in _reruns(spec, rows, again)]
    columns = [(column, cells) for column, cells in columns if not all(cell.empty for cell in cells)]
    keys = [column.key for column, _ in columns]
    used = {run.id: run for line in lines for run in line.runs}
    own = about(lines, columns)
    return Table(
        key=key,
        title=title,
        columns=tuple(column for column, _ in columns),
        rows=tuple(rows),
        cells=tuple(zip(*(cells for _, cells in columns), strict=True)) or ((),) * len(rows),
        headline=headline if headline in keys else None,
        comparable=bool(lines) and all(map(as_the_paper, lines)),
        notes=(*own, *about_published(lines, columns), *notes),
        own_notes=tuple(own),
        provenance=tuple(provenance(run) for run in used.values()),
    )


def _with_ratio(line: Line) -> Row:
    tasks = (next(run.tasks[name] for run in line.runs if name in run.tasks) for name in sorted(line.tasks))
    return line.row.model_copy(update={"ratio": measure.achieved(tasks)})


def known_cell(known: Sequence[Known], row: Row, dataset: str, metric: str, shown: str) -> Published | None:
    """What was published for a row, if anything was; a floor without demonstrations has one value for all columns."""
    wanted = {shown, "0"} if row.role == "floor" else {shown}
    return next(
        (
            cell.published
            for cell in known
            if (cell.dataset, cell.metric) == (dataset, metric) and cell.shown in wanted and _is_of(cell, row)
        ),
        None,
    )


def _is_of(cell: Known, row: Row) -> bool:
    """Is a published cell of this row's method and rate? A controlled run (another's memory) is nobody's method."""
    if row.method in (FULL, NONE):
        return cell.method == row.method
    return row.role == "method" and (cell.method, cell.rate) == (row.method, row.rate)


def _renamed(cell: Known, aliases: Mapping[str, str]) -> Known:
    return cell.model_copy(update={"method": aliases.get(cell.method, cell.method)})


def _published_rows(lines: Sequence[Line], known: Sequence[Known]) -> list[Row]:
    """A row for every published method and rate that no line has."""
    rows: dict[tuple[str, float | None], Row] = {}
    for cell in known:
        if any(_is_of(cell, line.row) for line in lines):
            continue
        role: Role = "ceiling" if cell.method == FULL else "floor" if cell.method == NONE else "method"
        rate = cell.rate if role == "method" else None
        name = label(cell.method, cell.rate)
        row = Row(key=f"published {name}", label=name, method=cell.method, rate=rate, role=role)
        rows.setdefault((cell.method, rate), row)
    return sorted(rows.values(), key=lambda row: (ROLES.index(row.role), row.rate or math.inf))


def _score(line: Line, spec: Spec) -> Score | None:
    """The score of a line; None where a part of it was not measured."""
    parts = []
    for alternatives in spec.tasks:
        task = next((task for task in alternatives if task in line.tasks), None)
        found = measure.measure(line.runs, task, spec.metric) if task else None
        if found is None:
            return None
        parts.append(found)
    return Score(tuple(parts))


def _ranked(rows: Sequence[Row], scores: Sequence[Score | None], spec: Spec) -> list[Cell]:
    """The cells of a column, the best method marked and those not told from it, where a test tells any from it."""
    cells = [score.cell() if score else Cell() for score in scores]
    rivals = {i: score for i, score in enumerate(scores) if score and rows[i].role == "method"}
    if len(rivals) < 2:
        return cells
    best = (max if spec.better == "higher" else min)(rivals, key=lambda i: rivals[i].value)
    p = {i: _difference(score, rivals[best]) for i, score in rivals.items() if i != best}
    tested = {i: value for i, value in p.items() if value is not None}
    adjusted = dict(zip(tested, stats.holm(list(tested.values())), strict=True)) if tested else {}
    if not any(value < ALPHA for value in adjusted.values()):
        return cells  # nothing is told from the best, so nothing stands out
    marks = {i: {"tied": value >= ALPHA} for i, value in adjusted.items()} | {best: {"best": True}}
    return [cell.model_copy(update=marks.get(i, {})) for i, cell in enumerate(cells)]


def _difference(one: Score, other: Score) -> float | None:
    """P-value of "the two are equal"; None where their rows do not pair."""
    pairs = zip(one.parts, other.parts, strict=True)
    difference = measure.combined([measure.compare(mine, theirs) for mine, theirs in pairs])
    return None if difference is None else measure.two_sided(difference)


def _normalised(rows: Sequence[Row], cells: Sequence[Cell]) -> list[Cell]:
    """Cells with their place between the floor and the ceiling of the same decoder, where both were measured.

    The ceiling of methods that were trained to answer is the full text with the same training, where it was measured.
    """
    ends: dict[tuple[str, str], float] = {}
    for row, cell in zip(rows, cells, strict=True):
        if row.method in (FULL, NONE, TUNED) and cell.value is not None:
            ends.setdefault((row.decoder, row.method), cell.value)
    made = []
    for row, cell in zip(rows, cells, strict=True):
        low, high = ends.get((row.decoder, NONE)), ends.get((row.decoder, TUNED), ends.get((row.decoder, FULL)))
        if cell.value is not None and low is not None and high is not None and low != high:
            cell = cell.model_copy(update={"normalised": 100 * (cell.value - low) / (high - low)})
        made.append(cell)
    return made


def _reruns(spec: Spec, rows: Sequence[Row], again: Sequence[Known]) -> Iterator[tuple[Column, list[Cell]]]:
    """A column for every later paper that measured what this one shows."""
    for name in dict.fromkeys(cell.rerun for cell in again):
        told = [cell for cell in again if cell.rerun == name]
        cells = [Cell(paper=known_cell(told, row, spec.dataset, spec.metric, spec.shown)) for row in rows]
        column = spec.column.model_copy(update={"key": f"{spec.key}.{name}", "source": name, "detail": False})
        yield column, cells
