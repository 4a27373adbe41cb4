"""Files as strangers might send them: mutations of every kind of file that is read, and what becomes of them.

Each kind starts from a good file. A try changes some bytes of it, or some values of its JSON or YAML, and reads it the
way a command does. It must end well or with one sentence (`UsageError`, `DamagedError`). Counted are

- tracebacks: any other exception;
- silent passes: a checkpoint or memory that was taken and holds numbers that are not finite, a stored memory that is
  another than the one kept, a key that nobody knows and nobody refused;
- slow: tries of more than 20 s.

    python benchmarks/fuzz.py --tries 200 --seed 0
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import yaml
from safetensors.torch import load_file, save_file

import pcc_bench
from pcc_bench.core import memory_file, tiny
from pcc_bench.core.context import Kind as ContextKind
from pcc_bench.core.context import Part, Prompt
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError
from pcc_bench.core.tensors import is_finite
from pcc_bench.gate.policy import Policy
from pcc_bench.host import compressing
from pcc_bench.host.prompts import PromptEncoder
from pcc_bench.host.store.store import MemoryStore, compress
from pcc_bench.model import checkpoint, init, published
from pcc_bench.model.compressor import PccCompressor
from pcc_bench.model.training import recipe
from pcc_bench.results.frozen import load as load_results
from pcc_bench.suite.spec import Settings, Suite, shipped

SLOW_SECONDS = 20
UNKNOWN = "a_key_that_nobody_knows"
HOSTILE: tuple[Any, ...] = (
    *(None, True, -1, 0, 3, 10**6, 10**9, 10**30, 0.5, -1.5, float("nan"), float("inf")),
    *("", "x", "p" * 5_000, "\ud800", "a\0b", "../../x", "2020-99-99", [], [1], {}, {"a": {}}, [[]] * 3),
)
TEXTS = ("It rains in Paris, and the trains are late.", "One word. " * 40)


class SilentPassError(Exception):
    """Something wrong was taken."""


@dataclass
class Kind:
    """A kind of file.

    Attributes:
        name: What it is.
        path: The file.
        mutate: Changes it, drawing from a generator; returns whether it added a key that nobody knows.
        read: Reads it as a command does, and raises `SilentPassError` where what it took is wrong.
        strict: Its unknown keys are refused.
    """

    name: str
    path: Path
    mutate: Callable[[Path, random.Random], bool]
    read: Callable[[], None]
    strict: bool = False


@dataclass
class Outcome:
    """What became of the tries of a kind."""

    tries: int = 0
    refused: int = 0
    tracebacks: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)


def change_bytes(path: Path, draw: random.Random) -> bool:
    """Flip, cut, repeat or overwrite some bytes."""
    data = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 1, 3, 20))):
        at = draw.randrange(len(data)) if data else 0
        near = draw.randrange(min(len(data), 400)) if data else 0  # headers are where it hurts
        at = draw.choice((at, near))
        size = draw.choice((1, 4, 64))
        match draw.randrange(5):
            case 0 if data:
                data[at] ^= 1 << draw.randrange(8)
            case 1:
                del data[at : at + size]
            case 2:
                data[at:at] = data[at : at + size]
            case 3:
                data[at : at + size] = bytes(draw.randrange(256) for _ in range(size))
            case _:
                del data[draw.choice((at, len(data) // 2)) :]
    path.write_bytes(bytes(data))
    return False


def change_state(state: Any, draw: random.Random) -> tuple[Any, bool]:
    """Exchange, drop or add a value somewhere in plain data; and whether an unknown key now stands at the top."""
    state = copy.deepcopy(state)
    places = list(_places(state))
    if not places or draw.random() < 0.05:
        return draw.choice(HOSTILE), False
    holder, key = draw.choice(places)
    match draw.randrange(6):
        case 0 if isinstance(holder, dict):
            del holder[key]
        case 1 if isinstance(state, dict):
            state[UNKNOWN] = draw.choice(HOSTILE)
            return state, True
        case 2 if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            holder[key] = -holder[key] if draw.random() < 0.5 else holder[key] * 1000 + 1
        case _:
            holder[key] = draw.choice(HOSTILE)
    return state, False


def _places(state: Any) -> Any:
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    for key, value in items:
        yield state, key
        yield from _places(value)


def change_json(path: Path, draw: random.Random) -> bool:
    """Values mostly, bytes now and then."""
    if draw.random() < 0.25:
        return change_bytes(path, draw)
    state, unknown = change_state(json.loads(path.read_text("utf-8")), draw)
    path.write_text(json.dumps(state), "utf-8")
    return unknown


def change_yaml(path: Path, draw: random.Random) -> bool:
    """As `change_json`."""
    if draw.random() < 0.25:
        return change_bytes(path, draw)
    state, unknown = change_state(yaml.safe_load(path.read_text("utf-8")), draw)
    path.write_text(yaml.safe_dump(state, allow_unicode=True, sort_keys=False), "utf-8", errors="surrogatepass")
    return unknown


def change_tensors(path: Path, draw: random.Random) -> bool:
    """A tensor with NaN or infinity, of another dtype or shape, lost or renamed; bytes now and then."""
    if draw.random() < 0.4:
        return change_bytes(path, draw)
    with open(path, "rb") as file:  # noqa: PTH123
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    metadata, tensors = header.get("__metadata__", {}), load_file(path)
    name = draw.choice(sorted(tensors))
    value = tensors[name]
    match draw.randrange(7):
        case 0 if value.is_floating_point() and value.numel():
            value.view(-1)[draw.randrange(value.numel())] = draw.choice((float("nan"), float("inf"), -float("inf")))
        case 1:
            tensors[name] = value.to(draw.choice((torch.int8, torch.int64, torch.bool)))
        case 2:
            tensors[name] = value[:-1].clone() if value.dim() and len(value) else value[None].clone()
        case 3:
            tensors[name] = value.flatten().clone() if value.dim() > 1 else value[None].clone()
        case 4:
            del tensors[name]
        case 5:
            tensors[UNKNOWN] = tensors.pop(name)
        case _ if metadata:
            key = draw.choice(sorted(metadata))
            start = metadata[key].find("{")
            inner = metadata[key][max(start, 0) :]
            try:
                state, _ = change_state(json.loads(inner), draw)
                metadata[key] = metadata[key][: max(start, 0)] + json.dumps(state)
            except ValueError:
                metadata[key] = inner[: len(inner) // 2]
    save_file(tensors, path, metadata)
    return False


def kinds(root: Path) -> list[Kind]:
    """Every kind of file, with good ones written under `root`."""
    tokenizer = tiny.make_tokenizer(list(TEXTS), 400, adds_bos=True)
    tiny.make_model("llama", tokenizer, root / "llama", window=1024)
    plain = tiny.make_tokenizer(list(TEXTS), 400, adds_bos=False)
    tiny.make_model("gpt2", plain, root / "encoder", width=48, window=512)
    decoder = init.open_decoder(str(root / "llama"))
    for name, encoder, rank in (("pcc", "encoder", 0), ("large", "llama", 4)):
        checkpoint.save(init.fresh(str(root / encoder), decoder, [4, 16], root / name, lora_rank=rank), root / name)
    published.export(checkpoint.load(str(root / "pcc"), decoder), root / "published")
    compressor = compressing.open_compressor(str(root / "pcc"), str(root / "llama"), "cpu", "float32", {})
    (memory,) = compressor.compress([TEXTS[0]])
    memory_file.save(memory, compressor, root / "memory.safetensors")
    stores = {
        precision: MemoryStore(root / f"store-{precision}", compressor, precision) for precision in ("exact", "int8")
    }
    kept = {name: store.compress([TEXTS[0]], [""])[0].vectors for name, store in stores.items()}

    def load(folder: str, **options: Any) -> Callable[[], None]:
        def read() -> None:
            (made,) = compress(PccCompressor.load(str(root / folder), decoder, **options), [TEXTS[0]], [""])
            if made.vectors is None or not is_finite(made.vectors):
                raise SilentPassError("a memory that is not finite")

        return read

    def read_memory() -> None:
        stored = memory_file.load(root / "memory.safetensors", decoder)
        if stored.memory.vectors is None or not is_finite(stored.memory.vectors):
            raise SilentPassError("a memory that is not finite")
        prompt = Prompt([Part("", ContextKind.CONTEXT), Part("Question: Where?", ContextKind.LITERAL)])
        PromptEncoder(decoder, stored).encode(prompt, [stored.memory]).vectors(decoder)

    def read_store(precision: str) -> Callable[[], None]:
        def read() -> None:
            (again,) = MemoryStore(root / f"store-{precision}", compressor, precision).compress([TEXTS[0]], [""])
            if again.vectors is None or not torch.equal(again.vectors, kept[precision]):  # type: ignore[arg-type]
                raise SilentPassError("another memory than the one kept")

        return read

    def read_decoder() -> None:
        Decoder(*_parts(init.open_decoder(str(root / "llama"))))

    shutil.copy(recipe.shipped()["lite-4x"], root / "recipe.yaml")
    shutil.copy(shipped()["lab-table2"], root / "suite.yaml")
    (root / "policy.yaml").write_text(yaml.safe_dump(Policy().model_dump(mode="json"), sort_keys=False), "utf-8")
    made = [
        Kind("checkpoint: config.json", root / "pcc/config.json", change_json, load("pcc"), True),
        Kind("checkpoint: weights", root / "pcc/model.safetensors", change_tensors, load("pcc")),
        Kind("checkpoint: tokenizer.json", root / "pcc/tokenizer.json", change_json, load("pcc")),
        Kind("LoRA checkpoint: config.json", root / "large/config.json", change_json, load("large"), True),
        Kind("LoRA checkpoint: weights", root / "large/model.safetensors", change_tensors, load("large")),
        Kind(
            "published: converter",
            root / "published" / published.CONVERTER_FILE,
            change_bytes,
            load("published", rate=4),
        ),
        Kind("published: config.json", root / "published/config.json", change_json, load("published", rate=4)),
        Kind("decoder: config.json", root / "llama/config.json", change_json, read_decoder),
        Kind("decoder: weights", root / "llama/model.safetensors", change_tensors, read_decoder),
        Kind("memory file", root / "memory.safetensors", change_tensors, read_memory),
        Kind(
            "recipe",
            root / "recipe.yaml",
            change_yaml,
            lambda: _none(recipe.Recipe.read(str(root / "recipe.yaml"))),
            True,
        ),
        Kind("suite", root / "suite.yaml", change_yaml, lambda: _plan(root / "suite.yaml"), True),
        Kind("policy", root / "policy.yaml", change_yaml, lambda: _none(Policy.read(root / "policy.yaml")), True),
    ]
    for precision in stores:
        (entry,) = (root / f"store-{precision}").glob("*/*.safetensors")
        made.append(Kind(f"store: {precision}", entry, change_tensors, read_store(precision)))
    results = sorted((Path(pcc_bench.__file__).parent / "lab" / "results").rglob("results_*.json"))
    if results:
        shutil.copytree(results[0].parent, root / "results", symlinks=False)
        made.append(
            Kind(
                "results",
                root / "results" / results[0].name,
                change_json,
                lambda: _none(load_results(root / "results")),
            )
        )
    return made


def _parts(decoder: Decoder) -> tuple[Any, Any, str]:
    return decoder.model, decoder.tokenizer, decoder.name


def _none(value: object) -> None:
    """Reading is all that is asked."""


def _plan(path: Path) -> None:
    Suite.read(str(path)).plan(path.parent / "out", Settings())


def fuzz(kind: Kind, tries: int, seed: int) -> Outcome:
    """Mutate a kind's file again and again, from the good one each time."""
    outcome = Outcome()
    good = kind.path.read_bytes()
    for number in range(tries):
        draw = random.Random(f"{seed}-{kind.name}-{number}")
        try:
            unknown = kind.mutate(kind.path, draw)
            if kind.path.is_file() and kind.path.read_bytes() == good:
                continue
            outcome.tries += 1
            start = time.perf_counter()
            try:
                kind.read()
                if unknown and kind.strict:
                    raise SilentPassError("a key that nobody knows")
            except UsageError as error:
                outcome.refused += 1
                if "\n" in str(error):
                    outcome.tracebacks.append(f"try {number}: several lines: {error}")
            except SilentPassError as error:
                outcome.silent.append(f"try {number}: {error}")
            except Exception as error:
                outcome.tracebacks.append(f"try {number}: {type(error).__name__}: {error}"[:300])
            if time.perf_counter() - start > SLOW_SECONDS:
                outcome.slow.append(f"try {number}: {time.perf_counter() - start:.0f} s")
        finally:
            kind.path.write_bytes(good)
    return outcome


def main() -> int:
    """Print a table; status 1 where something passed or broke."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=200, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds whose names hold this")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    wrong = total = 0
    with tempfile.TemporaryDirectory() as folder, compressing.quiet():
        print(f"{'kind':30} {'tries':>6} {'refused':>8} {'tracebacks':>11} {'silent':>7} {'slow':>5}")
        for kind in kinds(Path(folder)):
            if given.only not in kind.name:
                continue
            done = fuzz(kind, given.tries, given.seed)
            broken = [*done.tracebacks, *done.silent, *done.slow]
            total, wrong = total + done.tries, wrong + len(broken)
            numbers = (
                f"{done.tries:6} {done.refused:8} {len(done.tracebacks):11} {len(done.silent):7} {len(done.slow):5}"
            )
            print(f"{kind.name:30} {numbers}", flush=True)
            for line in broken[:5]:
                print(f"    {line}", file=sys.stderr, flush=True)
    print(f"{total} mutations, {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
