"""Whether the full context beats no context: where it does not, nothing else in a table can mean much."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pcc_bench.core.questions import PROMPTS
from pcc_bench.reports.measure import LEVEL, Measure, compare, measure
from pcc_bench.reports.metrics import NAMES
from pcc_bench.reports.tables.lines import NONE, role
from pcc_bench.results.run import Run, TaskRun, difference


def ceilings(runs: Iterable[Run], tasks: Collection[str] | None = None) -> tuple[str, ...]:
    """A sentence for each task whose full context is not above no context, by the paired 95 % interval.

    Runs are held against each other where they were asked the same of the same rows by the same decoder, and both have
    samples. The score is the task's first of `metrics.NAMES`, counts of errors left out.

    Args:
        runs: All runs of a table.
        tasks: Those that it shows; None: all.
    """
    known = list(runs)
    ends = [run for run in known if role(run) == "ceiling"], [run for run in known if run.method == NONE]
    sentences: dict[str, None] = {}
    for full in ends[0]:
        for name, task in full.tasks.items():
            if tasks is not None and name not in tasks:
                continue
            floors = (run for run in ends[1] if name in run.tasks)
            floor = next((run for run in floors if difference(task.protocol, run.tasks[name].protocol) is None), None)
            if floor is not None and (said := _sentence(full, floor, task)):
                sentences[said] = None
    return tuple(sentences)


def _sentence(full: Run, floor: Run, task: TaskRun) -> str:
    """What is wrong with a task; "" where the full context is above, or nothing says so."""
    metric = next((name for name in NAMES if name in task.scores and not name.startswith("error_")), None)
    if metric is None or not (task.logged and floor.tasks[task.name].logged):
        return ""
    high, low = (measure([run], task.name, metric) for run in (full, floor))
    known = None if high is None or low is None else compare(high, low)
    if high is None or low is None or known is None:
        return ""
    ends = tuple(float(end) for end in known.interval(LEVEL))
    if ends[0] > 0:
        return ""
    return (
        f"{task.name}: full context is not above no context ({_values(high, low, ends)}, {high.n} rows): this decoder "
        f"cannot do this task with this prompt; try {_remedy(task)}."
    )


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
