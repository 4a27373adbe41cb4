"""What a recipe will cost, before a weight is fetched: parameters, tokens, steps, FLOPs, memory and time.

Models are built on torch's meta device from their configurations, so that parameters are counted, not looked up.

FLOPs, with 2 for a multiplication and an addition, `x` positions, `N` weights in matrix products (embedding tables left
out), `L` layers and `d` the width of all heads together:

- forward: `2 N x + 4 L d x^2`. The second term is the two attention products without the causal half that fast kernels
  skip: what torch's `FlopCounterMode` counts.
- backward to the activations: the first term once more, the second twice, because both factors of an attention product
  are activations. Through frozen weights (the decoder, the base under a LoRA) this is all.
- backward to trained weights: `2 N x` on top, for those weights.
- The encoder reads segment and memory tokens, without a vocabulary head; the decoder reads BOS, memory, `<ae>` and
  target, and its head computes logits at every position.

At 40 % utilisation of 4 A100 this gives the hours that the official README states for both encoders within 5 %
(tests/test_recipes.py); the 67 hours it states for 8 H100 are 20 % of their peak.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedConfig

from pcc_bench.errors import UsageError
from pcc_bench.model.config import MEMORY_TOKENS, Boundaries, PccConfig, Slots
from pcc_bench.model.converter import Converter
from pcc_bench.model.recipe import Combination, Phase, Recipe, Trained
from pcc_bench.model.sizes import LARGE, LITE, Model, config_of, from_state, lora_parameters, measure

PEAK = {"A100": 312e12, "H100": 989e12, "H200": 989e12}  # bfloat16 FLOP/s, dense, of the data sheets
QA_TOKENS = 32  # question, its frame and a short answer, in decoder tokens: a guess
LOGIT_BYTES = 10  # bfloat16, its float32 copy and the gradient of that
KNOWN_ROWS = {"rajpurkar/squad_v2": 86_821}  # answerable rows of `train`


@dataclass(frozen=True)
class Part:
    """A group of weights: `parameters` of which `trained` learn."""

    name: str
    parameters: int
    trained: int


@dataclass(frozen=True)
class PhasePlan:
    """One phase.

    Attributes:
        segment_length: Encoder tokens a segment.
        rate: Compression.
        steps: Optimizer steps.
        tokens: Encoder tokens compressed.
        flops: Forward and backward.
    """

    segment_length: int
    rate: int
    steps: int
    tokens: float
    flops: float


@dataclass(frozen=True)
class Memory:
    """Estimated bytes a process holds at its fullest; no sharding, no offloading, no fragmentation."""

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """Bytes in all."""
        return self.weights + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True)
class Plan:
    """What a run will take.

    Attributes:
        recipe: The run.
        parts: Weights.
        phases: Steps, tokens, FLOPs.
        memory: Of one process.
        device: Kind of accelerator.
        devices: How many, one process each.
        utilisation: Share of the peak that is assumed.
        notes: What was assumed, one sentence each.
    """

    recipe: Recipe
    parts: tuple[Part, ...]
    phases: tuple[PhasePlan, ...]
    memory: Memory
    device: str
    devices: int
    utilisation: float
    notes: tuple[str, ...]

    @property
    def parameters(self) -> int:
        """All weights."""
        return sum(part.parameters for part in self.parts)

    @property
    def trained(self) -> int:
        """Weights that learn."""
        return sum(part.trained for part in self.parts)

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return sum(phase.steps for phase in self.phases)

    @property
    def tokens(self) -> float:
        """Encoder tokens compressed."""
        return sum(phase.tokens for phase in self.phases)

    @property
    def flops(self) -> float:
        """Forward and backward."""
        return sum(phase.flops for phase in self.phases)

    @property
    def seconds(self) -> float:
        """Wall-clock at the assumed utilisation."""
        return self.flops / (PEAK[self.device] * self.utilisation * self.devices)


@dataclass(frozen=True)
class _Sample:
    """Mean sizes of a training sample: `tokens` of context in `segments` giving `slots`; decoder rows it is read in.

    `decoder_rows` are (weight, positions): the weight is the probability of a row, or 1 where each step has it.
    """

    tokens: float
    segments: int
    slots: float
    decoder_rows: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class _Geometry:
    encoder: Model
    lora: int  # weights of the adapter
    lora_products: int  # of these, the ones in matrix products: looking up an embedding is none
    decoder: Model
    converter: int


def plan(recipe: Recipe, *, utilisation: float = 0.4, device: str = "H100", devices: int = 1) -> Plan:
    """Estimate a run.

    Args:
        recipe: The run.
        utilisation: Share of the accelerator's peak FLOP/s that is reached, in (0, 1].
        device: One of `PEAK`.
        devices: Accelerators, each with one process.

    Raises:
        UsageError: An impossible option, a model whose sizes can't be found, or a recipe that can't be planned.
    """
    _check_options(recipe, utilisation, device, devices)
    geometry = _geometry(recipe)
    steps = _steps(recipe)
    samples = [_sample(recipe, phase, steps) for phase in recipe.phases]
    starts, ends = [0, *_ends(recipe, steps)[:-1]], _ends(recipe, steps)
    batch = recipe.optimisation.batch_size
    phases = tuple(
        PhasePlan(
            phase.segment_length,
            phase.rate,
            end - start,
            (end - start) * batch * sample.tokens,
            (end - start) * batch * _sample_flops(recipe, geometry, sample),
        )
        for phase, sample, start, end in zip(recipe.phases, samples, starts, ends, strict=True)
    )
    parts = _parts(recipe, geometry)
    memory = _memory(recipe, geometry, parts, samples)
    return Plan(recipe, parts, phases, memory, device, devices, utilisation, _notes(recipe))


def _encoder_config(recipe: Recipe) -> tuple[PreTrainedConfig, int]:
    """The encoder without memory tokens, and the rank of its LoRA (0: none)."""
    if recipe.encoder:
        return config_of(recipe.encoder), recipe.lora_rank
    start = str(recipe.start)
    if (folder := Path(start)).is_dir() and (folder / "config.json").is_file():
        described = PccConfig.read(folder).encoder
        state = {**described.config, "vocab_size": described.config["vocab_size"] - MEMORY_TOKENS}
        return from_state(state), int((described.lora or {}).get("r", 0))
    if published := re.search(r"Stage[12]-PCC-(Lite|Large)-\d+x$", start.rstrip("/")):
        return (config_of(LITE), 0) if published[1] == "Lite" else (config_of(LARGE), 64)
    raise UsageError(
        f"start '{start}' is neither a checkpoint folder here nor a published one (Stage1-PCC-Lite-4x ...): "
        "a dry run fetches no checkpoints, so give its folder"
    )


def _geometry(recipe: Recipe) -> _Geometry:
    config, rank = _encoder_config(recipe)
    encoder, decoder = measure(config), measure(config_of(recipe.decoder))
    adapter = lora_parameters(config, rank) if rank else 0
    looked_up = rank * (encoder.vocabulary + MEMORY_TOKENS)
    with torch.device("meta"):
        converter = _count(Converter(encoder.hidden_size, decoder.hidden_size))
    return _Geometry(encoder, adapter, adapter - looked_up, decoder, converter)


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _parts(recipe: Recipe, geometry: _Geometry) -> tuple[Part, ...]:
    """Weights by part. A full encoder is kept without a head of its own; under a LoRA the whole causal LM is kept."""
    encoder, learns = geometry.encoder, set(recipe.train)
    base = encoder.parameters - (0 if geometry.lora else encoder.own_head)
    rows = MEMORY_TOKENS * encoder.hidden_size * (2 if geometry.lora and encoder.own_head else 1)
    full = Trained.ENCODER in learns and not geometry.lora
    learned_rows = MEMORY_TOKENS * encoder.hidden_size if full or Trained.MEMORY_TOKENS in learns else 0
    parts = [Part("encoder", base, base if full else 0), Part("memory tokens", rows, learned_rows)]
    if geometry.lora:
        parts.append(Part("LoRA", geometry.lora, geometry.lora if Trained.ENCODER in learns else 0))
    parts.append(Part("converter", geometry.converter, geometry.converter if Trained.CONVERTER in learns else 0))
    return (*parts, Part("decoder", geometry.decoder.parameters, 0))


def _steps(recipe: Recipe) -> int:
    """Optimizer steps: the recipe's, or from the rows of its data and the epochs."""
    optimisation = recipe.optimisation
    if optimisation.steps:
        return optimisation.steps
    rows = KNOWN_ROWS.get(recipe.data.path)
    if rows is None and (path := Path(recipe.data.path)).is_file() and path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as lines:
            rows = sum(1 for line in lines if line.strip())
    if rows is None:
        raise UsageError(
            f"recipe {recipe.name}: how many rows {recipe.data.path} has is not known before it is read: "
            "give optimisation.steps instead of epochs for a dry run"
        )
    return (optimisation.epochs or 1) * math.ceil(rows / optimisation.batch_size)


