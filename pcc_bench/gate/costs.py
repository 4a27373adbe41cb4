"""Rules on what answers cost, row by row, and on records of cost (`pcc-bench cost`), point by point.

Counts are compared exactly, so they need no statistics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pcc_bench.core.errors import UsageError
from pcc_bench.cost.records import CostRecord, Mode, Phase
from pcc_bench.gate.policy import NOISE, Costs, RecordRule, SpeedRule
from pcc_bench.gate.result import FAIL, PASS, REPORTED, UNIT, Comparison, Mark
from pcc_bench.gate.scores import POOLED, Matched
from pcc_bench.results.rows import Numbers, Rows
from pcc_bench.results.run import Run

CLOCK = ("source_tokens", "new_tokens", "compress_seconds", "prefill_seconds", "decode_seconds")
COUNTS = {"flops": "FLOPs", "kv_bytes": "bytes of the decoder's cache", "memory_bytes": "bytes of the memories"}
TIMED = (Phase.COMPRESS, Phase.PREFILL, Phase.DECODE)  # the others are sums of these
MEMORY_MODES = (Mode.COLD, Mode.WARM)  # full text is the decoder's business, which the candidate does not change

Point = tuple[Any, ...]
Pair = tuple[CostRecord, CostRecord]  # baseline first


def check(unit: str, tasks: Sequence[Matched], rules: Costs) -> tuple[list[Comparison], list[str]]:
    """Ratio and memory of a task, or of several as one population; and a sentence for every rule not applied.

    A rule that the policy spells out is applied, and fails where a run lacks what it needs. A rule of the default
    policy is applied where the baseline keeps an account at all: models of lm-eval keep none.
    """
    lines: list[Comparison] = []
    notes: list[str] = []
    rows = sum(len(task) for task in tasks)
    for name, rule, count in (("ratio", rules.ratio, _ratio), ("memory", rules.memory, _positions)):
        if rule is None:
            continue
        try:
            before = count(tasks, 0)
        except Lack as lack:
            reason = f"the baseline {lack}"
            if lack.demands or name in rules.model_fields_set:
                lines.append(Comparison(task=unit, metric=name, verdict=FAIL, reason=reason, n=rows))
            else:
                notes.append(f"{name} of {unit} is not compared: {reason}")
            continue
        after, holds = None, False
        try:
            after = count(tasks, 1)
            holds, reason = rule.check(before, after)
        except Lack as lack:
            reason = f"the candidate {lack}"
        lines.append(_line(unit, name, holds, reason, str(rule), rows, before, after))
    return lines, notes


def _line(
    unit: str, metric: str, holds: bool, reason: str, rule: str, rows: int, before: float, after: float | None
) -> Comparison:
    verdict: Mark = (PASS if holds else FAIL) if rule else REPORTED
    line = Comparison(task=unit, metric=metric, verdict=verdict, reason=reason, rule=rule, n=rows)
    return line.model_copy(update={"baseline": before, "candidate": after})


def check_speed(candidate: Run, reference: Run, tasks: Sequence[str], rule: SpeedRule) -> Comparison:
    """Tokens per second against a run on the same machine. Raises UsageError: they have no timed row in common.

    Tokens are those of the contexts and of the answers; seconds are those of compressing (each context once), prefill
    and decoding. Only rows that both runs answered, and answered afresh, count.
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
    before, after = (tokens / seconds for tokens, seconds in reversed(clocks))
    share = after / before
    holds = share >= rule.at_least - NOISE
    reason = f"{share:.2f} of the reference's tokens per second" + ("" if holds else f", below {rule.at_least:g}")
    return _line(POOLED if len(tasks) > 1 else tasks[0], "speed", holds, reason, str(rule), rows, before, after)


class Lack(Exception):
    """Why there is no number to compare; `demands` where it is not for lack of any account."""

    def __init__(self, reason: str, demands: bool = False) -> None:
        super().__init__(reason)
        self.demands = demands


def _values(tasks: Sequence[Matched], side: int, name: str) -> Numbers:
    """A count of all common rows but those that both runs skipped: these have no score and no account in either."""
    parts, lacking, there = [], 0, False
    for task in tasks:
        rows, place = (task.baseline, task.candidate)[side].rows, task.pairs[side]
        values = rows.account.get(name)
        there |= values is not None
        skipped = np.ones(len(task), np.bool_)
        for run, at in zip((task.baseline, task.candidate), task.pairs, strict=True):
            for column in (*run.rows.scores.values(), *run.rows.account.values()):
                skipped &= np.isnan(column[at])
        part = (np.full(len(place), np.nan) if values is None else values[place])[~skipped]
        lacking += int(np.isnan(part).sum())
        parts.append(part)
    if not there:
        raise Lack(f"keeps no account of {name}")
    if lacking:
        raise Lack(f"keeps no account of {name} for {lacking} of {sum(map(len, parts))} rows", demands=True)
    return np.concatenate(parts)


def _ratio(tasks: Sequence[Matched], side: int) -> float:
    """Source tokens per position of memory: the ratio of the sums."""
    names = ("source_tokens", "slots", "boundary")
    source, slots, boundary = (math.fsum(_values(tasks, side, name)) for name in names)
    if not slots + boundary:
        raise Lack("reads no memory")
    return source / (slots + boundary)


