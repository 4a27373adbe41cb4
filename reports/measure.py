"""Scores of rows as estimates: a value, its interval, and whether two methods can be told apart (`pcc_bench.stats`)."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from pcc_bench import stats
from pcc_bench.core.errors import UsageError
from pcc_bench.reports.table import PERCENT
from pcc_bench.results.rows import COMPRESSION, Integers, Numbers, check_finite
from pcc_bench.results.run import Run, TaskRun

RATIOS = ("weighted_perplexity", "ratio_of_sums")
AGREEMENT = 1e-6  # of a score with what its samples say; both are sums of doubles
LEVEL = 0.95
POWER = 0.8  # of the smallest difference that is said to be found


@dataclass(frozen=True)
class ScoredRows:
    number: Integers  # `[rows]`, numbers of the rows, ascending
    context: Integers  # `[rows]`, equal for rows on the same context
    content: Integers | None  # `[rows]`, a hash of the row and its prompt; None where the samples have none
    top: Numbers  # `[rows]`, the score of each; of a ratio of sums what is summed above the line
    of: Numbers  # `[rows]`, 1; of a ratio of sums what is summed below the line

    def only(self, index: npt.NDArray[np.intp]) -> Self:
        content = None if self.content is None else self.content[index]
        return type(self)(self.number[index], self.context[index], content, self.top[index], self.of[index])

    def clusters(self, top: Numbers) -> stats.Clusters:
        """Sums by context of other values of the same rows."""
        _, index = np.unique(self.context, return_inverse=True)
        sums, sizes = (np.bincount(index, values).astype(np.float64) for values in (top, self.of))
        return stats.Clusters(sums, sizes)

    def pairs(self, other: Self) -> bool:
        """Are they the same rows, of the same size?"""
        return np.array_equal(self.number, other.number) and np.array_equal(self.of, other.of)


@dataclass(frozen=True)
class Measure:
    """One score of one line of a table, on one task."""

    metric: str
    aggregation: str  # how rows become the score
    value: float  # the score; a percentage where `metric` is one
    error: float | None  # lm-eval's standard error, in the same unit; None where it has none
    rows: ScoredRows | None  # None where no samples were logged, or the score is no function of row scores
    n: int
    contexts: int | None  # different contexts among them; None where it is not known
    seeds: int
    tokens: float  # source tokens of all rows, the decoder's
    positions: float  # positions of memory of all rows, boundary vectors counted; 0 where nothing was compressed

    @property
    def scale(self) -> float:
        """From lm-eval's unit to the table's."""
        return 100.0 if self.metric in PERCENT else 1.0

    @property
    def range(self) -> float:
        """Of one row's score, where it is a share; else 0: see `stats.estimate`."""
        return 1.0 if self.aggregation == "mean" and self.metric in PERCENT else 0.0

    def estimate(self) -> stats.Estimate | None:
        """The mean before any exponential, in lm-eval's unit; None where it can't be said.

        A share of few rows that all agree is not known exactly: it is held against one half with the pseudo rows of
        `stats.estimate`.
        """
        if self.rows is None or (self.contexts or 0) < 2:
            return None
        return share(self.rows) if self.range else stats.estimate(self.rows.clusters(self.rows.top))

    def interval(self) -> tuple[float, float] | None:
        """Both ends of the 95 % interval, in the table's unit; None where it can't be said."""
        known = self.estimate()
        if known is not None:
            return self.ends(known)
        return None if self.error is None else (self.value - 1.96 * self.error, self.value + 1.96 * self.error)

    def ends(self, known: stats.Estimate) -> tuple[float, float]:
        """The interval of an estimate of this metric, in the table's unit."""
        low, high = (float(end) for end in known.interval(LEVEL))
        if self.aggregation == "weighted_perplexity":
            return math.exp(-high), math.exp(-low)
        if self.metric in PERCENT:
            low, high = max(low, 0.0), min(high, 1.0)
        return self.scale * low, self.scale * high


def measure(runs: Sequence[Run], task: str, metric: str) -> Measure | None:
    """A score of a task, averaged over runs that differ in their seeds; None where no run has the metric.

    Raises UsageError: the samples of a run do not give its score, or one is not a finite number.
    """
    having = [run for run in runs if task in run.tasks and metric in run.tasks[task].scores]
    if not having:
        return None
    tasks = [run.tasks[task] for run in having]
    aggregation, scale = tasks[0].aggregations.get(metric, ""), 100.0 if metric in PERCENT else 1.0
    value = float(np.mean([each.scores[metric] for each in tasks]))
    errors = [each.errors[metric] for each in tasks if metric in each.errors]
    rows, *others = [_rows(run, run.tasks[task], metric) for run in having]
    if rows is not None and others:  # several seeds, of the same rows, as one
        tops = [part.top for part in others if part is not None and part.pairs(rows)]
        rows = replace(rows, top=np.mean([rows.top, *tops], axis=0)) if len(tops) == len(others) else None
    elif rows is not None:
        recomputed = aggregate(rows, aggregation)
        if not math.isclose(value, recomputed, rel_tol=AGREEMENT, abs_tol=AGREEMENT):
            raise UsageError(
                f"{having[0].path} says {metric} of {task} is {value:.6g}, and the samples beside it give "
                f"{recomputed:.6g}: they are of different runs; repeat the run"
            )
    return Measure(
        metric=metric,
        aggregation=aggregation,
        value=scale * value,
        error=scale * float(np.mean(errors)) if len(errors) == len(tasks) else None,
        rows=rows,
        n=tasks[0].scored,
        contexts=None if rows is None else len(np.unique(rows.context)),
        seeds=len(tasks),
        **_account(tasks[0]),
    )


