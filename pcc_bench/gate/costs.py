"""Rules on what answers cost, by row, and on records of cost (`pcc-bench cost`), by point. Counts need no test."""

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
        before, after, holds = None, None, False
        try:
            before = count(tasks, 0)
            after = count(tasks, 1)
            holds, reason = rule.check(before, after)
        except Lack as lack:
            why, partial = lack.args
            reason = f"the {'baseline' if before is None else 'candidate'} {why}"
            if before is None and not (partial or name in rules.model_fields_set):
                notes.append(f"{name} of {unit} is not compared: {reason}")
                continue
        lines.append(_line(unit, name, holds, reason, str(rule), rows, before, after))
    return lines, notes


def _line(
    unit: str, metric: str, holds: bool, reason: str, rule: str, n: int, before: float | None, after: float | None
) -> Comparison:
    mark: Mark = (PASS if holds else FAIL) if rule else REPORTED
    return Comparison(
        task=unit, metric=metric, verdict=mark, reason=reason, rule=rule, n=n, baseline=before, candidate=after
    )


def check_speed(candidate: Run, reference: Run, tasks: Sequence[str], rule: SpeedRule) -> Comparison:
    """Tokens per second against a run on the same machine. Raises UsageError: they have no timed row in common.

    Tokens are those of the contexts and of the answers; seconds are those of compressing (each context once), prefill
    and decoding. Only rows that both runs answered, and answered afresh, count.
    """
    common = [task for task in tasks if task in candidate.tasks and task in reference.tasks]
    speeds = []
    for mine, theirs in ((reference, candidate), (candidate, reference)):
        parts = [_clock(mine.tasks[task].rows, theirs.tasks[task].rows) for task in common]
        tokens, seconds, rows = (sum(column) for column in zip((0.0, 0.0, 0), *parts, strict=True))
        if not rows or not seconds:
            raise UsageError(
                "candidate and reference have no timed row in common (other rows, answers from a cache, or no account "
                "of seconds): run both afresh on the same rows in this job"
            )
        speeds.append(tokens / seconds)
    before, after = speeds
    share = after / before
    holds = share >= rule.at_least - NOISE
    reason = f"{share:.2f} of the reference's tokens per second" + ("" if holds else f", below {rule.at_least:g}")
    return _line(POOLED if len(tasks) > 1 else tasks[0], "speed", holds, reason, str(rule), int(rows), before, after)


class Lack(Exception):
    """Its arguments: why there is no number to compare, and whether that is more than the lack of any account."""


def _values(tasks: Sequence[Matched], side: int, name: str) -> Numbers:
    """A count of all common rows but those that both runs skipped: these have no score and no account in either."""
    parts, known = [], False
    for task in tasks:
        sides = list(zip((task.baseline.rows, task.candidate.rows), task.pairs, strict=True))
        columns = [column[at] for rows, at in sides for column in (*rows.scores.values(), *rows.account.values())]
        rows, place = sides[side]
        known |= name in rows.account
        values = rows.account.get(name, np.full(len(rows), np.nan))[place]
        parts.append(values[~np.isnan(columns).all(axis=0)])
    if not known:
        raise Lack(f"keeps no account of {name}", False)
    values = np.concatenate(parts)
    if lacking := int(np.isnan(values).sum()):
        raise Lack(f"keeps no account of {name} for {lacking} of {len(values)} rows", True)
    return values


def _ratio(tasks: Sequence[Matched], side: int) -> float:
    """Source tokens per position of memory: the ratio of the sums."""
    names = ("source_tokens", "slots", "boundary")
    source, slots, boundary = (math.fsum(_values(tasks, side, name)) for name in names)
    if not slots + boundary:
        raise Lack("reads no memory", False)
    return source / (slots + boundary)


def _positions(tasks: Sequence[Matched], side: int) -> float:
    """Positions in the decoder's window of a prompt, the mean."""
    values = _values(tasks, side, "prompt_positions")
    if not len(values):
        raise Lack("scored no row", False)
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
    """Compare the baseline's phases, at least one of a memory: counts, and seconds by phase.

    Raises UsageError: records of several checkpoints are mixed, or seconds of different machines are to be compared.
    """

    def by_point(records: Sequence[CostRecord], side: str) -> dict[tuple[Any, ...], CostRecord]:
        points: dict[tuple[Any, ...], CostRecord] = {}
        for record in records:
            if record.mode not in MEMORY_MODES or record.predicted:
                continue
            other = points.setdefault(record.setting()[3:], record)  # without method, encoder and decoder
            if other is not record:
                several = f"of several checkpoints ({other.encoder} and {record.encoder})"
                raise UsageError(f"the {side}'s cost records are {several}: keep those of each in a folder of its own")
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
    at, times = worst[1], f"{share(worst):.3f} of the baseline's"
    holds = share(worst) <= limit + NOISE
    place = f"{at.phase} ({at.mode}) of {at.context_tokens:,} tokens, batch {at.batch}, at {at.rate}x"
    reason = f"{COUNTS[name]}: " + (f"at most {times}" if holds else f"{times}, more than {limit:g}, in {place}")
    counts = (float(getattr(record, name)) for record in worst)
    return _line(UNIT, name, holds, reason, f"at most {limit:g} of the baseline's", len(pairs), *counts)


def _seconds(pairs: Sequence[Pair], limit: float | None) -> Comparison:
    """Seconds of a phase: the geometric mean over its points, each the median of its repeats; no limit: reported."""
    phase = pairs[0][0].phase
    machines = sorted({record.provenance.hardware for pair in pairs for record in pair})
    if limit is not None and len(machines) > 1:
        differ = f"they are of different machines ({', '.join(machines)})"
        remedy = "measure both on one, or leave out seconds_at_most"
        raise UsageError(f"the policy has a rule on seconds of cost records, but {differ}: {remedy}")
    sums = (math.fsum(math.log(pair[side].median_s) for pair in pairs) for side in (0, 1))
    before, after = (math.exp(total / len(pairs)) for total in sums)
    holds = limit is None or after / before <= limit + NOISE
    where = "" if len(machines) == 1 else ", on different machines"
    over = "" if holds else f", more than {limit:g}"
    reason = f"seconds of {phase}: {after / before:.2f} of the baseline's{over}{where}"
    rule = "" if limit is None else f"at most {limit:g} of the baseline's"
    return _line(UNIT, f"{phase}_seconds", holds, reason, rule, len(pairs), before, after)
