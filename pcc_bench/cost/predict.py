"""Costs predicted: FLOPs and bytes by arithmetic, seconds from how fast a device multiplies and copies.

A phase takes the longer of its arithmetic (`FLOPs / speed`) and of reading what it needs once (`bytes / bandwidth`):
the weights, and for a decoding step the cache too. Scores of later positions, which causal kernels skip, are not
charged. What it leaves out: the time to start kernels, which rules where models or inputs are small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from pcc_bench.cost.phases import BYTES, Held, Laps, Setting, records
from pcc_bench.cost.probe import Stopwatch
from pcc_bench.cost.records import CostRecord, Mode
from pcc_bench.cost.work import FULL_TEXT, Point, Shape

ROUNDS = 8
COPIED = 1 << 28  # bytes: more than caches hold
TOKENS = 512  # rows of the matrix product that is timed


@dataclass(frozen=True)
class Speed:
    """What a device reaches.

    Attributes:
        flops: FLOP/s of a forward.
        bandwidth: Bytes/s, read or written.
        source: Where the numbers come from.
    """

    flops: float
    bandwidth: float
    source: str

    def __str__(self) -> str:
        return f"{self.flops / 1e12:.4g} TFLOP/s, {self.bandwidth / 1e9:.4g} GB/s ({self.source})"


def calibrate(device: torch.device, dtype: torch.dtype, width: int) -> tuple[float, float]:
    """FLOP/s of one matrix product of the decoder's width, and bytes/s of one large copy; the best of a few rounds."""
    rows = torch.randn(TOKENS, width, device=device, dtype=dtype)
    weight = torch.randn(4 * width, width, device=device, dtype=dtype)
    source = torch.zeros(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    watch = Stopwatch(device)
    products, copies = [], []
    for _ in range(ROUNDS):
        watch.lap()
        torch.nn.functional.linear(rows, weight)
        products.append(watch.lap())
        target.copy_(source)
        copies.append(watch.lap())
    return 2 * TOKENS * width * 4 * width / min(products), 2 * COPIED / min(copies)


def predict(
    shape: Shape, point: Point, modes: Sequence[Mode], reuse: Sequence[int], setting: Setting, speed: Speed
) -> Iterator[CostRecord]:
    """The records of one point, as `measure.measure` gives them.

    Args:
        shape: Sizes of the models.
        point: Where.
        modes: How the context gets to the decoder.
        reuse: Questions a context that `total` is given for.
        setting: Dtype and provenance.
        speed: Of the device.
    """
    for mode in modes:
        work = shape.work(point, mode)
        memory = work.memory * (4 if shape.config.memory_dtype == "float32" else BYTES[setting.dtype])
        held = Held(work.slots, work.boundary, memory)
        yield from records(
            shape, point, mode, [seconds(shape, point, mode, setting.dtype, speed)], reuse, held, setting
        )


def seconds(shape: Shape, point: Point, mode: Mode, dtype: str, speed: Speed) -> Laps:
    """How long the parts of a question take."""
    work, sizes, size = shape.work(point, mode), shape.sizes, BYTES[dtype]
    decoder = size * (sizes.decoder.body + sizes.decoder.head)
    encoder = size * (sizes.encoder.body + sizes.lora_products + sizes.converter)

    def longer(flops: float, moved: float) -> float:
        return max(flops / speed.flops, moved / speed.bandwidth)

    once = longer(work.once * (1 - work.masked[0]), decoder if mode in FULL_TEXT else encoder) if work.once else 0.0
    prefill = longer(work.prefill * (1 - work.masked[1]), decoder)
    steps = point.new - 1
    grown = size * point.batch * sizes.decoder.cache_values(point.question + point.new // 2)  # on top of the context's
    step = longer(work.decode / steps, decoder + size * work.cached + grown) if steps else 0.0
    return Laps(once, prefill, steps * step)
