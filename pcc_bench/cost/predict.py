"""Costs predicted: FLOPs and bytes by arithmetic, seconds from how fast a device multiplies and copies.

Of a device that is not here, a forward takes the longest of its arithmetic (without scores of later positions, which
causal kernels skip), of reading what it needs once (the weights, for a decoding step the cache too) and of starting its
kernels, which goes on beside both.

On the machine at hand, models of the true width are timed instead, each forward of a question in its own shape through
one layer and through three; every further layer takes half the difference. Texts longer than `LONGEST` follow the
parabola through two shorter ones.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from peft import get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedConfig

from pcc_bench.core.decoder import BATCH_TOKENS
from pcc_bench.cost.measure import Stopwatch
from pcc_bench.cost.records import CostRecord, Mode
from pcc_bench.cost.sizes import from_state
from pcc_bench.cost.work import BYTES, FULL_TEXT, Laps, Point, Setting, Shape, records
from pcc_bench.model.config import MEMORY_TOKENS
from pcc_bench.model.converter import Converter
from pcc_bench.model.encoder import fuse_gelu, shallow
from pcc_bench.model.init import lora_config

FEW = (1, 3)  # layers
ROUNDS = 4  # the quickest counts, after one that does not
LONGEST = 2048  # positions of a text that are timed
FORWARDS = 4  # of the encoder, at most; the rest takes as long for each segment


class Stated(NamedTuple):
    """The clock of a device that is not here."""

    shape: Shape
    dtype: str  # of weights and activations
    flops: float  # FLOP/s of a forward
    bandwidth: float  # bytes/s, read or written
    source: str = ""  # where the numbers come from
    start: float = 0.0  # seconds to start the kernels of one forward

    def __str__(self) -> str:
        started = f", {1e3 * self.start:.3g} ms to start a forward" if self.start else ""
        return f"{self.flops / 1e12:.4g} TFLOP/s, {self.bandwidth / 1e9:.4g} GB/s{started} ({self.source})"

    def seconds(self, flops: float, moved: float) -> float:
        return max(flops / self.flops, moved / self.bandwidth, self.start)

    def laps(self, point: Point, mode: Mode) -> Laps:
        work, sizes, size = self.shape.work(point, mode), self.shape.sizes, BYTES[self.dtype]
        decoder = size * (sizes.decoder.body + sizes.decoder.head)
        encoder = size * (sizes.encoder.body + sizes.lora_products + sizes.converter)
        reader = decoder if mode in FULL_TEXT else encoder
        once = self.seconds(work.once * (1 - work.masked[0]), reader) if work.once else 0.0
        prefill = self.seconds(work.prefill * (1 - work.masked[1]), decoder)
        steps = point.new - 1
        grown = sizes.decoder.cache_values(point.question + point.new // 2)  # behind what is kept of the context
        moved = decoder + size * (work.cached + point.batch * grown)
        return Laps(once, prefill, steps * self.seconds(work.decode / steps, moved) if steps else 0.0)


class Layers:
    """Times forwards of the shapes of a point; each shape once."""

    def __init__(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        self.shape, self.device, self.dtype = shape, device, dtype
        encoder = shape.config.encoder
        self._decoders = [self._model(shape.reads, count) for count in FEW]
        self._encoders = [self._model(from_state(encoder.config), count, encoder.lora) for count in FEW]
        width = shape.sizes.decoder.hidden_size
        with device:
            self._head = nn.Linear(width, shape.sizes.decoder.vocabulary, bias=False, dtype=dtype)
            self._converter = Converter(shape.sizes.encoder.hidden_size, width).to(dtype)
        self._known: dict[tuple[Any, ...], float] = {}

    def __str__(self) -> str:
        return f"from models of {FEW[0]} and {FEW[1]} layers of the true width, timed here"

    @torch.inference_mode()
    def laps(self, point: Point, mode: Mode) -> Laps:
        work = self.shape.work(point, mode)
        past = work.kept if mode is Mode.PREFIX_CACHED else 0
        once = self._compress(point) if mode is Mode.COLD else self._read(point.batch, past, 0) if past else 0.0
        prefill = self._read(point.batch, work.read, past)
        middle, steps = work.kept + point.question + point.new // 2, point.new - 1
        return Laps(once, prefill, steps * self._read(point.batch, 1, middle) if steps else 0.0)

    def _read(self, batch: int, count: int, past: int) -> float:
        """The decoder reads `count` positions behind `past` ones, and predicts the token behind the last."""
        last = torch.zeros(batch, self._head.in_features, device=self.device, dtype=self.dtype)
        predicting = self._once(("head", batch), lambda: self._quickest(lambda: self._head(last).argmax(-1)))
        if count <= LONGEST:
            return predicting + self._decoder(batch, count, past)
        half, whole = (self._decoder(batch, length, past) for length in (LONGEST // 2, LONGEST))
        square = max(0.0, (whole - 2 * half) / (2 * (LONGEST // 2) ** 2))
        return predicting + square * count**2 + (whole / LONGEST - square * LONGEST) * count

    def _decoder(self, batch: int, count: int, past: int) -> float:
        sizes = self.shape.sizes.decoder

        def few(model: Any) -> float:
            ids = torch.zeros(batch, count, dtype=torch.long, device=self.device)
            cache = DynamicCache(config=model.config)
            heads = getattr(model.config, "num_key_value_heads", None) or model.config.num_attention_heads
            for layer in range(model.config.num_hidden_layers if past else 0):
                full = torch.zeros(batch, heads, past, sizes.keys // heads, device=self.device, dtype=self.dtype)
                cache.update(full, full.clone(), layer)

            def run() -> None:
                model(input_ids=ids, past_key_values=cache, use_cache=True)
                cache.crop(-count)

            return self._quickest(run)

        return self._once(("decoder", batch, count, past), lambda: _deep(map(few, self._decoders), sizes.layers))

    def _compress(self, point: Point) -> float:
        """The encoder reads all segments of a batch of contexts, the converter all slots."""
        segments = self.shape.segments(point) * point.batch
        length = max(map(sum, segments))
        rows = max(1, BATCH_TOKENS.get(self.device.type, 16_384) // length)
        timed = min(len(segments), rows * FORWARDS)

        def few(model: nn.Module) -> float:
            ids = torch.zeros(timed, length, dtype=torch.long, device=self.device).split(rows)
            return self._quickest(lambda: [model(input_ids=part, use_cache=False) for part in ids])

        encoder, slots = self.shape.sizes.encoder, sum(count for _, count in segments)
        seconds = self._once(("encoder", timed, length), lambda: _deep(map(few, self._encoders), encoder.layers))
        share = sum(map(sum, segments)) / (timed * length)
        states = torch.zeros(slots, encoder.hidden_size, device=self.device, dtype=self.dtype)
        converting = self._once(("converter", slots), lambda: self._quickest(lambda: self._converter(states)))
        return seconds * share + converting

    def _model(self, config: PreTrainedConfig, layers: int, lora: dict[str, Any] | None = None) -> nn.Module:
        """The body of a model with its first layers, random weights and hardly any vocabulary."""
        config = shallow(config, layers)
        config.vocab_size = 2 * MEMORY_TOKENS  # rows of an embedding do not matter
        with self.device:
            model: Any = AutoModelForCausalLM.from_config(config, dtype=self.dtype)
            if lora:
                model = get_peft_model(model, lora_config(int(lora["r"]))).to(self.dtype).get_base_model()
        body: nn.Module = fuse_gelu(model.base_model).eval()
        return body

    def _quickest(self, run: Callable[[], Any]) -> float:
        run()
        watch = Stopwatch(self.device)
        return min(watch.lap_of(run) for _ in range(ROUNDS))

    def _once(self, key: tuple[Any, ...], time: Callable[[], float]) -> float:
        if key not in self._known:
            self._known[key] = time()
        return self._known[key]


def _deep(few: Iterable[float], layers: int) -> float:
    """Seconds of so many layers, from those of `FEW`."""
    first, more = few
    return first + (layers - FEW[0]) * max(0.0, more - first) / (FEW[1] - FEW[0])


def predict(
    shape: Shape, point: Point, modes: Sequence[Mode], reuse: Sequence[int], setting: Setting, clock: Stated | Layers
) -> Iterator[CostRecord]:
    """The records of one point, as `measure.measure` gives them."""
    for mode in modes:
        work = shape.work(point, mode)
        held = {"slots": work.slots, "boundary": work.boundary}
        held["memory_bytes"] = work.memory * (4 if shape.config.memory_dtype == "float32" else BYTES[setting.dtype])
        yield from records(shape, point, mode, [clock.laps(point, mode)], reuse, setting, **held)
