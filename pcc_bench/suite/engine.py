"""What runs the cells of a suite: this machine, Ray, or SLURM through submitit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pcc_bench.core.errors import UsageError
from pcc_bench.suite.cell import Outcome
from pcc_bench.suite.executor import Executor, Terms
from pcc_bench.suite.spec import Cell


class Job(Protocol):
    """An attempt at a cell."""

    def outcome(self) -> Outcome | None:
        """How it ended; None while it runs or waits for a machine."""

    def cancel(self) -> None:
        """End it, whatever it does."""


class Engine(Protocol):
    """Runs cells.

    Attributes:
        at_once: Most cells that it should be given at a time.
        retries: How often a cell is tried again that failed for no fault in the suite (a lost machine).
    """

    at_once: int
    retries: int

    def submit(self, cell: Cell) -> Job:
        """Begin an attempt at a cell."""


def open_engine(executor: Executor, out: Path, terms: Terms, options: Sequence[str] = ()) -> Engine:
    """An engine that is ready to take cells.

    Args:
        executor: Which.
        out: Folder of the suite's results; what an engine writes down goes below it.
        terms: How cells are run.
        options: `KEY=VALUE`, of the engine itself.

    Raises:
        UsageError: It is not installed, takes no such option, or has no machine with so many GPUs and cores.
    """
    engine = _engine(executor, out, terms, options)
    engine.retries = engine.retries if terms.retries is None else terms.retries
    engine.at_once = engine.at_once if terms.at_once is None else terms.at_once
    return engine


def _engine(executor: Executor, out: Path, terms: Terms, options: Sequence[str]) -> Engine:
    if executor is Executor.LOCAL:
        from pcc_bench.suite.local import Local

        if terms.gpus or options:
            raise UsageError(
                "the local executor gives a cell every GPU of this machine and takes no options: leave --gpus-per-cell "
                "and --executor-option out (--device chooses a GPU), or use --executor ray"
            )
        return Local()
    if executor is Executor.RAY:
        from pcc_bench.suite.ray import Ray

        return Ray(terms, _pairs(options))
    from pcc_bench.suite.submitit import Submitit

    return Submitit(out, terms, _pairs(options))


def _pairs(options: Sequence[str]) -> Mapping[str, str]:
    pairs = [option.partition("=") for option in options]
    for key, equals, value in pairs:
        if not (key and equals and value):
            raise UsageError(f"--executor-option {key}{equals}{value} is no KEY=VALUE, e.g. address=auto")
    return {key: value for key, _, value in pairs}
