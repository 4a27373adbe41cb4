"""Which rows of two runs are compared (the same number, the same content), and their scores, metric by metric."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pcc_bench import stats
from pcc_bench.core.errors import UsageError
from pcc_bench.gate.policy import NOISE, Policy, Rule, Stage
from pcc_bench.gate.result import FAIL, REPORTED, Comparison, Mark
from pcc_bench.results.rows import Numbers, check_finite
from pcc_bench.results.run import DATA, Run, TaskRun, difference

POOLED = "pooled"
PLAIN = Rule(absolute=0.0)  # for the numbers of a metric that is only reported
Selection = Mapping[str, list[int]]  # task -> numbers of rows


@dataclass(frozen=True, eq=False)
class Matched:
    task: str
    baseline: TaskRun
    candidate: TaskRun
    pairs: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]  # places of the same rows, `[rows]`, baseline first
    problems: Sequence[str]  # why the candidate can't pass whatever its scores are

    def __len__(self) -> int:
        return len(self.pairs[0])

    def both(self, metric: str) -> tuple[Numbers, Numbers]:
        """The scores of the common rows, nan where a run has none: `[rows]` each, baseline first."""
        sides = zip((self.baseline, self.candidate), self.pairs, strict=True)
        before, after = (run.rows.scores[metric][place] for run, place in sides)
        return before, after


def select(baseline: Run, policy: Policy, stage: Stage) -> Selection:
    """Row numbers of a look, by gated task: a seeded choice that contains that of every earlier look.

    It does not depend on the rows' order; `stage.rows` counts over all gated tasks where the policy pools.
    """
    gated = {name: task.rows.number.tolist() for name, task in baseline.tasks.items() if policy.gates(name)}
    chosen: dict[str, list[int]] = {name: [] for name in gated}
    for unit in [list(gated)] if policy.pool else [[name] for name in gated]:
        rows = [(name, row) for name in unit for row in gated[name]]
        rows.sort(key=lambda row: (hashlib.sha256(f"{policy.seed}:{row[0]}:{row[1]}".encode()).digest(), row))
        for name, number in sorted(rows[: stage.rows]):
            chosen[name].append(number)
    return chosen


def match(task: str, candidate: TaskRun, baseline: TaskRun, numbers: Sequence[int]) -> Matched:
    """Pair the rows of a task. Raises UsageError: the runs followed different protocols, or asked different rows."""
    if wrong := difference(candidate.protocol, baseline.protocol, DATA):
        raise UsageError(
            f"{task} was run in different ways: {wrong[0]} is {wrong[1]} in the candidate and {wrong[2]} in the "
            "baseline; repeat one of them with the other's settings"
        )
    mine, theirs = baseline.rows, candidate.rows
    assert mine.content is not None and theirs.content is not None  # `load` has seen to it
    common, i, j = np.intersect1d(mine.number, theirs.number, assume_unique=True, return_indices=True)
    if not len(common):
        raise UsageError(f"candidate and baseline have no row of {task} in common: they scored different parts of it")
    same = mine.content[i] == theirs.content[j]
    if not same.any():
        raise UsageError(
            f"candidate and baseline were run on different data: none of the {len(common)} rows of {task} that both "
            "scored has the same content and prompt; use the same data source, or freeze a new baseline"
        )
    problems, population = [], "the population changed: "
    if changed := int((~same).sum()):
        problems.append(f"{population}{changed} of {len(common)} common rows have another content or prompt")
    if len(missing := np.setdiff1d(numbers, theirs.number, assume_unique=True)):
        problems.append(f"the candidate lacks {len(missing)} of {len(numbers)} rows (first: row {missing[0]})")
    if other := len(theirs) - len(common):
        problems.append(f"{population}the candidate has {other} rows that the baseline has not")
    new, old = (run.population.fingerprint for run in (candidate, baseline))
    if new != old:
        problems.append(f"{population}its fingerprint is {new}, the baseline's {old}")
    compared = same & np.isin(common, numbers)
    if not compared.any():
        raise UsageError(f"no row of {task} that this stage asks for is in the candidate: run the rows of the stage")
    return Matched(task, baseline, candidate, (i[compared], j[compared]), problems)


@dataclass(frozen=True, eq=False)  # arrays do not compare as a whole
class Scores:
    """The scores of one metric on the common rows of one or several tasks."""

    unit: str
    metric: str
    rule: Rule
    gated: bool
    sign: int
    baseline: stats.Array
    candidate: stats.Array
    contexts: Sequence[tuple[str, int]]

    def differences(self, share: float = 1.0) -> stats.Clusters:
        """Candidate less a share of the baseline, positive where the candidate is better."""
        return stats.clustered(self.sign * (self.candidate - share * self.baseline), self.contexts)


def units(tasks: Sequence[Matched], pool: bool) -> dict[str, list[Matched]]:
    return {POOLED: list(tasks)} if pool and len(tasks) > 1 else {task.task: [task] for task in tasks}


def all_scores(matched: Mapping[str, Matched], policy: Policy) -> tuple[list[Scores], list[Comparison]]:
    """Scores of every comparison, those that count first; failed lines for scores that are missing."""
    comparisons, lines, sound = [], [], set()
    for name, task in matched.items():
        for metric in row_metrics(task.baseline):
            rule = policy.rule(metric) if policy.gates(name) else None
            check_finite(task.baseline.rows, metric, f"{metric} of {name} in the baseline")
            span = _span(task.baseline.rows.scores[metric])
            if rule is not None and span > rule.scale * (1 + NOISE):
                raise UsageError(
                    f"scores of {metric} in the baseline lie {span:.4g} apart, and the rule's scale is {rule.scale:g}: "
                    "give the rule the 'scale' of one row's score"
                )
            if trouble := _trouble(task, metric, rule):
                mark: Mark = FAIL if rule is not None else REPORTED
                lines.append(Comparison(task=name, metric=metric, verdict=mark, reason=trouble))
            else:
                sound.add((name, metric))
    gated_tasks = [task for name, task in matched.items() if policy.gates(name)]
    populations = {(unit, True): tasks for unit, tasks in units(gated_tasks, policy.pool).items()}
    populations |= {(name, False): [task] for name, task in matched.items() if (name, True) not in populations}
    for (unit, counts), tasks in populations.items():
        for metric in dict.fromkeys(name for task in tasks for name in row_metrics(task.baseline)):
            if parts := [task for task in tasks if (task.task, metric) in sound]:
                comparisons.append(_scores(unit, metric, parts, policy, counts))
    return [scores for scores in comparisons if len(scores.baseline)], lines


def row_metrics(task: TaskRun) -> list[str]:
    """The metrics that are a number of each row; a ratio of sums is none."""
    return [name for name in task.rows.scores if name not in task.rows.below]


def _trouble(task: Matched, metric: str, rule: Rule | None) -> str:
    """Why a metric of the candidate can't be compared; "" if it can."""
    if metric not in row_metrics(task.candidate):
        return "the candidate lacks this metric"
    before, after = task.both(metric)
    numbers = task.candidate.rows.number[task.pairs[1]]
    lost, won, wrong = ~np.isnan(before) & np.isnan(after), np.isnan(before) & ~np.isnan(after), np.isinf(after)
    if lost.any():
        without = f"{lost.sum()} rows that the baseline scored (first: row {numbers[lost][0]})"
        return f"the candidate has no score for {without}"
    if won.any():
        return f"the candidate scored {won.sum()} rows that the baseline skipped: freeze a new baseline"
    if wrong.any():
        return f"{wrong.sum()} scores of the candidate are not finite numbers (first: row {numbers[wrong][0]})"
    span = _span(np.concatenate([before, after]))
    if rule is None or span <= rule.scale * (1 + NOISE):
        return ""
    return f"scores of candidate and baseline lie {span:.4g} apart, the rule's scale is {rule.scale:g}: other units?"


def _span(scores: Numbers) -> float:
    there = scores[~np.isnan(scores)]
    return float(there.max() - there.min()) if len(there) else 0.0


def _scores(unit: str, metric: str, tasks: Sequence[Matched], policy: Policy, counts: bool) -> Scores:
    rule = policy.rule(metric)
    before, after, contexts = [], [], []
    for task in tasks:
        first, second = task.both(metric)
        scored = ~np.isnan(first)  # both skipped the others for their length
        before.append(first[scored])
        after.append(second[scored])
        contexts += [(task.task, context) for context in task.baseline.rows.context[task.pairs[0]][scored].tolist()]
    gated = counts and rule is not None
    says = tasks[0].baseline.higher_is_better
    higher = says.get(metric, says.get(metric.partition(",")[0]))
    if rule is not None and rule.higher_is_better is not None:
        higher = rule.higher_is_better
    if higher is None and gated:
        raise UsageError(f"nothing says whether more {metric} is better: give its rule the key 'higher_is_better'")
    sign = -1 if higher is False else 1
    return Scores(unit, metric, rule or PLAIN, gated, sign, np.concatenate(before), np.concatenate(after), contexts)
