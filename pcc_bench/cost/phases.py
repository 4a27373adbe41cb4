"""From the seconds of a point's rounds to its records: the same for what was measured and what is predicted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pcc_bench.cost.records import CostRecord, Mode, Phase, Provenance
from pcc_bench.cost.work import FULL_TEXT, Point, Shape, Work

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Laps:
    """Seconds of one round: work once a context (compressing, or filling a prefix's cache), and the two phases."""

    once: float
    prefill: float
    decode: float


@dataclass(frozen=True)
class Setting:
    """Where and how a point is run.

    Attributes:
        device: cpu, cuda ...
        dtype: Of weights and activations.
        threads: Of torch on a CPU.
        provenance: Of the records.
        predicted: Nothing is run.
    """

    device: str
    dtype: str
    threads: int
    provenance: Provenance
    predicted: bool = False


@dataclass(frozen=True)
class Held:
    """What a mode holds.

    Attributes:
        slots: Of each memory; 0 without one.
        boundary: Boundary vectors of each memory.
        memory_bytes: Of all memories.
        peak_device: Bytes on a GPU at the fullest moment; None where they can't be told.
        peak_host: The process's resident bytes at the fullest moment; None likewise.
    """

    slots: int = 0
    boundary: int = 0
    memory_bytes: int = 0
    peak_device: int | None = None
    peak_host: int | None = None


@dataclass(frozen=True)
class _Timed:
    """A phase: seconds of each round, FLOPs, and the tokens it takes or makes (0: it counts none)."""

    phase: Phase
    seconds: npt.NDArray[np.float64]
    flops: float
    tokens: int = 0
    reuse: int = 1


def records(
    shape: Shape, point: Point, mode: Mode, laps: Sequence[Laps], reuse: Sequence[int], held: Held, setting: Setting
) -> Iterator[CostRecord]:
    """The records of a point in one mode: one a phase, and of the total one a number of questions.

    Args:
        shape: Sizes of the models.
        point: Where.
        mode: How the context gets to the decoder.
        laps: Of each round.
        reuse: Questions asked of a context.
        held: Slots and bytes.
        setting: Device, dtype, provenance.
    """
    work = shape.work(point, mode)
    cache = work.cached * BYTES[setting.dtype]
    for timed in _phases(point, mode, work, laps, reuse):
        median = float(np.median(timed.seconds))
        yield CostRecord(
            method="full-context" if mode in FULL_TEXT else "pcc",
            encoder="" if mode in FULL_TEXT else shape.encoder,
            decoder=shape.decoder,
            rate=None if mode in FULL_TEXT else point.rate,
            context_tokens=point.context,
            question_tokens=point.question,
            new_tokens=point.new,
            slots=held.slots,
            boundary=held.boundary,
            batch=point.batch,
            reuse=timed.reuse,
            phase=timed.phase,
            mode=mode,
            median_s=median,
            p95_s=None if setting.predicted else float(np.percentile(timed.seconds, 95)),
            repeats=0 if setting.predicted else len(laps),
            tokens_per_s=timed.tokens / median if timed.tokens else None,
            peak_device_bytes=held.peak_device,
            peak_host_bytes=held.peak_host,
            kv_bytes=cache,
            memory_bytes=held.memory_bytes,
            flops=timed.flops,
            device=setting.device,
            dtype=setting.dtype,
            threads=setting.threads,
            predicted=setting.predicted,
            provenance=setting.provenance,
        )


def _phases(point: Point, mode: Mode, work: Work, laps: Sequence[Laps], reuse: Sequence[int]) -> Iterator[_Timed]:
    once, prefill, decode = (np.array([getattr(lap, name) for lap in laps]) for name in ("once", "prefill", "decode"))
    if mode is Mode.COLD:
        yield _Timed(Phase.COMPRESS, once, work.once, point.batch * point.context)
    yield _Timed(Phase.PREFILL, prefill, work.prefill, point.batch * work.read)
    yield _Timed(Phase.DECODE, decode, work.decode, point.batch * (point.new - 1))
    waits = mode is Mode.COLD  # a prefix's cache is there when its question comes
    yield _Timed(Phase.TTFT, prefill + waits * once, work.prefill + waits * work.once)
    for questions in reuse:
        seconds = once / questions + prefill + decode
        yield _Timed(Phase.TOTAL, seconds, work.once / questions + work.prefill + work.decode, reuse=questions)
