"""The commands that write, run in children of this process, and how their results are read without times."""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import yaml
from safetensors.torch import load_file

import pcc_bench
from pcc_bench import cli
from pcc_bench.core import tiny
from pcc_bench.core.documents import read_json, read_json_lines

# Imported before the fork, so that a child's time is the command's own and not that of its imports.
from pcc_bench.host import api, compressing, evaluate, lm, startup  # noqa: F401
from pcc_bench.model.training import loop  # noqa: F401
from pcc_bench.tasks.lab import rows

RESULTS = Path(pcc_bench.__file__).parent / "lab" / "results" / "lab-table2"
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d[-:]\d\d([-:]\d\d)?(\.\d+)?")  # in a report: when it was written
State = dict[str, Any]
Words = Sequence[str]


@dataclass(frozen=True)
class Verb:
    """A command and how its results are read.

    Attributes:
        name: For the table.
        words: The command for an output folder.
        read: What the folder then holds, without times.
        before: Commands that fill the folder beforehand, where old files are written over.
        refusal: Status and words of it where it can't go on; `run` goes on with the other cells and names those that
            failed.
    """

    name: str
    words: Callable[[Path], Words]
    read: Callable[[Path], State]
    before: Callable[[Path], Sequence[Words]] = lambda out: ()
    refusal: tuple[int, str] = (2, "pcc-bench: error: ")

    @property
    def replaces(self) -> bool:
        """Does it write over files?"""
        return bool(self.before(Path()))


def read_evaluation(folder: Path) -> State:
    """Answers and scores of each task's newest samples, by row."""
    state: State = {}
    for path in sorted(folder.rglob("samples_*.jsonl")):  # the newest of a task last: names hold the time
        samples = [row for _, row in read_json_lines(path)]
        task = f"{path.parent.relative_to(folder)}/{path.name.rpartition('_')[0]}"
        keys = {"filtered_resps", "doc", *samples[0]["metrics"]} - {"compression"}  # its seconds differ
        state[task] = {row["doc_id"]: {key: row[key] for key in keys} for row in samples}
    for path in sorted(folder.rglob("results_*.json")):
        state[f"{path.parent.relative_to(folder)}/scores"] = read_json(path)["results"]
    return state


def read_training(folder: Path) -> State:
    """Digest of the weights, and the losses."""
    losses = {line["step"]: line["loss"] for _, line in read_json_lines(folder / "log.jsonl")}
    return {"weights": digest(folder / "model.safetensors"), "losses": losses}


def read_memory(folder: Path, root: Path) -> State:
    """Digest of the memory's vectors, and of those the store gives back to another command."""
    again = root / "again.safetensors"
    run_to_end(compress_words(root, folder, again), again.with_suffix(".log"))
    return {"file": _vectors(folder / "memory.safetensors"), "store": _vectors(again)}


def read_files(folder: Path) -> State:
    """Digest of every file, moments left out; parts of files that a killed command left are none."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {str(path): digest(folder / path) for path in paths if not any(p.endswith(".part") for p in path.parts)}


def digest(path: Path) -> str:
    """Of a file's bytes, moments left out."""
    data = path.read_bytes()
    if path.suffix in (".html", ".md", ".svg", ".csv", ".tex", ".json"):
        data = MOMENT.sub("", data.decode("utf-8")).encode()
    if path.suffix == ".safetensors" and "seconds" in str(data[:4_000]):
        return _vectors(path)
    return hashlib.sha256(data).hexdigest()[:16]


def _vectors(path: Path) -> str:
    return hashlib.sha256(load_file(path)["memory"].contiguous().view(-1).numpy().tobytes()).hexdigest()[:16]


def compress_words(root: Path, folder: Path, output: Path) -> list[str]:
    """`compress` of a text into a folder's store and a file."""
    text = str(root / "book.txt")
    return ["compress", "pcc-lab-4x", text, "--store", str(folder / "store"), "-o", str(output), "--device", "cpu"]


