"""Costs predicted: FLOPs and bytes by arithmetic, seconds from how fast a device multiplies and copies.

Of a device that is not here, a forward takes the longer of its arithmetic (`FLOPs / speed`) and of reading what it
needs once (`bytes / bandwidth`): the weights, and for a decoding step the cache too. Scores of later positions, which
causal kernels skip, are not charged. Starting its kernels goes on beside both, so it counts where it takes longer than
they do. On the machine at hand, parts of the models are timed instead (`pcc_bench.cost.layers`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pcc_bench.cost.phases import BYTES, Held, Laps, Setting, records
from pcc_bench.cost.records import CostRecord, Mode
from pcc_bench.cost.work import FULL_TEXT, Point, Shape


class Clock(Protocol):
    """Tells seconds."""

    def laps(self, point: Point, mode: Mode) -> Laps:
        """Seconds of the parts of a question."""


@dataclass(frozen=True)
class Speed:
    """What a stated device reaches.

    Attributes:
        flops: FLOP/s of a forward.
        bandwidth: Bytes/s, read or written.
        source: Where the numbers come from.
        start: Seconds to start the kernels of one forward.
    """

    flops: float
    bandwidth: float
    source: str
    start: float = 0.0

    def __str__(self) -> str:
        started = f", {1e3 * self.start:.3g} ms to start a forward" if self.start else ""
        return f"{self.flops / 1e12:.4g} TFLOP/s, {self.bandwidth / 1e9:.4g} GB/s{started} ({self.source})"

    def seconds(self, flops: float, moved: float) -> float:
        """How long one forward takes that does and moves so much."""
        return max(flops / self.flops, moved / self.bandwidth, self.start)


@dataclass(frozen=True)
class Stated:
    """The clock of a device that is not here.

    Attributes:
        shape: Sizes of the models.
        dtype: Of weights and activations.
        speed: The device's.
    """

    shape: Shape
    dtype: str
    speed: Speed

    def laps(self, point: Point, mode: Mode) -> Laps:
        """Seconds of the parts of a question."""
        work, sizes, size = self.shape.work(point, mode), self.shape.sizes, BYTES[self.dtype]
        decoder = size * (sizes.decoder.body + sizes.decoder.head)
        encoder = size * (sizes.encoder.body + sizes.lora_products + sizes.converter)
        once = 0.0
        if work.once:
            moved = decoder if mode in FULL_TEXT else encoder
            once = self.speed.seconds(work.once * (1 - work.masked[0]), moved)
        prefill = self.speed.seconds(work.prefill * (1 - work.masked[1]), decoder)
        steps = point.new - 1
        grown = sizes.decoder.cache_values(point.question + point.new // 2)  # behind what is kept of the context
        moved = decoder + size * (work.cached + point.batch * grown)
        return Laps(once, prefill, steps * self.speed.seconds(work.decode / steps, moved) if steps else 0.0)


def predict(
    shape: Shape, point: Point, modes: Sequence[Mode], reuse: Sequence[int], setting: Setting, clock: Clock
) -> Iterator[CostRecord]:
    """The records of one point, as `measure.measure` gives them.

    Args:
        shape: Sizes of the models.
        point: Where.
        modes: How the context gets to the decoder.
        reuse: Questions a context that `total` is given for.
        setting: Dtype and provenance.
        clock: Of the device.
    """
    for mode in modes:
        work = shape.work(point, mode)
        memory = work.memory * (4 if shape.config.memory_dtype == "float32" else BYTES[setting.dtype])
        held = Held(work.slots, work.boundary, memory)
        yield from records(shape, point, mode, [clock.laps(point, mode)], reuse, held, setting)
