"""From two runs and a policy to a verdict."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from pcc_bench import stats
from pcc_bench.core.errors import UsageError
from pcc_bench.gate import costs
from pcc_bench.gate.policy import Policy, SpeedRule
from pcc_bench.gate.result import FAIL, INCONCLUSIVE, PASS, REPORTED, UNIT, Comparison, Mark, Verdict
from pcc_bench.gate.scores import Matched, Scores, Selection, all_scores, match, row_metrics, select, units
from pcc_bench.results.run import Run, unrecorded

Flags = npt.NDArray[np.bool_]
MOST_ROWS = 10**9  # no data set has as many


def compare(
    candidate: Run, baseline: Run, policy: Policy, stage: str | None = None, reference: Run | None = None
) -> Verdict:
    """Judge a candidate against a baseline.

    `stage` is which look this is (None: a single one at all rows), `reference` a run of the same job for the rule on
    speed. Raises UsageError: the runs can't be compared; what the candidate lost is a failure instead.
    """
    look, last = policy.stage(stage)
    chosen = select(baseline, policy, look)
    if baseline.tasks and not chosen:
        has = ", ".join(baseline.tasks)
        raise UsageError(f"the policy gates none of the baseline's tasks ({has}): see its 'tasks'")
    matched, lines, notes = _match_all(candidate, baseline, policy, chosen, last)
    gated = [task for name, task in matched.items() if policy.gates(name)]
    if chosen:
        known = {name for task in chosen for name in row_metrics(baseline.tasks[task])}
        reason = f"the policy gates it, and the baseline has not got it: it has {', '.join(sorted(known))}"
        either = {*known, *(name.partition(",")[0] for name in known)}
        lacking = [metric for metric in policy.metrics if metric not in either]
        lines += [Comparison(task=", ".join(chosen), metric=name, verdict=FAIL, reason=reason) for name in lacking]
        scores, missing = all_scores(matched, policy)
        lines += [*missing, *judge(scores, policy, policy.alpha * look.share)]
        for unit, tasks in units(gated, policy.pool).items():
            checked, remarks = costs.check(unit, tasks, policy.costs)
            lines, notes = [*lines, *checked], [*notes, *remarks]
        if reference is not None and reference.tasks:
            names = [task.task for task in gated]
            lines.append(costs.check_speed(candidate, reference, names, policy.costs.speed or SpeedRule()))
        elif policy.costs.speed is not None:
            raise UsageError(
                "the policy has a rule on speed: give the run to compare with, made in this job (--reference)"
            )
    if last and (rule := policy.costs.records) is not None:
        spent = reference.costs if reference is not None and reference.costs else baseline.costs
        if spent:
            lines += costs.check_records(candidate.costs, spent, rule)
        elif "records" in policy.costs.model_fields_set:
            reason = "the policy has a rule on records of cost, and neither baseline nor --reference has any"
            lines.append(Comparison(task=UNIT, metric="points", verdict=FAIL, reason=reason))
    if not lines:
        raise UsageError(f"nothing of {baseline.path} is compared by this policy and stage: a pass would say nothing")
    marks = {line.verdict for line in lines}
    verdict: Mark = FAIL if FAIL in marks else INCONCLUSIVE if INCONCLUSIVE in marks else PASS
    stops = verdict == INCONCLUSIVE and (not last or policy.inconclusive == "stop")
    return Verdict(
        verdict=verdict,
        status=1 if verdict == FAIL else 3 if stops else 0,
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
            reason = "the candidate lacks this task"
            lines.append(Comparison(task=name, metric="rows", verdict=FAIL if gated else REPORTED, reason=reason))
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


def decide(p_drop: stats.Array, p_within: stats.Array, alpha: float) -> tuple[Flags, Flags]:
    """The gate's decision at one look: which fail (Holm over all) and which pass, `[..., comparisons]` each.

    All have to pass, so passing needs no adjustment. `p_drop` and `p_within` (`[..., comparisons]`) are p-values of "no
    drop beyond what the rule allows" and of "a drop that the rule must rule out"; `alpha` is what this look may spend.
    """
    fails = stats.holm(p_drop) <= alpha
    return fails, ~fails & (p_within <= alpha)


def judge(scores: Sequence[Scores], policy: Policy, alpha: float) -> list[Comparison]:
    """Judge the metrics that count, together, and report the others."""
    one_context = "all rows are on one context, which says nothing about others"
    lines: list[Comparison] = []
    gated: list[Scores] = []
    others: list[Scores] = []
    for one in scores:
        if len(set(one.contexts)) < 2:
            mark: Mark = INCONCLUSIVE if one.gated else REPORTED
            line = Comparison(task=one.unit, metric=one.metric, verdict=mark, reason=one_context)
            lines.append(line.model_copy(update={"n": len(one.baseline), "contexts": 1}))
        else:
            (gated if one.gated else others).append(one)
    if gated:
        p_drop, p_within = np.array([_tests(one) for one in gated]).T
        fails, passes = decide(p_drop, p_within, alpha)
        adjusted = stats.holm(p_drop)
        for i, one in enumerate(gated):
            mark = FAIL if fails[i] else PASS if passes[i] else INCONCLUSIVE
            lines.append(_line(one, mark, float(adjusted[i]), policy, alpha, len(gated)))
    return lines + [_line(one, REPORTED, None, policy, alpha, 1) for one in others]


def _tests(scores: Scores) -> tuple[float, float]:
    """P-values of "no drop beyond what the rule allows" and of "a drop that the rule must rule out"."""
    rule = scores.rule
    if rule.relative is not None:
        lost = (rule.relative, rule.relative + rule.resolution)
        allowed, ruled_out = (stats.estimate(scores.differences(1 - scores.sign * share), rule.scale) for share in lost)
        return float(allowed.p_below()), float(ruled_out.p_above())
    mean = stats.estimate(scores.differences(), rule.scale)
    if rule.non_inferiority is not None:
        return float(mean.p_below(-rule.non_inferiority)), float(mean.p_above(-rule.non_inferiority))
    allowed_drop = rule.absolute or 0.0
    return float(mean.p_below(-allowed_drop)), float(mean.p_above(-allowed_drop - rule.resolution))


def _line(
    scores: Scores, mark: Mark, adjusted: float | None, policy: Policy, alpha: float, comparisons: int
) -> Comparison:
    data, sign = scores.differences(), scores.sign
    mean = stats.estimate(data, scores.rule.scale)
    low, high = sorted(float(sign * end) for end in mean.interval())
    change = scores.candidate - scores.baseline
    better, worse = int((sign * change > 0).sum()), int((sign * change < 0).sum())
    detectable = float(mean.detectable(alpha / comparisons, policy.power))
    p_drop, _ = _tests(scores)
    drops = f"{100 * detectable:.2f} points" if scores.rule.scale == 1 else f"{detectable:.4g}"
    reasons = {
        PASS: "a drop beyond the rule is ruled out",
        FAIL: "the drop is more than chance and more than the rule allows",
        INCONCLUSIVE: f"neither proven nor ruled out: this run finds drops of {drops} or more",
        REPORTED: "reported only",
    }
    # Other methods' answers to the same question, each with a generator of its own.
    ends = sorted(float(sign * end) for end in stats.paired_bootstrap(data, np.random.default_rng([policy.seed, 1])))
    p = stats.paired_permutation(data, np.random.default_rng([policy.seed, 2]), 2000, "less")
    checks: dict[str, object] = {"bootstrap_interval": ends, "permutation_p": float(p)}
    binary = np.isin([scores.baseline, scores.candidate], (0.0, 1.0)).all()
    if binary and len(data.sizes) == len(scores.baseline):  # McNemar knows no clusters
        checks["mcnemar_p"] = stats.mcnemar(scores.baseline, scores.candidate, "less" if sign > 0 else "greater")
    return Comparison(
        task=scores.unit,
        metric=scores.metric,
        verdict=mark,
        reason=_equal(scores, mark, alpha) or reasons[mark],
        rule=str(scores.rule) if scores.gated else "",
        scale=scores.rule.scale,
        n=len(change),
        contexts=len(data.sizes),
        baseline=float(scores.baseline.mean()),
        candidate=float(scores.candidate.mean()),
        difference=float(change.mean()),
        interval=(low, high),
        p=p_drop,
        p_adjusted=adjusted,
        detectable=detectable,
        wins=(better, worse, len(change) - better - worse),
        checks=checks,
    )


def _equal(scores: Scores, mark: Mark, alpha: float) -> str:
    """What is to be said of equal runs that are too small to pass; "" of any other."""
    rule, rows = scores.rule, len(scores.baseline)
    if mark != INCONCLUSIVE or rule.relative is not None or (scores.baseline != scores.candidate).any():
        return ""
    drop, contexts = rule.non_inferiority or (rule.absolute or 0.0) + rule.resolution, len(set(scores.contexts))

    def rules_out(number: int) -> bool:
        """Do so many rows rule out the drop where none differs, as many a context as here? See `stats.estimate`."""
        clusters = max(2, round(number * contexts / rows))
        error = math.sqrt(clusters / (clusters - 1)) / (number + stats.PSEUDO_ROWS)
        return bool(t.ppf(1 - alpha, clusters - 1) * error <= drop / rule.scale)

    more = bisect_left(range(MOST_ROWS), True, lo=rows, key=rules_out) - rows
    shown = f"{100 * drop:g} point{'' if round(100 * drop, 6) == 1 else 's'}" if rule.scale == 1 else f"{drop:g}"
    return f"identical in all {rows:,} rows; too few to rule out {shown}: {more:,} more"
