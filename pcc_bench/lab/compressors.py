"""Train a compressor of the lab: from nothing, or from another one for another decoder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError
from pcc_bench.core.shipped import PRETRAINED
from pcc_bench.lab.large import start_large
from pcc_bench.lab.lite import at_rate, start_lite
from pcc_bench.lab.material import write_data
from pcc_bench.lab.parts import AdaptationRecipe, CompressorRecipe, compressor
from pcc_bench.lab.skills import DOCUMENTS, RECONSTRUCTION, reconstruction
from pcc_bench.lab.stages import (
    SEGMENT,
    adapting_recipe,
    converting_recipe,
    pretraining_recipe,
    stages,
    tuning_recipe,
)
from pcc_bench.model import checkpoint, init
from pcc_bench.model.training.loop import train

DATA = "data"  # folder of the training data, in the work folder
ABOUT = (
    "A part of pcc_bench's lab, trained from nothing on a generated world, and good for nothing else. The recipe with "
    "its seed, tokens and seconds are in part.json, the curves in log.jsonl; `pcc-bench lab build` makes it again."
)


def train_compressor(folder: Path, name: str, recipe: CompressorRecipe, work: Path) -> None:
    """Make a compressor, or go on where an earlier call was interrupted.

    Args:
        folder: Where the parts are.
        name: The part.
        recipe: Its recipe.
        work: For its stages and their states.
    """
    decoder, data = folder / recipe.decoder, work.parent / DATA
    write_data(data)
    frozen = init.open_decoder(str(decoder))
    start = work / "start"
    if not (start / "config.json").is_file():
        _start(recipe, frozen, start)
    for rate, steps in stages(recipe):
        begin = work / f"begin-{rate}x"
        if not (begin / "config.json").is_file():
            at_rate(start, begin, frozen, rate, recipe.rate)
        start = work / f"{rate}x"
        train(pretraining_recipe(name, recipe, rate, steps, str(begin), str(decoder), str(data)), start)
    if not recipe.pretraining:
        start = at_rate(start, work / "begin", frozen, recipe.rate, recipe.rate)
    tuned = work / "tuning"
    train(tuning_recipe(name, recipe, recipe.rate, str(start), str(decoder), str(data)), tuned)
    if recipe.pretraining:
        _measure_pretrained(start, folder / name, frozen, decoder, work, recipe.keep_pretrained)
    _export(tuned, folder / name, frozen, decoder)


def adapt_compressor(folder: Path, name: str, recipe: AdaptationRecipe, work: Path) -> None:
    """Take a compressor to another decoder, or go on where an earlier call was interrupted.

    Args:
        folder: Where the parts are.
        name: The part.
        recipe: Its recipe.
        work: For its stages and their states.

    Raises:
        UsageError: The compressor that it starts from was not kept as it was before fine-tuning.
    """
    start, decoder, data = folder / recipe.start / PRETRAINED, folder / recipe.decoder, work.parent / DATA
    if not (start / "config.json").is_file():
        raise UsageError(
            f"{start} is missing, from which {name} starts, and which does not ship with the package: delete the "
            f"folder {start.parent} and run the same command again, which makes it anew"
        )
    write_data(data)
    rate = compressor(recipe.start).rate
    train(converting_recipe(name, recipe, rate, str(start), str(decoder), str(data)), work / "converter")
    adapted, tuned = work / f"{rate}x", work / "tuning"
    train(adapting_recipe(name, recipe, rate, str(work / "converter"), str(decoder), str(data)), adapted)
    train(tuning_recipe(name, recipe, rate, str(adapted), str(decoder), str(data)), tuned)
    frozen = init.open_decoder(str(decoder))
    _measure_pretrained(adapted, folder / name, frozen, decoder, work, keep=False)
    _export(tuned, folder / name, frozen, decoder)


def _start(recipe: CompressorRecipe, frozen: Decoder, folder: Path) -> None:
    sizes: dict[str, Any] = {"segment_length": SEGMENT, "seed": recipe.seed}
    if recipe.kind == "lite":
        start_lite(frozen, folder, rate=recipe.rate, layers=recipe.layers, boundaries=recipe.boundaries, **sizes)
    else:
        start_large(frozen, folder, rank=recipe.lora_rank, boundaries=recipe.boundaries, **sizes)


def _measure_pretrained(source: Path, part: Path, frozen: Decoder, decoder: Path, work: Path, keep: bool) -> None:
    """Reconstruction before fine-tuning, for the part's card."""
    pretrained = part / PRETRAINED
    _export(source, pretrained, frozen, decoder)
    figure = reconstruction(part.name, pretrained, DOCUMENTS)
    (work / RECONSTRUCTION).write_text(figure.model_dump_json(), encoding="utf-8")
    if not keep:
        shutil.rmtree(pretrained)


def _export(source: Path, target: Path, frozen: Decoder, decoder: Path) -> None:
    """In half precision, with its logs; the decoder is named as it lies beside."""
    pcc = checkpoint.load(str(source), frozen)
    beside = init.name_beside(str(decoder), target)
    made_for = pcc.config.decoder.model_copy(update={"name": beside})
    base = beside if pcc.config.encoder.base else None
    encoder = pcc.config.encoder.model_copy(update={"base": base})
    lab = {"lab": True, "decoder": made_for, "encoder": encoder, "notes": ABOUT}
    pcc.config = pcc.config.model_copy(update=lab)
    checkpoint.save(pcc.half(), target)
    for log in ("log.jsonl", "evaluation.jsonl"):
        shutil.copy(source / log, target / log)
