"""What a report says in words: sentences under a table, sentences made from its numbers, a line of facts a run."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from pcc_bench.core.questions import PROMPTS
from pcc_bench.core.texttable import TextTable
from pcc_bench.reports.measure import LEVEL, compare, measure
from pcc_bench.reports.table import NAMES, Cell, Column, Row, Table
from pcc_bench.reports.tables import FULL, NONE, OURS, TUNED, Line, family, role
from pcc_bench.results.files import Reported
from pcc_bench.results.rows import COMPRESSION
from pcc_bench.results.run import Run, TaskRun, difference

PAPERS_DECODER = re.compile(r"llama-?3-?8b", re.IGNORECASE)
CERTAINTIES = {
    "C": "official code or figure",
    "Q": "quoted by a later paper",
    "Q?": "presumed to be the paper's, not verified",
    "B": "a summary of the PDF",
    "Q+B": "both of these",
}
INTERVALS = (
    "[low, high]: 95 % interval, contexts being what is drawn. Bold: the best method, and those that a paired test "
    "(5 %, Holm) does not tell from it; ceilings and floors do not compete."
)
NORMALISED = "normalised: 0 is no context, 100 the full context."
NORMALISED_TUNED = "normalised: 0 is no context, 100 the tuned context (the full text, after training on questions)."
ELSEWHERE = "Published values are of other data or another decoder than the measured ones: compare shapes only."
Columns = Sequence[tuple[Column, Sequence[Cell]]]


def as_the_paper(line: Line) -> bool:
    """Was a line measured with the paper's decoder, on rows from the hub?"""
    sources = {run.tasks[task].population.source for run in line.runs for task in line.tasks & set(run.tasks)}
    return sources == {"hub"} and bool(PAPERS_DECODER.search(line.row.decoder))


def about(lines: Sequence[Line], columns: Columns) -> list[str]:
    """What the measured numbers are, of the lines and of all columns with their cells."""
    notes = [INTERVALS] if lines else []
    if any(cell.normalised is not None for _, cells in columns for cell in cells):
        tuned = any(line.row.method == TUNED for line in lines)
        notes.append(NORMALISED_TUNED if tuned else NORMALISED)
    runs = [run for line in lines for run in line.runs]
    warnings = ceilings(runs, frozenset(task for line in lines for task in line.tasks))
    counts: dict[str, dict[str, None]] = {}  # rows and contexts of each group of columns
    for column, cells in columns:
        for cell in cells:
            if cell.n is not None:
                on = f" on {cell.contexts:,} contexts" if cell.contexts is not None else ""
                seeds = f", mean of {cell.seeds} seeds" if cell.seeds > 1 else ""
                counts.setdefault(column.group, {})[f"{cell.n:,} rows{on}{seeds}"] = None
    notes += [f"{group}: {' or '.join(texts)}." for group, texts in counts.items()]
    asked = [(run, task) for line in lines for run in line.runs for task in run.tasks if task in line.tasks]
    if bare := sorted({run.id for run, task in asked if not run.tasks[task].logged}):
        what = "intervals are from lm-eval's standard errors, and nothing is tested."
        notes.append(f"No samples of {', '.join(bare)}: {what}")
    return [*warnings, *notes]


def about_published(lines: Sequence[Line], columns: Columns) -> list[str]:
    """What the marks of published values mean, and who the later papers are."""
    values = [(column.source, cell.paper) for column, cells in columns for cell in cells if cell.paper]
    marks = {published.certainty for source, published in values if source is None}
    says = "; ".join(f"{mark}: {CERTAINTIES[mark]}" for mark in CERTAINTIES if mark in marks)
    notes = [f"The paper's values with their certainty: {says}."] if says else []
    notes += [f"{source}: {where}." for source, where in sorted({(s, p.source) for s, p in values if s is not None})]
    return [*notes, ELSEWHERE] if values and lines and not all(map(as_the_paper, lines)) else notes


