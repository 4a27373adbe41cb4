"""One cell of a suite: run in a process that is its alone, here or on another machine, and marked when it is done."""

import json
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from platform import node
from typing import Any, Self

from pydantic import BaseModel

from pcc_bench.core import documents, provenance
from pcc_bench.core.claims import claimed
from pcc_bench.core.errors import UsageError, foreign
from pcc_bench.host import evaluate
from pcc_bench.host.evaluate import Command

# What every cell needs is imported once, in the process that cells are forked from.
PRELOAD = ("pcc_bench.suite.cell", "pcc_bench.host.lm", "pcc_bench.tasks.task", "lm_eval._cli", "lm_eval.evaluator")
DONE, LOG = "done.json", "log.txt"
# Variables that change what a cell does, and that another machine's shell may lack.
VARIABLES = ("PCC_", "HF_", "TRANSFORMERS_", "TOKENIZERS_", "OMP_", "MKL_")


class Done(BaseModel):
    """The mark of a cell that ended: what was run, and its results, relative to the cell's folder."""

    identity: dict[str, Any]
    results: str


@dataclass(frozen=True)
class Outcome:
    error: str = ""  # one sentence; "" where the cell is done
    final: bool = False  # another attempt would end in the same way


@dataclass(frozen=True)
class Order:
    """A cell on its way to a machine."""

    command: Command
    folder: Path  # the working folder, from which relative paths are meant
    environment: Mapping[str, str]  # variables of the machine that gave the order
    code: str  # what `provenance.code` says there

    @classmethod
    def of(cls, command: Command) -> Self:
        """An order from this process; makes the cell's folder, so that a machine can tell whether it sees it."""
        with documents.writing(command.output):
            command.output.mkdir(parents=True, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)}
        return cls(command, Path.cwd(), environment, provenance.code())


def perform(order: Order) -> Outcome:
    """Run a cell in this process, which is good for nothing else afterwards: what it prints goes to the cell's log.

    A cell that another process is running is waited for, and is not run again once it is done: two attempts at a cell,
    from whichever machines, make its results once.
    """
    os.environ.update(order.environment)
    try:
        command = order.command
        remedy = "start the suite in a folder that all machines share"
        with foreign(f"{node()} can't enter the working folder {order.folder}", remedy):
            os.chdir(order.folder)
        if not documents.is_folder(command.output):
            hidden = f"{node()} does not see {command.output.absolute()}"
            raise UsageError(f"{hidden}: choose an --output that all machines share")
        if provenance.code() != order.code:
            other = f"another version of pcc-bench than {order.folder}'s machine"
            raise UsageError(f"{node()} has {other}: install the same")
        with (command.output / LOG).open("a", encoding="utf-8") as log:
            for stream in (1, 2):
                os.dup2(log.fileno(), stream)
        with claimed(command.output, "cell", wait=True):
            if results(command) is None:
                write_done(command, evaluate.run(command)[-1])
        return Outcome()
    except UsageError as error:
        sys.stderr.write(f"pcc-bench: error: {error}\n")
        return Outcome(str(error), final=True)
    except Exception as error:
        traceback.print_exc()
        return Outcome(f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}")


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
