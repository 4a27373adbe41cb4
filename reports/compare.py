"""Result files as text: one table of many runs; and two runs on the same rows, row by row."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pcc_bench import stats
from pcc_bench.core.errors import UsageError
from pcc_bench.core.texttable import TextTable
from pcc_bench.reports import measure
from pcc_bench.reports.table import ANSWER_METRICS, NAMES, PERCENT, p_value
from pcc_bench.reports.words import ceilings
from pcc_bench.results.collection import load
from pcc_bench.results.files import result_files
from pcc_bench.results.reading import read_run
from pcc_bench.results.rows import COMPRESSION
from pcc_bench.results.run import DATA, READER, Run, TaskRun, check_one_table, difference

SEED = 0
NOTES = (
    "difference: B less A; [low, high]: 95 %, paired bootstrap of contexts with all their rows.",
    "p: paired permutation of contexts, two-sided; McNemar: exact, for right and wrong answers with one row a context.",
    "wins / losses / ties: rows on which B scores higher than A, lower, the same.",
    "MDE: the smallest true difference, in the scores' unit, that these rows would show with a probability of "
    f"{100 * measure.POWER:.0f} % (two-sided test, 5 %).",
    "p (Holm): p adjusted for all comparisons of this table.",
)


@dataclass(frozen=True)
class RowComparison:
    """One metric of one task, in print's unit."""

    task: str
    metric: str
    a: float  # score of the first run on the common rows
    b: float
    low: float  # lower end of the interval of the difference `b` less `a`
    high: float
    n: int
    contexts: int  # different contexts among them
    p: float  # of the permutation test
    mcnemar: float | None  # of McNemar's test; None where it does not apply
    tally: tuple[int, int, int]  # rows on which `b` is higher than `a`, lower, the same
    detectable: float  # the smallest difference that these rows would show; see `measure.minimal`
    holm: float = math.nan  # `p` adjusted for all comparisons
    better: str = ""  # `A`, `B`, or "" where the adjusted p is 5 % or more, or nothing says which way is better


def compare(a: Path, b: Path, metrics: Sequence[str] = ()) -> tuple[list[RowComparison], list[str]]:
    """Compare two runs, files or folders, in the metrics that both have of rows; and what the reader must know.

    Raises UsageError: a run can't be read or has no samples, they have no task in common or asked different things, or
    a metric is not there.
    """
    first, second = load([a]), load([b])
    runs, others = _by_task(first.runs, a), _by_task(second.runs, b)
    common = [task for task in runs if task in others]
    if not common:
        raise UsageError(f"{a} and {b} have no task in common: {', '.join(runs)}; {', '.join(others)}")
    notes = dict.fromkeys((*first.notes, *second.notes))
    comparisons: list[RowComparison] = []
    for task in common:
        one, other = runs[task], others[task]
        mine, theirs = one.tasks[task].protocol, other.tasks[task].protocol
        # The same questions, asked in the same way; of how many rows and of which decoder, either may be another.
        if wrong := difference(mine, theirs, (*DATA, *READER)):
            what = f"{wrong[0]} of {task} is {wrong[1]} in the first and {wrong[2]} in the second"
            raise UsageError(f"{one.path} and {other.path} can't be compared: {what}")
        for name in READER:
            if mine.get(name) != theirs.get(name):
                notes[f"{name} is {mine.get(name)} in A and {theirs.get(name)} in B."] = None
        if bare := [run.path for run in (one, other) if not run.tasks[task].logged]:
            raise UsageError(f"no samples of {task} beside {bare[0]}: rows are compared, repeat the run with samples")
        for metric in one.tasks[task].scores:
            if not metrics or metric in metrics:
                comparisons += _comparison(one, other, task, metric, notes)
    if not comparisons:
        asked = ", ".join(metrics) or "any metric"
        known = "; ".join(f"{task}: {', '.join(runs[task].tasks[task].scores)}" for task in common)
        raise UsageError(f"{a} and {b} have no common scores of rows for {asked}: there are {known}")
    judged = []
    for compared, p in zip(comparisons, stats.holm([each.p for each in comparisons]), strict=True):
        up = runs[compared.task].tasks[compared.task].higher_is_better.get(compared.metric)
        better = "" if p >= 0.05 or up is None else "AB"[(compared.b > compared.a) == up]
        judged.append(replace(compared, holm=float(p), better=better))
    return judged, list(notes)


def table(comparisons: Sequence[RowComparison], notes: Sequence[str] = ()) -> TextTable:
    rows = [
        {
            "task": one.task,
            "metric": NAMES.get(one.metric, one.metric),
            "n": f"{one.n:,}",
            "contexts": f"{one.contexts:,}",
            "A": f"{one.a:.2f}",
            "B": f"{one.b:.2f}",
            "difference": f"{one.b - one.a:+.2f} [{one.low:+.2f}, {one.high:+.2f}]",
            "wins / losses / ties": " / ".join(f"{rows:,}" for rows in one.tally),
            "MDE": f"{one.detectable:.2f}",
            "p": p_value(one.p),
            "McNemar": "" if one.mcnemar is None else p_value(one.mcnemar),
            "p (Holm)": p_value(one.holm),
            "better": one.better,
        }
        for one in comparisons
    ]
    cells = tuple(tuple(row.values()) for row in rows)
    return TextTable(tuple(rows[0]), cells, (*NOTES, *notes)).without_empty_columns()


def _by_task(runs: Iterable[Run], path: Path) -> dict[str, Run]:
    by_task: dict[str, Run] = {}
    for run in runs:
        for task in run.tasks:
            other = by_task.setdefault(task, run)
            if other is not run:
                raise UsageError(f"{path} holds two runs of {task} ({other.place} and {run.place}): name one file")
    if not by_task:
        raise UsageError(f"no results at {path}: give a results_*.json, or a folder that 'pcc-bench eval' wrote")
    return by_task