def _ends(recipe: Recipe, steps: int) -> list[int]:
    ends = [phase.until or steps for phase in recipe.phases]
    if len(ends) > 1 and ends[-2] >= steps:
        raise UsageError(f"recipe {recipe.name}: a phase ends at step {ends[-2]}, but the run has {steps} steps")
    return ends


def _sample(recipe: Recipe, phase: Phase, steps: int) -> _Sample:
    """Mean sizes of a sample; the decoder's tokenizer is taken to be as fine as the encoder's."""
    tokens = float(phase.segments * phase.segment_length)
    if recipe.data.kind == "qa" and recipe.optimisation.tokens:
        tokens = min(tokens, recipe.optimisation.tokens / (steps * recipe.optimisation.batch_size))
    segments = math.ceil(tokens / phase.segment_length)
    slots = float(segments * (phase.segment_length // phase.rate))
    if recipe.slots is Slots.PROPORTIONAL:
        slots = min(slots, math.ceil(tokens / phase.rate))
    boundaries = {Boundaries.PER_SEGMENT: 2 * segments, Boundaries.ONCE: 2, Boundaries.NONE: 0}[recipe.boundaries]
    prefix = 1 + slots + boundaries
    return _Sample(tokens, segments, slots, _decoder_rows(recipe, prefix, tokens))


def _decoder_rows(recipe: Recipe, prefix: float, tokens: float) -> tuple[tuple[float, float], ...]:
    objective, end = recipe.objective, 1 if recipe.objective.append_eos else 0
    if recipe.data.kind == "qa":
        return ((1.0, prefix + QA_TOKENS),)
    share = objective.completion
    weights = (1 - share, share)
    if objective.combination is Combination.SUMMED:
        weights = (float(share < 1), float(share > 0))
    lengths = (prefix + 1 + tokens + end, prefix + objective.completion_tokens + end)
    return tuple((weight, length) for weight, length in zip(weights, lengths, strict=True) if weight)


def _sample_flops(recipe: Recipe, geometry: _Geometry, sample: _Sample) -> float:
    """Forward and backward of one sample through encoder, converter and decoder."""
    encoder, decoder, learns = geometry.encoder, geometry.decoder, set(recipe.train)
    positions = (sample.tokens + sample.slots) / sample.segments
    passes = 2 if recipe.optimisation.gradient_checkpointing and _encoder_learns(recipe) else 1
    flops = passes * encoder.forward(positions, head=False)
    flops += 2 * passes * geometry.lora_products * positions
    if _encoder_learns(recipe):
        weights = Trained.ENCODER in learns and not geometry.lora
        flops += encoder.backward(positions, head=False, trained=weights)
        flops += (4 if Trained.ENCODER in learns else 2) * geometry.lora_products * positions
    flops *= sample.segments
    flops += (6 if Trained.CONVERTER in learns else 4) * geometry.converter * sample.slots
    for weight, length in sample.decoder_rows:
        flops += weight * decoder.forward(length, head=True)
        flops += weight * decoder.backward(length, head=True, trained=False)
    return flops


def _encoder_learns(recipe: Recipe) -> bool:
    return bool({Trained.ENCODER, Trained.MEMORY_TOKENS} & set(recipe.train))


def _memory(recipe: Recipe, geometry: _Geometry, parts: tuple[Part, ...], samples: list[_Sample]) -> Memory:
    """Bytes a process.

    The compressor is in float32 whether it learns or not; under bfloat16 autocast adds a copy of every matrix of it and
    the decoder is loaded in bfloat16. Gradients and Adam's two moments are float32.
    """
    mixed = recipe.optimisation.precision == "bfloat16"
    trained = sum(part.trained for part in parts)
    decoder = geometry.decoder.parameters
    weights = 4 * (sum(part.parameters for part in parts) - decoder) + (2 if mixed else 4) * decoder
    copies = 2 * (geometry.encoder.body + geometry.lora_products + geometry.converter) if mixed else 0
    activations = max(_activations(recipe, geometry, sample) for sample in samples)
    return Memory(weights + copies, 4 * trained, 8 * trained, activations)


def _activations(recipe: Recipe, geometry: _Geometry, sample: _Sample) -> float:
    """Bytes kept for backward by one micro-batch, and its logits."""
    encoder, decoder = geometry.encoder, geometry.decoder
    full = Trained.ENCODER in recipe.train
    kept = encoder.activations(trained=full) if _encoder_learns(recipe) else 0
    if kept and recipe.optimisation.gradient_checkpointing:  # the input of every block, and one block at a time
        kept = 2 * encoder.layers * encoder.hidden_size + kept // encoder.layers
    longest = max(length for _, length in sample.decoder_rows)
    scale = 1 if recipe.optimisation.precision == "bfloat16" else 2
    a_sample = scale * (sample.tokens + sample.slots) * kept
    a_sample += longest * (scale * decoder.activations(trained=False) + LOGIT_BYTES * decoder.vocabulary)
    return recipe.optimisation.micro_batch_size * a_sample


def _notes(recipe: Recipe) -> tuple[str, ...]:
    notes = ["The decoder's tokenizer is taken to make as many tokens as the encoder's."]
    if recipe.data.kind == "qa":
        notes.append(f"Question and answer are taken to be {QA_TOKENS} tokens.")
        if not recipe.optimisation.tokens:
            notes.append("Contexts are taken to fill every segment: give optimisation.tokens for their true length.")
    return tuple(notes)


def _check_options(recipe: Recipe, utilisation: float, device: str, devices: int) -> None:
    if device not in PEAK:
        raise UsageError(f"the peak speed of device '{device}' is not known: choose among {', '.join(PEAK)}")
    if not 0 < utilisation <= 1:
        raise UsageError(f"utilisation {utilisation} is no share of the peak: give a number above 0 and up to 1")
    at_once = recipe.optimisation.micro_batch_size * devices
    if devices < 1 or recipe.optimisation.batch_size % at_once:
        raise UsageError(
            f"recipe {recipe.name}: batch_size {recipe.optimisation.batch_size} can't be shared evenly by {devices} "
            f"devices with micro_batch_size {recipe.optimisation.micro_batch_size}: choose another number of devices"
        )


def render(plan: Plan) -> str:
    """A plan as plain text, a table for each question."""
    accumulation = plan.recipe.optimisation.batch_size // (plan.recipe.optimisation.micro_batch_size * plan.devices)
    lines = [f"{plan.recipe.name}: {plan.recipe.purpose}".removesuffix(": "), ""]
    lines += [f"{'weights':<16}{'parameters':>16}{'trained':>16}"]
    lines += [f"{part.name:<16}{part.parameters:>16,}{part.trained:>16,}" for part in plan.parts]
    lines += [f"{'in all':<16}{plan.parameters:>16,}{plan.trained:>16,}", ""]
    lines += [f"{'segments of':<12}{'rate':>6}{'steps':>10}{'tokens':>16}{'FLOPs':>11}"]
    lines += [_phase_line(str(p.segment_length), f"{p.rate}x", p.steps, p.tokens, p.flops) for p in plan.phases]
    lines += [_phase_line("in all", "", plan.steps, plan.tokens, plan.flops), ""]
    lines += [
        f"batch    {plan.recipe.optimisation.batch_size} = {plan.recipe.optimisation.micro_batch_size} a process "
        f"x {plan.devices} processes x {accumulation} accumulated",
        f"memory   about {_gib(plan.memory.total)} a process (estimate): weights {_gib(plan.memory.weights)}, "
        f"gradients {_gib(plan.memory.gradients)}, Adam {_gib(plan.memory.optimizer)}, "
        f"activations {_gib(plan.memory.activations)}",
        f"time     about {_duration(plan.seconds)} on {plan.devices} x {plan.device} at {plan.utilisation:.0%} of "
        f"{PEAK[plan.device] / 1e12:.0f} TFLOP/s",
        *[f"note     {note}" for note in plan.notes],
    ]
    return "\n".join(lines)


def _phase_line(segments: str, rate: str, steps: int, tokens: float, flops: float) -> str:
    return f"{segments:<12}{rate:>6}{steps:>10,}{tokens:>16,.0f}{flops:>11.2e}"


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"


def _duration(seconds: float) -> str:
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"
