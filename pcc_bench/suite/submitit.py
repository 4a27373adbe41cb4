"""Cells as jobs of submitit: SLURM's, or processes of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pcc_bench.core.documents import parse_yaml, writing
from pcc_bench.core.errors import UsageError, first_line
from pcc_bench.suite.cell import Order, Outcome, perform
from pcc_bench.suite.executor import Terms
from pcc_bench.suite.spec import Cell

FOLDER = ".submitit"  # of job scripts, pickles and the scheduler's logs, in the suite's folder
MINUTES = 24 * 60  # of a cell, where the user states no limit; submitit's own would be two to five
QUEUE = 10_000  # jobs that a scheduler is given at a time; it has a queue of its own


class Submitit:
    """SLURM where there is one, else this machine (option `cluster`); other options are submitit's."""

    retries = 2

    def __init__(self, out: Path, terms: Terms, options: Mapping[str, str]) -> None:
        try:
            from submitit import AutoExecutor
        except ImportError:
            raise UsageError("--executor submitit needs submitit: pip install 'pcc-bench[submitit]'") from None
        if terms.gpus != int(terms.gpus):
            raise UsageError(f"--gpus-per-cell {terms.gpus:g}: SLURM gives whole GPUs; fractions are Ray's")
        given: dict[str, Any] = {key: parse_yaml(value, f"--executor-option {key}") for key, value in options.items()}
        cluster = given.pop("cluster", None)
        if cluster not in (None, "local", "slurm"):
            raise UsageError(f"--executor-option cluster={cluster}: it is local or slurm")
        try:
            with writing(out):
                self._executor = AutoExecutor(folder=str((out / FOLDER).absolute()), cluster=cluster)
            settings = {"timeout_min": MINUTES, "cpus_per_task": terms.cpus, "gpus_per_node": int(terms.gpus), **given}
            self._executor.update_parameters(name="pcc-bench", **settings)
        except UsageError:
            raise
        except Exception as error:  # AssertionError, NameError, RuntimeError, ValueError: options that it does not take
            reason = " ".join(str(error).split())[:300]
            raise UsageError(f"submitit does not take --executor-option {' '.join(options)} ({reason})") from error
        # On this machine nothing queues: all jobs would start at the same moment.
        self.at_once = 1 if self._executor.cluster == "local" else QUEUE

    def submit(self, cell: Cell) -> SubmititJob:
        """Hand a cell to the scheduler.

        Raises:
            UsageError: It takes no job.
        """
        try:
            return SubmititJob(self._executor.submit(perform, Order.of(cell.command)))
        except UsageError:
            raise
        except Exception as error:  # FailedSubmissionError: no such partition, no account
            raise UsageError(f"the scheduler refused cell '{cell.label}' ({first_line(error)})") from error


class SubmititJob:
    """A job of submitit."""

    def __init__(self, job: Any) -> None:
        self._job = job

    def outcome(self) -> Outcome | None:
        """See `engine.Job`."""
        if not self._job.done():
            return None
        error = self._job.exception()
        if error is None:
            outcome: Outcome = self._job.result()
            return outcome
        logs = self._job.paths.folder
        return Outcome(f"the job {self._job.job_id} was lost, state {self._job.state} (its scheduler's logs: {logs})")

    def cancel(self) -> None:
        """See `engine.Job`."""
        self._job.cancel(check=False)
