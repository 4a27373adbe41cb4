"""From two runs and a policy to a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pcc_bench.core.errors import UsageError
from pcc_bench.gate import costs, points
from pcc_bench.gate.judge import judge
from pcc_bench.gate.match import Matched, Selection, match, select
from pcc_bench.gate.policy import Policy, SpeedRule
from pcc_bench.gate.result import FAIL, INCONCLUSIVE, PASS, REPORTED, Comparison, Mark, Verdict
from pcc_bench.gate.scores import all_scores, row_metrics, units
from pcc_bench.results.run import Run, unrecorded


def compare(
    candidate: Run, baseline: Run, policy: Policy, stage: str | None = None, reference: Run | None = None
) -> Verdict:
    """Judge a candidate against a baseline.

    Args:
        candidate: The run under test.
        baseline: What it may not fall behind.
        policy: The rules.
        stage: Which look this is; None for a single look at all rows.
        reference: A run of the same job, for the rule on speed.

    Raises:
        UsageError: The runs can't be compared; what the candidate lost is a failure instead.
    """
    look, last = policy.stage(stage)
    chosen = select(baseline, policy, look)
    if baseline.tasks and not chosen:
        raise UsageError(
            f"the policy gates none of the baseline's tasks ({', '.join(baseline.tasks)}): see its 'tasks'"
        )
    matched, lines, notes = _match_all(candidate, baseline, policy, chosen, last)
    gated = [task for name, task in matched.items() if policy.gates(name)]
    if chosen:
        lines += _lacking(baseline, policy, list(chosen))
        scores, missing = all_scores(matched, policy)
        lines += [*missing, *judge(scores, policy, policy.alpha * look.share)]
        for unit, tasks in units(gated, policy.pool).items():
            checked, remarks = costs.check(unit, tasks, policy.costs)
            lines, notes = [*lines, *checked], [*notes, *remarks]
        lines += _speed(candidate, reference, gated, policy)
    lines += _records(candidate, baseline, reference, policy) if last else []
    if not lines:
        raise UsageError(f"nothing of {baseline.path} is compared by this policy and stage: a pass would say nothing")
    verdict = _overall(lines)
    return Verdict(
        verdict=verdict,
        status=_status(verdict, last, policy),
        stage=stage,
        last=last,
        rows=sum(len(task) for task in gated),
        rows_in_all=sum(len(baseline.tasks[name].rows) for name in chosen),
        candidate=candidate.name,
        baseline=baseline.name,
        comparisons=tuple(sorted(lines, key=lambda line: line.verdict == REPORTED)),
        notes=tuple(notes),
        policy=policy.model_dump(mode="json"),
    )


def _speed(candidate: Run, reference: Run | None, gated: Sequence[Matched], policy: Policy) -> list[Comparison]:
    if reference is not None and reference.tasks:
        names = [task.task for task in gated]
        return [costs.check_speed(candidate, reference, names, policy.costs.speed or SpeedRule())]
    if policy.costs.speed is not None:
        raise UsageError("the policy has a rule on speed: give the run to compare with, made in this job (--reference)")
    return []


def _records(candidate: Run, baseline: Run, reference: Run | None, policy: Policy) -> list[Comparison]:
    """Records of cost, against those of the reference where it has some, else of the baseline."""
    spent = reference.costs if reference is not None and reference.costs else baseline.costs
    rule = policy.costs.records
    if rule is not None and not spent and "records" in policy.costs.model_fields_set:
        lacking = "the policy has a rule on records of cost, and neither baseline nor --reference has any"
        return [Comparison(task=points.UNIT, metric="points", verdict=FAIL, reason=lacking)]
    return points.check(candidate.costs, spent, rule) if rule is not None and spent else []


def _lacking(baseline: Run, policy: Policy, tasks: Sequence[str]) -> list[Comparison]:
    """A failed line for each metric that the policy gates and the baseline has nowhere."""
    known = {name for task in tasks for name in row_metrics(baseline.tasks[task])}
    reason = f"the policy gates it, and the baseline has not got it: it has {', '.join(sorted(known))}"
    return [
        Comparison(task=", ".join(tasks), metric=metric, verdict=FAIL, reason=reason)
        for metric in policy.metrics
        if not any(metric in (name, name.partition(",")[0]) for name in known)
    ]


def _match_all(
    candidate: Run, baseline: Run, policy: Policy, chosen: Selection, last: bool
) -> tuple[dict[str, Matched], list[Comparison], list[str]]:
    """Pair the rows of every task; what the candidate lacks is a failed line, what is left out a note."""
    matched, lines, notes = {}, [], []
    for name, task in baseline.tasks.items():
        gated = name in chosen
        if not (gated or (last and policy.reports(name))):
            notes.append(f"{name} is not compared" + ("" if last else " before the last stage"))
        elif not chosen.get(name, frozenset(task.rows.number.tolist())):
            notes.append(f"{name} has no row in this stage")
        elif name not in candidate.tasks:
            line = Comparison(task=name, metric="rows", verdict=FAIL, reason="the candidate lacks this task")
            lines.append(line if gated else line.model_copy(update={"verdict": REPORTED}))
        else:
            matched[name] = match(name, candidate.tasks[name], task, chosen.get(name, task.rows.number.tolist()))
            lines += [
                Comparison(task=name, metric="rows", verdict=FAIL if gated else REPORTED, reason=problem)
                for problem in matched[name].problems
            ]
            if silent := unrecorded(candidate.tasks[name].protocol, task.protocol):
                notes.append(f"{name}: not compared, as only one run records it: {', '.join(silent)}")
    notes += [f"{name} is in the candidate only" for name in candidate.tasks if name not in baseline.tasks]
    return matched, lines, notes


def _overall(lines: Sequence[Comparison]) -> Mark:
    marks = {line.verdict for line in lines}
    return FAIL if FAIL in marks else INCONCLUSIVE if INCONCLUSIVE in marks else PASS


def _status(verdict: Mark, last: bool, policy: Policy) -> Literal[0, 1, 3]:
    if verdict == FAIL:
        return 1
    if verdict == INCONCLUSIVE and (not last or policy.inconclusive == "stop"):
        return 3
    return 0
