"""Rules on what answers cost: counts are compared row by row, so they need no statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pcc_bench.errors import UsageError
from pcc_bench.gate.match import Matched
from pcc_bench.gate.policy import Costs, MemoryRule, RatioRule, SpeedRule
from pcc_bench.gate.result import FAIL, PASS, Comparison
from pcc_bench.gate.runs import Run, TaskRun

NOISE = 1e-9
CLOCK = ("source_tokens", "new_tokens", "compress_seconds", "prefill_seconds", "decode_seconds")


def check(unit: str, tasks: Sequence[Matched], rules: Costs) -> list[Comparison]:
    """Ratio and memory of a task, or of several as one population.

    Args:
        unit: Name of the population.
        tasks: Its tasks.
        rules: Of the policy; those on what the baseline keeps no account of are not applied.
    """
    found = []
    if rules.ratio is not None:
        before, after = (_ratio(tasks, side) for side in (0, 1))
        if before is not None:
            found.append(_ratio_line(unit, before, after, rules.ratio, _rows(tasks)))
    if rules.memory is not None:
        before, after = (_mean(tasks, side, "prompt_positions") for side in (0, 1))
        if before is not None:
            found.append(_memory_line(unit, before, after, rules.memory, _rows(tasks)))
    return found


def check_speed(candidate: Run, reference: Run, tasks: Sequence[str], rule: SpeedRule) -> Comparison:
    """Tokens per second against a run on the same machine.

    Tokens are those of the contexts and of the answers; seconds are those of compressing (each context once), prefill
    and decoding. Only rows that both runs answered, and answered afresh, count.

    Raises:
        UsageError: The runs have no timed row in common.
    """
    clocks = []
    for one, other in ((candidate, reference), (reference, candidate)):
        parts = [_clock(one.tasks[task], other.tasks[task]) for task in tasks if task in one.tasks.keys() & other.tasks]
        clocks.append((sum(tokens for tokens, _, _ in parts), sum(seconds for _, seconds, _ in parts)))
        rows = sum(count for _, _, count in parts)
        if not rows or not clocks[-1][1]:
            raise UsageError(
                "candidate and reference have no timed row in common (other rows, answers from a cache, or no account "
                "of seconds): run both afresh on the same rows in this job"
            )
    speeds = [tokens / seconds for tokens, seconds in clocks]
    share = speeds[0] / speeds[1]
    holds = share >= rule.at_least - NOISE
    return Comparison(
        task="pooled" if len(tasks) > 1 else tasks[0],
        metric="speed",
        verdict=PASS if holds else FAIL,
        reason=f"{share:.2f} of the reference's tokens per second" + ("" if holds else f", below {rule.at_least:g}"),
        rule=f"at least {rule.at_least:g} of the reference",
        n=rows,
        baseline=speeds[1],
        candidate=speeds[0],
    )


def _ratio_line(unit: str, before: float, after: float | None, rule: RatioRule, rows: int) -> Comparison:
    reason, holds = "the candidate keeps no account of its memories", False
    if after is not None:
        change = after / before - 1
        near = abs(change) <= rule.tolerance + NOISE
        enough = rule.at_least is None or after >= rule.at_least - NOISE
        holds = near and enough
        reason = f"{after:.2f}x achieved, {before:.2f}x in the baseline ({change:+.1%})"
        reason += "" if near else f", more than {rule.tolerance:.1%} off"
        reason += "" if enough else f", below {rule.at_least:g}x"
    least = "" if rule.at_least is None else f", at least {rule.at_least:g}x"
    return Comparison(
        task=unit,
        metric="ratio",
        verdict=PASS if holds else FAIL,
        reason=reason,
        rule=f"the baseline's up to {rule.tolerance:.1%}{least}",
        n=rows,
        baseline=before,
        candidate=after,
    )


def _memory_line(unit: str, before: float, after: float | None, rule: MemoryRule, rows: int) -> Comparison:
    holds = after is not None and after <= before * rule.at_most + NOISE
    reason = "the candidate keeps no account of its prompts"
    if after is not None:
        reason = f"{after:.1f} positions a prompt, {before:.1f} in the baseline"
        reason += "" if holds else f", more than {rule.at_most:g} of them"
    return Comparison(
        task=unit,
        metric="memory",
        verdict=PASS if holds else FAIL,
        reason=reason,
        rule=f"at most {rule.at_most:g} of the baseline's positions",
        n=rows,
        baseline=before,
        candidate=after,
    )


def _rows(tasks: Sequence[Matched]) -> int:
    return sum(len(task.pairs) for task in tasks)


def _values(tasks: Sequence[Matched], side: int, name: str) -> list[float] | None:
    """A count of all rows of one side (0: baseline); None if any row has no account of it."""
    values = []
    for task in tasks:
        kept = (task.baseline, task.candidate)[side].costs.get(name)
        if kept is None:
            return None
        # Rows that both runs skipped for their length have no account in either.
        values += [kept[pair[side]] for pair in task.pairs if not _skipped(task, pair)]
    return None if any(value is None for value in values) else [value for value in values if value is not None]


def _skipped(task: Matched, pair: tuple[int, int]) -> bool:
    for run, position in zip((task.baseline, task.candidate), pair, strict=True):
        if any(scores[position] is not None for scores in run.scores.values()):
            return False
    return True


def _ratio(tasks: Sequence[Matched], side: int) -> float | None:
    """Source tokens per position of memory: the ratio of the sums; None without an account or a memory."""
    counts = [_values(tasks, side, name) for name in ("source_tokens", "slots", "boundary")]
    if any(values is None for values in counts):
        return None
    source, slots, boundary = (math.fsum(values or ()) for values in counts)
    return source / (slots + boundary) if slots + boundary else None


def _mean(tasks: Sequence[Matched], side: int, name: str) -> float | None:
    values = _values(tasks, side, name)
    return math.fsum(values) / len(values) if values else None


def _clock(run: TaskRun, other: TaskRun) -> tuple[float, float, int]:
    """Tokens, seconds and rows of the rows that both answered afresh."""
    mine, theirs = _timed(run), _timed(other)
    tokens, seconds, seen = 0.0, 0.0, set()
    both = [row for row in mine if row in theirs]
    for row in both:
        context, source, new, compressing, prefill, decoding = mine[row]
        first = context not in seen  # a memory is made once, and charged to each row that reads it
        seen.add(context)
        tokens += source + new
        seconds += prefill + decoding + (compressing if first else 0.0)
    return tokens, seconds, len(both)


def _timed(run: TaskRun) -> dict[int, tuple[float, ...]]:
    """Row -> context and counts, of the rows that have an account and were not answered from a cache."""
    if not set(CLOCK) <= set(run.costs):
        return {}
    cached = run.costs.get("cached", [None] * len(run.rows))
    accounts = zip(run.rows, cached, run.contexts, *(run.costs[name] for name in CLOCK), strict=True)
    return {row: tuple(account) for row, flag, *account in accounts if not flag and None not in account}
