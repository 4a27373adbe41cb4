"""Has the missing cells of a suite run by an engine, tries those again that were lost, and tables their results."""

from __future__ import annotations

import itertools
import json
import math
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from tqdm import tqdm

from pcc_bench.core import documents, registry
from pcc_bench.core.claims import claimed, is_claim
from pcc_bench.core.errors import UsageError
from pcc_bench.core.texttable import TextTable
from pcc_bench.host.evaluate import kept_answers
from pcc_bench.reports import measure
from pcc_bench.reports.table import NAMES, PERCENT
from pcc_bench.reports.words import ceilings
from pcc_bench.results.reading import read_run
from pcc_bench.results.run import READER, Run
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
    failed: dict[str, str] = {}
    with claimed(out):
        claim(suite, out)
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


WIDEST = 14  # scores of a table that has a column for each; with more it has a line for each
USUAL = ("f1", "exact_match", "acc_calibrated", "acc", "perplexity", "ranking_acc", "bleu", "rougeL", "recall")


def table(lines: Sequence[tuple[str, Path | None]], metrics: Sequence[str] = ()) -> TextTable:
    """A line a cell (label, result file or None) and a column a task and metric, or turned where that is too wide.

    `achieved` is source tokens per position of memory, the ratio of sums over all tasks of a cell.
    """
    runs = [(label, read_run(path) if path else None) for label, path in lines]
    scores = []
    for _, run in runs:
        line: dict[str, str] = {}  # column -> score, tasks first and then the averages of their groups
        parts: list[tuple[str, Mapping[str, Any]]] = [(t.name, t.scores) for t in run.tasks.values()] if run else []
        for group, values in run.groups.items() if run else ():
            parts.append((f"{group} mean", {key.partition(",")[0]: value for key, value in values.items()}))
        for (name, values), metric in itertools.product(parts, metrics or USUAL):
            value = values.get(metric)
            if isinstance(value, int | float) and math.isfinite(value):
                heading = f"{name.removeprefix('pcc_')} {NAMES.get(metric, metric)}"
                line[heading] = f"{100 * value:.1f}" if metric in PERCENT else f"{value:.4g}"
        scores.append(line)
    columns = list(dict.fromkeys(column for line in scores for column in line))
    rows = []
    for (label, run), line in zip(runs, scores, strict=True):
        ratio = measure.achieved(task for task in run.tasks.values() if task.logged) if run else None
        achieved = "" if ratio is None else f"{ratio:.2f}x"
        rows.append((label, achieved, *(line.get(column, "") for column in columns)))
    notes = _notes([(label, run) for label, run in runs if run])
    lined = TextTable(("method", "achieved", *columns), tuple(rows), notes).without_empty_columns()
    if len(columns) <= WIDEST:
        return lined
    methods, *turned = zip(lined.columns, *lined.rows, strict=True)
    return TextTable(("", *methods[1:]), tuple(turned), lined.notes)


def _notes(runs: Sequence[tuple[str, Run]]) -> tuple[str, ...]:
    """How many rows each task asked, and which cells asked others."""
    asked: dict[str, dict[tuple[Any, ...], list[str]]] = {}
    for label, run in runs:
        for task in run.tasks.values():
            protocol = {name: str(value) for name, value in task.protocol.items() if name not in READER}
            kind = (task.scored, task.skipped, *protocol.values())
            asked.setdefault(task.name, {}).setdefault(kind, []).append(label)
    same: dict[str, list[str]] = {}
    notes = []
    for name, kinds in asked.items():
        says = [f"{kind[0]} rows" + (f" ({kind[1]} skipped)" if kind[1] else "") for kind in kinds]
        if len(kinds) == 1:
            same.setdefault(says[0], []).append(name)
        else:
            who = "; ".join(
                f"{said} for {', '.join(labels)}" for said, labels in zip(says, kinds.values(), strict=True)
            )
            notes.append(f"{name}: NOT the same rows in all lines, do not compare them: {who}.")
    equal = [f"{', '.join(names)}: {rows}." for rows, names in same.items()]
    return (*equal, *notes, *ceilings(run for _, run in runs))
