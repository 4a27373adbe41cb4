"""One cell of a suite, in a process of its own: whatever it leaves in memory goes with it."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pcc_bench import documents, evaluate
from pcc_bench.errors import UsageError
from pcc_bench.evaluate import Command

# What every cell needs is imported once, in the process that cells are forked from.
PRELOAD = ("pcc_bench.suite.cell", "pcc_bench.lm", "pcc_bench.tasks.task", "lm_eval._cli", "lm_eval.evaluator")
DONE, LOG = "done.json", "log.txt"


class Done(BaseModel):
    """The mark of a cell that ended: what was run, and its results, relative to the cell's folder."""

    identity: dict[str, Any]
    results: str


def work(command: Command, outcome: Connection) -> None:
    """Run a cell; what it prints goes to its log.

    Args:
        command: The run.
        outcome: Gets "" at the end, or a sentence about what went wrong.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    command.output.mkdir(parents=True, exist_ok=True)
    with (command.output / LOG).open("a", encoding="utf-8") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    try:
        files = evaluate.run(command)
        write_done(command, files[-1])
        outcome.send("")
    except UsageError as error:
        sys.stderr.write(f"pcc-bench: error: {error}\n")
        outcome.send(str(error))
    except Exception as error:
        traceback.print_exc()
        first = (str(error).strip() or "no message").splitlines()[0]
        outcome.send(f"{type(error).__name__}: {first}")


def write_done(command: Command, results: Path) -> None:
    """Mark a cell as done, with its results; last of all, so that a cell without the mark is run again."""
    state = {"identity": command.identity, "results": str(results.relative_to(command.output))}
    documents.write_text(command.output / DONE, json.dumps(state, indent=1) + "\n")


def results(command: Command) -> Path | None:
    """The results of a cell that is done; None where it is not, or not for this command."""
    try:
        done = documents.checked(Done, documents.read_json(command.output / DONE), DONE)
    except UsageError:  # it never ended, or the mark is damaged: the cell runs again
        return None
    path = command.output / done.results
    return path if done.identity == command.identity and path.is_file() else None


def _end_with_parent() -> None:
    """A cell whose suite was killed ends too, or it would write beside the next call's."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
