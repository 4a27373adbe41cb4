"""Train a soft baseline of the lab, in the two stages of its compressors and on the same tokens."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pcc_bench.core.errors import UsageError
from pcc_bench.lab.material import QUESTIONS, TEXT, TEXT_HELD_OUT, write_data
from pcc_bench.lab.rivals.recipes import RivalRecipe
from pcc_bench.lab.rivals.rival import Rival
from pcc_bench.lab.stages import GROWING, PURPOSE, SEGMENT, optimisation
from pcc_bench.model import init
from pcc_bench.model.training.loop import claim, fit
from pcc_bench.model.training.recipe import Recipe

LEARNED = "learned.safetensors"  # what a stage has learned, once it has ended
BATCH = 32
HELD_OUT_ROWS, GENERATED_ROWS = 64, 32
SEGMENTS = 4  # of a text that AutoCompressor reads on


def train_rival(folder: Path, name: str, recipe: RivalRecipe, work: Path) -> None:
    """Make a baseline, or go on where an earlier call was interrupted.

    Args:
        folder: Where the parts are.
        name: The part.
        recipe: Its recipe.
        work: For its stages and their states.
    """
    decoder, data = folder / recipe.decoder, work.parent / "data"
    write_data(data)
    pretraining, tuning = work / "pretraining", work / "tuning"
    _stage(recipe, pretraining_recipe(name, recipe, str(decoder), str(data)), pretraining, None)
    rival = _stage(recipe, tuning_recipe(name, recipe, str(decoder), str(data)), tuning, pretraining / LEARNED)
    rival.encoder.export(folder / name, init.name_beside(str(decoder), folder / name))
    for log in ("log.jsonl", "evaluation.jsonl"):
        shutil.copy(tuning / log, folder / name / log)


def _stage(recipe: RivalRecipe, stage: Recipe, folder: Path, start: Path | None) -> Rival:
    claim(folder, stage)
    decoder = init.open_decoder(stage.decoder, torch.bfloat16)
    decoder.model.set_attn_implementation(str(stage.optimisation.attention))
    rival = Rival(decoder, stage, recipe.method, recipe.rank)
    learned = folder / LEARNED
    if learned.is_file():
        start = learned
    if start:
        state = load_file(start)
        if state.keys() != rival.state_dict().keys():  # what does not learn is in neither
            raise UsageError(f"{start} was written by another version of pcc-bench: delete {folder.parent}, and build")
        rival.load_state_dict(state, strict=False)
    if not learned.is_file():
        fit(rival, stage, folder)
        save_file({key: value.contiguous() for key, value in rival.state_dict().items()}, learned)
    return rival


def pretraining_recipe(name: str, recipe: RivalRecipe, decoder: str, data: str) -> Recipe:
    """Pretraining: segments grow and reconstruction comes first, as for PCC-Large; AutoCompressor reads on."""
    reads_on = recipe.method == "autocompressor"
    last = {"segment_length": SEGMENT, "rate": recipe.rate}
    phases = [{**last, "segments": SEGMENTS}] if reads_on else _phases(recipe, last)
    fewer = dict.fromkeys(("batch_size", "micro_batch_size"), BATCH // SEGMENTS)
    return _checked(
        name,
        recipe,
        decoder,
        data={"path": f"{data}/{TEXT}", "held_out": f"{data}/{TEXT_HELD_OUT}", "held_out_rows": HELD_OUT_ROWS},
        objective={"completion": 1.0 if reads_on else recipe.completion, "completion_tokens": 48},
        phases=phases,
        optimisation=optimisation(recipe.pretraining, 1e-3) | (fewer if reads_on else {}),
        checks={
            "evaluate_every": 200,
            "save_every": 100,
            "keep": 1,
            "generated_rows": 0 if reads_on else GENERATED_ROWS,
        },
    )


def tuning_recipe(name: str, recipe: RivalRecipe, decoder: str, data: str) -> Recipe:
    """Fine-tuning on questions."""
    return _checked(
        name,
        recipe,
        decoder,
        data={"kind": "qa", "path": f"{data}/{QUESTIONS}", "held_out_rows": HELD_OUT_ROWS},
        phases=[{"segment_length": SEGMENT, "rate": recipe.rate}],
        optimisation=optimisation(recipe.tuning, 5e-4),
        checks={"evaluate_every": 100, "save_every": 100, "keep": 1, "generated_rows": 0},
    )


def _phases(recipe: RivalRecipe, last: dict[str, Any]) -> list[dict[str, Any]]:
    phases, until = [], 0
    for length, steps in GROWING:
        until += steps
        phases.append({"segment_length": length, "rate": recipe.rate, "completion": 0.0, "until": until})
    until += int(0.6 * (recipe.pretraining - until))
    return [*phases, {**last, "completion": 0.0, "until": until}, last]


def _checked(name: str, recipe: RivalRecipe, decoder: str, **made: Any) -> Recipe:
    state = {"name": name, "purpose": PURPOSE, "encoder": decoder, "decoder": decoder, "seed": recipe.seed, **made}
    return Recipe.checked(state, f"the lab's part {name}")
