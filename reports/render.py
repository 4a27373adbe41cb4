"""Tables as Markdown, LaTeX and CSV: three ways to print one object, with the same numbers."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pcc_bench.core import escaping
from pcc_bench.core.texttable import TextTable
from pcc_bench.reports.table import PAPER, Cell, Column, Row, Table

DASH = "-"
FIELDS = ("value", "low", "high", "n", "contexts", "seeds", "ratio", "normalised", "best", "tied")


@dataclass(frozen=True)
class Printed:
    """A printed column: where its text comes from.

    Attributes:
        group: As in `table.Column`.
        name: Its heading.
        text: A row and its cells -> text and whether it is bold.
    """

    group: str
    name: str
    text: Callable[[Row, Sequence[Cell]], tuple[str, bool]]


class Part(StrEnum):
    """What of a table is printed."""

    MEASURED = "measured"  # our numbers alone
    BESIDE = "beside"  # ours, and the paper's beside them
    RERUNS = "reruns"  # later papers' runs of the same methods


RERUNS = "Later papers' own runs, of other data and decoders"


def markdown(table: Table) -> str:
    """A Markdown table under its title, with its notes; later papers' runs in a table of their own."""
    body = [f"## {table.title}", _markdown(table, Part.BESIDE)]
    if has_reruns(table):
        body += [f"{RERUNS}:", _markdown(table, Part.RERUNS)]
    return "\n\n".join([*body, *_listed(table.notes)]) + "\n"


def brief(table: Table) -> str:
    """What was measured as a Markdown table, with its notes: for a README."""
    return "\n\n".join([_markdown(table, Part.MEASURED), *_listed(table.own_notes)]) + "\n"


def latex(table: Table) -> str:
    r"""`table*` environments with booktabs; the document needs `\usepackage{booktabs}` and `\usepackage{graphicx}`."""
    text = _latex(table, Part.BESIDE, f"{table.title}. {' '.join(table.notes)}", table.key)
    if has_reruns(table):
        text += "\n" + _latex(table, Part.RERUNS, f"{table.title}. {RERUNS}.", f"{table.key}-reruns")
    return text


def has_reruns(table: Table) -> bool:
    """Did later papers measure anything in it?"""
    return any(map(_is_rerun, table.columns))


def document(tables: Sequence[Table]) -> str:
    """A LaTeX document that shows the `.tex` files of tables beside it."""
    head = [r"\documentclass{article}", r"\usepackage[landscape,margin=1.5cm]{geometry}", r"\usepackage{booktabs}"]
    head += [r"\usepackage{graphicx}", r"\begin{document}"]
    return "\n".join([*head, *(rf"\input{{{table.key}.tex}}" for table in tables), r"\end{document}"]) + "\n"


def as_csv(table: Table) -> str:
    """A line a cell in which anything is known, with everything that is known."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    published = ("published", "published_as", "certainty", "source")
    writer.writerow(
        ("row", "method", "rate", "role", "decoder", "column", "heading", "unit", *FIELDS, *published, "text")
    )
    for row, cells in table.lines():
        for column, cell in zip(table.columns, cells, strict=True):
            if cell.empty:
                continue
            paper = cell.paper
            told = (paper.value, paper.printed, paper.certainty, paper.source) if paper else ("",) * len(published)
            where = (row.label, row.method, row.rate, row.role, row.decoder, column.key, column.heading, column.unit)
            numbers = ["" if getattr(cell, field) is None else getattr(cell, field) for field in FIELDS]
            texts = (*where, *numbers, *told, cell.text or "")
            writer.writerow([escaping.csv_cell(value) if isinstance(value, str) else value for value in texts])
    return out.getvalue()


def printed(table: Table, part: Part) -> list[Printed]:
    """The columns as they are printed: the line's name, achieved compression, scores, published values, normalised."""
    columns = [Printed("", "", lambda row, cells: (row.label, False))]
    if part is not Part.RERUNS and any(row.ratio is not None for row in table.rows):
        columns.append(Printed("", "achieved", lambda row, _: (f"{row.ratio:.2f}x" if row.ratio else DASH, False)))
    for j, column in enumerate(table.columns):
        cells = [line[j] for line in table.cells]
        ours = any(cell.value is not None or cell.text for cell in cells)
        if column.detail or _is_rerun(column) != (part is Part.RERUNS):
            continue
        if ours:
            columns.append(_measured(j, column))
        if part is not Part.MEASURED and any(cell.paper for cell in cells):
            columns.append(_published(j, column, table.comparable))
    keys = [column.key for column in table.columns]
    at = keys.index(table.headline) if table.headline in keys else None
    if part is not Part.RERUNS and at is not None and any(line[at].normalised is not None for line in table.cells):
        columns.append(_place(at))
    return columns


