"""`pcc-bench lab build`: remake the lab, or any part of it, from nothing but this package."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from pcc_bench.decoder import Decoder
from pcc_bench.errors import UsageError
from pcc_bench.lab.decoders import DecoderRecipe, train_decoder
from pcc_bench.lab.large import start_large
from pcc_bench.lab.lite import at_rate, start_lite
from pcc_bench.lab.measure import DOCUMENTS as MEASURED_DOCUMENTS
from pcc_bench.lab.measure import RECONSTRUCTION, reconstruction
from pcc_bench.lab.parts import (
    DOCUMENTS,
    PARTS,
    QUESTIONS,
    ROWS,
    SEGMENT,
    TEXT,
    TEXT_HELD_OUT,
    CompressorRecipe,
    identity,
    needs,
    part,
    pretraining_recipe,
    stages,
    tuning_recipe,
)
from pcc_bench.model import checkpoint, init
from pcc_bench.model.training import train
from pcc_bench.shipped import CARD, PRETRAINED
from pcc_bench.tasks.adversarialqa import rows as adversarialqa
from pcc_bench.tasks.example import Example
from pcc_bench.tasks.hotpotqa import rows as hotpotqa
from pcc_bench.tasks.lab.rows import rows
from pcc_bench.tasks.nq import rows as nq
from pcc_bench.tasks.squad import rows as squad

logger = logging.getLogger(__name__)
SECONDS = "seconds"  # file in a part's work folder
ABOUT = (
    "A part of pcc_bench's lab, trained from nothing on a generated world, and good for nothing else. The recipe with "
    "its seed, tokens and seconds are in part.json, the curves in log.jsonl; `pcc-bench lab build` makes it again."
)
WORK = "work"  # data and states of unfinished runs; may be deleted
HELD_OUT_DOCUMENTS = 100
TUNING_SENTENCES = (6, 26)  # contexts of the fine-tuning rows
_READERS: dict[str, Callable[[Any], Any]] = {
    "squad": squad.read,
    "adversarialqa": adversarialqa.read,
    "hotpotqa": hotpotqa.read,
    "nq": nq.read,
}


def build(folder: Path, names: Sequence[str] = (), again: bool = False) -> list[str]:
    """Make parts and what they need; finished ones are left alone, an interrupted one goes on.

    Args:
        folder: Where the parts go, each in a folder of its own.
        names: Parts; all of them where empty.
        again: Make parts anew whose recipe, or whose world, is another one now.

    Returns:
        The parts that were made.

    Raises:
        UsageError: An unknown part; a part of another recipe or world; no space.
    """
    made = []
    for name in _in_order(names or tuple(PARTS)):
        if not _is_done(folder, name, again):
            logger.info("building %s", name)
            _build_part(folder, name)
            made.append(name)
    return made


def read_card(folder: Path, name: str) -> dict[str, Any] | None:
    """What is recorded of a finished part; None where there is none.

    Raises:
        UsageError: The record is damaged.
    """
    path = folder / name / CARD
    if not path.is_file():
        return None
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{path} is not valid JSON ({error.msg}): delete the folder {path.parent}, and build"
        ) from None
    return card


def _in_order(names: Iterable[str]) -> list[str]:
    ordered: dict[str, None] = {}
    for name in names:
        for needed in (*needs(name), name):
            ordered[needed] = None
    return list(ordered)


def _is_done(folder: Path, name: str, again: bool) -> bool:
    work = folder / WORK / name
    started = work / "identity"
    card = read_card(folder, name)
    found = card["identity"] if card else started.read_text(encoding="utf-8") if started.is_file() else None
    if found is not None and found != identity(name):
        if not again:
            raise UsageError(
                f"{folder / name} was made by another recipe or for another world (it is {found}, the lab's is now "
                f"{identity(name)}): build with --again to make it anew, or build into another folder"
            )
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.rmtree(work, ignore_errors=True)
        card = None
    return card is not None


def _build_part(folder: Path, name: str) -> None:
    work = folder / WORK / name
    recipe = part(name)
    since = time.time()
    try:
        work.mkdir(parents=True, exist_ok=True)
        (work / "identity").write_text(identity(name), encoding="utf-8")
        if isinstance(recipe, DecoderRecipe):
            train_decoder(recipe, work)
            _export_decoder(work, folder / name)
        else:
            _train_compressor(folder, name, recipe, work)
        _write_card(folder, name, work, _seconds(work) + time.time() - since)
    except OSError as error:
        raise UsageError(
            f"writing {folder} failed ({error.strerror or error}): make room and run the same command again, "
            f"which goes on with {name}"
        ) from error
    except KeyboardInterrupt:
        (work / SECONDS).write_text(str(_seconds(work) + time.time() - since), encoding="utf-8")
        raise
    shutil.rmtree(work)


def _seconds(work: Path) -> float:
    """Spent by earlier calls that were interrupted from the keyboard."""
    path = work / SECONDS
    return float(path.read_text(encoding="utf-8")) if path.is_file() else 0.0


def _export_decoder(work: Path, folder: Path) -> None:
    """In half precision: what is shipped is what compressors are trained with."""
    model = AutoModelForCausalLM.from_pretrained(work)
    model.half().save_pretrained(folder)
    AutoTokenizer.from_pretrained(work).save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["dtype"] = "float32"  # to be computed with; only stored in half
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(f"# {folder.name}\n\n{ABOUT}\n", encoding="utf-8")
    shutil.copy(work / "log.jsonl", folder / "log.jsonl")


def _train_compressor(folder: Path, name: str, recipe: CompressorRecipe, work: Path) -> None:
    decoder, data = folder / recipe.decoder, folder / WORK / "data"
    _write_data(data)
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
    train(tuning_recipe(name, recipe, str(start), str(decoder), str(data)), tuned)
    if recipe.pretraining:
        pretrained = folder / name / PRETRAINED
        _export_compressor(start, pretrained, frozen, decoder)
        figure = reconstruction(name, pretrained, MEASURED_DOCUMENTS)
        (work / RECONSTRUCTION).write_text(figure.model_dump_json(), encoding="utf-8")
        if not recipe.keep_pretrained:
            shutil.rmtree(pretrained)
    _export_compressor(tuned, folder / name, frozen, decoder)


def _start(recipe: CompressorRecipe, frozen: Decoder, folder: Path) -> None:
    sizes: dict[str, Any] = {"segment_length": SEGMENT, "seed": recipe.seed}
    if recipe.kind == "lite":
        start_lite(frozen, folder, rate=recipe.rate, layers=recipe.layers, boundaries=recipe.boundaries, **sizes)
    else:
        start_large(frozen, folder, rank=recipe.lora_rank, boundaries=recipe.boundaries, **sizes)


def _export_compressor(source: Path, target: Path, frozen: Decoder, decoder: Path) -> None:
    pcc = checkpoint.load(str(source), frozen)
    beside = init.name_beside(str(decoder), target)
    made_for = pcc.config.decoder.model_copy(update={"name": beside})
    encoder = pcc.config.encoder.model_copy(update={"base": beside if pcc.config.encoder.base else None})
    lab = {"lab": True, "decoder": made_for, "encoder": encoder, "notes": ABOUT}
    pcc.config = pcc.config.model_copy(update=lab)
    checkpoint.save(pcc.half(), target)
    for log in ("log.jsonl", "evaluation.jsonl"):
        shutil.copy(source / log, target / log)


def _write_data(folder: Path) -> None:
    """Training text and questions of the world, the same for all compressors."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, split, count in ((TEXT, "train", DOCUMENTS), (TEXT_HELD_OUT, "validation", HELD_OUT_DOCUMENTS)):
        _write_lines(folder / name, rows("text", split, count, seed=1))
    _write_lines(folder / QUESTIONS, _questions())


