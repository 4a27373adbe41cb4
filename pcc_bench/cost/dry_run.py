"""What a recipe will cost, before a weight is fetched: parameters, tokens, steps, FLOPs, memory and time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from pcc_bench.core.errors import UsageError
from pcc_bench.cost import estimate
from pcc_bench.cost.estimate import Memory, Part
from pcc_bench.model.training.corpus import read_corpora
from pcc_bench.model.training.recipe import Recipe

PEAK = {"A100": 312e12, "H100": 989e12, "H200": 989e12}  # bfloat16 FLOP/s, dense, of the data sheets
# Usable rows of `train`: the answerable part of SQuAD 2.0, GSM8K, the English training dialogues of HPD.
KNOWN_ROWS = {"rajpurkar/squad_v2": 86_821, "openai/gsm8k": 7_473, "hpd/en_train_set.json": 1_097}


@dataclass(frozen=True)
class PhasePlan:
    """One phase."""

    segment_length: int  # encoder tokens a segment
    rate: int
    steps: int
    tokens: float  # encoder tokens compressed
    flops: float  # forward and backward


@dataclass(frozen=True)
class Plan:
    """What a run will take."""

    recipe: Recipe
    parts: tuple[Part, ...]
    phases: tuple[PhasePlan, ...]  # steps, tokens, FLOPs
    memory: Memory  # of one process
    device: str  # kind of accelerator
    devices: int  # how many, one process each
    utilisation: float  # share of the peak that is assumed
    notes: tuple[str, ...]  # what was assumed, one sentence each

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


def plan(recipe: Recipe, *, utilisation: float = 0.4, device: str = "H100", devices: int = 1) -> Plan:
    """Estimate a run.

    `utilisation` is the share of the peak FLOP/s that is reached, in (0, 1]; `device` one of `PEAK`, each with a
    process. Raises UsageError: an impossible option, a model whose sizes can't be found, a recipe that can't be
    planned.
    """
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
    geometry = estimate.geometry_of(recipe)
    steps = _steps(recipe)
    samples = [estimate.sample_of(recipe, phase, steps) for phase in range(len(recipe.phases))]
    ends = [phase.until or steps for phase in recipe.phases]
    if len(ends) > 1 and ends[-2] >= steps:
        raise UsageError(f"recipe {recipe.name}: a phase ends at step {ends[-2]}, but the run has {steps} steps")
    batch = recipe.optimisation.batch_size
    phases = tuple(
        PhasePlan(
            phase.segment_length,
            phase.rate,
            end - start,
            (end - start) * batch * sample.tokens,
            (end - start) * batch * estimate.flops_of(recipe, geometry, sample),
        )
        for phase, sample, start, end in zip(recipe.phases, samples, [0, *ends[:-1]], ends, strict=True)
    )
    parts = estimate.parts_of(recipe, geometry)
    memory = estimate.memory_of(recipe, geometry, parts, samples)
    notes = ["The decoder's tokenizer is taken to make as many tokens as the encoder's."]
    kinds = dict.fromkeys(recipe.data_at(phase).kind for phase in range(len(recipe.phases)))
    answering = [kind for kind in kinds if kind != "text"]
    sizes = estimate.ANSWERING_TOKENS
    notes += [f"Prompt and answer ({kind}) are taken to be {sizes[kind]} tokens." for kind in answering]
    if answering and not recipe.optimisation.tokens:
        notes.append("Contexts are taken to fill every segment: give optimisation.tokens for their true length.")
    return Plan(recipe, parts, phases, memory, device, devices, utilisation, tuple(notes))


def _steps(recipe: Recipe) -> int:
    """Optimizer steps: the recipe's, or from the training rows of its data and the epochs."""
    optimisation, data = recipe.optimisation, recipe.data
    if optimisation.steps:
        return optimisation.steps
    if Path(data.path).exists():
        rows = len(read_corpora(data, recipe.seed)[0].documents or ())
    elif data.path in KNOWN_ROWS:
        rows = KNOWN_ROWS[data.path]
        rows -= 0 if data.held_out else math.ceil(rows / data.held_out_every)
    else:
        raise UsageError(
            f"recipe {recipe.name}: how many rows {data.path} has is not known before it is read: "
            "give optimisation.steps instead of epochs for a dry run"
        )
    return (optimisation.epochs or 1) * math.ceil(rows / optimisation.batch_size)


def render(plan: Plan) -> str:
    """A plan as plain text, a table for each question."""
    memory, seconds, gib = plan.memory, plan.seconds, 2**30
    units = (("hours", 3600), ("minutes", 60), ("seconds", 1))
    duration = next(f"{seconds / length:.1f} {unit}" for unit, length in units if seconds >= 2 * length or length == 1)
    accumulation = plan.recipe.optimisation.batch_size // (plan.recipe.optimisation.micro_batch_size * plan.devices)
    lines = [f"{plan.recipe.name}: {plan.recipe.purpose}".removesuffix(": "), ""]
    lines += [f"{'weights':<16}{'parameters':>16}{'trained':>16}"]
    lines += [f"{part.name:<16}{part.parameters:>16,}{part.trained:>16,}" for part in plan.parts]
    lines += [f"{'in all':<16}{plan.parameters:>16,}{plan.trained:>16,}", ""]
    lines += [f"{'segments of':<12}{'rate':>6}{'steps':>10}{'tokens':>16}{'FLOPs':>11}"]
    rows = [(str(p.segment_length), f"{p.rate}x", p.steps, p.tokens, p.flops) for p in plan.phases]
    rows.append(("in all", "", plan.steps, plan.tokens, plan.flops))
    lines += [
        f"{segments:<12}{rate:>6}{steps:>10,}{tokens:>16,.0f}{flops:>11.2e}"
        for segments, rate, steps, tokens, flops in rows
    ]
    lines.append("")
    lines += [
        f"batch    {plan.recipe.optimisation.batch_size} = {plan.recipe.optimisation.micro_batch_size} a process "
        f"x {plan.devices} processes x {accumulation} accumulated",
        f"memory   about {memory.total / gib:.1f} GiB a process (estimate): weights {memory.weights / gib:.1f} GiB, "
        f"autocast's copies {memory.copies / gib:.1f} GiB, gradients {memory.gradients / gib:.1f} GiB, "
        f"Adam {memory.optimizer / gib:.1f} GiB, activations {memory.activations / gib:.1f} GiB",
        f"time     about {duration} on {plan.devices} x {plan.device} at {plan.utilisation:.0%} of "
        f"{PEAK[plan.device] / 1e12:.0f} TFLOP/s",
        *[f"note     {note}" for note in plan.notes],
    ]
    return "\n".join(lines)
