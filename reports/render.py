"""Tables as Markdown, LaTeX and CSV: three ways to print one object, with the same numbers."""

import csv
import io
import re
from collections.abc import Sequence
from itertools import groupby
from typing import Literal, NamedTuple

from pcc_bench.core import texttable
from pcc_bench.core.texttable import TextTable
from pcc_bench.reports.table import PAPER, Cell, Column, Table

DASH = "-"
FITS = 465.0  # points of a page's width that a LaTeX table takes
LETTER, GAP = 4.3, 6.0  # points: a digit of 8 pt type, and what lies between two columns
BOLD = 1.16  # bold letters are so much wider
BROAD = 32  # letters: longer texts are set in several lines
TALL = 45  # lines of a page
FIELDS = ("value", "low", "high", "n", "contexts", "seeds", "ratio", "normalised", "best", "tied")


class Printed(NamedTuple):
    group: str  # as in `table.Column`
    name: str
    texts: list[tuple[str, bool]]  # of each row: text, and whether it is bold


Part = Literal["measured", "beside", "reruns"]  # our numbers alone; the paper's beside them; later papers' runs
RERUNS = "Later papers' own runs, of other data and decoders"


def markdown(table: Table) -> str:
    """A Markdown table under its title, with its notes; later papers' runs in a table of their own."""
    body = [f"## {table.title}", _markdown(table, "beside")]
    if any(map(_is_rerun, table.columns)):
        body += [f"{RERUNS}:", _markdown(table, "reruns")]
    return "\n\n".join([*body, *_listed(table.notes)]) + "\n"


def brief(table: Table) -> str:
    """What was measured as a Markdown table, with its notes: for a README."""
    return "\n\n".join([_markdown(table, "measured"), *_listed(table.own_notes)]) + "\n"


def latex(table: Table) -> str:
    r"""`table*` environments of 8 pt type, as many as its columns and lines need to fit a page with usual margins.

    The document needs `\usepackage{array}` and `\usepackage{booktabs}`.
    """
    numbered = re.fullmatch(r"Table (\d+): (.)(.*)", table.title)
    title = f"{numbered[2].upper()}{numbered[3]} (Table {numbered[1]} of the PCC paper)" if numbered else table.title
    text = _latex(table, "beside", title, table.key, table.notes)
    if any(map(_is_rerun, table.columns)):
        text += "\n" + _latex(table, "reruns", f"{title}. {RERUNS}", f"{table.key}-reruns", ())
    return text


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
        line = (row.label, row.method, row.rate, row.role, row.decoder)
        for column, cell in zip(table.columns, cells, strict=True):
            if not cell.empty:
                paper, where = cell.paper, (*line, column.key, column.heading, column.unit)
                beside = (paper.value, paper.printed, paper.certainty, paper.source) if paper else (None,) * 4
                values = (*where, *(getattr(cell, field) for field in FIELDS), *beside, cell.text)
                writer.writerow([texttable.csv_cell(value) if isinstance(value, str) else value for value in values])
    return out.getvalue()


def printed(table: Table, part: Part) -> list[Printed]:
    """The columns as they are printed: the line's name, achieved compression, scores, published values, normalised."""
    columns = [Printed("", "", [(row.label, False) for row in table.rows])]
    if part != "reruns" and any(row.ratio is not None for row in table.rows):
        ratios = [(f"{row.ratio:.2f}x" if row.ratio else DASH, False) for row in table.rows]
        columns.append(Printed("", "achieved", ratios))
    normalised: list[float | None] = []
    for column, *cells in zip(table.columns, *table.cells, strict=True):
        if part != "reruns" and column.key == table.headline:
            normalised = [cell.normalised for cell in cells]
        if column.detail or _is_rerun(column) != (part == "reruns"):
            continue
        if any(cell.value is not None or cell.text for cell in cells):
            columns.append(Printed(column.group, column.name, [_measured(cell, column.digits) for cell in cells]))
        if part != "measured" and any(cell.paper for cell in cells):
            texts = [(_published(cell, column, table.comparable), False) for cell in cells]
            columns.append(Printed(column.group, f"{column.name}, {column.source or PAPER}", texts))
    if any(place is not None for place in normalised):
        texts = [(DASH if place is None else f"{place:.0f}", False) for place in normalised]
        columns.append(Printed("", "normalised", texts))
    return columns


def _is_rerun(column: Column) -> bool:
    return column.source not in (None, PAPER)


def _lines(table: Table, part: Part) -> list[int]:
    """The rows that say something in this part."""
    places = [j for j, column in enumerate(table.columns) if _is_rerun(column) == (part == "reruns")]

    def speaks(cell: Cell) -> bool:
        return cell.value is not None or bool(cell.text) or (part != "measured" and cell.paper is not None)

    return [i for i, cells in enumerate(table.cells) if any(speaks(cells[j]) for j in places)]


def _markdown(table: Table, part: Part) -> str:
    columns = printed(table, part)
    rows = []
    for i in _lines(table, part):
        texts = (column.texts[i] for column in columns)
        rows.append(tuple(f"**{text}**" if bold else text for text, bold in texts))
    return TextTable(tuple(f"{column.group} {column.name}".strip() for column in columns), tuple(rows)).markdown()


