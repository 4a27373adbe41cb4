"""`kill -9` at random moments of the commands that write, and what the same command makes of it when it is run again.

Six verbs: `eval`, `run`, `train`, `compress --store`, `baseline freeze`, `report`. Each runs once to its end. Then,
trial by trial, it is killed at a random moment of that time, what it left is looked at, and the same command runs
again. Wrong is

- a result that differs from the uninterrupted one: answers, scores, weights to the last bit, vectors, files;
- a file that is neither the old nor the new one, for verbs that write over files (`freeze`, `report`);
- a second run that does not end with status 0.

Trials are noted in FOLDER/trials.jsonl as they end; the same command goes on where it was stopped, by `kill -9` too.

    python benchmarks/faults/kill9.py --trials 6 --output results/kill9
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from verbs import State, Verb, Words, compared, drawn, fill, prepared, run_to_end, start, torn, verbs

from pcc_bench.core.documents import read_json_lines


def kill_after(words: Words, log: Path, seconds: float) -> bool:
    """Kill it after some seconds; False where it had ended before."""
    child = start(words, log)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def reference(verb: Verb, place: Path) -> tuple[State, State, float]:
    """What lies there before, what an uninterrupted command makes of it, and its seconds."""
    folder = fill(place / "whole", verb, place / "old")
    old = verb.read(folder) if verb.replaces else {}
    seconds = run_to_end(verb.words(folder), place / "whole.log")
    return old, verb.read(folder), seconds


def trial(verb: Verb, place: Path, old: State, whole: State, seconds: float) -> tuple[bool, str]:
    """Kill, look, run again, compare: whether it was killed, and what was wrong ("" for nothing)."""
    folder = fill(place / "killed", verb, place / "old")
    killed = kill_after(verb.words(folder), place / "killed.log", seconds)
    if names := torn(verb, folder, old, whole):
        return killed, f"after the kill, neither old nor new: {names}"
    return killed, compared(verb, folder, whole, place / "again.log")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table; status 1 where something was wrong."""
    options, root = prepared(__doc__, 6, "results/kill9", arguments)
    journal = root / "trials.jsonl"
    entries = [entry for _, entry in read_json_lines(journal)] if journal.exists() else []
    print(f"{'verb':18} {'seconds':>8} {'trials':>7} {'killed':>7} {'wrong':>6}", flush=True)
    for verb in verbs(root):
        if options.only not in verb.name:
            continue
        place = root / verb.name.replace(" ", "")
        old, whole, seconds = reference(verb, place)
        mine = [entry for entry in entries if (entry["verb"], entry["seed"]) == (verb.name, options.seed)]
        for number in sorted({*range(options.trials)} - {entry["number"] for entry in mine}):
            moment = drawn(options, verb, number) * seconds
            killed, says = trial(verb, place, old, whole, moment)
            mine.append({"verb": verb.name, "number": number, "seed": options.seed, "moment": moment})
            mine[-1] |= {"killed": killed, "wrong": says}
            entries.append(mine[-1])
            with journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps(mine[-1]) + "\n")
        kills, broken = sum(entry["killed"] for entry in mine), [entry for entry in mine if entry["wrong"]]
        print(f"{verb.name:18} {seconds:8.1f} {len(mine):7} {kills:7} {len(broken):6}", flush=True)
        for entry in broken:
            print(f"    trial {entry['number']}, after {entry['moment']:.2f} s: {entry['wrong']}", flush=True)
    wrong = sum(bool(entry["wrong"]) for entry in entries)
    print(f"{sum(entry['killed'] for entry in entries)} kills, {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
