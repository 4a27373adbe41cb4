"""The table object: what every renderer (Markdown, LaTeX, CSV, HTML) prints, with nothing left to compute.

Scores that are shares are stored as percentages, as the paper prints them; `Column.unit` says so.
"""

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import model_validator

from pcc_bench.core.documents import Strict

Role = Literal["ceiling", "floor", "method"]
PAPER = "paper"  # `Column.source` of what the paper itself says
Better = Literal["higher", "lower"]


class Published(Strict):
    """A value that somebody printed."""

    value: float | None  # in the column's unit; None where no single number stands there
    printed: str  # as it stands there, e.g. `~100`
    certainty: str  # as in `paper.yaml`
    source: str  # where it was read


class Cell(Strict):
    """One number with all that is known about it; everything None where nothing is known (shown as a dash)."""

    value: float | None = None  # measured, in the column's unit
    low: float | None = None  # lower end of its 95 % interval
    high: float | None = None
    n: int | None = None  # rows it was measured on
    contexts: int | None = None  # different contexts among them, the units of chance
    seeds: int = 1  # runs that were averaged; 1 where there was one
    ratio: float | None = None  # achieved compression of these rows, boundary vectors counted
    paper: Published | None = None  # the paper's value, or in a column with a `source` that source's
    best: bool = False  # of the column's methods, where a test tells another from it; floors, ceilings do not compete
    tied: bool = False  # not told from the best by a paired test at 5 %, Holm-adjusted over the column
    normalised: float | None = None  # 0: no context, 100: full context of the same column
    text: str | None = None  # what is shown where a cell is no number

    @property
    def empty(self) -> bool:
        """Nothing is known, measured or published."""
        return self.value is None and self.paper is None and not self.text

    @property
    def difference(self) -> float | None:
        """Measured less published, where both are numbers."""
        published = self.paper.value if self.paper else None
        return None if self.value is None or published is None else self.value - published


class Column(Strict):
    key: str  # unique in the table, e.g. `squad.f1`
    group: str = ""  # heading over several columns, e.g. `SQuAD`; "" stands alone.
    name: str  # heading, e.g. `F1`
    unit: str = ""  # `%` or ""; for messages and axes
    digits: int = 1  # after the decimal point
    better: Better | None = None  # which way is better; None where neither is
    source: str | None = None  # whose measurements it repeats (`BenchPress`); None for our own
    detail: bool = False  # left out of the printed tables (Markdown, LaTeX) for their width

    @property
    def heading(self) -> str:
        return f"{self.group} {self.name}".strip()


class Row(Strict):
    key: str
    label: str  # what it is called in print, rate included
    method: str  # of the registry (`pcc`), or the paper's name of a method that was not run
    rate: float | None = None  # requested source tokens per slot; None where there is no such thing
    role: Role = "method"  # ceilings and floors are shown apart and do not compete
    decoder: str = ""  # name of the decoder; "" where not known
    ratio: float | None = None  # achieved compression of all its rows: see `measure.achieved`
    runs: tuple[str, ...] = ()  # ids of the runs it was measured on; none for a line that is only published

    @property
    def name(self) -> str:
        """The label without its rate."""
        return self.label if self.rate is None else self.label.replace(f" {self.rate:g}x", "", 1)


class Table(Strict):
    key: str  # stem of its files, e.g. `table2`
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]  # all of them; ceilings first, floors last
    cells: tuple[tuple[Cell, ...], ...]  # a tuple a row, a cell a column
    headline: str | None = None  # key of the column whose normalised values stand in the printed table
    comparable: bool = False  # measured and published numbers are of the same data and decoder
    notes: tuple[str, ...] = ()  # sentences that stand under it
    own_notes: tuple[str, ...] = ()  # those of them that are about measured numbers

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
        return all(cell.empty for line in self.cells for cell in line)

    def cell(self, row: str, column: str) -> Cell:
        """The cell of a row's and a column's key."""
        i = [line.key for line in self.rows].index(row)
        return self.cells[i][[c.key for c in self.columns].index(column)]

    def lines(self) -> Iterator[tuple[Row, tuple[Cell, ...]]]:
        return zip(self.rows, self.cells, strict=True)


PERCENT = {
    "f1": "F1", "exact_match": "EM", "contains": "contains", "acc_calibrated": "acc (calibrated)",
    "acc_token": "acc (token)", "acc": "acc", "acc_norm": "acc (norm)", "ranking_acc": "ranking", "rougeL": "ROUGE-L",
    "bleu_official": "BLEU (paper's)", "bleu_sentence": "BLEU (sentence)", "exact": "exact",
    "token_accuracy": "token acc", "recall": "recall", "error_number": "number errors", "error_date": "date errors",
    "error_name": "name errors", "error_rare": "rare-word errors", "error_boundary": "boundary errors",
    "error_word": "word errors",
}  # fmt: skip
PLAIN = {"perplexity": "PPL", "byte_perplexity": "PPL/byte", "bleu": "BLEU", "mrr": "MRR"}
NAMES = PERCENT | PLAIN
ANSWER_METRICS = ("exact_match", "f1", "contains")  # metrics of answers to questions


def p_value(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"
