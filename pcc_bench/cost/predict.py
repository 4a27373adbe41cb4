"""Costs predicted: FLOPs and bytes by arithmetic, seconds from how fast a device multiplies and copies.

A forward takes the longer of its arithmetic (`FLOPs / speed`) and of reading what it needs once (`bytes / bandwidth`):
the weights, and for a decoding step the cache too. Scores of later positions, which causal kernels skip, are not
charged. Starting kernels takes its own time, which rules where models or inputs are small: a CPU works after it, a GPU
beside it. It is measured with models of the same layers and next to no width; for a device that is not here it is
taken to be 0, so that the prediction is a lower bound there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from pcc_bench.cost.phases import BYTES, Held, Laps, Setting, records
from pcc_bench.cost.probe import Stopwatch
from pcc_bench.cost.records import CostRecord, Mode
from pcc_bench.cost.work import FULL_TEXT, Point, Shape
from pcc_bench.model.init import lora_config
from pcc_bench.model.sizes import from_state

ROUNDS = 8
COPIED = 1 << 28  # bytes: more than caches hold
TOKENS = 512  # rows of the matrix product that is timed
THIN = 16  # width of models that are all start and no work


@dataclass(frozen=True)
class Speed:
    """What a device reaches.

    Attributes:
        flops: FLOP/s of a forward.
        bandwidth: Bytes/s, read or written.
        source: Where the numbers come from.
        starts: Seconds to start the kernels of one forward of encoder and decoder.
        overlaps: The device works while the next kernels are started.
    """

    flops: float
    bandwidth: float
    source: str
    starts: tuple[float, float] = (0.0, 0.0)
    overlaps: bool = True

    def __str__(self) -> str:
        speeds = f"{self.flops / 1e12:.4g} TFLOP/s, {self.bandwidth / 1e9:.4g} GB/s"
        starts = " and ".join(f"{1e3 * start:.3g}" for start in self.starts)
        started = f", {starts} ms to start a forward of encoder and decoder" if any(self.starts) else ""
        return f"{speeds}{started} ({self.source})"

    def seconds(self, flops: float, moved: float, start: float) -> float:
        """How long one forward takes that does and moves so much."""
        work = max(flops / self.flops, moved / self.bandwidth)
        return max(work, start) if self.overlaps else work + start


def calibrate(shape: Shape, device: torch.device, dtype: torch.dtype, share: float) -> Speed:
    """Measure a device: one matrix product of the decoder's width, one large copy, two models without width.

    Args:
        shape: What will be predicted.
        device: The device.
        dtype: Of weights and activations.
        share: Of the product's FLOP/s that a forward reaches.
    """
    width = shape.sizes.decoder.hidden_size
    rows = torch.randn(TOKENS, width, device=device, dtype=dtype)
    weight = torch.randn(4 * width, width, device=device, dtype=dtype)
    source = torch.zeros(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    product = _best(device, lambda: torch.nn.functional.linear(rows, weight))
    copied = _best(device, lambda: target.copy_(source))
    starts = tuple(_best(device, _thin(shape, part, device, dtype)) for part in ("encoder", "decoder"))
    flops = share * 2 * TOKENS * width * 4 * width / product
    source_words = f"a matrix product, a copy and thin models here, at {share:.0%}"
    return Speed(flops, 2 * COPIED / copied, source_words, (starts[0], starts[1]), device.type != "cpu")


def _best(device: torch.device, run: Callable[[], Any]) -> float:
    """Seconds of the quickest of a few rounds."""
    watch, found = Stopwatch(device), []
    for _ in range(ROUNDS):
        watch.lap()
        run()
        found.append(watch.lap())
    return min(found)


def _thin(shape: Shape, part: str, device: torch.device, dtype: torch.dtype) -> Callable[[], Any]:
    """A forward of one position through a model with the layers of encoder or decoder, and next to no width."""
    lora = shape.config.encoder.lora if part == "encoder" else None
    state = shape.config.encoder.config if part == "encoder" else shape.reads.to_dict()
    sizes = {"n_embd": THIN, "n_head": 1, "hidden_size": THIN, "intermediate_size": THIN, "head_dim": THIN}
    sizes |= {"num_attention_heads": 1, "num_key_value_heads": 1}
    config = from_state({**state, **{key: value for key, value in sizes.items() if key in state}, "vocab_size": THIN})
    with device:
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
        if lora:
            model = get_peft_model(model, lora_config(1)).to(device, dtype).eval()
    ids = torch.zeros(1, 1, dtype=torch.long, device=device)

    def run() -> None:
        with torch.inference_mode():
            model(input_ids=ids, use_cache=part == "decoder")

    return run


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

    encoding, decoding = speed.starts
    once = 0.0
    if work.once:
        moved, start = (decoder, decoding) if mode in FULL_TEXT else (encoder, encoding)
        once = speed.seconds(work.once * (1 - work.masked[0]), moved, start)
    prefill = speed.seconds(work.prefill * (1 - work.masked[1]), decoder, decoding)
    steps = point.new - 1
    grown = size * point.batch * sizes.decoder.cache_values(point.question + point.new // 2)  # on top of the context's
    step = speed.seconds(work.decode / steps, decoder + size * work.cached + grown, decoding) if steps else 0.0
    return Laps(once, prefill, steps * step)