def ceilings(runs: Iterable[Run], tasks: Collection[str] | None = None) -> tuple[str, ...]:
    """Sentences on tasks (None: all) whose full context is not above no context, by the paired 95 % interval.

    Runs are held against each other where they were asked the same of the same rows by the same decoder, and both have
    samples. The score is the task's first of `table.NAMES`, counts of errors left out.
    """
    known = list(runs)
    full = [run for run in known if role(run) == "ceiling" and family(run) != TUNED]
    empty = [run for run in known if run.method == NONE]
    remedies: dict[str, dict[tuple[str, str], None]] = {}
    pairs = [(run, task) for run in full for task in run.tasks.values() if tasks is None or task.name in tasks]
    for run, task in pairs:
        floors = (floor for floor in empty if task.name in floor.tasks)
        floor = next((f for f in floors if difference(task.protocol, f.tasks[task.name].protocol) is None), None)
        values = None if floor is None else _not_above(run, floor, task)
        if values is not None:
            prompt, remedy = task.population.prompt, "another decoder, or more rows"
            if prompt is not None:
                others = " or ".join(name for name in PROMPTS if name not in (prompt, "official"))
                remedy = f"--metadata with prompt {others}, {remedy}"
            remedies.setdefault(remedy, {})[task.name, values] = None
    sentences = []
    for remedy, tasks_of in remedies.items():
        parts = [(name, f"({values})") for name, values in tasks_of]
        above = "full context is not above no context"
        if len(parts) == 1:
            start, what = f"{parts[0][0]}: {above} {parts[0][1]}", "this task with this prompt"
        else:
            start, what = f"{above}: {'; '.join(map(' '.join, parts))}", "these tasks with their prompts"
        sentences.append(f"{start}: this decoder cannot do {what}; try {remedy}.")
    return tuple(sentences)


def _not_above(full: Run, floor: Run, task: TaskRun) -> str | None:
    """Values of a task whose full context is not above no context; None where it is, or nothing says so."""
    metric = next((name for name in NAMES if name in task.scores and not name.startswith("error_")), None)
    if metric is None or not (task.logged and floor.tasks[task.name].logged):
        return None
    high, low = (measure([run], task.name, metric) for run in (full, floor))
    known = None if high is None or low is None else compare(high, low)
    if high is None or low is None or known is None:
        return None
    ends = tuple(float(end) for end in known.interval(LEVEL))
    if ends[0] > 0:
        return None
    digits = 1 if high.scale == 100 else 3
    values = f"{NAMES[metric]} {high.value:.{digits}f} against {low.value:.{digits}f}"
    if high.aggregation != "weighted_perplexity":  # there the interval is one of logarithms
        values += f", difference [{', '.join(f'{high.scale * end:.{digits}f}' for end in ends)}]"
    return f"{values}, {high.n} rows"


# ---------------------------------------------------------------- what the numbers say


SENTENCES = 3
YES: dict[bool | None, str] = {True: "yes", False: "no"}
Pair = tuple[Row, Cell]  # of the main column


def sentences(tables: Sequence[Table]) -> tuple[str, ...]:
    """At most three: of the first table with a main column its best PCC, the best other method, what compression costs.

    Of other tables the best line of each.
    """
    texts: list[str] = []
    for table in tables:
        head = next((column for column in table.columns if column.key == table.headline), None)
        if head is None:
            continue
        measured = ((row, table.cell(row.key, head.key)) for row in table.rows if row.runs)
        lines = [(row, cell) for row, cell in measured if cell.value is not None]
        methods = [line for line in lines if line[0].role == "method"]
        if not texts and head.better != "lower":
            texts += _about_methods(lines, methods, head)
        elif methods:
            best = (min if head.better == "lower" else max)(methods, key=_value)
            around = [f"{row.label} {_print(cell, head)}" for row, cell in lines if row.role != "method"]
            beside = f" ({', '.join(around)})" if around else ""
            texts.append(
                f"{table.title}: {best[0].label} has the best {head.heading}, {_print(best[1], head)}{beside}."
            )
    return tuple(texts[:SENTENCES])


