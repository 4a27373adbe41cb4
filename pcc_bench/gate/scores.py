"""The scores of both runs, metric by metric, and what is missing among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pcc_bench import stats
from pcc_bench.core.errors import UsageError
from pcc_bench.gate.match import Matched
from pcc_bench.gate.policy import Policy, Rule
from pcc_bench.gate.result import FAIL, REPORTED, Comparison, Mark
from pcc_bench.results.rows import Numbers, check_finite
from pcc_bench.results.run import TaskRun

POOLED = "pooled"
NOISE = 1e-9
PLAIN = Rule(absolute=0.0)  # for the numbers of a metric that is only reported


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

    def differences(self, kept: float = 1.0) -> stats.Clusters:
        """Candidate less `kept` times the baseline, positive where the candidate is better."""
        return stats.clustered(self.sign * (self.candidate - kept * self.baseline), self.contexts)


def units(tasks: Sequence[Matched], pool: bool) -> dict[str, list[Matched]]:
    """The populations a verdict is about."""
    if pool and len(tasks) > 1:
        return {POOLED: list(tasks)}
    return {task.task: [task] for task in tasks}


def all_scores(matched: Mapping[str, Matched], policy: Policy) -> tuple[list[Scores], list[Comparison]]:
    """Scores of every comparison, those that count first; failed lines for scores that are missing."""
    found, lines, sound = [], [], {}
    for name, task in matched.items():
        for metric in row_metrics(task.baseline):
            rule = policy.rule(metric) if policy.gates(name) else None
            check_finite(task.baseline.rows, metric, f"{metric} of {name} in the baseline")
            _check_scale(task.baseline, metric, rule)
            trouble = _trouble(task, metric, rule)
            if trouble:
                mark: Mark = FAIL if rule is not None else REPORTED
                lines.append(Comparison(task=name, metric=metric, verdict=mark, reason=trouble))
            else:
                sound[name, metric] = task
    gated_tasks = [task for name, task in matched.items() if policy.gates(name)]
    populations = {(unit, True): tasks for unit, tasks in units(gated_tasks, policy.pool).items()}
    populations |= {(name, False): [task] for name, task in matched.items() if (name, True) not in populations}
    for (unit, counts), tasks in populations.items():
        for metric in dict.fromkeys(name for task in tasks for name in row_metrics(task.baseline)):
            parts = [task for task in tasks if (task.task, metric) in sound]
            if parts:
                found.append(_scores(unit, metric, parts, policy, counts))
    return [scores for scores in found if len(scores.baseline)], lines


def row_metrics(task: TaskRun) -> list[str]:
    """The metrics that are a number of each row; a ratio of sums is none."""
    return [name for name in task.rows.scores if name not in task.rows.below]


def _trouble(task: Matched, metric: str, rule: Rule | None) -> str:
    """Why a metric of the candidate can't be compared; "" if it can."""
    if metric not in row_metrics(task.candidate):
        return "the candidate lacks this metric"
    before, after = task.both(metric)
    numbers = task.candidate.rows.number[task.pairs[1]]
    lost, won = (~np.isnan(before) & np.isnan(after)), (np.isnan(before) & ~np.isnan(after))
    wrong = np.isinf(after)
    if lost.any():
        return (
            f"the candidate has no score for {lost.sum()} rows that the baseline scored (first: row {numbers[lost][0]})"
        )
    if won.any():
        return f"the candidate scored {won.sum()} rows that the baseline skipped: freeze a new baseline"
    if wrong.any():
        return f"{wrong.sum()} scores of the candidate are not finite numbers (first: row {numbers[wrong][0]})"
    span = _span(np.concatenate([before, after]))
    if rule is not None and span > rule.scale * (1 + NOISE):
        return (
            f"scores of candidate and baseline lie {span:.4g} apart, the rule's scale is {rule.scale:g}: other units?"
        )
    return ""


def _check_scale(task: TaskRun, metric: str, rule: Rule | None) -> None:
    span = _span(task.rows.scores[metric])
    if rule is not None and span > rule.scale * (1 + NOISE):
        raise UsageError(
            f"scores of {metric} in the baseline lie {span:.4g} apart, and the rule's scale is {rule.scale:g}: give "
            "the rule the 'scale' of one row's score"
        )


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
    sign = _sign(metric, tasks[0].baseline, rule, gated)
    return Scores(unit, metric, rule or PLAIN, gated, sign, np.concatenate(before), np.concatenate(after), contexts)


def _sign(metric: str, task: TaskRun, rule: Rule | None, gated: bool) -> int:
    says = task.higher_is_better
    higher = says.get(metric, says.get(metric.partition(",")[0]))
    if rule is not None and rule.higher_is_better is not None:
        higher = rule.higher_is_better
    if higher is None and gated:
        raise UsageError(f"nothing says whether more {metric} is better: give its rule the key 'higher_is_better'")
    return -1 if higher is False else 1
