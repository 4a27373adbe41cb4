"""`pcc-bench lab build`: remake the lab, or any part of it, from nothing but this package."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from transformers import AutoTokenizer
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from pcc_bench.core.claims import claimed
from pcc_bench.core.documents import checked, is_of_the_disk, read_json, read_json_lines, read_text, write_text
from pcc_bench.core.errors import UsageError, first_line
from pcc_bench.core.shipped import CARD
from pcc_bench.lab.compressors import ABOUT, adapt_compressor, train_compressor
from pcc_bench.lab.decoders import DecoderRecipe, train_decoder
from pcc_bench.lab.parts import PARTS, AdaptationRecipe, CompressorRecipe, identity, needs, part
from pcc_bench.lab.rivals.classifier import train_classifier
from pcc_bench.lab.rivals.recipes import RivalRecipe
from pcc_bench.lab.rivals.train import train_rival
from pcc_bench.lab.skills import RECONSTRUCTION

logger = logging.getLogger(__name__)
TIME = "time.json"  # in a part's work folder: how long earlier calls took, and when the present one began
WORK = "work"  # data and states of unfinished runs; may be deleted


class Card(BaseModel):
    """What is recorded of a finished part; more stands in it, for a reader."""

    model_config = ConfigDict(extra="allow")

    identity: str
    seconds: float


class Spent(BaseModel):
    """Seconds of earlier calls on a part, and when the present one began (since the epoch)."""

    earlier: float
    since: float


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
    for name in in_order(names or tuple(PARTS)):
        with claimed(folder / WORK, name):
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
        return checked(Card, read_json(path), str(path)).model_dump()
    except UsageError as error:
        raise UsageError(f"{error}: delete the folder {path.parent}, and build") from None


def in_order(names: Iterable[str]) -> list[str]:
    """Parts and all that they need, each once and after what it needs."""
    ordered: dict[str, None] = {}
    for name in names:
        ordered |= dict.fromkeys([*in_order(needs(name)), name])
    return list(ordered)


def _is_done(folder: Path, name: str, again: bool) -> bool:
    work = folder / WORK / name
    started = work / "identity"
    card = read_card(folder, name)
    found = card["identity"] if card else read_text(started) if started.is_file() else None
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
    try:
        work.mkdir(parents=True, exist_ok=True)
        since = time.time()
        earlier = _earlier_seconds(work, since)
        write_text(work / "identity", identity(name))
        _make(folder, name, work)
        _write_card(folder, name, work, earlier + time.time() - since)
    except (OSError, SafetensorError, RuntimeError) as error:
        if not is_of_the_disk(error):
            raise
        raise UsageError(
            f"writing {folder} failed ({first_line(error)}): make room and run the same command again, "
            f"which goes on with {name}"
        ) from error
    shutil.rmtree(work)


def _make(folder: Path, name: str, work: Path) -> None:
    recipe = part(name)
    if isinstance(recipe, DecoderRecipe):
        train_decoder(recipe, work)
        _export_decoder(work, folder / name)
    elif isinstance(recipe, CompressorRecipe):
        train_compressor(folder, name, recipe, work)
    elif isinstance(recipe, AdaptationRecipe):
        adapt_compressor(folder, name, recipe, work)
    elif isinstance(recipe, RivalRecipe):
        train_rival(folder, name, recipe, work)
    else:
        train_classifier(folder / name, recipe, work)


def _earlier_seconds(work: Path, now: float) -> float:
    """Seconds of earlier calls that did not end, each up to the last file that it wrote; notes that a call starts."""
    path, earlier = work / TIME, 0.0
    if path.is_file():
        spent = checked(Spent, read_json(path), str(path))
        last = max(file.stat().st_mtime for file in work.rglob("*") if file.is_file())
        earlier = spent.earlier + max(0.0, last - spent.since)
    write_text(path, json.dumps({"earlier": earlier, "since": now}))
    return earlier


def _export_decoder(work: Path, folder: Path) -> None:
    """In half precision: what is shipped is what compressors are trained with."""
    model = AutoModelForCausalLM.from_pretrained(work)
    model.half().save_pretrained(folder)
    AutoTokenizer.from_pretrained(work).save_pretrained(folder)
    path = folder / "config.json"
    config = read_json(path)
    config["dtype"] = "float32"  # to be computed with; only stored in half
    write_text(path, json.dumps(config, indent=2) + "\n")
    (folder / "README.md").write_text(f"# {folder.name}\n\n{ABOUT}\n", encoding="utf-8")
    shutil.copy(work / "log.jsonl", folder / "log.jsonl")


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
        state[RECONSTRUCTION] = read_json(measured)
    write_text(folder / name / CARD, json.dumps(state, indent=1) + "\n")


def _tokens_seen(log: Path) -> int:
    *_, (_, last) = read_json_lines(log)
    return int(last["tokens_seen"])
