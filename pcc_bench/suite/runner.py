"""Has the missing cells of a suite run by an engine, and tries those again that were lost."""

from __future__ import annotations

import json
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import BaseModel
from tqdm import tqdm

from pcc_bench.core import documents, registry
from pcc_bench.core.claims import claimed, is_claim
from pcc_bench.core.errors import UsageError
from pcc_bench.host.command import kept_answers
from pcc_bench.suite.cell import LOG, Outcome, results
from pcc_bench.suite.engines import Engine, Job, Local
from pcc_bench.suite.spec import Cell, Suite

MARK = "suite.json"
POLL = 0.1  # seconds between two looks at what runs
LOOK = 2.0  # seconds between two looks at how far the cells are
VISIBLE = 90  # seconds until files of another machine must be seen here; NFS keeps what it knows of a folder for 60
Say = Callable[[str], None]


class Mark(BaseModel):
    """Whose results a folder holds."""

    suite: str


@dataclass
class Attempt:
    """A cell in the hands of an engine."""

    cell: Cell
    name: str  # of the cell, in what is said
    number: int  # 1 for the first attempt
    job: Job
    start: float  # on the clock of `time.monotonic`

    def outcome(self) -> Outcome | None:
        """How it ended; None while it runs. A cell without results is not done, whatever its engine says."""
        outcome = self.job.outcome()
        if outcome is None or outcome.error:
            return outcome
        end = time.monotonic() + VISIBLE
        while results(self.cell.command) is None:
            if time.monotonic() > end:
                return Outcome(
                    "it ended, and its results are not here: is --output a folder that all machines share?", final=True
                )
            time.sleep(1)
        return outcome


def run(
    suite: Suite, out: Path, cells: Sequence[Cell], say: Say, open_engine: Callable[[], Engine] = Local
) -> dict[str, str]:
    """Run cells; those that are done are left alone. Returns label -> what went wrong; the next call tries these again.

    `say` gets a line about every cell; the engine is not opened where there is nothing to run. Raises UsageError: the
    folder `out` holds something else, or the engine takes no cell.
    """
    with claimed(out):
        claim(suite, out)
        return _run_all(cells, say, open_engine)


def _run_all(cells: Sequence[Cell], say: Say, open_engine: Callable[[], Engine]) -> dict[str, str]:
    failed: dict[str, str] = {}
    queue: deque[tuple[Cell, str, int]] = deque()
    for number, cell in enumerate(cells, 1):
        name = f"[{number}/{len(cells)}] {cell.label} ({cell.command.tasks})"
        if results(cell.command):
            say(f"{name}: done before")
        else:
            queue.append((cell, name, 1))
    if not queue:
        return failed
    engine = open_engine()
    running: list[Attempt] = []
    bar, looked = tqdm(desc="answers", unit="", leave=False), 0.0
    try:
        while queue or running:
            while queue and len(running) < engine.at_once:
                cell, name, number = queue.popleft()
                state = "running" if engine.at_once == 1 else "handed over"
                say(f"{name}: {state}, log in {cell.folder / LOG}")
                running.append(Attempt(cell, name, number, engine.submit(cell), time.monotonic()))
            ended = [(attempt, outcome) for attempt in running if (outcome := attempt.outcome()) is not None]
            for attempt, outcome in ended:
                running.remove(attempt)
                seconds = f"{time.monotonic() - attempt.start:.0f} s"
                if not outcome.error:
                    say(f"{attempt.name}: done in {seconds}")
                elif outcome.final or attempt.number > engine.retries:
                    say(f"{attempt.name}: failed after {seconds}: {outcome.error}")
                    failed[attempt.cell.label] = outcome.error
                else:
                    say(f"{attempt.name}: failed after {seconds}: {outcome.error}; it is tried again")
                    queue.append((attempt.cell, attempt.name, attempt.number + 1))
            if not ended:
                time.sleep(POLL)
            if time.monotonic() - looked > LOOK:
                looked = time.monotonic()
                bar.update(sum(kept_answers(cell.folder) for cell in cells) - bar.n)
    finally:  # interrupted, or the engine takes no more: nothing goes on unseen
        bar.close()
        for attempt in running:
            attempt.job.cancel()
    return failed


def choose(cells: Sequence[Cell], pattern: str | None) -> list[Cell]:
    """Cells whose label (in a suite or report) or task matches a pattern (`*`: anything). Raises UsageError: none."""
    if pattern is None:
        return list(cells)

    def plain(label: str) -> str:
        """A label as it is compared: reports write `PCC-Lite 4x` and `BM25 context`, suites `PCC 4x` and `bm25`."""
        return re.sub(r"[\s-]+", " ", re.sub(r"(?<=PCC)[\s-]Lite\b", "", label, flags=re.IGNORECASE)).casefold()

    chosen = [
        cell
        for cell in cells
        if any(fnmatchcase(plain(name), plain(pattern)) for name in (cell.label, *cell.command.tasks.split(",")))
    ]
    if not chosen:
        hint = registry.suggest(pattern, list(dict.fromkeys(cell.label for cell in cells)))
        raise UsageError(f"--only {pattern} matches no cell{hint}")
    return chosen


def claim(suite: Suite, out: Path) -> None:
    """Mark a folder as this suite's. Raises UsageError: it is another's, holds other files, or can't be written."""
    path = out / MARK
    if path.is_file():
        owner = documents.checked(Mark, documents.read_json(path), str(path)).suite
        if owner != suite.name:
            raise UsageError(f"{out} holds results of the suite {owner}, not of {suite.name}: choose another --output")
    elif out.is_dir() and not all(map(is_claim, out.iterdir())):
        raise UsageError(f"{out} is not empty and no suite wrote it: choose another --output")
    documents.write_text(path, json.dumps({"suite": suite.name}) + "\n")