def _questions() -> Iterable[dict[str, Any]]:
    """Rows of all question sets with the context as the tasks show it, in turns."""
    sets = [
        [_READERS[name](row) for row in rows(name, "train", ROWS, seed=1, sentences=TUNING_SENTENCES)]
        for name in _READERS
    ]
    for examples in zip(*sets, strict=True):
        for example in examples:
            if isinstance(example, Example):
                yield {"context": example.context, "question": example.question, "answers": example.answers}


def _write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    if path.is_file():
        return
    partly = path.with_suffix(".partly")
    partly.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    partly.rename(path)


def _write_card(folder: Path, name: str, work: Path, seconds: float) -> None:
    logs = {path.parent.name: path for path in sorted(work.glob("*/log.jsonl"))}
    recipe = part(name)
    tokens = {stage: _tokens_seen(path) for stage, path in logs.items()}
    if isinstance(recipe, DecoderRecipe):
        tokens = {"lessons": recipe.steps * recipe.tokens}
    state = {
        "identity": identity(name),
        "recipe": part(name).model_dump(mode="json"),
        "tokens_seen": tokens,
        "seconds": round(seconds),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    measured = work / RECONSTRUCTION
    if measured.is_file():
        state[RECONSTRUCTION] = json.loads(measured.read_text(encoding="utf-8"))
    (folder / name / CARD).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


def _tokens_seen(log: Path) -> int:
    return int(json.loads(log.read_text(encoding="utf-8").splitlines()[-1])["tokens_seen"])
