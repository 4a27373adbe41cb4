"""Files as strangers might send them: mutations of every kind of file that is read, and what becomes of them.

Each kind starts from a good file. A try changes some bytes of it, some values of its JSON or YAML (at any depth:
another type, a key less, more or twice, nesting without end), rows or tensors, its encoding, or what lies at its place
(nothing, a folder, a link into nowhere or to itself), and reads it the way a command does. Option strings are tried
alike. It must end well or with one sentence (`UsageError`, `DamagedError`). Counted are

- tracebacks: any other exception;
- silent passes: a checkpoint or memory that was taken and holds numbers that are not finite, a stored memory that is
  another than the one kept, a key that nobody knows and nobody refused;
- slow: tries of more than 20 s of this process's time.

    python benchmarks/fuzz.py --tries 200 --seed 0
"""

from __future__ import annotations

import argparse
import copy
import json
import lzma
import os
import random
import re
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
from lm_eval.tasks import TaskManager
from safetensors.torch import load_file, save_file

import pcc_bench.tasks
from pcc_bench.core import memory_file, tiny
from pcc_bench.core.context import Kind as ContextKind
from pcc_bench.core.context import Part, Prompt
from pcc_bench.core.documents import COMPRESSED
from pcc_bench.core.errors import UsageError
from pcc_bench.core.tensors import is_finite
from pcc_bench.gate.compare import compare
from pcc_bench.gate.policy import Policy
from pcc_bench.host import compressing
from pcc_bench.host.arguments import parse_arguments, parse_metadata
from pcc_bench.host.generation_options import typed
from pcc_bench.host.prompts import PromptEncoder
from pcc_bench.host.settings import check_settings
from pcc_bench.host.store.store import MemoryStore
from pcc_bench.host.store.store import compress as compressed
from pcc_bench.host.validate import validate
from pcc_bench.model import checkpoint, init, published
from pcc_bench.model.compressor import PccCompressor
from pcc_bench.model.training import recipe
from pcc_bench.reports import report
from pcc_bench.results.frozen import SUFFIX, freeze
from pcc_bench.results.frozen import load as load_results
from pcc_bench.suite.spec import Settings, Suite, shipped
from pcc_bench.tasks.data import sample_folder

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


def change_place(path: Path, draw: random.Random) -> bool:
    """Put something else where the file is: nothing, a folder, a link, an empty file, one in another encoding."""
    data = path.read_bytes()
    path.unlink()
    match draw.randrange(9):
        case 0:
            path.write_bytes(b"")
        case 1:
            path.mkdir()
        case 2:
            path.symlink_to(path.with_name("nowhere"))
        case 3:
            path.symlink_to(path.name)
        case 4:
            path.write_bytes(b"\xef\xbb\xbf" + data)
        case 5:
            path.write_bytes(data.decode("latin-1").encode("utf-16"))
        case 6:
            path.write_bytes(data[: draw.randrange(len(data))])
        case 7:
            path.write_bytes(data + b"\0" * draw.choice((1, 64)))
        case _:
            path.write_bytes(b"[" * 100_000 + data)
    return False