def make_inputs(root: Path) -> None:
    """Write what the verbs read: texts, tiny models, a recipe, a suite, a memory."""
    texts = [row["context"] for row in rows("squad", "test", 40)]
    (root / "book.txt").write_text("\n".join(texts[:20]), "utf-8")
    (root / "train.txt").write_text("\n\n".join(texts * 3), "utf-8")
    (root / "old.md").write_text("<!-- report:table2 -->\n<!-- /report -->\n", "utf-8")
    if not (root / "encoder").exists():
        for name, family in (("decoder", "llama"), ("encoder", "gpt2")):
            tokenizer = tiny.make_tokenizer(texts, 400, adds_bos=family == "llama")
            tiny.make_model(family, tokenizer, root / name, window=512)
    recipe = {
        "name": "faults",
        **{"encoder": str(root / "encoder"), "decoder": str(root / "decoder")},
        "data": {"path": str(root / "train.txt"), "held_out_rows": 4},
        "objective": {"completion_tokens": 8},
        "phases": [{"segment_length": 16, "rate": 4}],
        "optimisation": {"learning_rate": 1e-3, "batch_size": 4, "micro_batch_size": 2, "steps": 40},
        "checks": {"evaluate_every": 20, "save_every": 5, "generated_rows": 2},
    }
    (root / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), "utf-8")
    cells = (("PCC", "pcc", "pcc-lab-4x"), ("text", "full-context", "lab-llama"))
    suite = {
        "name": "faults",
        "purpose": "Two cells.",
        "metrics": ["f1"],
        "defaults": {"batch_size": 4, "limit": 12, "metadata": {"data": "lab", "lab_rows": 40}},
        "cells": [
            {"label": label, "method": method, "tasks": ["pcc_squad"], "model_args": {"pretrained": name}}
            for label, method, name in cells
        ],
    }
    (root / "suite.yaml").write_text(yaml.safe_dump(suite, sort_keys=False), "utf-8")
    memory = ["compress", "pcc-lab-4x", "--text", texts[0], "-o", str(root / "memory.safetensors"), "--device", "cpu"]
    run_to_end(memory, root / "memory.log")


def verbs(root: Path) -> list[Verb]:
    """The verbs that take long, and those that write over files at once; they read what lies under `root`."""
    first, second = (str(next(RESULTS.glob(f"{name}*"))) for name in ("PCC-4x", "full-context"))
    asked = ["--tasks", "pcc_squad", "--data", "lab", "--limit", "24", "--batch-size", "4", "--device", "cpu"]
    return [
        Verb("eval", lambda out: ["eval", "--model", "pcc", *asked, "-o", str(out)], read_evaluation),
        Verb(
            "run",
            lambda out: ["run", str(root / "suite.yaml"), "-o", str(out), "--device", "cpu"],
            read_evaluation,
            refusal=(1, "failed, tried again by the next call"),
        ),
        Verb("train", lambda out: ["train", str(root / "recipe.yaml"), "-o", str(out)], read_training),
        Verb(
            "compress --store",
            lambda out: compress_words(root, out, out / "memory.safetensors"),
            lambda out: read_memory(out, root),
        ),
        _over("freeze", lambda run, out: ["baseline", "freeze", run, "-o", f"{out}/baseline.json.xz"], first, second),
        _over("report", lambda run, out: ["report", run, second, "-o", str(out)], first, second),
    ]


