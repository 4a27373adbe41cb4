"""Text to print: what others wrote (names in result files, above all) made safe for its place, and tables of it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

# What no document shows or XML can hold: control characters (line ends among them), lone surrogates, non-characters.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
_COMMAND = re.compile(r"^(\s*)(::|##\[)")
_LATEX = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}
_LATEX |= {"^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}


def visible(text: str) -> str:
    """One line: line ends and tabs are blanks, what can't be shown is written as an escape of its code."""

    def escape(match: re.Match[str]) -> str:
        code = ord(match[0])
        if match[0] in "\t\n\r\x0b\x0c\x85\u2028\u2029":
            return " "
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"

    return _INVISIBLE.sub(escape, text)


def markdown(text: str) -> str:
    """A line of Markdown: no HTML, no links; no workflow command where GitHub reads the log it is printed to."""
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", visible(text)).replace("](", "]\\(")
    return _COMMAND.sub(r"\1\\\2", text)


def markdown_cell(text: str) -> str:
    """A cell of a Markdown table: as `markdown`, and a pipe does not end it."""
    return re.sub(r"(\\*)\|", r"\1\1\\|", markdown(text))


def workflow_message(text: str) -> str:
    return visible(text).replace("%", "%25")


def workflow_property(text: str) -> str:
    return workflow_message(text).replace(":", "%3A").replace(",", "%2C")


def latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in visible(text))


def csv_cell(text: str) -> str:
    """A text cell of a CSV file; what a spreadsheet would take for a formula begins with an apostrophe."""
    text = visible(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) and len(text) > 1 else text


@dataclass(frozen=True)
class TextTable:
    """Named columns of text."""

    columns: tuple[str, ...]  # headings
    rows: tuple[tuple[str, ...], ...]  # one cell a column; "" where there is nothing to say
    notes: tuple[str, ...] = ()  # sentences that stand under the table
    # heading -> the sentence on it, printed above the notes where the column is
    legend: Mapping[str, str] = field(default_factory=dict)

    def without_empty_columns(self) -> Self:
        return self.with_columns(name for i, name in enumerate(self.columns) if any(row[i] for row in self.rows))

    def with_columns(self, columns: Iterable[str]) -> Self:
        """The table with these of its columns, in this order; legends of others are left out."""
        places = [self.columns.index(column) for column in columns if column in self.columns]
        columns, *rows = (tuple(row[place] for place in places) for row in (self.columns, *self.rows))
        return replace(self, columns=columns, rows=tuple(rows))

    def sentences(self) -> list[str]:
        """What stands under the table: the legends of its columns, and the notes."""
        return [sentence for column, sentence in self.legend.items() if column in self.columns] + [*self.notes]

    def markdown(self) -> str:
        """A Markdown table, its columns aligned for reading as plain text, and the notes; every text is escaped."""
        lines = [tuple(map(markdown_cell, line)) for line in (self.columns, *self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        text = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
        text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        notes = self.sentences()
        return "\n".join([*text, *(["", *map(markdown, notes)] if notes else [])])
