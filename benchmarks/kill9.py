"""`kill -9` at random moments of the commands that write, and what the same command makes of it when it is run again.

Six verbs: `eval`, `run`, `train`, `compress --store`, `baseline freeze`, `report`. Each runs once to its end. Then,
trial by trial, it is killed at a random moment of that time, what it left is looked at, and the same command runs
again. Wrong is

- a result that differs from the uninterrupted one: answers, scores, weights to the last bit, vectors, files;
- a file that is neither the old nor the new one, for verbs that write over files (`freeze`, `report`);
- a second run that does not end with status 0.

Trials are noted in FOLDER/trials.jsonl as they end; the same command goes on where it was stopped, by `kill -9` too.

    python benchmarks/kill9.py --trials 6 --output kill9
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import yaml
from safetensors.torch import load_file

import pcc_bench
from pcc_bench import cli
from pcc_bench.core import tiny
from pcc_bench.core.documents import read_json, read_json_lines

# Imported before the fork, so that a trial's time is the command's own and not that of its imports.
from pcc_bench.host import api, compressing, evaluate, lm, startup  # noqa: F401
from pcc_bench.model.training import loop  # noqa: F401
from pcc_bench.tasks.lab.rows import rows

RESULTS = Path(pcc_bench.__file__).parent / "lab" / "results" / "lab-table2"
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d[-:]\d\d([-:]\d\d)?(\.\d+)?")  # in a report: when it was written
State = dict[str, Any]


@dataclass(frozen=True)
class Verb:
    """A command and how its results are read.

    Attributes:
        name: For the table.
        words: The command for an output folder.
        read: What the folder then holds, without times.
        before: What lies in the folder beforehand, where old files are written over.
    """

    name: str
    words: Callable[[Path], Sequence[str]]
    read: Callable[[Path], State]
    before: Callable[[Path], Sequence[str]] | None = None


def read_evaluation(folder: Path) -> State:
    """Answers and scores of each task's newest samples, by row."""
    state: State = {}
    for path in sorted(folder.rglob("samples_*.jsonl")):  # the newest of a task last: names hold the time
        samples = [row for _, row in read_json_lines(path)]
        task = f"{path.parent.relative_to(folder)}/{path.name.rpartition('_')[0]}"
        keys = ("filtered_resps", "doc", *samples[0]["metrics"])
        drop = {"compression"}  # its seconds differ
        state[task] = {row["doc_id"]: {key: row[key] for key in keys if key not in drop} for row in samples}
    for path in sorted(folder.rglob("results_*.json")):
        state[f"{path.parent.relative_to(folder)}/scores"] = read_json(path)["results"]
    return state


def read_training(folder: Path) -> State:
    """Digest of the weights, and the losses."""
    losses = {line["step"]: line["loss"] for _, line in read_json_lines(folder / "log.jsonl")}
    return {"weights": _digest(folder / "model.safetensors"), "losses": losses}


def read_memory(folder: Path) -> State:
    """Digest of the memory's vectors, and of those the store gives back to another command."""
    state = {"file": _vectors(folder / "memory.safetensors")}
    again = folder / "again.safetensors"
    run_to_end(compress_words(folder, again), folder.with_suffix(".log"))
    return {**state, "store": _vectors(again)}


def read_files(folder: Path) -> State:
    """Digest of every file, moments left out; parts of files that a killed command left are none."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".part")]
    paths = [path for path in paths if not any(part.endswith(".part") for part in path.relative_to(folder).parts)]
    return {str(path.relative_to(folder)): _digest(path) for path in paths}


def _digest(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix in (".html", ".md", ".svg", ".csv", ".tex", ".json"):
        data = MOMENT.sub("", data.decode("utf-8")).encode()
    return hashlib.sha256(data).hexdigest()[:16]


def _vectors(path: Path) -> str:
    return hashlib.sha256(load_file(path)["memory"].contiguous().view(-1).numpy().tobytes()).hexdigest()[:16]


def compress_words(folder: Path, output: Path) -> list[str]:
    """`compress` of the text beside a folder, into the folder's store and a file."""
    text = str(folder.parent.parent / "book.txt")
    return ["compress", "pcc-lab-4x", text, "--store", str(folder / "store"), "-o", str(output), "--device", "cpu"]


