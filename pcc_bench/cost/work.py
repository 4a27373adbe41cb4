"""One point: what has to be done (slots, FLOPs, bytes, computed from sizes alone), and its records.

Compressing is each segment with its memory tokens through the encoder, each slot through the converter. Of `n` context
tokens and `q` of the question the decoder reads `n + q` positions in full, `q` behind `n` where the prefix is cached,
and `D + q` of a memory of `D` positions, boundary vectors counted; BOS on top where it has one; with logits of the last
position only. Then each new token but the first is a step of one position. A memory on disk takes `D` vectors.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedConfig

from pcc_bench.core.errors import UsageError
from pcc_bench.cost.estimate import Geometry, boundary_vectors, encoding_flops, sized_as
from pcc_bench.cost.records import CostRecord, Mode, Phase, Provenance
from pcc_bench.model.config import PccConfig

FULL_TEXT = (Mode.FULL, Mode.PREFIX_CACHED)
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Point(NamedTuple):
    context: int  # tokens of each context
    question: int  # tokens behind each context
    new: int  # tokens of each answer
    batch: int  # contexts at a time
    rate: int | None  # of the compressor; None: the whole text is read

    def __str__(self) -> str:
        method = f"pcc {self.rate}x" if self.rate else "full context"
        return f"{method} of {self.context:,} tokens, batch {self.batch}"


class Work(NamedTuple):
    """FLOPs and bytes of a point in one mode, of the whole batch."""

    slots: int  # of one memory
    boundary: int  # boundary vectors of one memory
    once: float  # FLOPs once a context: compressing it, or filling the cache of a prefix; 0 where nothing is kept
    prefill: float  # FLOPs of reading up to the first new token
    decode: float  # FLOPs of all other new tokens
    kept: int  # positions of one row's context, or memory, in the decoder's cache; BOS counts
    read: int  # positions that one row's prefill reads
    masked: tuple[float, float]  # share of `once` and of `prefill` that causal kernels skip
    cached: int  # numbers in the decoder's cache for the contexts
    memory: int  # numbers in the memories


@dataclass(frozen=True)
class Shape:
    """A compressor and its decoder, without weights."""

    encoder: str
    decoder: str
    config: PccConfig
    reads: PreTrainedConfig
    bos: bool = True  # the decoder has a beginning of sequence

    @cached_property
    def sizes(self) -> Geometry:
        return sized_as(self.config, self.reads)

    def segments(self, point: Point) -> list[tuple[int, int]]:
        """(tokens, slots) of each segment of one context."""
        rate, length = point.rate or 1, self.config.segment_length
        lengths = [min(length, point.context - start) for start in range(0, point.context, length)]
        if self.config.slots == "proportional":
            return [(tokens, -(-tokens // rate)) for tokens in lengths]
        return [(tokens, length // rate) for tokens in lengths]

    def work(self, point: Point, mode: Mode) -> Work:
        decoder, start = self.sizes.decoder, int(self.bos)
        once = masked = 0.0
        slots = boundary = past = 0
        if mode in FULL_TEXT:
            kept = start + point.context
        else:
            segments = self.segments(point)
            slots = sum(count for _, count in segments)
            boundary = boundary_vectors(self.config.boundaries, len(segments))
            kept = start + slots + boundary
        if mode is Mode.COLD:
            once = sum(encoding_flops(self.sizes, sum(segment)) for segment in segments)
            once += 2 * self.sizes.converter * slots
            masked = sum(self.sizes.encoder.masked(sum(segment)) for segment in segments) / once
        if mode is Mode.PREFIX_CACHED:
            past, once = kept, decoder.read(kept, predicted=1)
            masked = decoder.masked(kept) / once
        read = kept + point.question - past
        prefill = decoder.read(read, past, predicted=1)
        steps = range(kept + point.question, kept + point.question + point.new - 1)
        return Work(
            slots,
            boundary,
            point.batch * once,
            point.batch * prefill,
            point.batch * sum(decoder.read(1, past, predicted=1) for past in steps),
            kept,
            read,
            (masked, decoder.masked(read) / prefill),
            point.batch * decoder.cache_values(kept),
            point.batch * (slots + boundary) * decoder.hidden_size,
        )

    def check(self, points: Iterable[Point]) -> None:
        """See that every point fits the decoder's window. Raises UsageError: one does not."""
        window = self.sizes.decoder.window
        for point in points:
            work = self.work(point, Mode.COLD if point.rate else Mode.FULL)
            needed = work.read + point.new
            if window is not None and needed > window:
                over = f"{needed:,} positions with question and answer, but {self.decoder} has {window:,}"
                shorter = f"give a --context of at most {point.context - needed + window:,}, or --mode cold --mode warm"
                remedy = "give a shorter --context or a higher --rate" if point.rate else shorter
                raise UsageError(f"{point}, takes {over}: {remedy}")


class Laps(NamedTuple):
    """Seconds of one round: work once a context (compressing, or filling a prefix's cache), and the two phases."""

    once: float
    prefill: float
    decode: float


class Setting(NamedTuple):
    device: str  # cpu, cuda
    dtype: str  # of weights and activations
    threads: int  # of torch on a CPU
    provenance: Provenance
    predicted: bool = False  # nothing is run


def records(
    shape: Shape, point: Point, mode: Mode, laps: Sequence[Laps], reuse: Sequence[int], setting: Setting, **held: Any
) -> Iterator[CostRecord]:
    """The records of a point in one mode, the total for each of `reuse`; `held`: fields on what the mode holds."""
    work = shape.work(point, mode)
    once, prefill, decode = np.array(laps).T
    waits = mode is Mode.COLD  # a prefix's cache is there when its question comes
    # Phase, questions a context, seconds of each round, FLOPs, tokens that it takes or makes (0: it counts none).
    phases = [(Phase.COMPRESS, 1, once, work.once, point.batch * point.context)] if waits else []
    phases += [
        (Phase.PREFILL, 1, prefill, work.prefill, point.batch * work.read),
        (Phase.DECODE, 1, decode, work.decode, point.batch * (point.new - 1)),
        (Phase.TTFT, 1, prefill + waits * once, work.prefill + waits * work.once, 0),
    ]
    for questions in reuse:
        flops = work.once / questions + work.prefill + work.decode
        phases.append((Phase.TOTAL, questions, once / questions + prefill + decode, flops, 0))
    for phase, questions, seconds, flops, tokens in phases:
        median = float(np.median(seconds))
        yield CostRecord(
            method="full-context" if mode in FULL_TEXT else "pcc",
            encoder="" if mode in FULL_TEXT else shape.encoder,
            decoder=shape.decoder,
            rate=None if mode in FULL_TEXT else point.rate,
            context_tokens=point.context,
            question_tokens=point.question,
            new_tokens=point.new,
            batch=point.batch,
            reuse=questions,
            phase=phase,
            mode=mode,
            median_s=median,
            p95_s=None if setting.predicted else float(np.percentile(seconds, 95)),
            repeats=0 if setting.predicted else len(laps),
            tokens_per_s=tokens / median if tokens else None,
            kv_bytes=work.cached * BYTES[setting.dtype],
            flops=flops,
            **{"peak_device_bytes": None, "peak_host_bytes": None, **held},
            **setting._asdict(),
        )
