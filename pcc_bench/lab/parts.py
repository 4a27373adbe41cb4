"""The parts of the lab: what is trained, from what, and how. Everything about a part follows from its recipe."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from pcc_bench.errors import UsageError
from pcc_bench.lab.decoders import DecoderRecipe
from pcc_bench.lab.large import FIRST_RATE
from pcc_bench.lab.lite import rates_up_to
from pcc_bench.model.config import Boundaries
from pcc_bench.model.recipe import Recipe
from pcc_bench.tasks.lab.world import VERSION

SEGMENT = 64  # encoder tokens a segment
GROWING = ((4, 60), (8, 80), (16, 100), (32, 140))  # PCC-Large: segment lengths of the first steps, and how many steps
FIRST_STEPS, STAGE_STEPS = 40, 100  # of the stage of pretraining at 1x, which is easy; of each other before the last
TEXT, TEXT_HELD_OUT, QUESTIONS = "text.jsonl", "text-held-out.jsonl", "questions.jsonl"
DOCUMENTS, ROWS = 6_000, 6_000  # of text; of each of the four question sets


class CompressorRecipe(BaseModel):
    """How a compressor is made: pretraining at rates that double, then fine-tuning on questions.

    Attributes:
        rate: Its compression.
        decoder: The part that reads its memories.
        pretraining: Steps of pretraining; 0 for none.
        completion: Share of completion in pretraining; 0 is reconstruction only, 1 completion only.
        tuning: Steps of fine-tuning.
        boundaries: Boundary vectors.
        kind: `lite`: a GPT-2 all of which is trained. `large`: the decoder itself with a LoRA.
        layers: Of a Lite's encoder.
        lora_rank: Of a Large's.
        keep_pretrained: Keep the checkpoint as it was before fine-tuning too; it is measured in any case.
        seed: Of everything drawn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: int
    decoder: str = "lab-llama"
    pretraining: int = 900
    completion: float = 0.3
    tuning: int = 200
    boundaries: Boundaries = Boundaries.PER_SEGMENT
    kind: Literal["lite", "large"] = "lite"
    layers: int = 4
    lora_rank: int = 64
    keep_pretrained: bool = False
    seed: int = 0


PARTS: dict[str, DecoderRecipe | CompressorRecipe] = {
    "lab-llama": DecoderRecipe(family="llama"),
    "lab-mistral": DecoderRecipe(family="mistral", width=192, layers=5, vocabulary=1536, steps=1500, seed=1),
    "lab-qwen2": DecoderRecipe(family="qwen2", width=224, layers=4, vocabulary=2560, steps=1500, seed=2),
    "lab-phi3": DecoderRecipe(family="phi3", width=192, layers=4, vocabulary=2048, steps=1500, seed=3),
    "pcc-lab-4x": CompressorRecipe(rate=4, keep_pretrained=True),
    "pcc-lab-16x": CompressorRecipe(rate=16),
    "pcc-lab-64x": CompressorRecipe(rate=64),
    "pcc-lab-large-4x": CompressorRecipe(rate=4, kind="large"),
    "pcc-lab-large-16x": CompressorRecipe(rate=16, kind="large"),
    "pcc-lab-4x-no-pretraining": CompressorRecipe(rate=4, pretraining=0),
    "pcc-lab-4x-reconstruction": CompressorRecipe(rate=4, completion=0.0),
    "pcc-lab-4x-completion": CompressorRecipe(rate=4, completion=1.0),
    "pcc-lab-4x-no-boundaries": CompressorRecipe(rate=4, boundaries=Boundaries.NONE),
}


def part(name: str) -> DecoderRecipe | CompressorRecipe:
    """A part's recipe.

    Raises:
        UsageError: There is no such part.
    """
    if name not in PARTS:
        raise UsageError(f"the lab has no part '{name}'; it has {', '.join(PARTS)}")
    return PARTS[name]


def needs(name: str) -> tuple[str, ...]:
    """Parts that must be there before this one."""
    recipe = part(name)
    return (recipe.decoder,) if isinstance(recipe, CompressorRecipe) else ()