def _about_methods(lines: Sequence[Pair], methods: Sequence[Pair], head: Column) -> Iterator[str]:
    # the first sentence is about our best line, where one was measured
    ours = [line for line in methods if line[0].method in OURS] or methods
    if not ours:
        return
    row, cell = max(ours, key=_value)
    scale = [line for line in lines if line[0].method in (FULL, TUNED, NONE)]
    ends: dict[str, Pair] = {line[0].role: line for line in scale if line[0].rate is None}
    # What the line compresses to, and where it stands between floor and ceiling.
    at = f" at {row.ratio:.2f}x achieved compression" if row.ratio else ""
    score = f"{head.name} ({head.group})" if head.group.startswith("average of") else head.heading
    place = ""
    if cell.normalised is not None and set(ends) >= {"ceiling", "floor"}:
        low, high = (f"{ends[end][0].label} ({_print(ends[end][1], head)})" for end in ("floor", "ceiling"))
        place = f": {cell.normalised:.0f} % of the way from {low} to {high}"
    yield f"{row.label} reaches {_print(cell, head)} {score}{at}{place}."
    others = [line for line in methods if line[0].method != row.method]
    others = [line for line in others if line[0].rate == row.rate] or others
    if others:
        other = max(others, key=_value)
        tied = all(mark.best or mark.tied for mark in (cell, other[1]))
        told = "a paired test does not tell the two apart" if tied else "a paired test tells the two apart"
        tested = f"; {told}" if any(mark.best for mark in (cell, other[1])) else ""
        above = _value(other) - _value((row, cell))
        place = f"{abs(above):.{head.digits}f} points {'above' if above > 0 else 'below'} {row.label}"
        among = f"At {row.rate:g}x the" if row.rate and other[0].rate == row.rate else "The"
        yield f"{among} best other method is {other[0].label} with {_print(other[1], head)}, {place}{tested}."
    rates = sorted((r.ratio, _print(c, head)) for r, c in methods if r.method == row.method and r.ratio)
    if len(rates) > 1:
        yield (
            f"From {rates[0][0]:.2f}x to {rates[-1][0]:.2f}x achieved compression, {row.name} goes from "
            f"{rates[0][1]} to {rates[-1][1]}."
        )


def _value(line: Pair) -> float:
    assert line[1].value is not None
    return line[1].value


def _print(cell: Cell, head: Column) -> str:
    return f"{cell.value:.{head.digits}f}"


def runs_table(runs: Sequence[Run], names: Mapping[str, str]) -> TextTable:
    """A line a run, a column a fact that any of them states; `names`: run's id -> what it is called."""
    facts = list(map(run_facts, runs))
    columns = tuple(dict.fromkeys(name for line in facts for name in line))
    rows = [(names[run.id], *(line.get(name, "") for name in columns)) for run, line in zip(runs, facts, strict=True)]
    return TextTable(("run", *columns), tuple(rows)).without_empty_columns()


def run_facts(run: Run) -> dict[str, str]:
    """What a run's method is, how it was set, and where its numbers come from."""
    reported, prints = run.reported or Reported(), run.fingerprints
    can = reported.capabilities
    rows = {name: task.population.fingerprint or "" for name, task in run.tasks.items()}
    memory = "" if can.get("soft") is None else "vectors (soft)" if can["soft"] else "text (hard)"
    rates = sorted(task.scores[COMPRESSION] for task in run.tasks.values() if COMPRESSION in task.scores)
    achieved = f"{rates[0]:.2f}x" if rates else ""
    achieved += f" to {rates[-1]:.2f}x, by task" if rates and rates[-1] > rates[0] else ""
    return {
        "method": run.method,
        "memory": memory,
        "reads the question": YES.get(can.get("query_aware"), ""),
        "brings its decoder": YES.get(can.get("owns_decoder"), ""),
        "requested rate": f"{run.rate:g}x" if run.rate else "",
        "achieved rate": achieved,
        "control": run.control or "",
        "checkpoint": run.checkpoint,
        "decoder": run.decoder,
        "parameters": f"{run.parameters:,}" if run.parameters else "",
        "dtype": run.dtype,
        "options": ", ".join(f"{key}={value}" for key, value in sorted(reported.options.items())),
        "overflow": reported.overflow or "",
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
