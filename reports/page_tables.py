"""Tables as the page shows them: main column first, scores by toggle, rows by rate, a bar in the cell."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pcc_bench.reports.figures import style
from pcc_bench.reports.table import NAMES, PAPER, Cell, Column, Row, Table

DASH = "\u2013"
TOGGLED = ("f1", "exact_match", "contains")  # metrics of which a table shows one at a time, the first where it opens
REFERENCES = {"ceiling": "Ceiling", "floor": "Floor"}


@dataclass(frozen=True)
class CellView:
    text: str  # the value, or what is published where nothing was measured
    published: bool = False  # nothing was measured and the text is somebody else's
    sort: float | None = None  # what the column is sorted by
    bold: bool = False  # the best, or not told from it
    interval: str = ""  # of 95 %, in words
    bar: tuple[float, ...] = ()  # length of its bar, and ends of its interval on it, in percent; () for none
    details: tuple[str, ...] = ()  # shown when asked for
    beside: str = ""  # what was published of the same


@dataclass(frozen=True)
class Heading:
    """Of a column: `over` is its group, `metric` the toggle that it belongs to ("" for a column that always shows)."""

    name: str
    over: str = ""
    metric: str = ""
    published: bool = False


@dataclass(frozen=True)
class RowView:
    """A line as it is printed; `kind` is its class in the style sheet, `colour` its method's."""

    label: str
    kind: str
    colour: str
    cells: tuple[CellView, ...]


Part = tuple[Heading, list[CellView]]  # a column of the page and its cells, a row each


def table_view(table: Table) -> dict[str, Any]:
    """A table in print, as `report.html` takes it: its headings, rows in groups, toggles, and what can be asked for.

    What others published stands beside runs that can be compared with it, and nowhere else.
    """
    numbers = any(cell.value is not None for line in table.cells for cell in line)
    opened, offered = not table.measured, table.comparable or not numbers
    measured = [any(cell.value is not None or cell.text for cell in line) for line in table.cells]
    shown = [j for j, row in enumerate(table.rows) if opened or offered or row.runs or measured[j]]
    parts = [part for part in _parts(table, offered or opened) if any(part[1][j].text != DASH for j in shown)]
    looks = style.looks([row.label for row in table.rows])
    views = []
    for j in shown:
        row, cells = table.rows[j], tuple(cells[j] for _, cells in parts)
        kind = "published" if not row.runs and any(cell.published for cell in cells) else row.role
        colour = style.INK if row.role != "method" and row.rate is None else looks[row.label].colour
        views.append(RowView(row.label, kind, colour if row.method and kind != "published" else "", cells))
    metrics = [name for name in TOGGLED if any(heading.metric == name for heading, _ in parts)]
    theirs = any(row.kind == "published" or any(cell.beside for cell in row.cells) for row in views)
    return {
        "key": table.key,
        "title": table.title,
        "headings": [heading for heading, _ in parts],
        "groups": list(_groups([table.rows[j] for j in shown], views)),
        "metrics": [(name, NAMES[name]) for name in metrics] if len(metrics) > 1 else [],
        "offered": offered and not opened and theirs,  # published values can be asked for
        "opened": opened,  # they are all there is, and shown
        "detailed": any(cell.details for row in views for cell in row.cells),
        "notes": table.notes if offered or opened else table.own_notes,
    }


def _parts(table: Table, published: bool) -> list[Part]:
    """The columns: those of the headline's group, achieved compression, normalised, then all others."""
    keys = [column.key for column in table.columns]
    at = keys.index(table.headline) if table.headline in keys else None
    lead = [] if at is None else [at]
    if at is not None and _metric(table.columns[at]):
        group = table.columns[at].group
        lead = [j for j, c in enumerate(table.columns) if c.source is None and c.group == group and _metric(c)]
    several = len({_metric(column) for column in table.columns} - {""}) > 1

    def scores(places: Iterable[int]) -> Iterator[Part]:
        for j in places:
            column = table.columns[j]
            if column.source is None or published:
                name = column.name + (f" ({column.unit})" if column.unit else "")
                name += f", {column.source}" if column.source else ""
                heading = Heading(name, column.group, _metric(column) if several else "", column.source is not None)
                yield heading, [cell_view(line[j], column, table, published) for line in table.cells]

    parts = list(scores(lead))
    ratios = [row.ratio for row in table.rows]
    if any(ratio is not None for ratio in ratios):
        cells = [CellView(DASH if ratio is None else f"{ratio:.2f}x", sort=ratio) for ratio in ratios]
        parts.append((Heading("achieved", "compression"), cells))
    places = [line[at].normalised if at is not None else None for line in table.cells]
    if any(place is not None for place in places):
        full = max(100.0, *(place for place in places if place is not None))
        cells = [
            CellView(DASH) if place is None else CellView(f"{round(place)}", sort=place, bar=(_share(place, full),))
            for place in places
        ]
        parts.append((Heading("normalised", table.columns[at or 0].heading), cells))
    return parts + list(scores(j for j in range(len(keys)) if j not in lead))


def _metric(column: Column) -> str:
    """The toggle of a column; "" for none."""
    name = column.key.partition(".")[2].partition(".")[0]
    return name if name in TOGGLED else ""


def cell_view(cell: Cell, column: Column, table: Table, published: bool) -> CellView:
    """A cell in print, with a bar as long as its percentage, and what others published where that may be shown."""
    paper = cell.paper if published else None
    if cell.value is None:
        text = cell.text or (paper.printed if paper else DASH)
        return CellView(text, paper is not None and not cell.text, paper.value if paper else None)
    known = cell.low is not None and cell.high is not None
    ends = (cell.value, cell.low, cell.high) if known else (cell.value,)
    details = [] if cell.n is None else [f"n {cell.n:,}"]
    details += [f"{cell.seeds} seeds"] if cell.seeds > 1 else []
    details += [] if cell.ratio is None else [f"{cell.ratio:.2f}x achieved"]
    details += [] if cell.normalised is None else [f"{cell.normalised:.0f} of 100"]
    beside = f"{column.source or PAPER} {paper.printed} ({paper.certainty})" if paper else ""
    if paper and table.comparable and cell.difference is not None:
        beside += f", ours {cell.difference:+.{column.digits}f}"
    return CellView(
        text=f"{cell.value:.{column.digits}f}",
        sort=cell.value,
        bold=cell.best or cell.tied,
        interval=f"{cell.low:.{column.digits}f} to {cell.high:.{column.digits}f}" if known else "",
        bar=tuple(_share(end, 100.0) for end in ends if end is not None and column.unit == "%" and not column.source),
        details=tuple(details),
        beside=beside,
    )


def _share(value: float, largest: float) -> float:
    return round(min(max(100 * value / largest, 0.0), 100.0), 1)


def _groups(rows: Sequence[Row], views: Sequence[RowView]) -> Iterator[tuple[str, list[RowView]]]:
    """Rows by requested rate where there are several rates; references stand apart, what is published last."""
    rates = {row.rate for row in rows if row.role == "method" and row.rate is not None}

    def heading(pair: tuple[Row, RowView]) -> str:
        row, view = pair
        if len(rates) < 2:
            return ""
        if view.kind == "published":
            return "Published"
        return REFERENCES.get(row.role, "No rate" if row.rate is None else f"{row.rate:g}x requested")

    for name, group in groupby(zip(rows, views, strict=True), key=heading):
        yield name, [view for _, view in group]