def identity(name: str) -> str:
    """A short hash of all that a part follows from: its recipe, the world, the parts that it needs."""
    state: dict[str, Any] = {"recipe": part(name).model_dump(mode="json"), "world": VERSION}
    state["needs"] = [identity(other) for other in needs(name)]
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


def stages(recipe: CompressorRecipe) -> list[tuple[int, int]]:
    """Rate and steps of each stage of pretraining: short ones at rates that double, then the rate itself.

    A Lite begins at 1x; a Large at 4x, with short segments that grow.
    """
    if not recipe.pretraining:
        return []
    before = [(rate, FIRST_STEPS if rate == 1 else STAGE_STEPS) for rate in rates_up_to(recipe.rate)[:-1]]
    if recipe.kind == "large":
        growing = sum(steps for _, steps in GROWING)
        before = [(rate, steps + growing * (rate == FIRST_RATE)) for rate, steps in before if rate >= FIRST_RATE]
    return [*before, (recipe.rate, recipe.pretraining - sum(steps for _, steps in before))]


def pretraining_recipe(
    name: str, recipe: CompressorRecipe, rate: int, steps: int, start: str, decoder: str, data: str
) -> Recipe:
    """A stage of pretraining, as `pcc-bench train` would read it.

    Reconstruction comes first, also in the last stage: completion from the start teaches the slots to do no harm, and
    the decoder never reads them.
    """
    final = rate == recipe.rate
    only_completion = recipe.completion == 1
    phases: list[dict[str, Any]] = [{"segment_length": SEGMENT, "rate": rate}]
    if final and not only_completion:
        phases = [{**phases[0], "completion": 0.0, "until": max(1, int(0.6 * steps))}, phases[0]]
    if recipe.kind == "large" and rate == FIRST_RATE:
        phases = [*_growing(only_completion), *phases]
    completion = recipe.completion if final else float(only_completion)
    return Recipe.checked(
        {
            "name": f"{name}, pretraining at {rate}x",
            "purpose": "A part of the lab.",
            "start": start,
            "decoder": decoder,
            "data": {"path": f"{data}/{TEXT}", "held_out": f"{data}/{TEXT_HELD_OUT}", "held_out_rows": 64},
            "objective": {"completion": completion, "completion_tokens": 48},
            "phases": phases,
            "optimisation": _optimisation(steps, 1e-3, 20),
            "checks": {"evaluate_every": 200 if final else steps, "save_every": 100, "keep": 1, "generated_rows": 32},
            "seed": recipe.seed,
        },
        f"the lab's part {name}",
    )


def _growing(only_completion: bool) -> list[dict[str, Any]]:
    phases, until = [], 0
    completion = float(only_completion)
    for length, steps in GROWING:
        until += steps
        phases.append({"segment_length": length, "rate": FIRST_RATE, "completion": completion, "until": until})
    return phases


def tuning_recipe(name: str, recipe: CompressorRecipe, start: str, decoder: str, data: str) -> Recipe:
    """Fine-tuning on questions, as `pcc-bench train` would read it."""
    return Recipe.checked(
        {
            "name": name,
            "purpose": "A part of the lab.",
            "start": start,
            "decoder": decoder,
            "data": {"kind": "qa", "path": f"{data}/{QUESTIONS}", "held_out_rows": 64},
            "phases": [{"segment_length": SEGMENT, "rate": recipe.rate}],
            "optimisation": _optimisation(recipe.tuning, 5e-4, 20),
            "checks": {"evaluate_every": 100, "save_every": 100, "keep": 1, "generated_rows": 0},
            "seed": recipe.seed,
        },
        f"the lab's part {name}",
    )


def _optimisation(steps: int, learning_rate: float, warmup: int) -> dict[str, Any]:
    return {
        "optimizer": "muon",
        "learning_rate": learning_rate,
        "schedule": "linear",
        "warmup_steps": warmup,
        "batch_size": 32,
        "micro_batch_size": 32,
        "steps": steps,
        "max_grad_norm": 1.0,
        "precision": "bfloat16",
        "attention": "eager",
    }