def verbs(root: Path) -> list[Verb]:
    """The verbs, with what they read written under `root`."""
    texts = [row["context"] for row in rows("squad", "test", 40)]
    (root / "book.txt").write_text("\n".join(texts[:20]), "utf-8")
    (root / "train.txt").write_text("\n\n".join(texts * 3), "utf-8")
    if not (root / "encoder").exists():
        for name, family in (("decoder", "llama"), ("encoder", "gpt2")):
            tiny.make_model(
                family, tiny.make_tokenizer(texts, 400, adds_bos=family == "llama"), root / name, window=512
            )
    recipe = {
        "name": "kill9",
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
        "name": "kill9",
        "purpose": "Two cells.",
        "metrics": ["f1"],
        "defaults": {"batch_size": 4, "limit": 12, "metadata": {"data": "lab", "lab_rows": 40}},
        "cells": [
            {"label": label, "method": method, "tasks": ["pcc_squad"], "model_args": {"pretrained": name}}
            for label, method, name in cells
        ],
    }
    (root / "suite.yaml").write_text(yaml.safe_dump(suite, sort_keys=False), "utf-8")
    first, second = sorted(path for path in RESULTS.iterdir() if path.name.startswith(("PCC-4x", "full-context")))
    asked = ["--tasks", "pcc_squad", "--data", "lab", "--limit", "24", "--batch-size", "4", "--device", "cpu"]
    return [
        Verb("eval", lambda out: ["eval", "--model", "pcc", *asked, "-o", str(out)], read_evaluation),
        Verb("run", lambda out: ["run", str(root / "suite.yaml"), "-o", str(out), "--device", "cpu"], read_evaluation),
        Verb("train", lambda out: ["train", str(root / "recipe.yaml"), "-o", str(out)], read_training),
        Verb("compress --store", lambda out: compress_words(out, out / "memory.safetensors"), read_memory),
        Verb(
            "freeze",
            lambda out: ["baseline", "freeze", str(first), "-o", str(out / "baseline.json.xz")],
            read_files,
            lambda out: ["baseline", "freeze", str(second), "-o", str(out / "baseline.json.xz")],
        ),
        Verb(
            "report",
            lambda out: ["report", str(first), str(second), "-o", str(out)],
            read_files,
            lambda out: ["report", str(second), "-o", str(out)],
        ),
    ]


def start(words: Sequence[str], log: Path) -> int:
    """Run `pcc-bench WORDS` in a child; its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(target, stream)
        sys.argv = ["pcc-bench", *words]
        cli.main()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        sys.stdout.flush()
        os._exit(status)


def run_to_end(words: Sequence[str], log: Path) -> float:
    """Run it to its end; the seconds it took.

    Raises:
        RuntimeError: Its status is not 0.
    """
    begin = time.perf_counter()
    _, status = os.waitpid(start(words, log), 0)
    if status:
        raise RuntimeError(f"status {os.waitstatus_to_exitcode(status)}: {log.read_text('utf-8', 'replace')[-400:]}")
    return time.perf_counter() - begin


def kill_after(words: Sequence[str], log: Path, seconds: float) -> bool:
    """Kill it after some seconds; False where it had ended before."""
    child = start(words, log)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def fresh(folder: Path, verb: Verb) -> Path:
    """An empty output folder, or one with the old files."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if verb.before:
        run_to_end(verb.before(folder), folder.with_suffix(".log"))
    return folder


def reference(verb: Verb, place: Path) -> tuple[State, State, float]:
    """What lies there before, what an uninterrupted command makes of it, and its seconds."""
    folder = fresh(place / "whole", verb)
    old = verb.read(folder) if verb.before else {}
    seconds = run_to_end(verb.words(folder), place / "whole.log")
    return old, verb.read(folder), seconds


def trial(verb: Verb, place: Path, old: State, whole: State, seconds: float) -> tuple[bool, str]:
    """Kill, look, run again, compare: whether it was killed, and what was wrong ("" for nothing)."""
    folder = fresh(place / "killed", verb)
    killed = kill_after(verb.words(folder), place / "killed.log", seconds)
    if verb.before:
        torn = [name for name, digest in verb.read(folder).items() if digest not in (old.get(name), whole.get(name))]
        if torn or old.keys() - verb.read(folder).keys() - (old.keys() - whole.keys()):
            return killed, f"after the kill, neither old nor new: {torn}"
    try:
        run_to_end(verb.words(folder), place / "again.log")
        state = verb.read(folder)
    except Exception as error:
        return killed, f"the same command again: {error}"
    differing = [key for key in {*state, *whole} if state.get(key) != whole.get(key)]
    return killed, f"not the uninterrupted result: {differing}" if differing else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table; status 1 where something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=6, help="kills of each verb")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="verbs whose names hold this")
    parser.add_argument("--output", type=Path, default=Path("kill9"))
    given = parser.parse_args(arguments)
    root = given.output.resolve()
    root.mkdir(parents=True, exist_ok=True)
    journal = root / "trials.jsonl"
    done = [entry for _, entry in read_json_lines(journal)] if journal.exists() else []
    print(f"{'verb':18} {'seconds':>8} {'trials':>7} {'killed':>7} {'wrong':>6}", flush=True)
    wrong = 0
    for verb in verbs(root):
        if given.only not in verb.name:
            continue
        place = root / verb.name.replace(" ", "")
        old, whole, seconds = reference(verb, place)
        for number in range(given.trials):
            if any(
                (entry["verb"], entry["number"], entry["seed"]) == (verb.name, number, given.seed) for entry in done
            ):
                continue
            moment = random.Random(f"{given.seed}-{verb.name}-{number}").random() * seconds
            killed, says = trial(verb, place, old, whole, moment)
            entry = {"verb": verb.name, "number": number, "seed": given.seed, "moment": moment}
            done.append({**entry, "killed": killed, "wrong": says})
            with journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[-1]) + "\n")
        mine = [entry for entry in done if entry["verb"] == verb.name]
        broken = [entry for entry in mine if entry["wrong"]]
        wrong += len(broken)
        kills = sum(entry["killed"] for entry in mine)
        print(f"{verb.name:18} {seconds:8.1f} {len(mine):7} {kills:7} {len(broken):6}", flush=True)
        for entry in broken:
            print(f"    trial {entry['number']}, after {entry['moment']:.2f} s: {entry['wrong']}", flush=True)
    print(f"{sum(entry['killed'] for entry in done)} kills, {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
