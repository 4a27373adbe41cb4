"""What a recipe will cost, before a weight is fetched: parameters, tokens, steps, FLOPs, memory and time."""

import math
from pathlib import Path
from typing import NamedTuple

from pcc_bench.core.errors import UsageError
from pcc_bench.core.texttable import TextTable
from pcc_bench.cost import estimate
from pcc_bench.cost.estimate import Footprint, Weights
from pcc_bench.model.training.corpus import read_corpora
from pcc_bench.model.training.recipe import Recipe

PEAK = {"A100": 312e12, "H100": 989e12, "H200": 989e12}  # bfloat16 FLOP/s, dense, of the data sheets
# Usable rows of `train`: the answerable part of SQuAD 2.0, GSM8K, the English training dialogues of HPD.
KNOWN_ROWS = {"rajpurkar/squad_v2": 86_821, "openai/gsm8k": 7_473, "hpd/en_train_set.json": 1_097}


class PhasePlan(NamedTuple):
    segment_length: int  # encoder tokens a segment
    rate: int
    steps: int
    tokens: float  # encoder tokens compressed
    flops: float  # forward and backward


class DryRun(NamedTuple):
    recipe: Recipe
    parts: tuple[Weights, ...]
    phases: tuple[PhasePlan, ...]
    memory: Footprint  # of one process
    device: str  # kind of accelerator
    devices: int  # how many, one process each
    utilisation: float  # share of the peak that is assumed
    notes: tuple[str, ...]  # what was assumed, one sentence each

    @property
    def weights(self) -> Weights:
        return Weights("in all", sum(part.parameters for part in self.parts), sum(part.trained for part in self.parts))

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    @property
    def flops(self) -> float:
        return sum(phase.flops for phase in self.phases)

    @property
    def seconds(self) -> float:
        """Wall-clock at the assumed utilisation."""
        return self.flops / (PEAK[self.device] * self.utilisation * self.devices)


def plan(recipe: Recipe, *, utilisation: float = 0.4, device: str = "H100", devices: int = 1) -> DryRun:
    """Estimate a run on `devices` of `PEAK`, a process each, at a share of the peak in (0, 1].

    Raises UsageError: an impossible option, a model whose sizes can't be found, a recipe that can't be planned.
    """
    if device not in PEAK:
        raise UsageError(f"the peak speed of device '{device}' is not known: choose among {', '.join(PEAK)}")
    if not 0 < utilisation <= 1:
        raise UsageError(f"utilisation {utilisation} is no share of the peak: give a number above 0 and up to 1")
    batch, micro_batch = recipe.optimisation.batch_size, recipe.optimisation.micro_batch_size
    if devices < 1 or batch % (micro_batch * devices):
        raise UsageError(
            f"recipe {recipe.name}: batch_size {batch} can't be shared evenly by {devices} devices with "
            f"micro_batch_size {micro_batch}: choose another number of devices"
        )
    geometry = estimate.geometry_of(recipe)
    steps = _steps(recipe)
    samples = [estimate.sample_of(recipe, phase, steps) for phase in range(len(recipe.phases))]
    ends = [phase.until or steps for phase in recipe.phases]
    if len(ends) > 1 and ends[-2] >= steps:
        raise UsageError(f"recipe {recipe.name}: a phase ends at step {ends[-2]}, but the run has {steps} steps")
    phases = []
    for phase, sample, start, end in zip(recipe.phases, samples, [0, *ends[:-1]], ends, strict=True):
        rows, flops = (end - start) * batch, estimate.flops_of(recipe, geometry, sample)
        phases.append(PhasePlan(phase.segment_length, phase.rate, end - start, rows * sample.tokens, rows * flops))
    parts = estimate.parts_of(recipe, geometry)
    memory = estimate.memory_of(recipe, geometry, parts, samples)
    notes = ["The decoder's tokenizer is taken to make as many tokens as the encoder's."]
    kinds = dict.fromkeys(recipe.data_at(phase).kind for phase in range(len(recipe.phases)))
    sizes, answering = estimate.ANSWERING_TOKENS, [kind for kind in kinds if kind != "text"]
    notes += [f"Prompt and answer ({kind}) are taken to be {sizes[kind]} tokens." for kind in answering]
    if answering and not recipe.optimisation.tokens:
        notes.append("Contexts are taken to fill every segment: give optimisation.tokens for their true length.")
    return DryRun(recipe, parts, tuple(phases), memory, device, devices, utilisation, tuple(notes))


def _steps(recipe: Recipe) -> int:
    """The recipe's, or from the training rows of its data and the epochs."""
    optimisation, data = recipe.optimisation, recipe.data
    if optimisation.steps:
        return optimisation.steps
    if Path(data.path).exists():
        rows = len(read_corpora(data, recipe.seed)[0].documents or ())
    elif data.path in KNOWN_ROWS:
        rows = KNOWN_ROWS[data.path]
        rows -= 0 if data.held_out else math.ceil(rows / data.held_out_every)
    else:
        unknown = f"how many rows {data.path} has is not known before it is read"
        raise UsageError(f"recipe {recipe.name}: {unknown}: give optimisation.steps instead of epochs for a dry run")
    return (optimisation.epochs or 1) * math.ceil(rows / optimisation.batch_size)


def render(plan: DryRun) -> str:
    seconds, optimisation = plan.seconds, plan.recipe.optimisation
    units = (("hours", 3600), ("minutes", 60), ("seconds", 1))
    duration = next(f"{seconds / length:.1f} {unit}" for unit, length in units if seconds >= 2 * length or length == 1)
    accumulation = optimisation.batch_size // (optimisation.micro_batch_size * plan.devices)
    parts = [(part.name, f"{part.parameters:,}", f"{part.trained:,}") for part in (*plan.parts, plan.weights)]
    rows = [(str(p.segment_length), f"{p.rate}x", p.steps, p.tokens, p.flops) for p in plan.phases]
    rows.append(("in all", "", plan.steps, sum(phase.tokens for phase in plan.phases), plan.flops))
    phases = [(*names, f"{steps:,}", f"{tokens:,.0f}", f"{flops:.2e}") for *names, steps, tokens, flops in rows]
    held = {name: f"{size / 2**30:.1f} GiB" for name, size in plan.memory._asdict().items()}
    lines = [
        f"{plan.recipe.name}: {plan.recipe.purpose}".removesuffix(": "),
        "",
        TextTable(("weights", "parameters", "trained"), tuple(parts)).markdown(),
        "",
        TextTable(("segments of", "rate", "steps", "tokens", "FLOPs"), tuple(phases)).markdown(),
        "",
        f"batch    {optimisation.batch_size} = {optimisation.micro_batch_size} a process "
        f"x {plan.devices} processes x {accumulation} accumulated",
        f"memory   about {plan.memory.total / 2**30:.1f} GiB a process (estimate): weights {held['weights']}, "
        f"autocast's copies {held['copies']}, gradients {held['gradients']}, "
        f"Adam {held['optimizer']}, activations {held['activations']}",
        f"time     about {duration} on {plan.devices} x {plan.device} at {plan.utilisation:.0%} of "
        f"{PEAK[plan.device] / 1e12:.0f} TFLOP/s",
        *(f"note     {note}" for note in plan.notes),
    ]
    return "\n".join(lines)