def _listed(notes: Sequence[str]) -> list[str]:
    return ["\n".join(f"- {texttable.markdown(note)}" for note in notes)] if notes else []


def _latex(table: Table, part: Part, title: str, mark: str, notes: Sequence[str]) -> str:
    columns, lines = printed(table, part), _lines(table, part)
    widths = [
        max(
            min(len(text) * (BOLD if bold else 1), BROAD)
            for text, bold in [(column.name, False), *(column.texts[i] for i in lines)]
        )
        for column in columns
    ]
    parts: list[tuple[list[int], list[int]]] = []
    for block in _blocks(columns, widths):
        known = [i for i in lines if any(columns[j].texts[i][0] != DASH for j in block)]
        most = max((len(columns[j].texts[i][0]) for i in known for j in (0, *block)), default=0)
        tall = TALL // max(1, -(-most // BROAD))  # a broad text takes several lines
        parts += [(block, known[start : start + tall]) for start in range(0, max(1, len(known)), tall)]
    text = []
    for number, (block, known) in enumerate(parts, 1):
        rows: list[str] = []
        role: str | None = None
        for i in known:
            rows += [r"\midrule"] if role not in (None, table.rows[i].role) else []
            role = table.rows[i].role
            cells = [(texttable.latex(text), bold) for text, bold in (columns[j].texts[i] for j in (0, *block))]
            rows.append(" & ".join(rf"\textbf{{{text}}}" if bold else text for text, bold in cells) + r" \\")
        shape = "".join(
            (rf">{{\raggedright\arraybackslash}}p{{{BROAD * LETTER:g}pt}}" if widths[j] >= BROAD else "r" if j else "l")
            for j in (0, *block)
        )
        caption = title + (f", part {number} of {len(parts)}" if len(parts) > 1 else "")
        text += [r"\begin{table*}[tp]", r"\centering\footnotesize", rf"\setlength{{\tabcolsep}}{{{GAP / 2:g}pt}}"]
        text += [r"\addtocounter{table}{-1}"] if number > 1 else []  # the parts are one table
        text += [rf"\caption{{{texttable.latex(caption)}.}}", rf"\label{{tab:{mark}{f'-{number}' * (number > 1)}}}"]
        text += [rf"\begin{{tabular}}{{{shape}}}", r"\toprule", *_groups([columns[j] for j in (0, *block)])]
        text += [" & ".join(texttable.latex(columns[j].name) for j in (0, *block)) + r" \\", r"\midrule"]
        text += [*rows, r"\bottomrule", r"\end{tabular}"]
        if notes and number == len(parts):
            said = " ".join(map(texttable.latex, notes))
            text += [r"\par\medskip", rf"\begin{{minipage}}{{\textwidth}}\raggedright {said}\end{{minipage}}"]
        text.append(r"\end{table*}")
    return "\n".join(text) + "\n"


def _blocks(columns: Sequence[Printed], widths: Sequence[float]) -> list[list[int]]:
    """Columns that fit on a page beside the first, in order; a group is divided only where it alone is too wide."""
    sizes = [LETTER * width + GAP for width in widths]
    blocks: list[list[int]] = [[]]
    room = FITS - sizes[0]
    for group in _neighbours(columns)[1:]:
        if sum(sizes[j] for j in (*blocks[-1], *group)) > room and blocks[-1]:
            blocks.append([])
        for j in group:
            if sum(sizes[i] for i in (*blocks[-1], j)) > room and blocks[-1]:
                blocks.append([])
            blocks[-1].append(j)
    return blocks


def _measured(cell: Cell, digits: int) -> tuple[str, bool]:
    if cell.value is None:
        return cell.text or DASH, False
    ends = "" if cell.low is None or cell.high is None else f" [{cell.low:,.{digits}f}, {cell.high:,.{digits}f}]"
    return f"{cell.value:,.{digits}f}{ends}", cell.best or cell.tied


def _published(cell: Cell, column: Column, comparable: bool) -> str:
    if cell.paper is None:
        return DASH
    difference = cell.difference if comparable and column.source is None else None
    ours = "" if difference is None else f", ours {difference:+.{column.digits}f}"
    return cell.paper.printed + ("" if column.source else f" ({cell.paper.certainty}{ours})")


def _groups(columns: Sequence[Printed]) -> list[str]:
    """The line of group headings with rules under them; nothing where no column has one."""
    if not any(column.group for column in columns):
        return []
    parts, rules = [], []
    for places in _neighbours(columns):
        group = columns[places[0]].group
        parts.append(rf"\multicolumn{{{len(places)}}}{{c}}{{{texttable.latex(group)}}}" if group else "")
        rules += [rf"\cmidrule(lr){{{places[0] + 1}-{places[-1] + 1}}}"] if group else []
    return [" & ".join(parts) + r" \\", "".join(rules)]


def _neighbours(columns: Sequence[Printed]) -> list[list[int]]:
    """Places of columns, those of one group together; columns without a group stand alone."""
    places = range(len(columns))
    return [list(group) for _, group in groupby(places, lambda j: (columns[j].group, columns[j].group or j))]