def restore(path: Path, good: bytes) -> None:
    """The good file again, whatever lies there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink():
        path.unlink()
    path.write_bytes(good)


def twice(text: str, draw: random.Random) -> str:
    """JSON with one of its keys a second time in the same place."""
    keys = list(re.finditer(r'"(\w+)": ', text))
    if not keys:
        return text
    key = draw.choice(keys)
    return f"{text[: key.start()]}{key[0]}{json.dumps(draw.choice((None, 1, 'x')))}, {text[key.start() :]}"


def change_lines(path: Path, draw: random.Random) -> bool:
    """JSON Lines, of which one has another value, is lost, stands twice or is none."""
    if draw.random() < 0.2:
        return draw.choice((change_bytes, change_place))(path, draw)
    opened = COMPRESSED.get(path.suffix, open)
    with opened(path, "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()
    number = draw.randrange(len(lines))
    match draw.randrange(6):
        case 0:
            lines.insert(number, lines[number])
        case 1:
            del lines[number]
        case 2:
            lines[number] = draw.choice(("null", "[]", "3", "{}", '"x"', "{", "\t", "\\ud800"))
        case 3:
            lines[number] = twice(lines[number], draw)
        case _:
            lines[number] = json.dumps(change_state(json.loads(lines[number]), draw)[0])
    with opened(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return False


def change_packed(path: Path, draw: random.Random) -> bool:
    """Compressed JSON: of its values mostly."""
    if draw.random() < 0.2:
        return draw.choice((change_bytes, change_place))(path, draw)
    with lzma.open(path, "rt", encoding="utf-8") as file:
        state = json.loads(file.read())
    with lzma.open(path, "wt", encoding="utf-8") as file:
        file.write(json.dumps(change_state(state, draw)[0]))
    return False


WORDS = (
    *("", "=", ",", "x", "-1", "0", "nan", "inf", "1e999", "9" * 5_000, "None", "True", "[]", "{}", "{", '"', "\ud800"),
    *("a\0b", "../..", "/", "auto", "int8", "float32", "\u0663", "=4", "x=y", "rate", "pretrained", "2020-99-99"),
)


def change_words(path: Path, draw: random.Random) -> bool:
    """`key=value,key=value`, of which a key or value is another, twice, cut or foreign; or JSON."""
    pairs = [pair.partition("=")[::2] for pair in path.read_text("utf-8").split(",")]
    number = draw.randrange(len(pairs))
    key, value = pairs[number]
    match draw.randrange(6):
        case 0:
            pairs.append((key, draw.choice(WORDS)))
        case 1:
            pairs[number] = (draw.choice(WORDS), value)
        case 2:
            pairs[number] = (key[:-1] + draw.choice("xyz"), value)
        case 3:
            state, _ = change_state(dict(pairs), draw)
            path.write_text(json.dumps(state), "utf-8")
            return False
        case _:
            pairs[number] = (key, draw.choice(WORDS))
    text = ",".join(f"{key}={value}" for key, value in pairs)
    path.write_text(text, "utf-8", errors="surrogatepass")
    return False


def change_state(state: Any, draw: random.Random) -> tuple[Any, bool]:
    """Exchange, drop or add a value somewhere in plain data; and whether an unknown key now stands at the top."""
    state = copy.deepcopy(state)
    places = list(_places(state))
    if not places or draw.random() < 0.05:
        return draw.choice(HOSTILE), False
    holder, key = draw.choice(places)
    value = holder[key]
    match draw.randrange(9):
        case 6:
            holder[key] = draw.choice((str(value), [value], {"x": value}, [value] * 2, bool(value), json.dumps(value)))
        case 7 if isinstance(holder, dict):
            holder[draw.choice(("", "\ud800", str(key).upper(), f"{key} "))] = holder.pop(key)
        case 8:
            for _ in range(draw.choice((30, 400))):
                value = [value]
            holder[key] = value
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
        return draw.choice((change_bytes, change_place))(path, draw)
    if draw.random() < 0.1:
        path.write_text(twice(path.read_text("utf-8"), draw), "utf-8")
        return False
    state, unknown = change_state(json.loads(path.read_text("utf-8")), draw)
    path.write_text(json.dumps(state), "utf-8")
    return unknown


def change_yaml(path: Path, draw: random.Random) -> bool:
    """As `change_json`."""
    if draw.random() < 0.25:
        return draw.choice((change_bytes, change_place))(path, draw)
    state, unknown = change_state(yaml.safe_load(path.read_text("utf-8")), draw)
    try:
        text = yaml.safe_dump(state, allow_unicode=True, sort_keys=False)
    except RecursionError:
        text = json.dumps(state)  # is YAML too
    path.write_text(text, "utf-8", errors="surrogatepass")
    return unknown


def change_tensors(path: Path, draw: random.Random) -> bool:
    """A tensor with NaN or infinity, of another dtype or shape, lost or renamed; bytes now and then."""
    if draw.random() < 0.4:
        return draw.choice((change_bytes, change_bytes, change_place))(path, draw)
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
            (made,) = compressed(PccCompressor.load(str(root / folder), decoder, **options), [TEXTS[0]], [""])
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
        init.open_decoder(str(root / "llama"))

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
    shipped_results = Path(pcc_bench.__file__).parent / "lab" / "results" / "lab-table2"
    results = sorted(shipped_results.glob("PCC-4x*/**/results_*.json"))
    if results:
        made += _kinds_of_results(results[0].parent, root)
    return [*made, *_kinds_of_settings(root)]


def _kinds_of_results(source: Path, root: Path) -> list[Kind]:
    """Results as gate, baseline and report read them: the file, its samples, a frozen baseline."""
    folder, baseline = root / "results", root / f"baseline{SUFFIX}"
    shutil.copytree(source, folder, symlinks=False)
    good = load_results(folder)
    baseline.write_bytes(freeze(good))
    (file,), (samples,) = folder.glob("results_*.json"), sorted(folder.glob("samples_*"))[:1]
    whole = len(_lines(samples))

    def read() -> None:
        judged = load_results(folder)
        compare(judged, load_results(baseline), Policy())
        if len(lines := _lines(samples)) > len(set(lines)) and len(lines) > whole:
            raise SilentPassError("a row twice")

    return [
        Kind("results", file, change_json, read),
        Kind("results: report", file, change_json, lambda: _none(report.write([folder], root / "report"))),
        Kind("samples", samples, change_lines, read),
        Kind("baseline", baseline, change_packed, read),
    ]


def _lines(path: Path) -> list[str]:
    with COMPRESSED.get(path.suffix, open)(path, "rt", encoding="utf-8") as file:
        return list(file)


def _kinds_of_settings(root: Path) -> list[Kind]:
    """Rows of data and what a user writes on the command line."""
    rows, texts = root / "data/squad/validation.jsonl", root / "words"
    rows.parent.mkdir(parents=True)
    texts.mkdir()
    rows.write_bytes((sample_folder() / "squad/validation.jsonl").read_bytes())
    tasks = pcc_bench.tasks.__path__[0]

    def read_rows() -> None:
        metadata = {"data": str(root / "data"), "population": "all"}
        TaskManager(include_path=tasks, include_defaults=False, metadata=metadata).load(["pcc_squad"])

    def read_metadata() -> None:
        settings = parse_metadata(_text(texts / "metadata"))
        check_settings(settings)
        TaskManager(include_path=tasks, include_defaults=False, metadata=settings).load(["pcc_squad"])

    def read_arguments() -> None:
        seen = validate("pcc", _text(texts / "model_args"), "")
        if not seen.holds:
            raise UsageError(next(check.says for check in seen.checks if not check.holds))

    words = {
        "model_args": f"pretrained={root / 'pcc'},rate=4,dtype=float32,max_length=512,memory_gb=1,reuse_prefix=True",
        "metadata": "data=lab,lab_rows=20,protocol=strict,population=all,prompt=short",
        "gen_kwargs": "max_gen_toks=4,do_sample=True,temperature=0.5,top_p=0.9,repetition_penalty=1.2,until=x",
    }
    for name, text in words.items():
        (texts / name).write_text(text, "utf-8")
    return [
        Kind("data rows", rows, change_lines, read_rows),
        Kind("option string: model_args", texts / "model_args", change_words, read_arguments),
        Kind("option string: metadata", texts / "metadata", change_words, read_metadata),
        Kind(
            "option string: gen_kwargs",
            texts / "gen_kwargs",
            change_words,
            lambda: _none(typed(parse_arguments(_text(texts / "gen_kwargs")), "gen_kwargs")),
        ),
    ]


def _text(path: Path) -> str:
    return path.read_text("utf-8", errors="surrogatepass")


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
            if kind.path.is_file() and not kind.path.is_symlink() and kind.path.read_bytes() == good:
                continue
            outcome.tries += 1
            start = time.process_time()
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
            if time.process_time() - start > SLOW_SECONDS:
                outcome.slow.append(f"try {number}: {time.process_time() - start:.0f} s")
        finally:
            restore(kind.path, good)
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