def _is_rerun(column: Column) -> bool:
    return column.source not in (None, PAPER)


def _lines(table: Table, part: Part) -> list[tuple[Row, tuple[Cell, ...]]]:
    """The lines that say something in this part."""
    of = [_is_rerun(column) for column in table.columns]
    kept = []
    for row, cells in table.lines():
        mine = [cell for cell, again in zip(cells, of, strict=True) if again == (part is Part.RERUNS)]
        if any(not cell.empty if part is not Part.MEASURED else cell.value is not None or cell.text for cell in mine):
            kept.append((row, cells))
    return kept


def _markdown(table: Table, part: Part) -> str:
    columns = printed(table, part)
    rows = []
    for row, cells in _lines(table, part):
        told = [column.text(row, cells) for column in columns]
        rows.append(tuple(f"**{text}**" if bold else text for text, bold in told))
    return TextTable(tuple(f"{column.group} {column.name}".strip() for column in columns), tuple(rows)).markdown()


def _listed(notes: Sequence[str]) -> list[str]:
    return ["\n".join(f"- {escaping.markdown(note)}" for note in notes)] if notes else []


def _latex(table: Table, part: Part, caption: str, mark: str) -> str:
    columns = printed(table, part)
    lines = [r"\begin{table*}", r"\centering", r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%"]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}", r"\toprule", *_groups(columns)]
    lines += [" & ".join(escaping.latex(column.name) for column in columns) + r" \\", r"\midrule"]
    before: str | None = None
    for row, cells in _lines(table, part):
        if before not in (None, row.role):
            lines.append(r"\midrule")
        before = row.role
        told = [column.text(row, cells) for column in columns]
        lines.append(
            " & ".join(rf"\textbf{{{escaping.latex(t)}}}" if bold else escaping.latex(t) for t, bold in told) + r" \\"
        )
    lines += [r"\bottomrule", r"\end{tabular}}", rf"\caption{{{escaping.latex(caption)}}}", rf"\label{{tab:{mark}}}"]
    return "\n".join([*lines, r"\end{table*}"]) + "\n"


def number(value: float, digits: int) -> str:
    """A number as it is printed."""
    return f"{value:,.{digits}f}" if math.isfinite(value) else str(value)


def _measured(j: int, column: Column) -> Printed:
    def text(row: Row, cells: Sequence[Cell]) -> tuple[str, bool]:
        cell = cells[j]
        if cell.value is None:
            return cell.text or DASH, False
        ends = "" if cell.low is None or cell.high is None else f" [{number(cell.low, column.digits)}, "
        ends += f"{number(cell.high, column.digits)}]" if ends and cell.high is not None else ""
        return number(cell.value, column.digits) + ends, cell.best or cell.tied

    return Printed(column.group, column.name, text)


def _published(j: int, column: Column, comparable: bool) -> Printed:
    def text(row: Row, cells: Sequence[Cell]) -> tuple[str, bool]:
        cell = cells[j]
        if cell.paper is None:
            return DASH, False
        difference = cell.difference if comparable and column.source is None else None
        ours = "" if difference is None else f", ours {difference:+.{column.digits}f}"
        mark = "" if column.source else f" ({cell.paper.certainty}{ours})"
        return cell.paper.printed + mark, False

    return Printed(column.group, f"{column.name}, {column.source or PAPER}", text)


def _place(j: int) -> Printed:
    def text(row: Row, cells: Sequence[Cell]) -> tuple[str, bool]:
        place = cells[j].normalised
        return (DASH if place is None else f"{place:.0f}"), False

    return Printed("", "normalised", text)


def _groups(columns: Sequence[Printed]) -> list[str]:
    """The line of group headings with rules under them; nothing where no column has one."""
    if not any(column.group for column in columns):
        return []
    parts, rules, start = [], [], 0
    while start < len(columns):
        group = columns[start].group
        end = start + 1
        while end < len(columns) and group and columns[end].group == group:
            end += 1
        parts.append(rf"\multicolumn{{{end - start}}}{{c}}{{{escaping.latex(group)}}}" if group else "")
        rules += [rf"\cmidrule(lr){{{start + 1}-{end}}}"] if group else []
        start = end
    return [" & ".join(parts) + r" \\", "".join(rules)]