def _comparison(a: Run, b: Run, task: str, metric: str, notes: dict[str, None]) -> Iterator[RowComparison]:
    """One metric on the common rows; nothing where a run has no scores of rows for it."""
    one, other = (measure.measure([run], task, metric) for run in (a, b))
    if one is None or other is None or one.rows is None or other.rows is None:
        return
    _, i, j = np.intersect1d(one.rows.number, other.rows.number, return_indices=True)
    if not len(i):
        raise UsageError(f"the two runs have no row of {task} in common: they scored different parts of it")
    mine, theirs = one.rows.only(i), other.rows.only(j)
    if mine.content is None or theirs.content is None:
        raise UsageError(f"the samples of {task} lack their rows' hashes (an older lm-eval wrote them): repeat the run")
    if changed := int((mine.content != theirs.content).sum()):
        raise UsageError(f"the two runs were made on different data: {changed} common rows of {task} differ in content")
    data = mine.clusters(theirs.top - mine.top)
    if len(data.sizes) < 2:
        raise UsageError(f"the common rows of {task} are all on one context, which says nothing about others")
    left = (len(one.rows.number) - len(i), len(other.rows.number) - len(j))
    if any(left):
        notes[f"{task}: {left[0]} rows of A and {left[1]} of B have no partner in the other and are left out."] = None
    a_score, b_score = (measure.aggregate(rows, one.aggregation) for rows in (mine, theirs))

    def in_print(difference: float) -> float:
        """In the scores' unit; a difference of two log-likelihoods as it changes the first run's perplexity."""
        logarithmic = one.aggregation == "weighted_perplexity"
        return a_score * math.expm1(-difference) if logarithmic else one.scale * difference

    low, high = sorted(in_print(float(end)) for end in stats.paired_bootstrap(data, np.random.default_rng(SEED)))
    right_or_wrong = np.isin([mine.top, theirs.top], (0, 1)).all() and one.aggregation == "mean"
    single = right_or_wrong and len(data.sizes) == len(mine.number)
    yield RowComparison(
        task=task,
        metric=metric,
        a=one.scale * a_score,
        b=one.scale * b_score,
        low=low,
        high=high,
        n=len(mine.number),
        contexts=len(data.sizes),
        p=float(stats.paired_permutation(data, np.random.default_rng(SEED))),
        mcnemar=stats.mcnemar(mine.top, theirs.top) if single else None,
        tally=measure.tally(theirs, mine),
        detectable=abs(in_print(-measure.minimal(stats.estimate(data, scale=one.range)))),
    )


OTHERS = ("acc_calibrated", "acc", "perplexity", "ranking_acc", "bleu", "rougeL")  # the main ones of our other tasks
WIDE_ONLY = ("model", "contains", "rate", "slots only", "kept", "s/row")
LEGEND = {
    "EM": "EM, F1 and contains are percentages, each with its standard error.",
    "rate": "rate: source tokens per slot that the method was asked for.",
    "achieved": "achieved: source tokens (decoder's) per vector or token of memory, boundary vectors counted.",
    "slots only": "slots only: the same without boundary vectors. Both are ratios of sums over all rows.",
    "kept": "kept: rows of the data set that the task asks, of those read; n may be fewer (limit, skipped rows).",
    "s/row": "s/row: compression (charged to every question on a context), prefill and decoding, on this machine.",
}
SECONDS = ("compress_seconds", "prefill_seconds", "decode_seconds")


def summarise(paths: Iterable[Path], wide: bool = True) -> TextTable:
    """The table of result files; not `wide`: its main columns. Raises UsageError: as `read_run`, `check_one_table`."""
    runs = [read_run(path) for path in result_files(paths)]
    entries = sorted(((run, task) for run in runs for task in run.tasks.values()), key=lambda entry: entry[1].name)
    check_one_table(entries)
    scores = (*ANSWER_METRICS, *OTHERS)
    names = (NAMES[metric] for metric in scores)
    columns = ("method", "model", "task", "n", *names, "rate", "achieved", "slots only", "kept", "s/row")

    def score(task: TaskRun, metric: str) -> str:
        value, error = task.scores.get(metric), task.errors.get(metric)
        if value is None or metric not in PERCENT:
            return "" if value is None else f"{value:.4g}"
        return f"{100 * value:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")

    rows = []
    for run, task in entries:
        account, population = task.rows.account if task.logged else {}, task.population
        slots_only, seconds = None, ""
        if {"source_tokens", "slots"} <= set(account):
            # The ratio of the sums: a mean of ratios would weigh short contexts as much as long ones.
            source, slots = (float(np.nansum(account[name])) for name in ("source_tokens", "slots"))
            slots_only = source / slots if slots else None
        if set(SECONDS) <= set(account):
            total = np.sum([account[name] for name in SECONDS], axis=0)
            seconds = f"{np.nanmean(total):.3f}" if np.isfinite(total).any() else ""
        row = (
            run.method + (f" ({run.control})" if run.control else ""),
            run.model,
            task.name,
            f"{task.scored}" + (f" ({task.skipped} skipped)" if task.skipped else ""),
            *(score(task, name) for name in scores),
            *("" if r is None else f"{r:.2f}x" for r in (run.rate, task.scores.get(COMPRESSION), slots_only)),
            f"{population.kept} of {population.rows_read}" if population.kept is not None else "",
            seconds,
        )
        rows.append(row)
    text = TextTable(columns, tuple(rows), ceilings(runs), LEGEND).without_empty_columns()
    return text if wide else text.with_columns(column for column in text.columns if column not in WIDE_ONLY)
