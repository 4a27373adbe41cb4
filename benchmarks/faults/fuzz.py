"""Files as strangers might send them: mutations of every kind of file that is read, and what becomes of them.

Each kind starts from a good file. A try changes some bytes of it, some values of its JSON or YAML (at any depth:
another type, a key less, more or twice, nesting without end), rows or tensors, its encoding, or what lies at its place
(nothing, a folder, a link into nowhere or to itself), and reads it the way a command does. Option strings are tried
alike. It must end well or with one sentence (`UsageError`). Counted are

- tracebacks: any other exception, and memory over 8 GiB that a file's numbers claim;
- silent passes: a checkpoint or memory that was taken and holds numbers that are not finite, a stored memory that is
  another than the one that was stored, a key that nobody knows and nobody refused;
- slow: tries of more than 20 s of this process's time.

    python benchmarks/faults/fuzz.py --tries 100 --seed 0
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from kinds import Kind, SilentPassError, kinds
from kinds_of_results import kinds_of_results, kinds_of_settings
from mutations import restore

from pcc_bench.core.errors import UsageError
from pcc_bench.host.compressing import quiet

SLOW_SECONDS = 20
ADDRESS_SPACE = 8 << 30  # bytes: what a file claims must not kill the process


@dataclass
class Outcome:
    """What became of the tries of a kind."""

    tries: int = 0
    refused: int = 0
    tracebacks: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> list[str]:
        """All that should not be."""
        return [*self.tracebacks, *self.silent, *self.slow]


def all_kinds(root: Path) -> list[Kind]:
    """Every kind, with good files written under `root`."""
    return [*kinds(root), *kinds_of_results(root), *kinds_of_settings(root)]


def fuzz(kind: Kind, tries: int, seed: int) -> Outcome:
    """Mutate a kind's file again and again, from the good one each time."""
    outcome = Outcome()
    good = kind.path.read_bytes()
    for number in range(tries):
        try:
            unknown = kind.mutate(kind.path, random.Random(f"{seed}-{kind.name}-{number}"))
            if kind.path.is_file() and not kind.path.is_symlink() and kind.path.read_bytes() == good:
                continue
            start = time.process_time()
            _read(kind, unknown, outcome, f"try {number}")
            if (seconds := time.process_time() - start) > SLOW_SECONDS:
                outcome.slow.append(f"try {number}: {seconds:.0f} s")
        finally:
            restore(kind.path, good)
    return outcome


def _read(kind: Kind, unknown: bool, outcome: Outcome, name: str) -> None:
    outcome.tries += 1
    try:
        kind.read()
        if unknown and kind.strict:
            raise SilentPassError("a key that nobody knows")
    except UsageError as error:
        outcome.refused += 1
        if "\n" in str(error):
            outcome.tracebacks.append(f"{name}: several lines: {error}")
    except SilentPassError as error:
        outcome.silent.append(f"{name}: {error}")
    except Exception as error:
        outcome.tracebacks.append(f"{name}: {type(error).__name__}: {error}"[:300])


def main() -> int:
    """Print a table; status 1 where something passed or broke."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=100, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds whose names hold this")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    wrong = total = 0
    with tempfile.TemporaryDirectory() as folder, quiet():
        print(f"{'kind':34} {'tries':>6} {'refused':>8} {'tracebacks':>11} {'silent':>7} {'slow':>5}")
        for kind in all_kinds(Path(folder)):
            if options.only not in kind.name:
                continue
            done = fuzz(kind, max(1, int(options.tries * kind.share)), options.seed)
            total, wrong = total + done.tries, wrong + len(done.wrong)
            counts = f"{len(done.tracebacks):11} {len(done.silent):7} {len(done.slow):5}"
            print(f"{kind.name:34} {done.tries:6} {done.refused:8} {counts}", flush=True)
            for line in done.wrong[:5]:
                print(f"    {line}", flush=True)
    print(f"{total} mutations, {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
