"""The kinds of files that are read, each with a good one, its mutations and the way a command reads it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from mutations import change_bytes, change_json, change_tensors, change_yaml

import pcc_bench
from pcc_bench.core import memory_file, tiny
from pcc_bench.core.checkpoint_files import is_finite
from pcc_bench.core.compressor import Compressor
from pcc_bench.core.context import Kind as ContextKind
from pcc_bench.core.context import Part, Prompt
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.plan import PromptEncoder
from pcc_bench.gate.policy import Policy
from pcc_bench.host import compressing
from pcc_bench.host.store.store import MemoryStore
from pcc_bench.host.store.store import compress as compressed
from pcc_bench.model import checkpoint, init, published
from pcc_bench.model.compressor import PccCompressor
from pcc_bench.model.training import recipe
from pcc_bench.suite.spec import Settings, Suite, shipped

TEXTS = ("It rains in Paris, and the trains are late.", "One word. " * 40)
LAB = Path(pcc_bench.__file__).parent / "lab"
RIVALS = {
    "autocompressor": ("adapter_config.json", "config.json", "adapter_model.safetensors"),
    "cocom": ("config.json", "model.safetensors"),
    "icae": ("config.json", "model.safetensors"),
    "llmlingua2": ("config.json", "tokenizer.json", "model.safetensors"),
}


class SilentPassError(Exception):
    """Something wrong was taken."""


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: What it is.
        path: The file.
        mutate: Changes it, drawing from a generator; returns whether it added a key that nobody knows.
        read: Reads it as a command does, and raises `SilentPassError` where what it took is wrong.
        strict: Its unknown keys are refused.
        share: Of the tries asked for, where reading takes long.
    """

    name: str
    path: Path
    mutate: Callable[[Path, random.Random], bool]
    read: Callable[[], object]
    strict: bool = False
    share: float = 1


def kinds(root: Path) -> list[Kind]:
    """Every kind of file but results and settings, with good ones written under `root`."""
    tokenizer = tiny.make_tokenizer(list(TEXTS), 400, adds_bos=True)
    tiny.make_model("llama", tokenizer, root / "llama", window=1024)
    plain = tiny.make_tokenizer(list(TEXTS), 400, adds_bos=False)
    tiny.make_model("gpt2", plain, root / "encoder", width=48, window=512)
    decoder = init.open_decoder(str(root / "llama"))
    for name, encoder, rank in (("pcc", "encoder", 0), ("large", "llama", 4)):
        checkpoint.save(init.fresh(str(root / encoder), decoder, [4, 16], root / name, lora_rank=rank), root / name)
    checkpoint.save(checkpoint.load(str(root / "pcc"), decoder), root / "pcc8", torch.int8)
    published.export(checkpoint.load(str(root / "pcc"), decoder), root / "published")
    return [*_checkpoints(root, decoder), *_rivals(root), *_memories(root, decoder), *_documents(root)]


def _checkpoints(root: Path, decoder: Decoder) -> list[Kind]:
    def load(folder: str, **options: Any) -> Callable[[], None]:
        return lambda: _compress(PccCompressor.load(str(root / folder), decoder, **options))

    converter = root / "published" / published.CONVERTER_FILE
    return [
        Kind("checkpoint: config.json", root / "pcc/config.json", change_json, load("pcc"), True),
        Kind("checkpoint: weights", root / "pcc/model.safetensors", change_tensors, load("pcc")),
        Kind("checkpoint: 8-bit weights", root / "pcc8/model.safetensors", change_tensors, load("pcc8")),
        Kind("checkpoint: tokenizer.json", root / "pcc/tokenizer.json", change_json, load("pcc")),
        Kind("LoRA checkpoint: config.json", root / "large/config.json", change_json, load("large"), True),
        Kind("LoRA checkpoint: weights", root / "large/model.safetensors", change_tensors, load("large")),
        Kind("published: converter", converter, change_bytes, load("published", rate=4)),
        Kind("published: config.json", root / "published/config.json", change_json, load("published", rate=4)),
        Kind("decoder: config.json", root / "llama/config.json", change_json, lambda: init.open_decoder(decoder.name)),
        Kind(
            "decoder: weights",
            root / "llama/model.safetensors",
            change_tensors,
            lambda: init.open_decoder(decoder.name),
        ),
    ]


