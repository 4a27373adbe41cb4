"""What a report says in words: sentences under a table, sentences made from its numbers, a line of facts a run."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from operator import itemgetter

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
ELSEWHERE = "Published values are of other data or another decoder than the measured ones: compare shapes only."
Columns = Sequence[tuple[Column, Sequence[Cell]]]


def as_the_paper(line: Line) -> bool:
    """Was a line measured with the paper's decoder, on rows from the hub?"""
    sources = {task.population.source for _, task in line.results()}
    return sources == {"hub"} and bool(PAPERS_DECODER.search(line.row.decoder))


def about(lines: Sequence[Line], columns: Columns) -> list[str]:
    """What the measured numbers are, of the lines and of all columns with their cells."""
    notes = [INTERVALS] if lines else []
    if any(cell.normalised is not None for _, cells in columns for cell in cells):
        tuned = any(line.row.method == TUNED for line in lines)
        top = "tuned context (the full text, after training on questions)" if tuned else "full context"
        notes.append(f"normalised: 0 is no context, 100 the {top}.")
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
    if bare := sorted({run.id for line in lines for run, task in line.results() if not task.logged}):
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
        if floor is not None and (values := _not_above(run, floor, task)):
            prompt, remedy = task.population.prompt, "another decoder, or more rows"
            if prompt is not None:
                others = " or ".join(name for name in PROMPTS if name not in (prompt, "official"))
                remedy = f"--metadata with prompt {others}, {remedy}"
            remedies.setdefault(remedy, {})[task.name, f"({values})"] = None
    sentences = []
    above = "full context is not above no context"
    for remedy, parts in remedies.items():
        start, what = f"{above}: {'; '.join(map(' '.join, parts))}", "these tasks with their prompts"
        if len(parts) == 1:
            ((name, values),) = parts
            start, what = f"{name}: {above} {values}", "this task with this prompt"
        sentences.append(f"{start}: this decoder cannot do {what}; try {remedy}.")
    return tuple(sentences)


def _not_above(full: Run, floor: Run, task: TaskRun) -> str:
    """Values of a task whose full context is not above no context; "" where it is, or nothing says so."""
    metric = next((name for name in NAMES if name in task.scores and not name.startswith("error_")), None)
    high, low = (measure([run], task.name, metric or "") for run in (full, floor))
    known = None if high is None or low is None else compare(high, low)
    if metric is None or high is None or low is None or known is None:
        return ""
    ends = tuple(float(end) for end in known.interval(LEVEL))
    if ends[0] > 0:
        return ""
    digits = 1 if high.scale == 100 else 3
    values = f"{NAMES[metric]} {high.value:.{digits}f} against {low.value:.{digits}f}"
    if high.aggregation != "weighted_perplexity":  # there the interval is one of logarithms
        values += f", difference [{', '.join(f'{high.scale * end:.{digits}f}' for end in ends)}]"
    return f"{values}, {high.n} rows"


SENTENCES = 3
YES: dict[bool | None, str] = {True: "yes", False: "no", None: ""}
Measured = tuple[Row, Cell, float]  # a line with its cell of the main column, and the value


def sentences(tables: Sequence[Table]) -> tuple[str, ...]:
    """At most three: of the first table with a main column its best PCC, the best other method, what compression costs.

    Of other tables the best line of each.
    """
    texts: list[str] = []
    for table in tables:
        head = next((column for column in table.columns if column.key == table.headline), None)
        if head is None:
            continue
        cells = [(row, table.cell(row.key, head.key)) for row in table.rows if row.runs]
        lines = [(row, cell, cell.value) for row, cell in cells if cell.value is not None]
        methods = [line for line in lines if line[0].role == "method"]
        if not texts and head.better != "lower":
            texts += _about_methods(lines, methods, head)
        elif methods:
            best, _, top = (min if head.better == "lower" else max)(methods, key=itemgetter(2))
            around = [f"{row.label} {value:.{head.digits}f}" for row, _, value in lines if row.role != "method"]
            beside = f" ({', '.join(around)})" if around else ""
            texts.append(f"{table.title}: {best.label} has the best {head.heading}, {top:.{head.digits}f}{beside}.")
    return tuple(texts[:SENTENCES])


def _about_methods(lines: Sequence[Measured], methods: Sequence[Measured], head: Column) -> Iterator[str]:
    # the first sentence is about our best line, where one was measured
    ours = [line for line in methods if line[0].method in OURS] or methods
    if not ours:
        return
    row, cell, value = max(ours, key=itemgetter(2))
    scale = [line for line in lines if line[0].method in (FULL, TUNED, NONE) and line[0].rate is None]
    ends = {end.role: f"{end.label} ({number:.{head.digits}f})" for end, _, number in scale}
    # What the line compresses to, and where it stands between floor and ceiling.
    at = f" at {row.ratio:.2f}x achieved compression" if row.ratio else ""
    score = f"{head.name} ({head.group})" if head.group.startswith("average of") else head.heading
    place = ""
    if cell.normalised is not None and set(ends) >= {"ceiling", "floor"}:
        place = f": {cell.normalised:.0f} % of the way from {ends['floor']} to {ends['ceiling']}"
    yield f"{row.label} reaches {value:.{head.digits}f} {score}{at}{place}."
    others = [line for line in methods if line[0].method != row.method]
    others = [line for line in others if line[0].rate == row.rate] or others
    if others:
        other, beside, theirs = max(others, key=itemgetter(2))
        tied = all(mark.best or mark.tied for mark in (cell, beside))
        verdict = "a paired test does not tell the two apart" if tied else "a paired test tells the two apart"
        tested = f"; {verdict}" if cell.best or beside.best else ""
        place = f"{abs(theirs - value):.{head.digits}f} points {'above' if theirs > value else 'below'} {row.label}"
        among = f"At {row.rate:g}x the" if row.rate and other.rate == row.rate else "The"
        yield f"{among} best other method is {other.label} with {theirs:.{head.digits}f}, {place}{tested}."
    rates = sorted((r.ratio, f"{v:.{head.digits}f}") for r, _, v in methods if r.method == row.method and r.ratio)
    if len(rates) > 1:
        yield (
            f"From {rates[0][0]:.2f}x to {rates[-1][0]:.2f}x achieved compression, {row.name} goes from "
            f"{rates[0][1]} to {rates[-1][1]}."
        )


def runs_table(runs: Sequence[tuple[Run, str]]) -> TextTable:
    """A line a run, by its name, a column a fact that any of them states."""
    facts = [{"run": name} | run_facts(run) for run, name in runs]
    columns = tuple(facts[0]) if facts else ("run",)
    return TextTable(columns, tuple(tuple(line.values()) for line in facts)).without_empty_columns()


def run_facts(run: Run) -> dict[str, str]:
    """What a run's method is, how it was set, and where its numbers come from; "" for what it does not say."""
    reported, prints = run.reported or Reported(), run.fingerprints
    can = reported.capabilities
    rows = {name: task.population.fingerprint or "" for name, task in run.tasks.items()}
    rates = sorted(task.scores[COMPRESSION] for task in run.tasks.values() if COMPRESSION in task.scores)
    achieved = f"{rates[0]:.2f}x" if rates else ""
    achieved += f" to {rates[-1]:.2f}x, by task" if rates and rates[-1] > rates[0] else ""
    return {
        "method": run.method,
        "memory": {True: "vectors (soft)", False: "text (hard)", None: ""}[can.get("soft")],
        "reads the question": YES[can.get("query_aware")],
        "brings its decoder": YES[can.get("owns_decoder")],
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
