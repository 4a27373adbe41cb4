"""A sweep from the command line's words to records: checkpoint or random weights, measured or predicted."""

import itertools
import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from tqdm import tqdm

from pcc_bench.core import provenance, registry, shipped
from pcc_bench.core.decoder import DTYPES
from pcc_bench.core.errors import UsageError, memory_errors
from pcc_bench.cost import geometry, records
from pcc_bench.cost import measure as measuring
from pcc_bench.cost import predict as predicting
from pcc_bench.cost.records import CostRecord, Mode, Phase, Provenance
from pcc_bench.cost.work import BYTES, FULL_TEXT, Point, Setting, Shape
from pcc_bench.host import compressing

MEASURED, PREDICTED = "cost_measured.jsonl", "cost_predicted.jsonl"
DEFAULT_SHARE = 0.5  # of a data sheet's FLOP/s that a forward reaches


class Sweep(NamedTuple):
    contexts: Sequence[int]  # tokens of each context
    rates: Sequence[int]  # of the memories; none: the checkpoint's own, or 4x
    batches: Sequence[int]  # contexts at a time
    reuse: Sequence[int]  # questions a context
    modes: tuple[Mode, ...]  # how the context gets to the decoder
    question: int  # tokens behind each context
    new: int  # tokens of each answer

    def points(self, rates: Sequence[int]) -> list[tuple[Point, tuple[Mode, ...]]]:
        whole = tuple(mode for mode in self.modes if mode in FULL_TEXT)
        memories = tuple(mode for mode in self.modes if mode not in FULL_TEXT)
        methods = [(None, whole)] * bool(whole) + [(rate, memories) for rate in rates if memories]
        grid = itertools.product(self.contexts, self.batches, methods)
        return [(Point(context, self.question, self.new, batch, rate), modes) for context, batch, (rate, modes) in grid]


def modes(names: Sequence[str]) -> tuple[Mode, ...]:
    """The modes of these names, in a fixed order. Raises UsageError: there is no such mode."""
    for name in names:
        if name not in list(Mode):
            raise UsageError(f"--mode {name} is unknown{registry.suggest(name, list(Mode))}")
    return tuple(mode for mode in Mode if mode in names)


@dataclass(frozen=True)
class Source:
    checkpoint: str | None  # folder or hub id; None with `random_weights`
    random_weights: str | None  # name of a geometry; None with a checkpoint
    decoder: str | None  # folder or hub id, where it is not the checkpoint's
    device: str | None  # cuda, cpu ...; None: a GPU where there is one
    dtype: str | None  # None: bfloat16, float32 on a CPU
    threads: int | None  # of torch; None: as they are
    seed: int  # of weights and inputs

    def __post_init__(self) -> None:
        if (self.checkpoint is None) == (self.random_weights is None):
            raise UsageError("a checkpoint and --random-weights (lite, large, small, tiny, ...) exclude each other")
        if self.random_weights and self.decoder:
            raise UsageError("--decoder goes with a checkpoint: name the decoder in --random-weights ENCODER+DECODER")
        if self.dtype is not None and self.dtype not in BYTES:
            raise UsageError(f"--dtype {self.dtype} is unknown{registry.suggest(self.dtype, list(BYTES))}")


def measure(source: Source, sweep: Sweep, repeats: int, out: Path, tell: measuring.Tell) -> list[CostRecord]:
    """Measure what a file lacks of a sweep; its records of this geometry and setting. UsageError: it does not fit."""
    device = measuring.find_device(source.device)
    shape = _shape(source, sweep)
    rates = sweep.rates or shape.config.declared_rates
    points = sweep.points(rates)
    shape.check(point for point, _ in points)
    setting = _setting(source, device.type, _dtype(source, device), measuring.hardware(device))
    path = out / MEASURED

    def written() -> list[CostRecord]:
        """What the file has of this geometry, setting, question and answer."""
        facts = attrgetter("device", "dtype", "threads", "decoder", "question_tokens", "new_tokens")
        here = (setting.device, setting.dtype, setting.threads, shape.decoder, sweep.question, sweep.new)
        return [r for r in records.read(path) if facts(r) == here and r.encoder in ("", shape.encoder)]

    # A total is written with all the rest of its mode.
    totals = {(r.context_tokens, r.batch, r.rate, r.mode, r.reuse) for r in written() if r.phase is Phase.TOTAL}
    missing = []
    for point, modes in points:
        place = (point.context, point.batch, point.rate)
        left = tuple(mode for mode in modes if any((*place, mode, reuse) not in totals for reuse in sweep.reuse))
        missing += [(point, left)] if left else []
    if len(missing) < len(points):
        tell(f"{len(points) - len(missing)} of {len(points)} points are in {path} already")
    if missing:
        subject = _subject(source, shape, rates, setting, device)
        for point, modes in tqdm(missing, desc="cost", unit="point"):
            records.replace(path, measuring.measure(subject, point, modes, sweep.reuse, repeats, tell))
    if not (shown := written()):
        raise UsageError("there was not enough memory for any point: give a shorter --context or a smaller --dtype")
    return shown


