"""What a GPU says about pcc_bench: ceilings, parity, costs, questions a second, training; a table at the end.

Parts run one after another, each in a process of its own with a share of the budget; what a part leaves over goes to
those after it. One that fails, hangs or runs out of memory costs its share, and its row says why. Results are written
as they come: `rows.jsonl`, `cost_*.jsonl`, `profiles.txt`, `log.txt`, and `table.md` anew after each part. The exit
status is 0 however the parts end.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rows import LOG, PROFILES, ROWS, TABLE, Row, Setting

HERE = Path(__file__).parent
GRACE = 5.0  # seconds from SIGTERM to SIGKILL
LOG_BYTES = 4 << 20  # of the log that are kept


@dataclass(frozen=True)
class Part:
    """A program beside this file.

    Attributes:
        name: Of the part.
        path: The program.
        share: Of the budget; only ratios count.
    """

    name: str
    path: Path
    share: float


PARTS = (
    Part("device", HERE / "device.py", 1),
    Part("parity", HERE / "parity.py", 3),
    Part("cost", HERE / "costs.py", 8),
    Part("questions", HERE / "questions.py", 4),
    Part("training", HERE / "training.py", 4),
)


def main() -> None:
    """Run all parts within the budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("budget", type=float, metavar="BUDGET_SECONDS", help="for all parts together")
    parser.add_argument("--small", action="store_true", help="tiny models: to try the script where there is no GPU")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="a new folder [gpu-results]")
    arguments = parser.parse_args()
    if arguments.budget <= 0:
        parser.error("BUDGET_SECONDS is above 0")
    if (arguments.out / ROWS).exists():
        parser.error(f"--out {arguments.out} holds the results of an earlier run: give another folder")
    arguments.out.mkdir(parents=True, exist_ok=True)
    setting = Setting(arguments.out, arguments.small)
    if arguments.small:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of tiny work wait for each other on a busy machine
    run(setting, PARTS, arguments.budget)
    print("\n" + table(setting))


def run(setting: Setting, parts: Sequence[Part], budget: float) -> None:
    """All parts in order; the table is written after each."""
    end = time.monotonic() + budget
    for index, part in enumerate(parts):
        share = part.share / sum(later.share for later in parts[index:])
        setting.add(outcome(setting, part, share * (end - time.monotonic()) - GRACE))
        (setting.out / TABLE).write_text(table(setting) + "\n", encoding="utf-8")


def outcome(setting: Setting, part: Part, limit: float) -> Row:
    """Run a part in its time limit; the row says how long it took, or why it did not come to its end."""
    start = time.monotonic()
    command = [sys.executable, str(part.path), "--out", str(setting.out), *(["--small"] if setting.small else [])]
    with (setting.out / LOG).open("ab") as log:
        log.write(f"\n== {part.name}, {limit:.0f} s\n".encode())
        log.flush()
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status: int | None = process.wait(max(1.0, limit))
        except subprocess.TimeoutExpired:
            status = None
        finally:
            stop(process)
    tail = shorten(setting.out / LOG)
    reason = {None: f"stopped at its limit of {limit:.0f} s", 0: ""}.get(status)
    if reason is None:
        reason = f"killed by signal {-status}" if status and status < 0 else tail
    return Row(part.name, "whole part", time.monotonic() - start, "s", met=False if reason else None, note=reason)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a part and what it has started: asked first, so that it can write what it has."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def shorten(path: Path) -> str:
    """Keep the end of the log, and return its last line."""
    data = path.read_bytes()
    if len(data) > LOG_BYTES:
        path.write_bytes(data[-LOG_BYTES:])
    lines = data[-10_000:].decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""


def table(setting: Setting) -> str:
    """All rows in Markdown, goals beside what was reached."""
    rows = setting.rows()
    hardware = next((row.note for row in rows if row.what == "hardware"), "unknown hardware")
    lines = [
        f"{hardware}, {time.strftime('%Y-%m-%d')}{', --small: no figure means anything' if setting.small else ''}",
        "",
    ]
    lines += ["| part | what | value | goal | reached | note |", "|---|---|---|---|---|---|"]
    for row in rows:
        value = "" if row.value is None else f"{row.value:,.4g} {row.unit}".rstrip()
        reached = {True: "yes", False: "NO", None: ""}[row.met]
        note = row.note.replace("|", "/").replace("\n", " ")
        lines.append(f"| {row.part} | {row.what} | {value} | {row.goal} | {reached} | {note} |")
    if (setting.out / PROFILES).exists():
        lines += ["", f"Where the time goes: {PROFILES}"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
