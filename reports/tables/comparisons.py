"""Who is told from whom: our best line at each rate against every other method at that rate, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pcc_bench import stats
from pcc_bench.reports import measure
from pcc_bench.reports.measure import Measure
from pcc_bench.reports.table import Cell, Column, Row, Table, p_value
from pcc_bench.reports.tables.build import ALPHA
from pcc_bench.reports.tables.lines import OURS, Line, lines
from pcc_bench.reports.tables.quality import TASKS, of_table2
from pcc_bench.results.collection import Results

METRIC = "f1"
COLUMNS = (
    Column(key="difference", name="difference", unit="points"),
    Column(key="wins", group="rows", name="wins", digits=0),
    Column(key="losses", group="rows", name="losses", digits=0),
    Column(key="ties", group="rows", name="ties", digits=0),
    Column(key="detectable", name="MDE", unit="points"),
    Column(key="p", name="p (Holm)"),
)
LEGEND = (
    "difference: average F1 over the sets that both have, the first less the second, with its 95 % interval "
    "from paired rows, contexts being what is drawn. Bold: told apart (5 %, Holm over this table).",
    "wins, losses, ties: rows on which the first's F1 is higher, lower, the same.",
    f"MDE: the smallest true difference that this test would find with a probability of {100 * measure.POWER:.0f} %.",
)


@dataclass(frozen=True)
class _Pair:
    """Two lines, set by set."""

    one: Line
    other: Line
    parts: tuple[tuple[Measure, Measure], ...]

    @property
    def difference(self) -> stats.Estimate | None:
        return measure.combined([measure.compare(*part) for part in self.parts])


def comparisons(results: Results) -> Table:
    """A row a pair of methods of one requested rate: the best PCC there (else the best method) and each other."""
    pairs = [pair for pair in _pairs(lines(of_table2(results), TASKS.__contains__)) if pair.difference is not None]
    p = [measure.two_sided(pair.difference) for pair in pairs if pair.difference is not None]
    adjusted = stats.holm(p).tolist() if p else []
    return Table(
        key="comparisons",
        title="Comparisons: average F1, row by row",
        columns=COLUMNS,
        rows=tuple(map(_row, pairs)),
        cells=tuple(_cells(pair, holm) for pair, holm in zip(pairs, adjusted, strict=True)),
        notes=LEGEND if pairs else (),
        own_notes=LEGEND if pairs else (),
    )


def _pairs(candidates: Sequence[Line]) -> Iterator[_Pair]:
    methods = [line for line in candidates if line.row.role == "method" and line.row.rate is not None]
    for decoder, rate in dict.fromkeys((line.row.decoder, line.row.rate) for line in methods):
        rivals = [line for line in methods if (line.row.decoder, line.row.rate) == (decoder, rate)]
        ours = [line for line in rivals if line.row.method in OURS] or rivals
        best = max(ours, key=_average)
        for other in rivals:
            parts = tuple(_parts(best, other))
            if other is not best and parts:
                yield _Pair(best, other, parts)


def _average(line: Line) -> float:
    values = [score.value for task in TASKS if (score := measure.measure(line.runs, task, METRIC)) is not None]
    return sum(values) / len(values) if values else float("-inf")


def _parts(one: Line, other: Line) -> Iterator[tuple[Measure, Measure]]:
    for task in TASKS:
        mine, theirs = (measure.measure(line.runs, task, METRIC) for line in (one, other))
        if mine is not None and theirs is not None:
            yield mine, theirs


def _row(pair: _Pair) -> Row:
    label = f"{pair.one.row.label} less {pair.other.row.label}"
    runs = tuple(run.id for line in (pair.one, pair.other) for run in line.runs)
    other = pair.other.row
    return Row(key=label, label=label, method=other.method, rate=other.rate, decoder=other.decoder, runs=runs)


def _cells(pair: _Pair, p: float) -> tuple[Cell, ...]:
    estimate = pair.difference
    assert estimate is not None
    low, high = (100 * float(end) for end in estimate.interval(measure.LEVEL))
    tallies = [measure.tally(mine.rows, theirs.rows) for mine, theirs in pair.parts if mine.rows and theirs.rows]
    wins, losses, ties = (sum(counts) for counts in zip(*tallies, strict=True))
    value = sum(mine.value - theirs.value for mine, theirs in pair.parts) / len(pair.parts)
    rows = wins + losses + ties
    return (
        Cell(value=value, low=low, high=high, n=rows, best=p < ALPHA),
        *(Cell(value=count, n=rows) for count in (wins, losses, ties)),
        Cell(value=100 * measure.minimal(estimate)),
        Cell(text=p_value(p)),
    )