def predict(
    source: Source, sweep: Sweep, out: Path | None, stated: Sequence[float | None] = (None, None, None, None)
) -> list[CostRecord]:
    """Predict a sweep, and keep it in `out` where that is given. Raises UsageError: anything that does not fit.

    `stated` are a device's peak (TFLOP/s) and bandwidth (GB/s), the share of the peak that a forward reaches and the
    milliseconds to start its kernels; without them a few layers are timed here.
    """
    peak, bandwidth, utilisation, overhead = stated
    if (peak is None) != (bandwidth is None):
        raise UsageError("--device-peak and --bandwidth go together: give both, or none to time parts here")
    if any(value is not None and not 0 < value < math.inf for value in (peak, bandwidth)):
        raise UsageError("--device-peak and --bandwidth are above 0: TFLOP/s and GB/s of the data sheet")
    if utilisation is not None and not 0 < utilisation <= 1:
        raise UsageError(f"--utilisation {utilisation} is no share: give a number above 0 and up to 1")
    if overhead is not None and not 0 <= overhead < math.inf:
        raise UsageError(f"--overhead {overhead} is no time: give milliseconds, 0 or more")
    if peak is None and (utilisation is not None or overhead is not None):
        raise UsageError("--utilisation and --overhead go with --device-peak: what is here is timed")
    shape = _shape(source, sweep)
    points = sweep.points(sweep.rates or shape.config.declared_rates)
    shape.check(point for point, _ in points)
    clock: predicting.Stated | predicting.Layers
    if peak is not None and bandwidth is not None:
        share = utilisation or DEFAULT_SHARE
        speed = (peak * 1e12 * share, bandwidth * 1e9, f"stated, peak at {share:.0%}", (overhead or 0.0) / 1000)
        clock = predicting.Stated(shape, source.dtype or "bfloat16", *speed)
        setting = _setting(source, "stated", clock.dtype, f"{peak:g} TFLOP/s, {bandwidth:g} GB/s", str(clock))
    else:
        here = measuring.find_device(source.device)
        dtype = _dtype(source, here)
        with memory_errors("building a few layers", "give a smaller --dtype, or --device-peak and --bandwidth"):
            clock = predicting.Layers(shape, here, DTYPES[dtype])
        setting = _setting(source, here.type, dtype, measuring.hardware(here), str(clock))
    predictions: list[CostRecord] = []
    with memory_errors("timing a few layers", "give a shorter --context, or --device-peak and --bandwidth"):
        for point, modes in points:
            predictions += predicting.predict(shape, point, modes, sweep.reuse, setting, clock)
    if out is not None:
        records.replace(out / PREDICTED, predictions)
    return predictions


def _shape(source: Source, sweep: Sweep) -> Shape:
    if source.threads is not None:
        torch.set_num_threads(source.threads)
    if source.random_weights:
        return geometry.of_geometry(source.random_weights, sweep.rates)
    return geometry.of_checkpoint(str(source.checkpoint), source.decoder, sweep.rates)


def _subject(
    source: Source, shape: Shape, rates: Sequence[int], setting: Setting, device: torch.device
) -> measuring.Subject:
    remedy = "use a smaller --dtype or a larger machine"
    with compressing.quiet(), memory_errors(f"loading {shape.encoder} and {shape.decoder}", remedy):
        if source.random_weights:
            dtype = DTYPES[setting.dtype]
            pcc, decoder = geometry.build(geometry.named(source.random_weights), rates, device, dtype, source.seed)
            return measuring.Subject(shape, pcc, decoder, setting)
        located = shipped.located(str(source.checkpoint))
        rate = shape.config.rate  # a published checkpoint does not record it
        loaded: Any = compressing.open_compressor(located, source.decoder, str(device), setting.dtype, {"rate": rate})
        torch.manual_seed(source.seed)
        known = replace(shape, bos=bool(loaded.decoder.bos))
        return measuring.Subject(known, loaded.pcc, loaded.decoder, setting)


def _dtype(source: Source, device: torch.device) -> str:
    return source.dtype or ("float32" if device.type == "cpu" else "bfloat16")


def _setting(source: Source, device: str, dtype: str, hardware: str, speed: str = "") -> Setting:
    """Where and how; `speed` of a prediction."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    origin = Provenance(
        weights="random" if source.random_weights else str(source.checkpoint),
        seed=source.seed,
        code=provenance.code(),
        versions=versions | {"transformers": transformers.__version__},
        hardware=hardware,
        speed=speed,
    )
    return Setting(device, dtype, torch.get_num_threads(), origin, predicted=bool(speed))
