"""Tables as Markdown, LaTeX and CSV: three ways to print one object, with the same numbers."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pcc_bench.core import texttable
from pcc_bench.core.texttable import TextTable
from pcc_bench.reports.table import PAPER, Cell, Column, Row, Table

DASH = "-"
FITS = 465.0  # points of a page's width that a LaTeX table takes
LETTER, GAP = 4.3, 6.0  # points: a digit of 8 pt type, and what lies between two columns
BOLD = 1.16  # bold letters are so much wider
BROAD = 32  # letters: longer texts are set in several lines
TALL = 45  # lines of a page
FIELDS = ("value", "low", "high", "n", "contexts", "seeds", "ratio", "normalised", "best", "tied")


@dataclass(frozen=True)
class Printed:
    """A printed column: where its text comes from."""

    group: str  # as in `table.Column`
    name: str
    text: Callable[[Row, Sequence[Cell]], tuple[str, bool]]  # a row and its cells -> text and whether it is bold


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
    r"""`table*` environments of 8 pt type, as many as its columns and lines need to fit a page with usual margins.

    The document needs `\usepackage{array}` and `\usepackage{booktabs}`.
    """
    numbered = re.fullmatch(r"Table (\d+): (.)(.*)", table.title)
    title = f"{numbered[2].upper()}{numbered[3]} (Table {numbered[1]} of the PCC paper)" if numbered else table.title
    text = _latex(table, Part.BESIDE, title, table.key, table.notes)
    if has_reruns(table):
        text += "\n" + _latex(table, Part.RERUNS, f"{title}. {RERUNS}", f"{table.key}-reruns", ())
    return text


def has_reruns(table: Table) -> bool:
    """Did later papers measure anything in it?"""
    return any(map(_is_rerun, table.columns))


def document(tables: Sequence[Table]) -> str:
    """A LaTeX document that shows the `.tex` files of tables beside it."""
    head = [r"\documentclass{article}", r"\usepackage[a4paper,margin=2cm]{geometry}", r"\usepackage{array}"]
    head += [r"\usepackage{booktabs}", r"\extrafloats{200}", r"\begin{document}"]
    shown = [rf"\input{{{table.key}.tex}}" + "\n" + r"\clearpage" for table in tables]
    return "\n".join([*head, *shown, r"\end{document}"]) + "\n"


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
            others = (paper.value, paper.printed, paper.certainty, paper.source) if paper else ("",) * len(published)
            where = (row.label, row.method, row.rate, row.role, row.decoder, column.key, column.heading, column.unit)
            numbers = ["" if getattr(cell, field) is None else getattr(cell, field) for field in FIELDS]
            texts = (*where, *numbers, *others, cell.text or "")
            writer.writerow([texttable.csv_cell(value) if isinstance(value, str) else value for value in texts])
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
        columns.append(Printed("", "normalised", lambda row, cells: (_rounded(cells[at].normalised), False)))
    return columns


def _rounded(place: float | None) -> str:
    return DASH if place is None else f"{place:.0f}"


def _is_rerun(column: Column) -> bool:
    return column.source not in (None, PAPER)


def _lines(table: Table, part: Part) -> list[tuple[Row, tuple[Cell, ...]]]:
    """The lines that say something in this part."""
    places = [j for j, column in enumerate(table.columns) if _is_rerun(column) == (part is Part.RERUNS)]

    def speaks(cell: Cell) -> bool:
        return not cell.empty if part is not Part.MEASURED else cell.value is not None or bool(cell.text)

    return [(row, cells) for row, cells in table.lines() if any(speaks(cells[j]) for j in places)]


def _markdown(table: Table, part: Part) -> str:
    columns = printed(table, part)
    rows = []
    for row, cells in _lines(table, part):
        told = [column.text(row, cells) for column in columns]
        rows.append(tuple(f"**{text}**" if bold else text for text, bold in told))
    return TextTable(tuple(f"{column.group} {column.name}".strip() for column in columns), tuple(rows)).markdown()


def _listed(notes: Sequence[str]) -> list[str]:
    return ["\n".join(f"- {texttable.markdown(note)}" for note in notes)] if notes else []


def _latex(table: Table, part: Part, title: str, mark: str, notes: Sequence[str]) -> str:
    columns, lines = printed(table, part), _lines(table, part)
    texts = [[column.text(row, cells) for column in columns] for row, cells in lines]
    widths = [
        max(
            min(len(text) * (BOLD if bold else 1), BROAD)
            for text, bold in [(column.name, False), *(row[j] for row in texts)]
        )
        for j, column in enumerate(columns)
    ]
    parts: list[tuple[list[int], list[int]]] = []
    for block in _blocks(columns, widths):
        known = [i for i, line in enumerate(texts) if any(line[j][0] != DASH for j in block)]
        most = max((len(texts[i][j][0]) for i in known for j in (0, *block)), default=0)
        tall = TALL // max(1, -(-most // BROAD))  # a broad text takes several lines
        parts += [(block, known[start : start + tall]) for start in range(0, max(1, len(known)), tall)]
    made = []
    for number, (block, known) in enumerate(parts, 1):
        rows: list[str] = []
        role: str | None = None
        for i in known:
            rows += [r"\midrule"] if role not in (None, lines[i][0].role) else []
            role = lines[i][0].role
            cells = [(texttable.latex(text), bold) for text, bold in (texts[i][j] for j in (0, *block))]
            rows.append(" & ".join(rf"\textbf{{{text}}}" if bold else text for text, bold in cells) + r" \\")
        shape = "".join(
            (rf">{{\raggedright\arraybackslash}}p{{{BROAD * LETTER:g}pt}}" if widths[j] >= BROAD else "r" if j else "l")
            for j in (0, *block)
        )
        caption = title + (f", part {number} of {len(parts)}" if len(parts) > 1 else "")
        made += [r"\begin{table*}[tp]", r"\centering\footnotesize", rf"\setlength{{\tabcolsep}}{{{GAP / 2:g}pt}}"]
        made += [r"\addtocounter{table}{-1}"] if number > 1 else []  # the parts are one table
        made += [rf"\caption{{{texttable.latex(caption)}.}}", rf"\label{{tab:{mark}{f'-{number}' * (number > 1)}}}"]
        made += [rf"\begin{{tabular}}{{{shape}}}", r"\toprule", *_groups([columns[j] for j in (0, *block)])]
        made += [" & ".join(texttable.latex(columns[j].name) for j in (0, *block)) + r" \\", r"\midrule"]
        made += [*rows, r"\bottomrule", r"\end{tabular}"]
        if notes and number == len(parts):
            said = " ".join(map(texttable.latex, notes))
            made += [r"\par\medskip", rf"\begin{{minipage}}{{\textwidth}}\raggedright {said}\end{{minipage}}"]
        made.append(r"\end{table*}")
    return "\n".join(made) + "\n"


def _blocks(columns: Sequence[Printed], widths: Sequence[float]) -> list[list[int]]:
    """Columns that fit on a page beside the first, in order; a group is divided only where it alone is too wide."""
    sizes = [LETTER * width + GAP for width in widths]
    groups: list[list[int]] = []
    for j in range(1, len(columns)):
        if groups and columns[j].group and columns[j].group == columns[groups[-1][0]].group:
            groups[-1].append(j)
        else:
            groups.append([j])
    blocks: list[list[int]] = [[]]
    room = FITS - sizes[0]
    for group in groups:
        if sum(sizes[j] for j in (*blocks[-1], *group)) > room and blocks[-1]:
            blocks.append([])
        for j in group:
            if sum(sizes[i] for i in (*blocks[-1], j)) > room and blocks[-1]:
                blocks.append([])
            blocks[-1].append(j)
    return blocks


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
        parts.append(rf"\multicolumn{{{end - start}}}{{c}}{{{texttable.latex(group)}}}" if group else "")
        rules += [rf"\cmidrule(lr){{{start + 1}-{end}}}"] if group else []
        start = end
    return [" & ".join(parts) + r" \\", "".join(rules)]
