"""The scores of both runs, metric by metric, and what is missing among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pcc_bench import stats
from pcc_bench.errors import UsageError
from pcc_bench.gate.match import Matched
from pcc_bench.gate.policy import Policy, Rule
from pcc_bench.gate.result import FAIL, REPORTED, Comparison
from pcc_bench.gate.runs import TaskRun, check_finite

POOLED = "pooled"
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
        for metric, before in task.baseline.scores.items():
            gated = policy.gates(name) and policy.rule(metric) is not None
            check_finite(before, task.baseline.rows, f"{metric} of {name} in the baseline")
            trouble = _trouble(task, metric)
            if trouble:
                lines.append(Comparison(task=name, metric=metric, verdict=FAIL if gated else REPORTED, reason=trouble))
            else:
                sound[name, metric] = task
    gated_tasks = [task for name, task in matched.items() if policy.gates(name)]
    populations = {(unit, True): tasks for unit, tasks in units(gated_tasks, policy.pool).items()}
    populations |= {(name, False): [task] for name, task in matched.items() if (name, True) not in populations}
    for (unit, counts), tasks in populations.items():
        for metric in dict.fromkeys(name for task in tasks for name in task.baseline.scores):
            parts = [task for task in tasks if (task.task, metric) in sound]
            if parts:
                found.append(_scores(unit, metric, parts, policy, counts))
    return [scores for scores in found if len(scores.baseline)], lines


def _trouble(task: Matched, metric: str) -> str:
    """Why a metric of the candidate can't be compared; "" if it can."""
    after = task.candidate.scores.get(metric)
    if after is None:
        return "the candidate lacks this metric"
    before = task.baseline.scores[metric]
    lost = [task.candidate.rows[j] for i, j in task.pairs if before[i] is not None and after[j] is None]
    won = sum(before[i] is None and after[j] is not None for i, j in task.pairs)
    values = {task.candidate.rows[j]: after[j] for _, j in task.pairs}
    wrong = [row for row, value in values.items() if value is not None and not np.isfinite(value)]
    if lost:
        return f"the candidate has no score for {len(lost)} rows that the baseline scored (first: row {lost[0]})"
    if won:
        return f"the candidate scored {won} rows that the baseline skipped: freeze a new baseline"
    if wrong:
        return f"{len(wrong)} scores of the candidate are not finite numbers (first: row {wrong[0]})"
    return ""


def _scores(unit: str, metric: str, tasks: Sequence[Matched], policy: Policy, counts: bool) -> Scores:
    rule = policy.rule(metric)
    before: list[float] = []
    after: list[float] = []
    contexts: list[tuple[str, int]] = []
    for task in tasks:
        mine, theirs = task.baseline.scores[metric], task.candidate.scores[metric]
        for i, j in task.pairs:
            first, second = mine[i], theirs[j]
            if first is not None and second is not None:  # both skipped it for its length
                before.append(first)
                after.append(second)
                contexts.append((task.task, task.baseline.contexts[i]))
    gated = counts and rule is not None
    sign = _sign(metric, tasks[0].baseline, rule, gated)
    used = rule or PLAIN
    return Scores(unit, metric, used, gated, sign, np.array(before), np.array(after), contexts)


def _sign(metric: str, task: TaskRun, rule: Rule | None, gated: bool) -> int:
    higher = (
        task.higher_is_better.get(metric) if rule is None or rule.higher_is_better is None else rule.higher_is_better
    )
    if higher is None and gated:
        raise UsageError(f"nothing says whether more {metric} is better: give its rule the key 'higher_is_better'")
    return -1 if higher is False else 1
