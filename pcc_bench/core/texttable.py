"""Tables as text: named columns of cells, printed as Markdown that reads well in a terminal too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pcc_bench.core import escaping


@dataclass(frozen=True)
class TextTable:
    """Named columns of text.

    Attributes:
        columns: Headings.
        rows: One cell a column; "" where there is nothing to say.
        notes: Sentences that stand under the table.
        legend: Heading -> the sentence on it, printed above the notes where the column is.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    legend: Mapping[str, str] = field(default_factory=dict)

    def without_empty_columns(self) -> TextTable:
        """The table without the columns that say nothing."""
        full = [i for i in range(len(self.columns)) if any(row[i] for row in self.rows)]
        columns = tuple(self.columns[i] for i in full)
        return TextTable(columns, tuple(tuple(row[i] for i in full) for row in self.rows), self.notes, self.legend)

    def with_columns(self, columns: Iterable[str]) -> TextTable:
        """The table with these of its columns, in this order; legends of others are left out."""
        places = [self.columns.index(column) for column in columns if column in self.columns]
        rows = tuple(tuple(row[place] for place in places) for row in self.rows)
        return TextTable(tuple(self.columns[place] for place in places), rows, self.notes, self.legend)

    def sentences(self) -> list[str]:
        """What stands under the table: the legends of its columns, and the notes."""
        return [sentence for column, sentence in self.legend.items() if column in self.columns] + [*self.notes]

    def markdown(self) -> str:
        """A Markdown table, its columns aligned for reading as plain text, and the notes; every text is escaped."""
        lines = [tuple(map(escaping.markdown_cell, line)) for line in (self.columns, *self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        text = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
        text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        notes = self.sentences()
        return "\n".join([*text, *(["", *map(escaping.markdown, notes)] if notes else [])])
