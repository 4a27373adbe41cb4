"""Two runs on the same rows: what differs, by how much, and whether that is more than chance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pcc_bench import stats
from pcc_bench.core.errors import UsageError
from pcc_bench.core.texttable import TextTable
from pcc_bench.reports import measure
from pcc_bench.reports.measure import Measure, Scored
from pcc_bench.reports.table import NAMES, PERCENT, p_value
from pcc_bench.results.collection import Results, load
from pcc_bench.results.run import DATA, READER, Run, difference

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
class Comparison:
    """One metric of one task."""

    task: str
    metric: str
    a: float  # score of the first run on the common rows, in print's unit
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


def compare(a: Path, b: Path, metrics: Sequence[str] = ()) -> tuple[list[Comparison], list[str]]:
    """Compare two runs.

    Args:
        a: Result file or folder of the first run.
        b: Of the second.
        metrics: Which; by default all that both have scores of rows for.

    Returns:
        The comparisons, and what the reader must know.

    Raises:
        UsageError: A run can't be read or has no samples, they have no task in common or asked different things, or a
            metric is not there.
    """
    first, second = load([a]), load([b])
    runs, others = _by_task(first, a), _by_task(second, b)
    common = [task for task in runs if task in others]
    if not common:
        raise UsageError(f"{a} and {b} have no task in common: {', '.join(runs)}; {', '.join(others)}")
    notes = list(dict.fromkeys((*first.notes, *second.notes)))
    made: list[Comparison] = []
    higher: dict[tuple[str, str], bool | None] = {}
    for task in common:
        one, other = runs[task], others[task]
        _check_same(one, other, task, notes)
        for metric in one.tasks[task].scores:
            pair = [_measure(run, task, metric) for run in (one, other)]
            if pair[0] is None or pair[1] is None or (metrics and metric not in metrics):
                continue
            higher[task, metric] = one.tasks[task].higher_is_better.get(metric)
            made.append(_comparison(pair[0], pair[1], notes))
    if not made:
        wanted = ", ".join(metrics) or "any metric"
        raise UsageError(f"{a} and {b} have no common scores of rows for {wanted}: {_known(runs, common)}")
    adjusted = stats.holm([one.p for one in made])
    return [_judged(one, float(p), higher[one.task, one.metric]) for one, p in zip(made, adjusted, strict=True)], notes


def table(comparisons: Iterable[Comparison], notes: Sequence[str] = ()) -> TextTable:
    """Comparisons in print."""
    columns = ("task", "metric", "n", "contexts", "A", "B", "difference", "wins / losses / ties", "MDE", "p", "McNemar",
               "p (Holm)", "better")  # fmt: skip
    rows = [
        (
            one.task,
            NAMES.get(one.metric, one.metric),
            f"{one.n:,}",
            f"{one.contexts:,}",
            f"{one.a:.2f}",
            f"{one.b:.2f}",
            f"{one.b - one.a:+.2f} [{one.low:+.2f}, {one.high:+.2f}]",
            " / ".join(f"{rows:,}" for rows in one.tally),
            f"{one.detectable:.2f}",
            p_value(one.p),
            "" if one.mcnemar is None else p_value(one.mcnemar),
            p_value(one.holm),
            one.better,
        )
        for one in comparisons
    ]
    return TextTable(columns, tuple(rows), (*NOTES, *notes)).without_empty_columns()


def _by_task(loaded: Results, path: Path) -> dict[str, Run]:
    found: dict[str, Run] = {}
    for run in loaded.runs:
        for task in run.tasks:
            if task in found:
                raise UsageError(
                    f"{path} holds two runs of {task} ({found[task].place} and {run.place}): name one file"
                )
            found[task] = run
    if not found:
        raise UsageError(f"no results at {path}: give a results_*.json, or a folder that 'pcc-bench eval' wrote")
    return found


def _check_same(one: Run, other: Run, task: str, notes: list[str]) -> None:
    """The same questions, asked in the same way; of how many rows and of which decoder, either may be another."""
    mine, theirs = one.tasks[task].protocol, other.tasks[task].protocol
    wrong = difference(mine, theirs, (*DATA, *READER))
    if wrong:
        raise UsageError(
            f"{one.path} and {other.path} can't be compared: {wrong.name} of {task} is {wrong.first} in the first and "
            f"{wrong.second} in the second"
        )
    for name in READER:
        if mine.get(name) != theirs.get(name):
            said = f"{name} is {mine.get(name)} in A and {theirs.get(name)} in B."
            notes += [said] if said not in notes else []


def _measure(run: Run, task: str, metric: str) -> Measure | None:
    if not run.tasks[task].logged:
        raise UsageError(
            f"no samples of {task} beside {run.path}: runs are compared row by row, repeat it with samples"
        )
    found = measure.measure([run], task, metric)
    return found if found is not None and found.rows is not None else None


def _comparison(one: Measure, other: Measure, notes: list[str]) -> Comparison:
    assert one.rows is not None
    assert other.rows is not None
    mine, theirs = _common(one.rows, other.rows, one.task)
    left = (len(one.rows.number) - len(mine.number), len(other.rows.number) - len(theirs.number))
    said = f"{one.task}: {left[0]} rows of A and {left[1]} of B have no partner in the other and are left out."
    if any(left) and said not in notes:
        notes.append(said)
    data = mine.clusters(theirs.top - mine.top)
    low, high = stats.paired_bootstrap(data, np.random.default_rng(SEED))
    p = stats.paired_permutation(data, np.random.default_rng(SEED))
    known = stats.estimate(data, scale=1.0 if one.aggregation == "mean" and one.metric in PERCENT else 0.0)
    right_or_wrong = np.isin([mine.top, theirs.top], (0, 1)).all() and one.aggregation == "mean"
    single = right_or_wrong and len(data.sizes) == len(mine.number)
    ends = sorted(_in_print(one, mine, float(end)) for end in (low, high))
    return Comparison(
        task=one.task,
        metric=one.metric,
        a=one.scale * measure.aggregate(mine, one.aggregation),
        b=one.scale * measure.aggregate(theirs, one.aggregation),
        low=ends[0],
        high=ends[1],
        n=len(mine.number),
        contexts=len(data.sizes),
        p=float(p),
        mcnemar=stats.mcnemar(mine.top, theirs.top) if single else None,
        tally=measure.tally(theirs, mine),
        detectable=abs(_in_print(one, mine, -measure.minimal(known))),
    )


def _in_print(one: Measure, rows: Scored, difference: float) -> float:
    """A difference in the unit of the scores; that of two log-likelihoods, as it changes the first run's perplexity."""
    if one.aggregation == "weighted_perplexity":
        return measure.aggregate(rows, one.aggregation) * math.expm1(-difference)
    return one.scale * difference


def _common(one: Scored, other: Scored, task: str) -> tuple[Scored, Scored]:
    """The rows that both have."""
    _, i, j = np.intersect1d(one.number, other.number, return_indices=True)
    if not len(i):
        raise UsageError(f"the two runs have no row of {task} in common: they scored different parts of it")
    mine, theirs = one.only(i), other.only(j)
    if mine.content is None or theirs.content is None:
        raise UsageError(
            f"the samples of {task} lack the hashes of their rows (an older lm-eval wrote them): repeat the run"
        )
    changed = int((mine.content != theirs.content).sum())
    if changed:
        raise UsageError(f"the two runs were made on different data: {changed} common rows of {task} differ in content")
    if len(np.unique(mine.context)) < 2:
        raise UsageError(f"the common rows of {task} are all on one context, which says nothing about others")
    return mine, theirs


def _judged(one: Comparison, holm: float, higher: bool | None) -> Comparison:
    better = "" if holm >= 0.05 or higher is None else "AB"[(one.b > one.a) == higher]
    return replace(one, holm=holm, better=better)


def _known(runs: dict[str, Run], tasks: Iterable[str]) -> str:
    return "there are " + "; ".join(f"{task}: {', '.join(runs[task].tasks[task].scores)}" for task in tasks)