def _positions(tasks: Sequence[Matched], side: int) -> float:
    """Positions in the decoder's window of a prompt, the mean."""
    values = _values(tasks, side, "prompt_positions")
    if not len(values):
        raise Lack("scored no row")
    return math.fsum(values) / len(values)


def _clock(mine: Rows, theirs: Rows) -> tuple[float, float, int]:
    """Tokens, seconds and rows of the rows that both answered afresh: with all counts, and not from a cache."""
    timed = []
    for rows in (mine, theirs):
        if not set(CLOCK) <= set(rows.account):
            return 0.0, 0.0, 0
        whole = ~np.isnan(np.array([rows.account[name] for name in CLOCK])).any(axis=0)
        timed.append(rows.number[whole & ~(rows.account.get("cached", np.zeros(len(rows))) > 0)])
    both = np.intersect1d(*timed)
    there = np.isin(mine.number, both)
    if not there.any():
        return 0.0, 0.0, 0
    source, new, compressing, prefill, decoding = (mine.account[name][there] for name in CLOCK)
    _, first = np.unique(mine.context[there], return_index=True)  # a memory is made once, and charged to each row
    seconds = math.fsum(prefill + decoding) + math.fsum(compressing[first])
    return math.fsum(source + new), seconds, int(there.sum())


def check_records(
    candidate: Sequence[CostRecord], baseline: Sequence[CostRecord], rule: RecordRule
) -> list[Comparison]:
    """Compare all phases that the baseline's records have, at least one of a memory: counts, and seconds by phase.

    Raises UsageError: records of several checkpoints are mixed, or seconds of different machines are to be compared.
    """

    def by_point(records: Sequence[CostRecord], side: str) -> dict[Point, CostRecord]:
        points: dict[Point, CostRecord] = {}
        for record in records:
            if record.mode not in MEMORY_MODES or record.predicted:
                continue
            sizes = (record.rate, record.context_tokens, record.question_tokens, record.new_tokens, record.batch)
            point = (*sizes, record.reuse, record.phase, record.mode, record.device, record.dtype, record.threads)
            other = points.setdefault(point, record)
            if other is not record:
                raise UsageError(
                    f"the {side}'s cost records are of several checkpoints ({other.encoder} and {record.encoder}): "
                    "keep those of each in a folder of its own"
                )
        return points

    mine, theirs = by_point(candidate, "candidate"), by_point(baseline, "baseline")
    pairs = [(theirs[point], mine[point]) for point in theirs if point in mine]
    lines = []
    if len(pairs) < len(theirs):
        lacking = f"the candidate lacks {len(theirs) - len(pairs)} of {len(theirs)} phases that the baseline measured"
        lines.append(Comparison(task=UNIT, metric="points", verdict=FAIL, reason=lacking))
    if pairs:
        lines += [_count(pairs, name, rule.counts_at_most) for name in COUNTS]
        timed = [[pair for pair in pairs if pair[0].phase is phase] for phase in TIMED]
        lines += [_seconds(phase, rule.seconds_at_most) for phase in timed if phase]
    return lines


def _count(pairs: Sequence[Pair], name: str, limit: float) -> Comparison:
    """A count never changes by chance, so the worst point decides."""

    def share(pair: Pair) -> float:
        before, after = (getattr(record, name) for record in pair)
        return float(after / before) if before else (math.inf if after else 1.0)

    worst = max(pairs, key=share)
    after = worst[1]
    holds = share(worst) <= limit + NOISE
    reason = f"{COUNTS[name]}: at most {share(worst):.3f} of the baseline's"
    if not holds:
        reason = (
            f"{COUNTS[name]}: {share(worst):.3f} of the baseline's, more than {limit:g}, in {after.phase} "
            f"({after.mode}) of {after.context_tokens:,} tokens, batch {after.batch}, at {after.rate}x"
        )
    counts = (float(getattr(record, name)) for record in worst)
    return _line(UNIT, name, holds, reason, f"at most {limit:g} of the baseline's", len(pairs), *counts)


def _seconds(pairs: Sequence[Pair], limit: float | None) -> Comparison:
    """Seconds of a phase: the geometric mean over its points, each the median of its repeats; no limit: reported."""
    phase = pairs[0][0].phase
    machines = sorted({record.provenance.hardware for pair in pairs for record in pair})
    if limit is not None and len(machines) > 1:
        raise UsageError(
            f"the policy has a rule on seconds of cost records, but they are of different machines "
            f"({', '.join(machines)}): measure both on one, or leave out seconds_at_most"
        )
    sums = (math.fsum(math.log(pair[side].median_s) for pair in pairs) for side in (0, 1))
    before, after = (math.exp(total / len(pairs)) for total in sums)
    holds = limit is None or after / before <= limit + NOISE
    where = "" if len(machines) == 1 else ", on different machines"
    over = "" if holds else f", more than {limit:g}"
    reason = f"seconds of {phase}: {after / before:.2f} of the baseline's{over}{where}"
    rule = "" if limit is None else f"at most {limit:g} of the baseline's"
    return _line(UNIT, f"{phase}_seconds", holds, reason, rule, len(pairs), before, after)
