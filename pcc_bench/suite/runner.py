"""Has the missing cells of a suite run by an engine, tries those again that were lost, and tables their results."""

import fnmatch
import itertools
import json
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from pcc_bench.results.files import is_number
from pcc_bench.results.reading import read_run
from pcc_bench.results.run import READER, Run
from pcc_bench.suite.engines import LOG, Engine, Local, Outcome, results
from pcc_bench.suite.spec import Cell, Suite

MARK = "suite.json"
POLL = 0.1  # seconds between two looks at what runs
LOOK = 2.0  # seconds between two looks at how far the cells are
Say = Callable[[str], None]
VISIBLE = 90  # seconds until files of another machine must be seen here; NFS keeps what it knows of a folder for 60


class Mark(BaseModel):
    """Whose results a folder holds."""

    suite: str


@dataclass
class Attempt:
    """A cell that waits for an engine, or that an engine has."""

    cell: Cell
    name: str  # of the cell, in what is said
    number: int = 1  # of the attempts at the cell
    job: Any = None  # of the engine, once it has it
    start: float = 0.0  # on the clock of `time.monotonic`

    def outcome(self, engine: Engine) -> Outcome | None:
        """How it ended; None while it runs. A cell without results is not done, whatever its engine says."""
        outcome = engine.outcome(self.job)
        if outcome is None or outcome.error:
            return outcome
        end = time.monotonic() + VISIBLE
        while results(self.cell.command) is None:
            if time.monotonic() > end:
                unseen = "it ended, and its results are not here: is --output a folder that all machines share?"
                return Outcome(unseen, final=True)
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
        queue: deque[Attempt] = deque()
        for number, cell in enumerate(cells, 1):
            name = f"[{number}/{len(cells)}] {cell.label} ({cell.command.tasks})"
            if results(cell.command):
                say(f"{name}: done before")
            else:
                queue.append(Attempt(cell, name))
        if not queue:
            return failed
        engine = open_engine()
        state = "running" if engine.at_once == 1 else "handed over"
        running: list[Attempt] = []
        bar, looked = tqdm(desc="answers", unit="", leave=False), 0.0
        try:
            while queue or running:
                while queue and len(running) < engine.at_once:
                    attempt = queue.popleft()
                    say(f"{attempt.name}: {state}, log in {attempt.cell.command.output / LOG}")
                    attempt.job, attempt.start = engine.submit(attempt.cell), time.monotonic()
                    running.append(attempt)
                ended = [(attempt, outcome) for attempt in running if (outcome := attempt.outcome(engine)) is not None]
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
                        queue.append(replace(attempt, number=attempt.number + 1))
                if not ended:
                    time.sleep(POLL)
                if time.monotonic() - looked > LOOK:
                    looked = time.monotonic()
                    bar.update(sum(kept_answers(cell.command.output) for cell in cells) - bar.n)
        finally:  # interrupted, or the engine takes no more: nothing goes on unseen
            bar.close()
            for attempt in running:
                engine.cancel(attempt.job)
    return failed


def choose(cells: Sequence[Cell], pattern: str | None) -> list[Cell]:
    """Cells whose label (in a suite or report) or task matches a pattern (`*`: anything). Raises UsageError: none."""
    if pattern is None:
        return list(cells)

    def plain(label: str) -> str:
        """A label as it is compared: reports write `PCC-Lite 4x` and `BM25 context`, suites `PCC 4x` and `bm25`."""
        return re.sub(r"[\s-]+", " ", re.sub(r"(?<=PCC)[\s-]Lite\b", "", label, flags=re.IGNORECASE)).casefold()

    chosen = [c for c in cells if fnmatch.filter(map(plain, (c.label, *c.command.tasks.split(","))), plain(pattern))]
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
    """A line a cell (label, result file or None), a column a task and metric; turned where that is too wide."""
    runs = [(label, read_run(path) if path else None) for label, path in lines]
    texts: list[dict[str, str]] = []  # of each line, by column; the averages of groups stand behind the tasks
    for label, run in runs:
        texts.append({"method": label, "achieved": ""})
        if run is None:
            continue
        ratio = measure.achieved(task for task in run.tasks.values() if task.logged)
        texts[-1]["achieved"] = "" if ratio is None else f"{ratio:.2f}x"
        parts: list[tuple[str, Mapping[str, Any]]] = [(task.name, task.scores) for task in run.tasks.values()]
        for group, averages in run.groups.items():
            parts.append((f"{group} mean", {key.partition(",")[0]: value for key, value in averages.items()}))
        for (name, values), metric in itertools.product(parts, metrics or USUAL):
            value = values.get(metric)
            if is_number(value):
                heading = f"{name.removeprefix('pcc_')} {NAMES.get(metric, metric)}"
                texts[-1][heading] = f"{100 * value:.1f}" if metric in PERCENT else f"{value:.4g}"
    columns = tuple(dict.fromkeys(column for line in texts for column in line))
    rows = tuple(tuple(line.get(column, "") for column in columns) for line in texts)
    notes = _notes([(label, run) for label, run in runs if run])
    lined = TextTable(columns, rows, notes).without_empty_columns()
    if len(columns) - 2 <= WIDEST:
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
        counts = [f"{kind[0]} rows" + (f" ({kind[1]} skipped)" if kind[1] else "") for kind in kinds]
        if len(kinds) == 1:
            same.setdefault(counts[0], []).append(name)
        else:
            who = "; ".join(f"{rows} for {', '.join(of)}" for rows, of in zip(counts, kinds.values(), strict=True))
            notes.append(f"{name}: NOT the same rows in all lines, do not compare them: {who}.")
    equal = [f"{', '.join(names)}: {rows}." for rows, names in same.items()]
    return (*equal, *notes, *ceilings(run for _, run in runs))
