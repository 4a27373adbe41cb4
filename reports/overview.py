"""What a report says in words: sentences made from its numbers, and a line of facts a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pcc_bench.core.texttable import TextTable
from pcc_bench.reports.table import Cell, Column, Row, Table
from pcc_bench.reports.tables.lines import FULL, NONE, OURS, TUNED
from pcc_bench.results.files import Reported
from pcc_bench.results.rows import COMPRESSION
from pcc_bench.results.run import Run

SENTENCES = 3
Line = tuple[Row, Cell]


def sentences(tables: Sequence[Table]) -> tuple[str, ...]:
    """At most three.

    Of the first table with a main column: its best PCC, the best other method, what compression costs; of other tables
    the best line of each.
    """
    said: list[str] = []
    for table in tables:
        head = next((column for column in table.columns if column.key == table.headline), None)
        measured = [(row, table.cell(row.key, head.key)) for row in table.rows if row.runs] if head else []
        lines = [(row, cell) for row, cell in measured if cell.value is not None]
        if head is None or not lines:
            continue
        if not said and head.better != "lower":
            said += _about_methods(lines, head)
        else:
            said += _best(table, lines, head)
    return tuple(said[:SENTENCES])


def _about_methods(lines: Sequence[Line], head: Column) -> Iterator[str]:
    methods = [line for line in lines if line[0].role == "method"]
    # the first sentence is about our best line, where one was measured
    ours = [line for line in methods if line[0].method in OURS] or methods
    if not ours:
        return
    row, cell = max(ours, key=_value)
    scale = [line for line in lines if line[0].method in (FULL, TUNED, NONE)]
    ends: dict[str, Line] = {line[0].role: line for line in scale if line[0].rate is None}
    yield _place(row, cell, head, ends)
    others = [line for line in methods if line[0].method != row.method]
    others = [line for line in others if line[0].rate == row.rate] or others
    if others:
        yield _rival(row, cell, max(others, key=_value), head)
    rates = sorted((r.ratio, _print(c, head)) for r, c in methods if r.method == row.method and r.ratio)
    if len(rates) > 1:
        name = row.label if row.rate is None else row.label.replace(f" {row.rate:g}x", "", 1)
        yield (
            f"From {rates[0][0]:.2f}x to {rates[-1][0]:.2f}x achieved compression, {name} goes from "
            f"{rates[0][1]} to {rates[-1][1]}."
        )


def _place(row: Row, cell: Cell, head: Column, ends: dict[str, Line]) -> str:
    """A line, what it compresses to, and where it stands between floor and ceiling."""
    at = f" at {row.ratio:.2f}x achieved compression" if row.ratio else ""
    score = f"{head.name} ({head.group})" if head.group.startswith("average of") else head.heading
    said = f"{row.label} reaches {_print(cell, head)} {score}{at}"
    if cell.normalised is None or set(ends) < {"ceiling", "floor"}:
        return f"{said}."
    low, high = ends["floor"], ends["ceiling"]
    return (
        f"{said}: {cell.normalised:.0f} % of the way from {low[0].label} ({_print(low[1], head)}) to "
        f"{high[0].label} ({_print(high[1], head)})."
    )


def _rival(row: Row, cell: Cell, other: Line, head: Column) -> str:
    """The best of the others, and whether a paired test tells the two apart."""
    marks = cell, other[1]
    tied = all(mark.best or mark.tied for mark in marks)
    told = "a paired test does not tell the two apart" if tied else "a paired test tells the two apart"
    tested = f"; {told}" if any(mark.best for mark in marks) else ""
    above = _value(other) - _value((row, cell))
    place = f"{abs(above):.{head.digits}f} points {'above' if above > 0 else 'below'} {row.label}"
    among = f"At {row.rate:g}x the" if row.rate and other[0].rate == row.rate else "The"
    return f"{among} best other method is {other[0].label} with {_print(other[1], head)}, {place}{tested}."


def _best(table: Table, lines: Sequence[Line], head: Column) -> Iterator[str]:
    """The best line of a table's main column, between what stands around it."""
    methods = [line for line in lines if line[0].role == "method"]
    if not methods:
        return
    best = (min if head.better == "lower" else max)(methods, key=_value)
    around = [f"{row.label} {_print(cell, head)}" for row, cell in lines if row.role != "method"]
    beside = f" ({', '.join(around)})" if around else ""
    yield f"{table.title}: {best[0].label} has the best {head.heading}, {_print(best[1], head)}{beside}."


def _value(line: Line) -> float:
    assert line[1].value is not None
    return line[1].value


def _print(cell: Cell, head: Column) -> str:
    return f"{cell.value:.{head.digits}f}"


def runs_table(runs: Sequence[Run], names: Mapping[str, str]) -> TextTable:
    """A line a run, a column a fact that any of them states.

    Args:
        runs: In the order of the lines.
        names: Run's id -> what it is called.
    """
    facts = [method_facts(run) | source_facts(run) for run in runs]
    columns = tuple(dict.fromkeys(name for line in facts for name in line))
    rows = [(names[run.id], *(line.get(name, "") for name in columns)) for run, line in zip(runs, facts, strict=True)]
    return TextTable(("run", *columns), tuple(rows)).without_empty_columns()


def method_facts(run: Run) -> dict[str, str]:
    """What a run's method is and how it was set."""
    reported = run.reported or Reported()
    can = reported.capabilities
    memory = "" if can.get("soft") is None else "vectors (soft)" if can["soft"] else "text (hard)"
    return {
        "method": run.method,
        "memory": memory,
        "reads the question": _yes(can.get("query_aware")),
        "brings its decoder": _yes(can.get("owns_decoder")),
        "requested rate": f"{run.rate:g}x" if run.rate else "",
        "achieved rate": _achieved(run),
        "control": run.control or "",
        "checkpoint": run.checkpoint,
        "decoder": run.decoder,
        "parameters": f"{run.parameters:,}" if run.parameters else "",
        "dtype": run.dtype,
        "options": ", ".join(f"{key}={value}" for key, value in sorted(reported.options.items())),
        "overflow": reported.overflow or "",
    }


def _achieved(run: Run) -> str:
    known = sorted(task.scores[COMPRESSION] for task in run.tasks.values() if COMPRESSION in task.scores)
    return "" if not known else f"{known[0]:.2f}x" + (f" to {known[-1]:.2f}x, by task" if known[-1] > known[0] else "")


def _yes(value: Any) -> str:
    return {True: "yes", False: "no"}.get(value, "")


def source_facts(run: Run) -> dict[str, str]:
    """Where a run's numbers come from."""
    prints = run.fingerprints
    rows = {name: task.population.fingerprint or "" for name, task in run.tasks.items()}
    return {
        "ended": run.date,
        "seeds": " ".join(str(seed) for seed in run.seeds if seed is not None),
        "id": run.id,
        "file": run.place,
        "checkpoint's hash": prints.get("checkpoint") or "",
        "decoder's hash": prints.get("decoder_weights") or "",
        "code": " ".join(part for part in (prints.get("code"), run.versions.get("code")) if part),
        "rows": ", ".join(f"{name} {mark}" for name, mark in rows.items() if mark),
        "lm-eval": run.versions.get("lm-eval", ""),
        "transformers": run.versions.get("transformers", ""),
    }