def short_verbs(root: Path) -> list[Verb]:
    """The other verbs that write."""
    first, second = (str(next(RESULTS.glob(f"{name}*"))) for name in ("PCC-4x", "full-context"))
    models = ["--encoder", f"{root}/encoder", "--decoder", f"{root}/decoder", "--rate", "4", "--force"]

    def gate(run: str, out: Path) -> Words:
        files = ("--json", f"{out}/g.json", "--junit", f"{out}/g.xml", "--markdown", f"{out}/g.md")
        return ["gate", run, "--against", run, *files]

    def convert(to: str, out: Path) -> Words:
        return ["convert", "pcc-lab-4x", "--decoder", "lab-llama", "--to", to, "-o", str(out), "--force"]

    def prompt(question: str, out: Path) -> Words:
        asked = ["--question", question, "--device", "cpu", "-o", f"{out}/prompt.json"]
        return ["prompt", f"{root}/memory.safetensors", *asked]

    return [
        _over("gate", gate, first, second),
        _over("pack", lambda run, out: ["pack", run, "-o", f"{out}/packed"], first, first),
        _over("init", lambda seed, out: ["init", *models, "--seed", seed, "-o", str(out)], "1", "2"),
        _over("convert --to own", lambda _, out: convert("own", out), "", ""),
        _over("convert --to published", lambda _, out: convert("published", out), "", ""),
        _over("prompt", prompt, "Who?", "Where is it, and why?"),
    ]


def _over(name: str, words: Callable[[str, Path], Words], new: str, old: str) -> Verb:
    """A verb that writes, with one argument, over what it wrote with another."""
    return Verb(name, lambda out: words(new, out), read_files, lambda out: (words(old, out),))


def start(words: Words, log: Path, prepare: Callable[[], object] = lambda: None) -> int:
    """Run `pcc-bench WORDS` in a child, after `prepare` there; its process id.

    Its errors go into `log`, what it prints into a file beside it that ends in `.out`.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        for stream, place in ((1, log.with_suffix(".out")), (2, log)):
            os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", closefd=False) for stream in (1, 2))
        sys.argv = ["pcc-bench", *words]
        torch.set_num_threads(torch.get_num_threads())  # else several threads at once renew torch's pool, and one fails
        prepare()
        cli.main()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def run_to_end(words: Words, log: Path) -> float:
    """Run it to its end; the seconds it took.

    Raises:
        RuntimeError: Its status is not 0.
    """
    begin = time.perf_counter()
    _, status = os.waitpid(start(words, log), 0)
    if status:
        raise RuntimeError(f"status {os.waitstatus_to_exitcode(status)}: {log.read_text('utf-8', 'replace')[-400:]}")
    return time.perf_counter() - begin


def fill(folder: Path, verb: Verb, old: Path) -> Path:
    """An empty output folder, or one with the old files, which are written to `old` once."""
    if not old.exists():
        old.mkdir(parents=True)
        for words in verb.before(old):
            run_to_end(words, old.with_suffix(".log"))
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(old, folder)
    return folder


def torn(verb: Verb, folder: Path, old: State, whole: State) -> list[str]:
    """Files that are neither the old nor the new one, or lost, where a verb writes over files."""
    if not verb.replaces:
        return []
    state = verb.read(folder)
    odd = [name for name, content in state.items() if content not in (old.get(name), whole.get(name))]
    return [*odd, *(name for name in old if name not in state and name in whole)]


def compared(verb: Verb, folder: Path, whole: State, log: Path) -> str:
    """Run a verb (again), and say in what it differs from the uninterrupted one; "" for nothing."""
    try:
        run_to_end(verb.words(folder), log)
        state = verb.read(folder)
    except Exception as error:
        return f"the same command again: {error}"
    differing = [key for key in {*state, *whole} if state.get(key) != whole.get(key)]
    return f"not the uninterrupted result: {differing}" if differing else ""


def prepared(
    description: str | None, trials: int, output: str, arguments: Sequence[str] | None
) -> tuple[argparse.Namespace, Path]:
    """The command line of a script that tries each verb several times, and its folder with the verbs' inputs."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=trials, help="of each verb")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="verbs whose names hold this")
    parser.add_argument("--output", type=Path, default=Path(output))
    options = parser.parse_args(arguments)
    root = options.output.resolve()
    root.mkdir(parents=True, exist_ok=True)
    make_inputs(root)
    return options, root


def drawn(options: argparse.Namespace, verb: Verb, number: int) -> float:
    """Where a trial breaks in: from 0 to 1 of the whole."""
    return random.Random(f"{options.seed}-{verb.name}-{number}").random()
