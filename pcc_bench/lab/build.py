"""`pcc-bench lab build` and `lab ship`: remake the lab, or any part of it, from nothing but this package; ship it."""

import json
import logging
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from transformers import AutoTokenizer
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from pcc_bench import lab
from pcc_bench.core.claims import claimed
from pcc_bench.core.documents import checked, is_of_the_disk, read_json, read_json_lines, read_text, write_text
from pcc_bench.core.errors import UsageError, first_line
from pcc_bench.core.shipped import CARD, PRETRAINED, SHIPPED
from pcc_bench.lab import PARTS, identity, needs, part
from pcc_bench.lab.compressors import ABOUT, adapt_compressor, train_compressor
from pcc_bench.lab.decoders import save_in_half, train_decoder
from pcc_bench.lab.rivals import train_classifier, train_rival
from pcc_bench.lab.skills import RECONSTRUCTION

logger = logging.getLogger(__name__)
TIME = "time.json"  # in a part's work folder: how long earlier calls took, and when the present one began
LIMIT = 36 * 2**20  # bytes of all parts that ship
WORK = "work"  # data and states of unfinished runs; may be deleted


class Card(BaseModel, extra="allow"):  # what is recorded of a finished part; more stands in it, for a reader
    identity: str
    seconds: float


class Spent(BaseModel):
    earlier: float  # seconds of earlier calls on a part
    since: float  # when the present one began, in seconds since the epoch


def build(folder: Path, names: Sequence[str] = (), again: bool = False) -> list[str]:
    """Make parts (all where `names` is empty) and what they need; finished ones are left alone, others go on.

    `again`: make parts anew whose recipe, or whose world, is another one now. Returns the parts that were built.
    """
    built = []
    for name in in_order(names or tuple(PARTS)):
        with claimed(folder / WORK, name):
            work = folder / WORK / name
            started = work / "identity"
            card = read_card(folder, name)
            old = card["identity"] if card else read_text(started) if started.is_file() else None
            if old not in (None, identity(name)):
                if not again:
                    raise UsageError(
                        f"{folder / name} was made by another recipe or for another world (it is {old}, the lab's is "
                        f"now {identity(name)}): build with --again to make it anew, or build into another folder"
                    )
                shutil.rmtree(folder / name, ignore_errors=True)
                shutil.rmtree(work, ignore_errors=True)
                card = None
            if card is None:
                logger.info("building %s", name)
                _build_part(folder, name)
                built.append(name)
    return built


def read_card(folder: Path, name: str) -> dict[str, Any] | None:
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


def _build_part(folder: Path, name: str) -> None:
    work = folder / WORK / name
    try:
        work.mkdir(parents=True, exist_ok=True)
        since, earlier = time.time(), 0.0
        if (work / TIME).is_file():  # earlier calls did not end; each counts up to the last file that it wrote
            spent = checked(Spent, read_json(work / TIME), str(work / TIME))
            last = max(file.stat().st_mtime for file in work.rglob("*") if file.is_file())
            earlier = spent.earlier + max(0.0, last - spent.since)
        write_text(work / TIME, json.dumps({"earlier": earlier, "since": since}))
        write_text(work / "identity", identity(name))
        recipe = part(name)
        if isinstance(recipe, lab.DecoderRecipe):
            train_decoder(recipe, work)
            # In half precision: what is shipped is what compressors are trained with.
            model, tokenizer = AutoModelForCausalLM.from_pretrained(work), AutoTokenizer.from_pretrained(work)
            save_in_half(model, tokenizer, folder / name)
            (folder / name / "README.md").write_text(f"# {name}\n\n{ABOUT}\n", encoding="utf-8")
            shutil.copy(work / "log.jsonl", folder / name / "log.jsonl")
        elif isinstance(recipe, lab.CompressorRecipe):
            train_compressor(folder, name, recipe, work)
        elif isinstance(recipe, lab.AdaptationRecipe):
            adapt_compressor(folder, name, recipe, work)
        elif isinstance(recipe, lab.RivalRecipe):
            train_rival(folder, name, recipe, work)
        elif isinstance(recipe, lab.ClassifierRecipe):
            train_classifier(folder / name, recipe, work)
        _write_card(folder, name, work, earlier + time.time() - since)
    except (OSError, SafetensorError, RuntimeError) as error:
        if not is_of_the_disk(error):
            raise
        raise UsageError(
            f"writing {folder} failed ({first_line(error)}): make room and run the same command again, "
            f"which goes on with {name}"
        ) from error
    shutil.rmtree(work)


def _write_card(folder: Path, name: str, work: Path, seconds: float) -> None:
    recipe = part(name)
    tokens = {}
    for path in sorted(work.glob("*/log.jsonl")):
        *_, (_, last) = read_json_lines(path)
        tokens[path.parent.name] = int(last["tokens_seen"])
    if isinstance(recipe, lab.DecoderRecipe):
        tokens = {"lessons": recipe.steps * recipe.tokens}
    state: dict[str, Any] = {"identity": identity(name), "recipe": recipe.model_dump(mode="json")}
    state |= {"tokens_seen": tokens, "seconds": round(seconds)}
    state |= {"threads": torch.get_num_threads(), "torch": torch.__version__}
    if (measured := work / RECONSTRUCTION).is_file():
        state[RECONSTRUCTION] = read_json(measured)
    write_text(folder / name / CARD, json.dumps(state, indent=1) + "\n")


def ship(source: Path, target: Path, names: Sequence[str] = ()) -> int:
    """Copy finished parts that ship (all where `names` is empty), each without the checkpoint before its fine-tuning.

    What is there of a part is replaced, other parts stay. Returns the bytes of all files in the target. Nothing is
    copied where a part is not finished, is of another recipe or not `SHIPPED`, or all would be more than `LIMIT`.
    """
    names = names or SHIPPED
    for name in names:
        if name not in SHIPPED:
            raise UsageError(f"the lab's part '{name}' does not ship; {', '.join(SHIPPED)} do")
        if (card := read_card(source, name)) is None:
            raise UsageError(
                f"{source} has no finished {name}: 'pcc-bench lab build {name} --output {source}' makes it"
            )
        if card["identity"] != identity(name):
            raise UsageError(f"{source / name} was made by another recipe or for another world: build it with --again")
    files = [path for path in target.rglob("*") if path.relative_to(target).parts[0] not in names]
    files += [path for name in names for path in (source / name).rglob("*") if path.parent.name != PRETRAINED]
    size = sum(path.stat().st_size for path in files if path.is_file())
    if size > LIMIT:
        raise UsageError(
            f"{target} would hold {size / 2**20:.1f} MiB, more than the {LIMIT / 2**20:.0f} that may ship: "
            "take a part out of SHIPPED in pcc_bench/core/shipped.py"
        )
    for name in names:
        shutil.rmtree(target / name, ignore_errors=True)
        shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns(PRETRAINED))
    return size
