"""The table object: what every renderer (Markdown, LaTeX, CSV, HTML) prints, with nothing left to compute.

Scores that are shares are stored as percentages, as the paper prints them; `Column.unit` says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

Role = Literal["ceiling", "floor", "method"]
PAPER = "paper"  # `Column.source` of what the paper itself says
Better = Literal["higher", "lower"]


class Strict(BaseModel):
    """A record that nobody changes and that has no unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Published(Strict):
    """A value that somebody printed.

    Attributes:
        value: In the column's unit; None where no single number stands there.
        printed: As it stands there, e.g. `~100`.
        certainty: C: official code or figure file; Q: quoted from the paper by a later one; Q?: so presumed; B: a
            summary of the PDF; R: a later re-run by others.
        source: Where it was read.
    """

    value: float | None
    printed: str
    certainty: str
    source: str


class Cell(Strict):
    """One number with all that is known about it; everything None where nothing is known (shown as a dash).

    Attributes:
        value: Measured, in the column's unit.
        low: Lower end of its 95 % interval.
        high: Upper end.
        n: Rows it was measured on.
        contexts: Different contexts among them, the units of chance.
        seeds: Runs that were averaged; 1 where there was one.
        ratio: Achieved compression of these rows, boundary vectors counted.
        paper: The paper's value, or in a column with a `source` that source's.
        best: The best method of the column, where a test tells another from it (floors and ceilings do not compete).
        tied: Not told from the best by a paired test at 5 %, Holm-adjusted over the column.
        normalised: 0: no context, 100: full context of the same column.
        text: What is shown where a cell is no number.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    contexts: int | None = None
    seeds: int = 1
    ratio: float | None = None
    paper: Published | None = None
    best: bool = False
    tied: bool = False
    normalised: float | None = None
    text: str | None = None

    @property
    def empty(self) -> bool:
        """Nothing is known, measured or published."""
        return self.value is None and self.paper is None and not self.text

    @property
    def difference(self) -> float | None:
        """Measured less published, where both are numbers."""
        if self.value is None or self.paper is None or self.paper.value is None:
            return None
        return self.value - self.paper.value


class Column(Strict):
    """A column.

    Attributes:
        key: Unique in the table, e.g. `squad.f1`.
        group: Heading over several columns, e.g. `SQuAD`; "" stands alone.
        name: Heading, e.g. `F1`.
        unit: `%` or ""; for messages and axes.
        digits: After the decimal point.
        better: Which way is better; None where neither is.
        source: Of a column that repeats others' measurements, its name (`BenchPress`); None for measured ones.
        detail: Left out of the printed tables (Markdown, LaTeX) for their width.
    """

    key: str
    group: str = ""
    name: str
    unit: str = ""
    digits: int = 1
    better: Better | None = None
    source: str | None = None
    detail: bool = False

    @property
    def heading(self) -> str:
        """Group and name in one line."""
        return f"{self.group} {self.name}".strip()


class Row(Strict):
    """A line.

    Attributes:
        key: Unique in the table.
        label: What it is called in print, rate included.
        method: Of the registry (`pcc`), or the paper's name of a method that was not run.
        rate: Requested source tokens per slot; None where there is no such thing.
        role: Ceilings and floors are shown apart and do not compete.
        decoder: Name of the decoder; "" where not known.
        ratio: Achieved compression of all its rows: see `measure.achieved`.
        runs: Ids of the runs it was measured on (`results.Run.id`); none for a line that is only published.
    """

    key: str
    label: str
    method: str
    rate: float | None = None
    role: Role = "method"
    decoder: str = ""
    ratio: float | None = None
    runs: tuple[str, ...] = ()


class Provenance(Strict):
    """Where the numbers of a line come from.

    Attributes:
        run: Id of the run.
        path: Its result file.
        method: What ran.
        checkpoint: Folder or hub id.
        decoder: Folder or hub id.
        data: Source of the rows, by task: `lab`, `hub` or `folder`.
        fingerprints: Of checkpoint, decoder, code and (`data <task>`) rows.
        seed: Of the run.
        date: When it ended, ISO 8601; "" where not recorded.
    """

    run: str
    path: str
    method: str
    checkpoint: str
    decoder: str
    data: dict[str, str] = {}
    fingerprints: dict[str, str] = {}
    seed: int | None = None
    date: str = ""


class Table(Strict):
    """A table.

    Attributes:
        key: Stem of its files, e.g. `table2`.
        title: One line.
        columns: All of them.
        rows: All of them; ceilings first, floors last.
        cells: A tuple a row, a cell a column.
        headline: Key of the column whose normalised values stand in the printed table; None where there is none.
        comparable: Measured and published numbers are of the same data and decoder: their difference means something.
        notes: Sentences that stand under it.
        own_notes: Those of them that are about measured numbers.
        provenance: Of every run in it.
    """

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    cells: tuple[tuple[Cell, ...], ...]
    headline: str | None = None
    comparable: bool = False
    notes: tuple[str, ...] = ()
    own_notes: tuple[str, ...] = ()
    provenance: tuple[Provenance, ...] = ()

    @model_validator(mode="after")
    def _is_rectangular(self) -> Self:
        if len(self.cells) != len(self.rows) or any(len(line) != len(self.columns) for line in self.cells):
            raise ValueError(f"{self.key}: {len(self.rows)} rows by {len(self.columns)} columns do not fit the cells")
        return self

    @property
    def measured(self) -> bool:
        """Is anything in it ours, and not only published?"""
        ours = [j for j, column in enumerate(self.columns) if column.source is None]
        return any(line[j].value is not None or line[j].text for line in self.cells for j in ours)

    @property
    def empty(self) -> bool:
        """Is nothing in it at all?"""
        return all(cell.empty for line in self.cells for cell in line)

    def cell(self, row: str, column: str) -> Cell:
        """The cell of a row's and a column's key."""
        i = [line.key for line in self.rows].index(row)
        return self.cells[i][[c.key for c in self.columns].index(column)]

    def lines(self) -> Iterator[tuple[Row, tuple[Cell, ...]]]:
        """Rows with their cells."""
        return zip(self.rows, self.cells, strict=True)


PERCENT = {
    "f1": "F1",
    "exact_match": "EM",
    "contains": "contains",
    "acc_calibrated": "acc (calibrated)",
    "acc_token": "acc (token)",
    "acc": "acc",
    "acc_norm": "acc (norm)",
    "ranking_acc": "ranking",
    "rougeL": "ROUGE-L",
    "bleu_official": "BLEU (paper's)",
    "bleu_sentence": "BLEU (sentence)",
    "exact": "exact",
    "token_accuracy": "token acc",
    "recall": "recall",
    "error_number": "number errors",
    "error_date": "date errors",
    "error_name": "name errors",
    "error_rare": "rare-word errors",
    "error_boundary": "boundary errors",
    "error_word": "word errors",
}
PLAIN = {"perplexity": "PPL", "byte_perplexity": "PPL/byte", "bleu": "BLEU", "mrr": "MRR"}
NAMES = PERCENT | PLAIN


def p_value(p: float) -> str:
    """A p-value in print."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"
