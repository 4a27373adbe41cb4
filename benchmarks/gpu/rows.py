"""What the parts have in common: their settings, their rows in `rows.jsonl`, and profiles.

Only the standard library stands at the top: the runner must work where a package is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROWS, PROFILES, TABLE, LOG = "rows.jsonl", "profiles.txt", "table.md", "log.txt"


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        part: The part that it comes from.
        what: What was measured.
        value: In `unit`; None where there is nothing but a note.
        unit: Of the value.
        goal: In words; "" where there is none.
        met: The goal is reached.
        note: A sentence, e.g. why there is no value.
    """

    part: str
    what: str
    value: float | None = None
    unit: str = ""
    goal: str = ""
    met: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class Setting:
    """Where results go, whether sizes are tiny, and the one case of a part that runs (None: all)."""

    out: Path
    small: bool
    only: str | None = None

    def add(self, *rows: Row) -> None:
        """Append rows; the file is replaced whole."""
        lines = [json.dumps(asdict(one)) + "\n" for one in (*self.rows(), *rows)]
        part = self.out / f".{ROWS}.{os.getpid()}.part"
        part.write_text("".join(lines), encoding="utf-8")
        part.replace(self.out / ROWS)
        for row in rows:
            value = "" if row.value is None else f"{row.value:.4g} "
            print(f"{row.part}: {row.what} {value}{row.unit} {row.note}".rstrip())

    def rows(self) -> list[Row]:
        """All rows so far."""
        path = self.out / ROWS
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [Row(**json.loads(line)) for line in lines]

    def value(self, what: str) -> float | None:
        """A value of an earlier part."""
        return next((row.value for row in self.rows() if row.what == what), None)

    def profile(self, title: str, work: Callable[[], Any]) -> None:
        """Append where a piece of work spends its time to `PROFILES`: the operators that take most of it."""
        import torch
        from torch.profiler import ProfilerActivity

        cuda = torch.cuda.is_available()
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
        with torch.profiler.profile(activities=activities) as profiler:
            work()
        order = f"self_{'device' if cuda else 'cpu'}_time_total"
        table = profiler.key_averages().table(sort_by=order, row_limit=15, max_name_column_width=70)
        with (self.out / PROFILES).open("a", encoding="utf-8") as file:
            file.write(f"{title}\n{table}\n\n")


def part(run: Callable[[Setting], None]) -> None:
    """Run a part as a program. At its time limit it gets SIGTERM, which ends it as an exception, `finally` included."""
    signal.signal(signal.SIGTERM, _stop)
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", help="one case of a part, such as the recipe smollm2 of training.py")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    run(Setting(arguments.out, arguments.small, arguments.only))


def _stop(number: int, frame: object) -> None:
    raise TimeoutError("stopped at its time limit")


def median_seconds(work: Callable[[], Any], device: Any, repeats: int) -> float:
    """Median seconds of a piece of work after two rounds that do not count."""
    import statistics

    from pcc_bench.cost.measure import Stopwatch

    watch = Stopwatch(device)
    seconds = []
    for _ in range(2 + repeats):
        watch.lap()
        work()
        seconds.append(watch.lap())
    return statistics.median(seconds[2:])
