"""The sentences under a table: what its numbers are of, and what they can be compared with."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from pcc_bench.core.questions import PROMPTS
from pcc_bench.reports.measure import LEVEL, Measure, compare, measure
from pcc_bench.reports.table import NAMES, Cell, Column
from pcc_bench.reports.tables.lines import NONE, TUNED, Line, family, role
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
    """What the measured numbers are.

    Args:
        lines: Measured lines.
        columns: All columns with their cells.
    """
    notes = [INTERVALS] if lines else []
    if any(cell.normalised is not None for _, cells in columns for cell in cells):
        tuned = any(line.row.method == TUNED for line in lines)
        notes.append(NORMALISED_TUNED if tuned else NORMALISED)
    runs = [run for line in lines for run in line.runs]
    warnings = ceilings(runs, frozenset(task for line in lines for task in line.tasks))
    return [*warnings, *notes, *_counts(columns), *_bare(lines)]


def _counts(columns: Columns) -> list[str]:
    """Rows and contexts of each group of columns."""
    counts: dict[str, dict[str, None]] = {}
    for column, cells in columns:
        for cell in cells:
            if cell.n is not None:
                on = f" on {cell.contexts:,} contexts" if cell.contexts is not None else ""
                seeds = f", mean of {cell.seeds} seeds" if cell.seeds > 1 else ""
                counts.setdefault(column.group, {})[f"{cell.n:,} rows{on}{seeds}"] = None
    return [f"{group}: {' or '.join(says)}." for group, says in counts.items()]


def _bare(lines: Sequence[Line]) -> list[str]:
    """The runs whose samples are not there."""
    asked = [(run, task) for line in lines for run in line.runs for task in run.tasks if task in line.tasks]
    bare = sorted({run.id for run, task in asked if not run.tasks[task].logged})
    what = "intervals are from lm-eval's standard errors, and nothing is tested."
    return [f"No samples of {', '.join(bare)}: {what}"] if bare else []


def about_published(lines: Sequence[Line], columns: Columns) -> list[str]:
    """What the marks of published values mean, and who the later papers are."""
    told = [(column.source, cell.paper) for column, cells in columns for cell in cells if cell.paper]
    marks = {published.certainty for source, published in told if source is None}
    says = "; ".join(f"{mark}: {CERTAINTIES[mark]}" for mark in CERTAINTIES if mark in marks)
    notes = [f"The paper's values with their certainty: {says}."] if says else []
    notes += [f"{source}: {where}." for source, where in sorted({(s, p.source) for s, p in told if s is not None})]
    return [*notes, ELSEWHERE] if told and lines and not all(map(as_the_paper, lines)) else notes


def ceilings(runs: Iterable[Run], tasks: Collection[str] | None = None) -> tuple[str, ...]:
    """Sentences on tasks whose full context is not above no context, by the paired 95 % interval.

    Runs are held against each other where they were asked the same of the same rows by the same decoder, and both have
    samples. The score is the task's first of `table.NAMES`, counts of errors left out.

    Args:
        runs: All runs of a table.
        tasks: Those that it shows; None: all.
    """
    known = list(runs)
    full = [run for run in known if role(run) == "ceiling" and family(run) != TUNED]
    empty = [run for run in known if run.method == NONE]
    remedies: dict[str, dict[tuple[str, str], None]] = {}
    pairs = [(run, task) for run in full for task in run.tasks.values()]
    for run, task in pairs:
        if tasks is not None and task.name not in tasks:
            continue
        floors = (floor for floor in empty if task.name in floor.tasks)
        floor = next((f for f in floors if difference(task.protocol, f.tasks[task.name].protocol) is None), None)
        values = None if floor is None else _not_above(run, floor, task)
        if values is not None:
            remedies.setdefault(_remedy(task), {})[task.name, values] = None
    sentences = []
    for remedy, tasks_of in remedies.items():
        if len(tasks_of) == 1:
            ((name, values),) = tasks_of
            start, what = f"{name}: full context is not above no context ({values})", "this task with this prompt"
        else:
            start = "full context is not above no context: " + "; ".join(
                f"{name} ({values})" for name, values in tasks_of
            )
            what = "these tasks with their prompts"
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
    return None if ends[0] > 0 else f"{_values(high, low, ends)}, {high.n} rows"


def _values(high: Measure, low: Measure, ends: tuple[float, ...]) -> str:
    digits = 1 if high.scale == 100 else 3
    said = f"{NAMES[high.metric]} {high.value:.{digits}f} against {low.value:.{digits}f}"
    if high.aggregation == "weighted_perplexity":  # the interval is one of logarithms
        return said
    return said + f", difference [{', '.join(f'{high.scale * end:.{digits}f}' for end in ends)}]"


def _remedy(task: TaskRun) -> str:
    prompt = task.population.prompt
    if prompt is None:
        return "another decoder, or more rows"
    others = " or ".join(name for name in PROMPTS if name not in (prompt, "official"))
    return f"--metadata with prompt {others}, another decoder, or more rows"