def compare(one: Measure, other: Measure) -> stats.Estimate | None:
    """The paired difference `one` less `other` before any exponential; None where the rows do not pair."""
    if one.rows is None or other.rows is None or not one.rows.pairs(other.rows):
        return None
    data = one.rows.clusters(one.rows.top - other.rows.top)
    return stats.estimate(data, scale=one.range) if len(data.sizes) > 1 else None


def share(rows: ScoredRows) -> stats.Estimate | None:
    """The mean of scores from 0 to 1, held against one half; None where all rows are on one context."""
    data = rows.clusters(rows.top - 0.5)
    if len(data.sizes) < 2:
        return None
    half = stats.estimate(data, scale=1.0)
    return replace(half, difference=half.difference + 0.5, centre=half.centre + 0.5)


def pooled(metric: str, parts: Sequence[ScoredRows]) -> Measure | None:
    """A score from 0 to 1 over rows of several tasks, whose contexts are told apart by their hash; None of no row."""
    if not sum(len(part.number) for part in parts):
        return None
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in ("number", "context", "top", "of")]
    number, context, top, of = columns
    rows, contexts = ScoredRows(number, context, None, top, of), len(np.unique(context))
    return Measure(metric, "mean", 100 * float(top.mean()), None, rows, len(number), contexts, 1, 0.0, 0.0)


def tally(one: ScoredRows, other: ScoredRows) -> tuple[int, int, int]:
    """Rows on which the first scores more than the second, less, and the same; the rows of both are the same ones."""
    sign = np.sign(one.top - other.top)
    return int((sign > 0).sum()), int((sign < 0).sum()), int((sign == 0).sum())


def combined(estimates: Sequence[stats.Estimate | None]) -> stats.Estimate | None:
    """The plain mean over tasks that share no context; None where one is missing."""
    known = [estimate for estimate in estimates if estimate is not None]
    if len(known) < max(1, len(estimates)):
        return None
    if len(known) == 1:
        return known[0]
    error = np.sqrt(np.sum([estimate.error**2 for estimate in known], axis=0)) / len(known)
    means = [np.mean([getattr(estimate, name) for estimate in known], axis=0) for name in ("difference", "centre")]
    return stats.Estimate(means[0], means[1], error, min(estimate.freedom for estimate in known))


def minimal(difference: stats.Estimate) -> float:
    """The smallest true difference that the two-sided test finds with a probability of `POWER`: its MDE."""
    return float(difference.detectable((1 - LEVEL) / 2, POWER))


def two_sided(difference: stats.Estimate) -> float:
    """P-value of "there is no difference"."""
    return min(1.0, 2 * min(float(difference.p_below()), float(difference.p_above())))


def _rows(run: Run, task: TaskRun, metric: str) -> ScoredRows | None:
    aggregation = task.aggregations.get(metric)
    if not task.logged or aggregation not in ("mean", *RATIOS):
        return None
    rows = task.rows
    name = rows.column(metric)
    if name not in rows.scores or (aggregation in RATIOS and name not in rows.below):
        return None
    what = f"{metric} of {task.name} in {run.path}"
    check_finite(rows, name, what)
    there = ~np.isnan(rows.scores[name])
    of = rows.below[name][there] if aggregation in RATIOS else np.ones(int(there.sum()))
    if not np.isfinite(of).all():
        raise UsageError(f"{what} is divided by what is no finite number: repeat the run")
    content = None if rows.content is None else rows.content[there]
    if not of.sum():
        return None
    return ScoredRows(rows.number[there], rows.context[there], content, rows.scores[name][there], of)


def achieved(tasks: Iterable[TaskRun]) -> float | None:
    """Achieved compression: source tokens over positions of memory, each summed over all rows of all tasks.

    Positions are slots and boundary vectors. None where no memory is accounted for, or where several tasks are given
    and one has no samples: its sums are not known.
    """
    tasks = list(tasks)
    if len(tasks) > 1 and not all(task.logged for task in tasks):
        return None
    sums = [_account(task) for task in tasks]
    positions = sum(account["positions"] for account in sums)
    return sum(account["tokens"] for account in sums) / positions if positions else None


def _account(task: TaskRun) -> dict[str, float]:
    """Sums over the rows; without samples, what lm-eval's aggregate says of one position."""
    account = task.rows.account if task.logged else {}
    if {"source_tokens", "slots", "boundary"} <= set(account):
        source, slots, boundary = (float(np.nansum(account[name])) for name in ("source_tokens", "slots", "boundary"))
        return {"tokens": source, "positions": slots + boundary}
    ratio = task.scores.get(COMPRESSION)
    return {"tokens": ratio or 0.0, "positions": 0.0 if ratio is None else 1.0}


def aggregate(rows: ScoredRows, aggregation: str) -> float:
    """The score of rows, in lm-eval's unit."""
    mean = float(rows.top.sum() / rows.of.sum())
    return math.exp(-mean) if aggregation == "weighted_perplexity" else mean