def _compress(compressor: Compressor) -> None:
    """Make a memory, and see that it is one."""
    (memory,) = compressed(compressor, [TEXTS[0]], [""])
    if memory.text is None and (memory.vectors is None or not is_finite(memory.vectors)):
        raise SilentPassError("a memory that is not finite")


def _rivals(root: Path) -> list[Kind]:
    """The other methods' checkpoints, as the lab ships them."""
    shutil.copytree(LAB / "models" / "lab-llama", root / "rivals" / "lab-llama")
    made = []
    for method, files in RIVALS.items():
        (source,) = (LAB / "models").glob(f"{method}-lab*")
        folder = root / "rivals" / source.name
        shutil.copytree(source, folder)

        def read(folder: Path = folder, method: str = method) -> None:
            decoder = str(root / "rivals" / "lab-llama")
            _compress(compressing.open_compressor(str(folder), decoder, "cpu", "float32", {}, method))

        for file in files:
            mutate = change_json if file.endswith(".json") else change_tensors
            made.append(Kind(f"{method}: {file}", folder / file, mutate, read, share=0.5))
    return made


def _memories(root: Path, decoder: Decoder) -> list[Kind]:
    """A memory file, and entries of stores of each precision."""
    compressor = compressing.open_compressor(str(root / "pcc"), str(root / "llama"), "cpu", "float32", {})
    (memory,) = compressor.compress([TEXTS[0]])
    memory_file.save(memory, compressor, root / "memory.safetensors")

    def read_memory() -> None:
        saved = memory_file.load(root / "memory.safetensors", decoder)
        if saved.memory.vectors is None or not is_finite(saved.memory.vectors):
            raise SilentPassError("a memory that is not finite")
        prompt = Prompt([Part("", ContextKind.CONTEXT), Part("Question: Where?", ContextKind.LITERAL)])
        PromptEncoder(saved).encode(prompt, [saved.memory]).vectors(decoder)

    made = [Kind("memory file", root / "memory.safetensors", change_tensors, read_memory)]
    for precision in ("exact", "int8"):
        folder = root / f"store-{precision}"
        right = MemoryStore(folder, compressor, precision).compress([TEXTS[0]], [""])[0].vectors

        def read(folder: Path = folder, precision: str = precision, right: Any = right) -> None:
            (again,) = MemoryStore(folder, compressor, precision).compress([TEXTS[0]], [""])
            if again.vectors is None or not torch.equal(again.vectors, right):  # type: ignore[arg-type]
                raise SilentPassError("another memory than the one that was stored")

        (entry,) = folder.glob("*/*.safetensors")
        made.append(Kind(f"store: {precision}", entry, change_tensors, read))
    return made


def _documents(root: Path) -> list[Kind]:
    """A recipe, a suite and a policy."""
    shutil.copy(recipe.shipped()["lite-4x"], root / "recipe.yaml")
    shutil.copy(shipped()["lab-table2"], root / "suite.yaml")
    (root / "policy.yaml").write_text(yaml.safe_dump(Policy().model_dump(mode="json"), sort_keys=False), "utf-8")
    readers: dict[str, Callable[[Path], object]] = {
        "recipe": lambda path: recipe.Recipe.read(str(path)),
        "suite": lambda path: Suite.read(str(path)).plan(root / "out", Settings()),
        "policy": Policy.read,
    }
    return [
        Kind(name, root / f"{name}.yaml", change_yaml, lambda name=name: readers[name](root / f"{name}.yaml"), True)
        for name in readers
    ]
