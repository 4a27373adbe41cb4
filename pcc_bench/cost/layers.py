"""Seconds of forwards on the machine at hand, from models of the true width and very few layers.

Each forward of a question is timed in its own shape through one layer and through three; every further layer takes half
the difference. So products of all widths, attention, norms and the starting of kernels count as what they take here,
whatever share of a data sheet's peak that is. Texts longer than `LONGEST` follow the parabola through two shorter ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from peft import get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, DynamicCache

from pcc_bench.cost.phases import Laps
from pcc_bench.cost.probe import Stopwatch
from pcc_bench.cost.records import Mode
from pcc_bench.cost.sizes import from_state
from pcc_bench.cost.work import Point, Shape
from pcc_bench.model.config import MEMORY_TOKENS
from pcc_bench.model.converter import Converter
from pcc_bench.model.encoder import BATCH_TOKENS, fuse_gelu
from pcc_bench.model.init import lora_config

FEW = (1, 3)  # layers
ROUNDS = 4  # the quickest counts, after one that does not
LONGEST = 2048  # positions of a text that are timed
FORWARDS = 4  # of the encoder, at most; the rest takes as long for each segment
VOCABULARY = 2 * MEMORY_TOKENS  # rows of an embedding do not matter


class Layers:
    """Times forwards of the shapes of a point; each shape once.

    Args:
        shape: What is predicted.
        device: The machine's.
        dtype: Of weights and activations.
    """

    def __init__(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        self.shape = shape
        self.device = device
        self.dtype = dtype
        config = shape.config.encoder
        self._decoders = [self._model(shape.reads.to_dict(), count) for count in FEW]
        self._encoders = [self._model(config.config, count, config.lora) for count in FEW]
        width = shape.sizes.decoder.hidden_size
        with device:
            self._head = nn.Linear(width, shape.sizes.decoder.vocabulary, bias=False, dtype=dtype)
            self._converter = Converter(shape.sizes.encoder.hidden_size, width).to(dtype)
        self._known: dict[tuple[Any, ...], float] = {}

    def __str__(self) -> str:
        return f"from models of {FEW[0]} and {FEW[1]} layers of the true width, timed here"

    @torch.inference_mode()
    def laps(self, point: Point, mode: Mode) -> Laps:
        """Seconds of the parts of a question."""
        work = self.shape.work(point, mode)
        past = work.kept if mode is Mode.PREFIX_CACHED else 0
        once = 0.0
        if mode is Mode.COLD:
            once = self._compress(point)
        if mode is Mode.PREFIX_CACHED:
            once = self._read(point.batch, work.kept, 0)
        middle = work.kept + point.question + point.new // 2
        steps = point.new - 1
        return Laps(
            once,
            self._read(point.batch, work.read, past),
            steps * self._read(point.batch, 1, middle) if steps else 0.0,
        )

    def _read(self, batch: int, count: int, past: int) -> float:
        """The decoder reads `count` positions behind `past` ones, and predicts the token behind the last."""
        predicting = self._once(("head", batch), lambda: self._seconds_of_head(batch))
        if count <= LONGEST:
            return predicting + self._decoder(batch, count, past)
        half, whole = (self._decoder(batch, length, past) for length in (LONGEST // 2, LONGEST))
        square = max(0.0, (whole - 2 * half) / (2 * (LONGEST // 2) ** 2))
        return predicting + square * count**2 + (whole / LONGEST - square * LONGEST) * count

    def _decoder(self, batch: int, count: int, past: int) -> float:
        def few(model: nn.Module) -> float:
            ids = torch.zeros(batch, count, dtype=torch.long, device=self.device)
            cache = self._filled(model, batch, past)

            def run() -> None:
                model(input_ids=ids, past_key_values=cache, use_cache=True)
                cache.crop(-count)

            return self._quickest(run)

        layers = self.shape.sizes.decoder.layers
        return self._once(("decoder", batch, count, past), lambda: _deep(map(few, self._decoders), layers))

    def _compress(self, point: Point) -> float:
        """The encoder reads all segments of a batch of contexts, the converter all slots."""
        segments = self.shape.segments(point) * point.batch
        length = max(map(sum, segments))
        rows = max(1, BATCH_TOKENS.get(self.device.type, 16_384) // length)
        timed = min(len(segments), rows * FORWARDS)

        def few(model: nn.Module) -> float:
            ids = [
                torch.zeros(min(rows, timed - start), length, dtype=torch.long, device=self.device)
                for start in range(0, timed, rows)
            ]
            return self._quickest(lambda: [model(input_ids=part, use_cache=False) for part in ids])

        layers = self.shape.sizes.encoder.layers
        seconds = self._once(("encoder", timed, length), lambda: _deep(map(few, self._encoders), layers))
        share = sum(map(sum, segments)) / (timed * length)
        slots = sum(count for _, count in segments)
        converting = self._once(("converter", slots), lambda: self._seconds_of_converter(slots))
        return seconds * share + converting

    def _seconds_of_head(self, batch: int) -> float:
        last = torch.zeros(batch, self._head.in_features, device=self.device, dtype=self.dtype)
        return self._quickest(lambda: self._head(last).argmax(-1))

    def _seconds_of_converter(self, slots: int) -> float:
        width = self.shape.sizes.encoder.hidden_size
        rows = torch.zeros(slots, width, device=self.device, dtype=self.dtype)
        return self._quickest(lambda: self._converter(rows))

    def _filled(self, model: Any, batch: int, past: int) -> DynamicCache:
        cache = DynamicCache(config=model.config)
        keys = self.shape.sizes.decoder.keys
        heads = getattr(model.config, "num_key_value_heads", None) or model.config.num_attention_heads
        for layer in range(model.config.num_hidden_layers if past else 0):
            full = torch.zeros(batch, heads, past, keys // heads, device=self.device, dtype=self.dtype)
            cache.update(full, full.clone(), layer)
        return cache

    def _model(self, state: dict[str, Any], layers: int, lora: dict[str, Any] | None = None) -> nn.Module:
        """The body of a model with its first layers, random weights and hardly any vocabulary."""
        cut = {"num_hidden_layers": layers, "n_layer": layers, "vocab_size": VOCABULARY}
        config = from_state({**state, **{key: value for key, value in cut.items() if key in state}})
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:layers]
        with self.device:
            model: Any = AutoModelForCausalLM.from_config(config, dtype=self.dtype)
            if lora:
                model = get_peft_model(model, lora_config(int(lora["r"]))).to(self.dtype).get_base_model()
        body: nn.Module = fuse_gelu(model.base_model).eval()
        return body

    def _quickest(self, run: Callable[[], Any]) -> float:
        run()
        watch, found = Stopwatch(self.device), []
        for _ in range(ROUNDS):
            watch.lap()
            run()
            found.append(watch.lap())
        return min(found)

    def _once(self, key: tuple[Any, ...], time: Callable[[], float]) -> float:
        if key not in self._known:
            self._known[key] = time()
        return self._known[key]


def _deep(few: Iterable[float], layers: int) -> float:
    """Seconds of so many layers, from those of `FEW`."""
    first, more = few
    return first + (layers - FEW[0]) * max(0.0, more - first) / (FEW[1] - FEW[0])
