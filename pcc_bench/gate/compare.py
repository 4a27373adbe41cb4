"""From two runs and a policy to a verdict."""

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
from pcc_bench.results.run import Run

Flags = npt.NDArray[np.bool_]


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
        ungated = f"none of the baseline's tasks ({', '.join(baseline.tasks)})"
        raise UsageError(f"the policy gates {ungated}: see its 'tasks'")
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
            needs = "give the run to compare with, made in this job (--reference)"
            raise UsageError(f"the policy has a rule on speed: {needs}")
    if last and (rule := policy.costs.records) is not None:
        if spent := (reference.costs if reference is not None else ()) or baseline.costs:
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
        mark: Mark = FAIL if name in chosen else REPORTED
        numbers = chosen.get(name, task.rows.number.tolist())
        problems: Sequence[str] = ()
        if name not in chosen and not (last and policy.reports(name)):
            notes.append(f"{name} is not compared" + ("" if last else " before the last stage"))
        elif not numbers:
            notes.append(f"{name} has no row in this stage")
        elif name not in candidate.tasks:
            problems = ["the candidate lacks this task"]
        else:
            matched[name] = match(name, candidate.tasks[name], task, numbers)
            problems = matched[name].problems
            if silent := sorted(set(candidate.tasks[name].protocol) ^ set(task.protocol)):
                notes.append(f"{name}: not compared, as only one run records it: {', '.join(silent)}")
        lines += [Comparison(task=name, metric="rows", verdict=mark, reason=problem) for problem in problems]
    notes += [f"{name} is in the candidate only" for name in candidate.tasks if name not in baseline.tasks]
    return matched, lines, notes


def decide(p_drop: stats.Array, p_within: stats.Array, alpha: float) -> tuple[Flags, Flags]:
    """Which fail (Holm over all) and which pass (all have to, so that needs no adjustment), `[..., comparisons]` each.

    `p_drop` and `p_within`, as `_tests` gives them, are `[..., comparisons]`; `alpha` is what this look may spend.
    """
    fails = stats.holm(p_drop) <= alpha
    return fails, ~fails & (p_within <= alpha)


def judge(scores: Sequence[Scores], policy: Policy, alpha: float) -> list[Comparison]:
    """Judge the metrics that count, together, and report the others."""
    lines, reason = [], "all rows are on one context, which says nothing about others"
    mark: Mark
    for one in scores:
        if len(set(one.contexts)) < 2:
            mark, n = INCONCLUSIVE if one.gated else REPORTED, len(one.baseline)
            lines.append(Comparison(task=one.unit, metric=one.metric, verdict=mark, reason=reason, n=n, contexts=1))
    several = [one for one in scores if len(set(one.contexts)) > 1]
    if gated := [one for one in several if one.gated]:
        p_drop, p_within = np.array([_tests(one) for one in gated]).T
        for one, fails, passes, p in zip(gated, *decide(p_drop, p_within, alpha), stats.holm(p_drop), strict=True):
            mark = FAIL if fails else PASS if passes else INCONCLUSIVE
            lines.append(_line(one, mark, float(p), policy, alpha / len(gated), alpha))
    return lines + [_line(one, REPORTED, None, policy, alpha, alpha) for one in several if not one.gated]


def _tests(scores: Scores) -> tuple[float, float]:
    """P-values of "no drop beyond what the rule allows" and of "a drop that the rule must rule out"."""
    drops, scale = scores.rule.drops, scores.rule.scale
    if scores.rule.relative is not None:
        less, more = (stats.estimate(scores.differences(1 - scores.sign * drop), scale) for drop in drops)
        return float(less.p_below()), float(more.p_above())
    mean = stats.estimate(scores.differences(), scale)
    return float(mean.p_below(-drops[0])), float(mean.p_above(-drops[1]))


def _line(scores: Scores, mark: Mark, adjusted: float | None, policy: Policy, share: float, alpha: float) -> Comparison:
    data, sign = scores.differences(), scores.sign
    mean = stats.estimate(data, scores.rule.scale)
    low, high = sorted(float(sign * end) for end in mean.interval())
    change = scores.candidate - scores.baseline
    better, worse = int((sign * change > 0).sum()), int((sign * change < 0).sum())
    detectable = float(mean.detectable(share, policy.power))
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
        p=_tests(scores)[0],
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
    drop, contexts = rule.drops[1], len(set(scores.contexts))

    def rules_out(number: int) -> bool:  # so many rows, none differing, as many a context as here; `stats.estimate`
        clusters = max(2, round(number * contexts / rows))
        error = math.sqrt(clusters / (clusters - 1)) / (number + stats.PSEUDO_ROWS)
        return bool(t.ppf(1 - alpha, clusters - 1) * error <= drop / rule.scale)

    more = bisect_left(range(10**9), True, lo=rows, key=rules_out) - rows
    shown = f"{100 * drop:g} point{'' if round(100 * drop, 6) == 1 else 's'}" if rule.scale == 1 else f"{drop:g}"
    return f"identical in all {rows:,} rows; too few to rule out {shown}: {more:,} more"
