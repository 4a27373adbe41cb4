"""What runs the cells of a suite: this machine, Ray, or SLURM through submitit."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pcc_bench.core.documents import parse_yaml, writing
from pcc_bench.core.errors import UsageError, first_line
from pcc_bench.suite.cell import PRELOAD, Order, Outcome, perform
from pcc_bench.suite.spec import Cell, Executor, Terms

if TYPE_CHECKING:
    from ray import ObjectRef


FOLDER = ".submitit"  # of job scripts, pickles and the scheduler's logs, in the suite's folder
MINUTES = 24 * 60  # of a cell, where the user states no limit; submitit's own would be two to five
QUEUE = 10_000  # cells that Ray or SLURM is given at a time: they queue them themselves


class Job(Protocol):
    """An attempt at a cell."""

    def outcome(self) -> Outcome | None:
        """How it ended; None while it runs or waits for a machine."""

    def cancel(self) -> None:
        """End it, whatever it does."""


class Engine(Protocol):
    """Runs cells."""

    at_once: int  # most cells that it should be given at a time
    retries: int  # how often a cell is tried again that failed for no fault in the suite (a lost machine)

    def submit(self, cell: Cell) -> Job:
        """Begin an attempt at a cell."""


def open_engine(executor: Executor, out: Path, terms: Terms, options: Sequence[str] = ()) -> Engine:
    """An engine that is ready to take cells; what it writes goes below `out`; options are its own, `KEY=VALUE`.

    Raises UsageError: it is not installed, takes no such option, or has no machine with so many GPUs and cores.
    """
    engine: Engine
    if executor is Executor.LOCAL:
        if terms.gpus or options:
            raise UsageError(
                "the local executor gives a cell every GPU of this machine and takes no options: leave --gpus-per-cell "
                "and --executor-option out (--device chooses a GPU), or use --executor ray"
            )
        engine = Local()
    else:
        pairs = [option.partition("=") for option in options]
        for key, equals, value in pairs:
            if not (key and equals and value):
                raise UsageError(f"--executor-option {key}{equals}{value} is no KEY=VALUE, e.g. address=auto")
        settings = {key: value for key, _, value in pairs}
        engine = Ray(terms, settings) if executor is Executor.RAY else Submitit(out, terms, settings)
    engine.retries = engine.retries if terms.retries is None else terms.retries
    engine.at_once = engine.at_once if terms.at_once is None else terms.at_once
    return engine


class Local:
    """This machine."""

    at_once = 1
    retries = 0

    def __init__(self) -> None:
        self._context = context()

    def submit(self, cell: Cell) -> LocalJob:
        """Begin a cell in a process of its own: whatever it leaves in memory goes with it."""
        return LocalJob(self._context, cell)


class LocalJob:
    """A process with a cell."""

    def __init__(self, context: multiprocessing.context.BaseContext, cell: Cell) -> None:
        self._end, sends = context.Pipe(duplex=False)
        self._process = context.Process(  # type: ignore[attr-defined]
            target=work, args=(Order.of(cell.command), sends)
        )
        self._process.start()
        sends.close()  # so that the end of the process is the end of the pipe

    def outcome(self) -> Outcome | None:
        """See `Job`."""
        if not self._end.poll():
            return None
        try:
            outcome = self._end.recv()
        except EOFError:
            outcome = None
        self._process.join()
        if isinstance(outcome, Outcome):
            return outcome
        code = self._process.exitcode
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
        return Outcome(f"its process ended with {how} (see the log)")

    def cancel(self) -> None:
        """See `Job`."""
        self._process.kill()
        self._process.join()


def context() -> multiprocessing.context.BaseContext:
    """Cells are forked from a process that has imported everything and done nothing, where the system can."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload(list(PRELOAD))
    return forkserver


def work(order: Order, end: Connection) -> None:
    """What the process of a cell does; `end` gets the outcome."""

    def end_with_parent() -> None:
        """A cell whose suite was killed ends too, or it would go on unseen."""
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    end.send(perform(order))
    sys.stdout.flush()


class Ray:
    """A running cluster (option `address`, `RAY_ADDRESS`, or one on this machine), else one of this machine alone."""

    at_once = QUEUE
    retries = 2

    def __init__(self, terms: Terms, options: Mapping[str, str]) -> None:
        try:
            import ray
        except ImportError:
            raise UsageError("--executor ray needs Ray: pip install 'pcc-bench[ray]'") from None
        if unknown := sorted(options.keys() - {"address"}):
            raise UsageError(f"--executor-option {unknown[0]}: with ray there is only address=HOST:PORT")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a benchmark reports to nobody
        try:
            ray.init(options.get("address"), log_to_driver=False, logging_level=logging.WARNING)
        except Exception as error:  # ConnectionError, RuntimeError (another Python), ValueError
            raise UsageError(f"there is no Ray cluster to work with ({first_line(error)}): see 'ray status'") from error
        self._ray: Any = ray
        machines = [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]
        if not any(m.get("GPU", 0) >= terms.gpus and m.get("CPU", 0) >= terms.cpus for m in machines):
            sizes = ", ".join(f"{m.get('GPU', 0):g} and {m.get('CPU', 0):g}" for m in machines)
            raise UsageError(  # the cell would wait for ever
                f"no machine of the Ray cluster has {terms.gpus:g} GPUs and {terms.cpus} CPU cores for a cell (they "
                f"have {sizes}): ask for less (--gpus-per-cell, --cpus-per-cell), or start a larger one"
            )
        # A worker of its own for each cell: what it leaves in memory goes with it. Attempts are counted by the runner.
        self._task = ray.remote(max_calls=1, max_retries=0, num_cpus=terms.cpus, num_gpus=terms.gpus)(perform)

    def submit(self, cell: Cell) -> RayJob:
        """Hand a cell to the cluster."""
        return RayJob(self._ray, self._task.remote(Order.of(cell.command)))


class RayJob:
    """A task of Ray."""

    def __init__(self, ray: Any, reference: ObjectRef[Outcome]) -> None:
        self._ray, self._reference = ray, reference

    def outcome(self) -> Outcome | None:
        """See `Job`."""
        ended, _ = self._ray.wait([self._reference], timeout=0)
        if not ended:
            return None
        try:
            outcome: Outcome = self._ray.get(self._reference)
        except Exception as error:  # of Ray: `perform` has no exceptions
            return Outcome(f"Ray lost its worker ({type(error).__name__}: {first_line(error)})")
        return outcome

    def cancel(self) -> None:
        """See `Job`."""
        self._ray.cancel(self._reference, force=True)


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
        """Hand a cell to the scheduler. Raises UsageError: it takes no job."""
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
        """See `Job`."""
        if not self._job.done():
            return None
        error = self._job.exception()
        if error is None:
            outcome: Outcome = self._job.result()
            return outcome
        logs = self._job.paths.folder
        return Outcome(f"the job {self._job.job_id} was lost, state {self._job.state} (its scheduler's logs: {logs})")

    def cancel(self) -> None:
        """See `Job`."""
        self._job.cancel(check=False)
