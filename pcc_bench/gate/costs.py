"""Rules on what answers cost: counts are compared row by row, so they need no statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pcc_bench.core.errors import UsageError
from pcc_bench.gate.match import Matched
from pcc_bench.gate.policy import Costs, MemoryRule, RatioRule, SpeedRule
from pcc_bench.gate.result import FAIL, PASS, Comparison
from pcc_bench.results.rows import Numbers, Rows
from pcc_bench.results.run import Run

NOISE = 1e-9
CLOCK = ("source_tokens", "new_tokens", "compress_seconds", "prefill_seconds", "decode_seconds")


def check(unit: str, tasks: Sequence[Matched], rules: Costs) -> tuple[list[Comparison], list[str]]:
    """Ratio and memory of a task, or of several as one population.

    A rule that the policy spells out is applied, and fails where a run lacks what it needs. A rule of the default
    policy is applied where the baseline keeps an account at all: models of lm-eval keep none.

    Args:
        unit: Name of the population.
        tasks: Its tasks.
        rules: Of the policy.

    Returns:
        The lines, and a sentence for every rule that was not applied.
    """
    lines: list[Comparison] = []
    notes: list[str] = []
    n = _rows(tasks)
    if rules.ratio is not None:
        before, after = (_ratio(tasks, side) for side in (0, 1))
        if isinstance(before, float):
            lines.append(_ratio_line(unit, before, after, rules.ratio, n))
        else:
            _say(before, "ratio", unit, n, rules, lines, notes)
    if rules.memory is not None:
        before, after = (_positions(tasks, side) for side in (0, 1))
        if isinstance(before, float):
            lines.append(_memory_line(unit, before, after, rules.memory, n))
        else:
            _say(before, "memory", unit, n, rules, lines, notes)
    return lines, notes


def check_speed(candidate: Run, reference: Run, tasks: Sequence[str], rule: SpeedRule) -> Comparison:
    """Tokens per second against a run on the same machine.

    Tokens are those of the contexts and of the answers; seconds are those of compressing (each context once), prefill
    and decoding. Only rows that both runs answered, and answered afresh, count.

    Raises:
        UsageError: The runs have no timed row in common.
    """
    clocks = []
    for one, other in ((candidate, reference), (reference, candidate)):
        parts = [
            _clock(one.tasks[task].rows, other.tasks[task].rows)
            for task in tasks
            if task in one.tasks.keys() & other.tasks
        ]
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


def _ratio_line(unit: str, before: float, after: float | Lack, rule: RatioRule, rows: int) -> Comparison:
    reason, holds = "", False
    if isinstance(after, Lack):
        reason = f"the candidate {after.reason}"
    else:
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
        candidate=None if isinstance(after, Lack) else after,
    )


def _memory_line(unit: str, before: float, after: float | Lack, rule: MemoryRule, rows: int) -> Comparison:
    holds = not isinstance(after, Lack) and after <= before * rule.at_most + NOISE
    if isinstance(after, Lack):
        reason = f"the candidate {after.reason}"
    else:
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
        candidate=None if isinstance(after, Lack) else after,
    )


@dataclass(frozen=True)
class Lack:
    """Why there is no number to compare; `demands` where it is not for lack of any account."""

    reason: str
    demands: bool


def _say(lack: Lack, name: str, unit: str, rows: int, rules: Costs, lines: list[Comparison], notes: list[str]) -> None:
    """What the baseline lacks fails where the policy demands it, and is a note where only the defaults ask."""
    if lack.demands or name in rules.model_fields_set:
        lines.append(Comparison(task=unit, metric=name, verdict=FAIL, reason=f"the baseline {lack.reason}", n=rows))
    else:
        notes.append(f"{name} of {unit} is not compared: the baseline {lack.reason}")


def _rows(tasks: Sequence[Matched]) -> int:
    return sum(len(task) for task in tasks)


def _values(tasks: Sequence[Matched], side: int, name: str) -> Numbers | Lack:
    """A count of all common rows but those that both runs skipped."""
    parts, lacking, there = [], 0, False
    for task in tasks:
        rows, place = (task.baseline, task.candidate)[side].rows, task.pairs[side]
        values = rows.account.get(name)
        there |= values is not None
        part = (np.full(len(place), np.nan) if values is None else values[place])[~_skipped(task)]
        lacking += int(np.isnan(part).sum())
        parts.append(part)
    if not there:
        return Lack(f"keeps no account of {name}", demands=False)
    if lacking:
        return Lack(f"keeps no account of {name} for {lacking} of {sum(map(len, parts))} rows", demands=True)
    return np.concatenate(parts)


def _skipped(task: Matched) -> npt.NDArray[np.bool_]:
    """Which common rows both runs skipped for their length: they have no score and no account in either."""
    skipped = np.ones(len(task), np.bool_)
    for run, place in zip((task.baseline, task.candidate), task.pairs, strict=True):
        for values in (*run.rows.scores.values(), *run.rows.account.values()):
            skipped &= np.isnan(values[place])
    return skipped


def _ratio(tasks: Sequence[Matched], side: int) -> float | Lack:
    """Source tokens per position of memory: the ratio of the sums."""
    counts = [_values(tasks, side, name) for name in ("source_tokens", "slots", "boundary")]
    for values in counts:
        if isinstance(values, Lack):
            return values
    source, slots, boundary = (math.fsum(values) for values in counts if not isinstance(values, Lack))
    return source / (slots + boundary) if slots + boundary else Lack("reads no memory", demands=False)


def _positions(tasks: Sequence[Matched], side: int) -> float | Lack:
    """Positions in the decoder's window of a prompt, the mean."""
    values = _values(tasks, side, "prompt_positions")
    if isinstance(values, Lack):
        return values
    return math.fsum(values) / len(values) if len(values) else Lack("scored no row", demands=False)


def _clock(mine: Rows, theirs: Rows) -> tuple[float, float, int]:
    """Tokens, seconds and rows of the rows that both answered afresh."""
    both = np.intersect1d(mine.number[_timed(mine)], theirs.number[_timed(theirs)])
    there = np.isin(mine.number, both)
    if not there.any():
        return 0.0, 0.0, 0
    source, new, compressing, prefill, decoding = (mine.account[name][there] for name in CLOCK)
    _, first = np.unique(mine.context[there], return_index=True)  # a memory is made once, and charged to each row
    seconds = math.fsum(prefill + decoding) + math.fsum(compressing[first])
    return math.fsum(source + new), seconds, int(there.sum())


def _timed(rows: Rows) -> npt.NDArray[np.bool_]:
    """Which rows have an account with all counts, and were not answered from a cache."""
    if not set(CLOCK) <= set(rows.account):
        return np.zeros(len(rows), np.bool_)
    there = ~np.isnan(np.array([rows.account[name] for name in CLOCK])).any(axis=0)
    cached = rows.account.get("cached", np.zeros(len(rows)))
    timed: npt.NDArray[np.bool_] = there & ~(cached > 0)
    return timed
