"""Rules on records of cost (`pcc-bench cost`): the same points, measured for the candidate and for the baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pcc_bench.core.errors import UsageError
from pcc_bench.cost.records import CostRecord, Mode, Phase
from pcc_bench.gate.policy import RecordRule
from pcc_bench.gate.result import FAIL, PASS, REPORTED, Comparison

NOISE = 1e-9
UNIT = "cost records"
COUNTS = {"flops": "FLOPs", "kv_bytes": "bytes of the decoder's cache", "memory_bytes": "bytes of the memories"}
TIMED = (Phase.COMPRESS, Phase.PREFILL, Phase.DECODE)  # the others are sums of these
MEMORY_MODES = (Mode.COLD, Mode.WARM)  # full text is the decoder's business, which the candidate does not change

Point = tuple[Any, ...]
Pair = tuple[CostRecord, CostRecord]  # baseline first


def check(candidate: Sequence[CostRecord], baseline: Sequence[CostRecord], rule: RecordRule) -> list[Comparison]:
    """Compare all phases that the baseline's records have.

    Args:
        candidate: Of the checkpoint under test.
        baseline: Of the one it may not fall behind; at least one record of a memory.
        rule: Of the policy.

    Returns:
        A line for each count, one for the seconds of each phase, and a failed one where the candidate lacks points.

    Raises:
        UsageError: Records of several checkpoints are mixed, or seconds of different machines are to be compared.
    """
    mine, theirs = _by_point(candidate, "candidate"), _by_point(baseline, "baseline")
    pairs = [(theirs[point], mine[point]) for point in theirs if point in mine]
    lines = []
    if len(pairs) < len(theirs):
        lacking = f"the candidate lacks {len(theirs) - len(pairs)} of {len(theirs)} phases that the baseline measured"
        lines.append(Comparison(task=UNIT, metric="points", verdict=FAIL, reason=lacking))
    if pairs:
        lines += [_count(pairs, name, rule) for name in COUNTS]
        lines += [_seconds(found, rule) for phase in TIMED if (found := [p for p in pairs if p[0].phase is phase])]
    return lines


def _by_point(found: Sequence[CostRecord], side: str) -> dict[Point, CostRecord]:
    points: dict[Point, CostRecord] = {}
    for record in found:
        if record.mode not in MEMORY_MODES or record.predicted:
            continue
        sizes = (record.rate, record.context_tokens, record.question_tokens, record.new_tokens, record.batch)
        point = (*sizes, record.reuse, record.phase, record.mode, record.device, record.dtype, record.threads)
        other = points.setdefault(point, record)
        if other is not record:
            raise UsageError(
                f"the {side}'s cost records are of several checkpoints ({other.encoder} and {record.encoder}): keep "
                "those of each in a folder of its own"
            )
    return points


def _count(pairs: Sequence[Pair], name: str, rule: RecordRule) -> Comparison:
    """A count never changes by chance, so the worst point decides."""
    before, after = max(pairs, key=lambda pair: _share(getattr(pair[1], name), getattr(pair[0], name)))
    share = _share(getattr(after, name), getattr(before, name))
    holds = share <= rule.counts_at_most + NOISE
    reason = f"{COUNTS[name]}: at most {share:.3f} of the baseline's"
    if not holds:
        reason = f"{COUNTS[name]}: {share:.3f} of the baseline's, more than {rule.counts_at_most:g}, in {_told(after)}"
    return Comparison(
        task=UNIT,
        metric=name,
        verdict=PASS if holds else FAIL,
        reason=reason,
        rule=f"at most {rule.counts_at_most:g} of the baseline's",
        n=len(pairs),
        baseline=float(getattr(before, name)),
        candidate=float(getattr(after, name)),
    )


def _seconds(pairs: Sequence[Pair], rule: RecordRule) -> Comparison:
    """Seconds of a phase: the geometric mean over its points, each the median of its repeats."""
    limit, phase = rule.seconds_at_most, pairs[0][0].phase
    machines = sorted({record.provenance.hardware for pair in pairs for record in pair})
    if limit is not None and len(machines) > 1:
        raise UsageError(
            f"the policy has a rule on seconds of cost records, but they are of different machines "
            f"({', '.join(machines)}): measure both on one, or leave out seconds_at_most"
        )
    before, after = (_geometric([pair[side].median_s for pair in pairs]) for side in (0, 1))
    share = after / before
    holds = limit is None or share <= limit + NOISE
    where = "" if len(machines) == 1 else ", on different machines"
    over = "" if holds else f", more than {limit:g}"
    return Comparison(
        task=UNIT,
        metric=f"{phase}_seconds",
        verdict=REPORTED if limit is None else PASS if holds else FAIL,
        reason=f"seconds of {phase}: {share:.2f} of the baseline's{over}{where}",
        rule="" if limit is None else f"at most {limit:g} of the baseline's",
        n=len(pairs),
        baseline=before,
        candidate=after,
    )


def _share(after: float, before: float) -> float:
    return after / before if before else (math.inf if after else 1.0)


def _geometric(values: Sequence[float]) -> float:
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def _told(record: CostRecord) -> str:
    size = f"{record.context_tokens:,} tokens, batch {record.batch}"
    return f"{record.phase} ({record.mode}) of {size}, at {record.rate}x"
