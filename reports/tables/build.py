"""From lines and columns to a table: values, intervals, what is best, and what was published (`paper.yaml`)."""

import math
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from pcc_bench import stats
from pcc_bench.core.documents import read_yaml
from pcc_bench.reports import measure
from pcc_bench.reports.measure import Measure
from pcc_bench.reports.table import Cell, Column, Published, Role, Row, Table
from pcc_bench.reports.tables import FULL, NONE, ROLES, TUNED, Line, Spec, cell_of, label
from pcc_bench.reports.words import about, about_published, as_the_paper

ALPHA = 0.05
FILE = Path(__file__).parents[1] / "paper.yaml"


class Known(NamedTuple):
    table: str  # of ours that it belongs to
    dataset: str  # `squad`, ..., or `average`
    metric: str  # as in our results
    method: str  # of the registry; `pcc-lite` and `pcc-large` where the source says which, else `pcc`
    rate: float | None  # source tokens per slot; None where it is not known or there is none
    shown: str  # what stands before the question: tokens of demonstrations, shots; "" where nothing does
    published: Published
    rerun: str  # the later paper that measured it; "" for the paper itself


@cache
def paper_data() -> dict[str, Any]:
    return dict(read_yaml(FILE))


def published(table: str | None = None, part: str = "paper") -> list[Known]:
    """What the paper is known to print, or what later papers measured (part `reruns`), of one table or of all."""
    known = []
    for line in paper_data()[part]:
        place, (value, certainty, source, *printed) = line[:6], line[6:]
        if table in (None, place[0]):
            text, where = str(printed[0]) if printed else f"{value:.2f}", paper_data()["sources"][source]
            number = Published(value=value, printed=text, certainty=certainty, source=where)
            known.append(Known(*(*place, number, source if part == "reruns" else "")))
    return known


def build(
    key: str,
    title: str,
    lines: Sequence[Line],
    specs: Sequence[Spec],
    headline: str | None = None,
    aliases: dict[str, str] | None = None,  # published method -> method of our lines it is taken to be
    notes: Iterable[str] = (),
) -> Table:
    """A table of measured lines (there may be none); columns in which nothing is known are left out."""
    known: dict[str, list[Known]] = {"": []}  # by the paper that says it
    for cell in (*published(key), *published(key, "reruns")):
        method = (aliases or {}).get(cell.method, cell.method)
        known.setdefault(cell.rerun, []).append(cell._replace(method=method))
    rows = []
    for line in lines:
        tasks = (next(run.tasks[name] for run in line.runs if name in run.tasks) for name in sorted(line.tasks))
        rows.append(line.row.model_copy(update={"ratio": measure.achieved(tasks)}))
    rows += _published_rows(lines, list(chain(*known.values())))
    of_paper = known.pop("")
    columns: list[tuple[Column, list[Cell]]] = []
    for spec in specs:
        cells = _ranked(rows, [spec.measured(line) for line in lines], spec) + [Cell()] * (len(rows) - len(lines))
        beside = [known_cell(of_paper, row, spec) for row in rows]
        cells = [cell.model_copy(update={"paper": value}) for cell, value in zip(cells, beside, strict=True)]
        columns.append((spec.column, _normalised(rows, cells)))
    for spec in specs:  # a column for every later paper that measured what this one shows
        for name, again in known.items():
            column = spec.column.model_copy(update={"key": f"{spec.key}.{name}", "source": name, "detail": False})
            columns.append((column, [Cell(paper=known_cell(again, row, spec)) for row in rows]))
    columns = [(column, cells) for column, cells in columns if not all(cell.empty for cell in cells)]
    own = about(lines, columns)
    return Table(
        key=key,
        title=title,
        columns=tuple(column for column, _ in columns),
        rows=tuple(rows),
        cells=tuple(zip(*(cells for _, cells in columns), strict=True)) or ((),) * len(rows),
        headline=headline if any(column.key == headline for column, _ in columns) else None,
        comparable=bool(lines) and all(map(as_the_paper, lines)),
        notes=(*own, *about_published(lines, columns), *notes),
        own_notes=tuple(own),
    )


def known_cell(known: Iterable[Known], row: Row, spec: Spec) -> Published | None:
    """What was published for a row, if anything was; a floor without demonstrations has one value for all columns."""
    shown = {spec.shown, "0"} if row.role == "floor" else {spec.shown}
    score = (spec.key.partition(".")[0], spec.metric)
    cells = (cell for cell in known if (cell.dataset, cell.metric) == score and cell.shown in shown)
    return next((cell.published for cell in cells if _is_of(cell, row)), None)


def _is_of(cell: Known, row: Row) -> bool:
    """Is a published cell of this row's method and rate? A controlled run (another's memory) is nobody's method."""
    if row.method in (FULL, NONE):
        return cell.method == row.method
    return row.role == "method" and (cell.method, cell.rate) == (row.method, row.rate)


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


def _ranked(rows: Sequence[Row], scores: Sequence[Sequence[Measure]], spec: Spec) -> list[Cell]:
    """The cells of a column, the best method marked and those not told from it, where a test tells any from it."""
    cells = list(map(cell_of, scores))
    rivals = {i: cell.value for i, cell in enumerate(cells) if cell.value is not None and rows[i].role == "method"}
    if len(rivals) < 2:
        return cells
    best = (max if spec.better == "higher" else min)(rivals, key=rivals.__getitem__)
    tested: dict[int, float] = {}  # p-values of "the two are equal", of those whose rows pair
    for i in (i for i in rivals if i != best):
        difference = measure.combined(list(map(measure.compare, scores[i], scores[best])))
        if difference is not None:
            tested[i] = measure.two_sided(difference)
    adjusted = dict(zip(tested, stats.holm(list(tested.values())), strict=True)) if tested else {}
    if not any(value < ALPHA for value in adjusted.values()):
        return cells  # nothing is told from the best, so nothing stands out
    marks = {i: {"tied": value >= ALPHA} for i, value in adjusted.items()} | {best: {"best": True}}
    return [cell.model_copy(update=marks.get(i, {})) for i, cell in enumerate(cells)]


def _normalised(rows: Sequence[Row], cells: Sequence[Cell]) -> list[Cell]:
    """Cells with their place between the floor and the ceiling of the same decoder, where both were measured.

    The ceiling of methods that were trained to answer is the full text with the same training, where it was measured.
    There is no place between ends whose intervals overlap: a task that the decoder can't do has no scale.
    """
    ends: dict[tuple[str, str], tuple[float, float, float]] = {}  # value, low and high end of its interval
    for row, cell in zip(rows, cells, strict=True):
        if row.method in (FULL, NONE, TUNED) and (value := cell.value) is not None:
            low, high = (value if end is None else end for end in (cell.low, cell.high))
            ends.setdefault((row.decoder, row.method), (value, low, high))
    placed = []
    for row, cell in zip(rows, cells, strict=True):
        floor, ceiling = ends.get((row.decoder, NONE)), ends.get((row.decoder, TUNED), ends.get((row.decoder, FULL)))
        if cell.value is not None and floor and ceiling and (floor[2] < ceiling[1] or ceiling[2] < floor[1]):
            place = 100 * (cell.value - floor[0]) / (ceiling[0] - floor[0])
            cell = cell.model_copy(update={"normalised": place})
        placed.append(cell)
    return placed
