"""What is lost: answers by what kind of thing they are, and by how near to a segment's border they stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from pcc_bench.reports import answers, measure, segments
from pcc_bench.reports.measure import Measure
from pcc_bench.reports.table import Cell, Column, Table
from pcc_bench.reports.tables.lines import Line, lines
from pcc_bench.reports.tables.rag import TASKS, of_table2
from pcc_bench.results.collection import Results
from pcc_bench.results.reading import read_answers
from pcc_bench.results.run import Run

METRIC = "f1"
Labels = Mapping[int, str]  # row -> the column it belongs to
DISTANCES = {"0 to 4": 4, "5 to 16": 16}  # tokens, at most
FAR = "17 or more"
NO_TOKENIZER = "lines whose tokenizer is not here"
OTHER_TOKENS = "rows of which the tokenizer here makes another number of tokens than was recorded"
NOWHERE = "rows whose answer stands in their context nowhere or twice"
ONE_SEGMENT = "rows whose context is one segment"
KINDS = (
    "F1 of the rows of all sets together, by what the first reference is: a date or number by its form; a place "
    "where the question asks where or which city, country or the like; a name where it asks who, or where every word "
    "begins with a capital; other."
)
BORDERS = (
    "F1 of the rows of all sets together, by the encoder's tokens between the answer and the nearest border of two "
    "segments (0: the border is inside the answer). Methods that cut contexts into segments only."
)


def kinds(results: Results) -> Table:
    """F1 by kind of answer, a row a line of Table 2."""
    known: dict[tuple[str, str], Labels] = {}

    def labels(run: Run, task: str) -> Labels:
        key = (task, run.tasks[task].population.fingerprint or run.id)
        if key not in known:
            known[key] = {answer.row: answers.kind(answer) for answer in read_answers(run.tasks[task])}
        return known[key]

    made = [(line, _cells(line, labels, answers.KINDS)) for line in _lines(results)]
    return _table("kinds", "Answers by kind", answers.KINDS, made, (KINDS,))


def borders(results: Results) -> Table:
    """F1 by distance to a segment's border, a row a line of Table 2 whose method cuts contexts."""
    cutting = [line for line in _lines(results) if line.row.role == "method" and segments.length(line.runs[0])]
    left: dict[str, Counter[str]] = {}
    columns = (*DISTANCES, FAR)
    made = []
    for line in cutting:
        tokens, segment = segments.tokens_of(line.runs[0]), segments.length(line.runs[0])
        counts = left.setdefault(line.row.label, Counter())
        if tokens is None or segment is None:
            counts[NO_TOKENIZER] += 1
            continue
        made.append((line, _cells(line, _distances(tokens, segment, counts), columns)))
    return _table("borders", "Answers by distance to a segment's border", columns, made, (BORDERS, *_left_out(left)))


def _left_out(left: Mapping[str, Counter[str]]) -> list[str]:
    """A sentence a reason, with the lines that it is about."""
    reasons: dict[str, dict[int, list[str]]] = {}
    for label, counts in left.items():
        for reason, count in counts.items():
            reasons.setdefault(reason, {}).setdefault(count, []).append(label)
    return [
        f"Left out: {reason}: "
        + "; ".join(f"{count} of {', '.join(labels)}" for count, labels in by_count.items())
        + "."
        for reason, by_count in reasons.items()
    ]


def _lines(results: Results) -> list[Line]:
    made = lines(of_table2(results), TASKS.__contains__)
    return [
        line
        for line in made
        if all(run.tasks[task].samples for run in line.runs for task in line.tasks & set(run.tasks))
    ]


def _distances(
    tokens: Callable[[str], segments.Offsets], segment: int, left: Counter[str]
) -> Callable[[Run, str], Labels]:
    """What says for each row of a run's task how far its answer is from a border; rows without one are counted."""

    def labels(run: Run, task: str) -> Labels:
        recorded = run.tasks[task].rows.account.get("compressor_tokens")
        counts = {} if recorded is None else dict(zip(run.tasks[task].rows.number.tolist(), recorded, strict=True))
        places = {}
        for answer in read_answers(run.tasks[task]):
            span, offsets = answers.span(answer.context, answer.references), tokens(answer.context)
            distance = None if span is None else segments.distance(offsets, span, segment)
            if counts.get(answer.row, len(offsets)) != len(offsets):
                left[OTHER_TOKENS] += 1
            elif span is None:
                left[NOWHERE] += 1
            elif distance is None:
                left[ONE_SEGMENT] += 1
            else:
                places[answer.row] = next((name for name, most in DISTANCES.items() if distance <= most), FAR)
        return places

    return labels


def _cells(line: Line, labels: Callable[[Run, str], Labels], columns: Sequence[str]) -> tuple[Cell, ...]:
    """A cell a column: the line's rows of all sets that belong to it."""
    parts = [(score, labels(line.runs[0], task)) for task in TASKS if (score := _score(line, task)) is not None]
    return tuple(_cell(list(_of_column(parts, column))) for column in columns)


def _score(line: Line, task: str) -> Measure | None:
    score = measure.measure(line.runs, task, METRIC)
    return score if score is not None and score.rows is not None else None


def _of_column(parts: Sequence[tuple[Measure, Labels]], column: str) -> Iterator[measure.Scored]:
    for score, labels in parts:
        assert score.rows is not None
        index = np.flatnonzero([labels.get(int(row)) == column for row in score.rows.number])
        if len(index):
            yield score.rows.only(index)


def _cell(parts: Sequence[measure.Scored]) -> Cell:
    if not parts:
        return Cell()
    rows = measure.together(parts)
    known = measure.share(rows)
    low, high = (
        (None, None) if known is None else (100 * float(np.clip(end, 0, 1)) for end in known.interval(measure.LEVEL))
    )
    contexts = len(np.unique(rows.context))
    return Cell(value=100 * float(rows.top.mean()), low=low, high=high, n=len(rows.number), contexts=contexts)


def _table(
    key: str, title: str, columns: Sequence[str], made: Sequence[tuple[Line, tuple[Cell, ...]]], notes: tuple[str, ...]
) -> Table:
    counts = {name: sorted({cells[j].n or 0 for _, cells in made}) for j, name in enumerate(columns)}
    rows = [f"{name}: {' or '.join(f'{n:,}' for n in known)} rows." for name, known in counts.items() if any(known)]
    own = (*notes, " ".join(rows)) if made else ()
    group = "tokens to a border" if key == "borders" else ""
    return Table(
        key=key,
        title=title,
        columns=tuple(
            Column(key=f"{name}.{METRIC}", group=group, name=name, unit="%", better="higher") for name in columns
        ),
        rows=tuple(line.row for line, _ in made),
        cells=tuple(cells for _, cells in made),
        notes=own,
        own_notes=own,
    )
