"""Runs the cells of a suite that are missing, one after the other."""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import BaseModel

from pcc_bench import documents
from pcc_bench.claims import claimed, is_claim
from pcc_bench.errors import UsageError
from pcc_bench.suite import cell as process
from pcc_bench.suite.spec import Cell, Suite

MARK = "suite.json"
Say = Callable[[str], None]


class Mark(BaseModel):
    """Whose results a folder holds."""

    suite: str


def run(suite: Suite, out: Path, cells: Sequence[Cell], say: Say) -> dict[str, str]:
    """Run cells; those that are done are left alone.

    Args:
        suite: The suite they belong to.
        out: Folder of its results.
        cells: Its cells, or some of them.
        say: Gets a line about every cell.

    Returns:
        Label -> what went wrong, of the cells that failed; the next call tries them again.

    Raises:
        UsageError: The folder holds something else.
    """
    with claimed(out):
        claim(suite, out)
        return _run_all(cells, say)


def _run_all(cells: Sequence[Cell], say: Say) -> dict[str, str]:
    context = _context()
    failed: dict[str, str] = {}
    for number, cell in enumerate(cells, 1):
        name = f"[{number}/{len(cells)}] {cell.label} ({cell.command.tasks})"
        if process.results(cell.command):
            say(f"{name}: done before")
            continue
        say(f"{name}: running, log in {cell.folder / process.LOG}")
        start = time.perf_counter()
        wrong = _run(context, cell)
        seconds = time.perf_counter() - start
        say(f"{name}: failed after {seconds:.0f} s: {wrong}" if wrong else f"{name}: done in {seconds:.0f} s")
        if wrong:
            failed[cell.label] = wrong
    return failed


def choose(cells: Sequence[Cell], pattern: str | None) -> list[Cell]:
    """The cells whose label, or one of whose tasks, matches a pattern (`*` stands for anything).

    Raises:
        UsageError: None does.
    """
    if pattern is None:
        return list(cells)
    chosen = [
        cell
        for cell in cells
        if any(fnmatchcase(name, pattern) for name in (cell.label, *cell.command.tasks.split(",")))
    ]
    if not chosen:
        labels = ", ".join(cell.label for cell in cells)
        raise UsageError(f"--only {pattern} matches no cell: the suite has {labels}")
    return chosen


def claim(suite: Suite, out: Path) -> None:
    """Mark a folder as this suite's.

    Raises:
        UsageError: It is another suite's, or holds files that no suite wrote, or can't be written.
    """
    path = out / MARK
    if path.is_file():
        owner = documents.checked(Mark, documents.read_json(path), str(path)).suite
        if owner != suite.name:
            raise UsageError(f"{out} holds results of the suite {owner}, not of {suite.name}: choose another --output")
    elif out.is_dir() and not all(map(is_claim, out.iterdir())):
        raise UsageError(f"{out} is not empty and no suite wrote it: choose another --output")
    documents.write_text(path, json.dumps({"suite": suite.name}) + "\n")


def _context() -> multiprocessing.context.BaseContext:
    """Cells are forked from a process that has imported everything and done nothing, where the system can."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(process.PRELOAD))
    return context


def _run(context: multiprocessing.context.BaseContext, cell: Cell) -> str:
    """Run a cell; "" or what went wrong."""
    receives, sends = context.Pipe(duplex=False)
    child = context.Process(target=process.work, args=(cell.command, sends))  # type: ignore[attr-defined]
    child.start()
    sends.close()  # so that the end of the child is the end of the pipe
    try:
        wrong = str(receives.recv())
    except EOFError:
        wrong = ""
    child.join()
    if not wrong and child.exitcode:
        code = child.exitcode
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
        return f"its process ended with {how} (see the log)"
    return wrong or ("" if process.results(cell.command) else "it ended without results (see the log)")
