"""What runs the cells of a suite, each in a process that is its alone: this machine, Ray, or SLURM through submitit."""

import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from platform import node
from typing import Any, NamedTuple, Protocol, Self

from pydantic import BaseModel

from pcc_bench.core import documents, provenance
from pcc_bench.core.claims import claimed
from pcc_bench.core.errors import UsageError, first_line, foreign
from pcc_bench.host import evaluate
from pcc_bench.host.evaluate import Command
from pcc_bench.suite.spec import Cell, Executor, Terms

FOLDER = ".submitit"  # of job scripts, pickles and the scheduler's logs, in the suite's folder
MINUTES = 24 * 60  # of a cell, where the user states no limit; submitit's own would be two to five
QUEUE = 10_000  # cells that Ray or SLURM is given at a time: they queue them themselves
# What every cell needs is imported once, in the process that cells are forked from.
PRELOAD = ("pcc_bench.suite.engines", "pcc_bench.host.lm", "pcc_bench.tasks.task", "lm_eval._cli", "lm_eval.evaluator")
DONE, LOG = "done.json", "log.txt"
# Variables that change what a cell does, and that another machine's shell may lack.
VARIABLES = ("PCC_", "HF_", "TRANSFORMERS_", "TOKENIZERS_", "OMP_", "MKL_")


class Done(BaseModel):
    """The mark of a cell that ended: what was run, and its results, relative to the cell's folder."""

    identity: dict[str, Any]
    results: str


class Outcome(NamedTuple):
    error: str = ""  # one sentence; "" where the cell is done
    final: bool = False  # another attempt would end in the same way


class Order(NamedTuple):
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

    Another process that is running it is waited for: two attempts, from whichever machines, make its results once.
    """
    os.environ.update(order.environment)
    try:
        command = order.command
        here, remedy = node(), "start the suite in a folder that all machines share"
        with foreign(f"{here} can't enter the working folder {order.folder}", remedy):
            os.chdir(order.folder)
        if not documents.is_folder(output := command.output.absolute()):
            raise UsageError(f"{here} does not see {output}: choose an --output that all machines share")
        if provenance.code() != order.code:
            raise UsageError(f"{here} has another version of pcc-bench than {order.folder}'s machine: install the same")
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


class Engine(Protocol):
    """Runs cells. A job is an attempt at a cell, in whatever form the engine has for it."""

    at_once: int  # most cells that it should be given at a time
    retries: int  # how often a cell is tried again that failed for no fault in the suite (a lost machine)

    def submit(self, cell: Cell) -> Any:
        """Begin a job. Raises UsageError: the engine takes no such cell."""

    def outcome(self, job: Any) -> Outcome | None:
        """How it ended; None while it runs or waits for a machine."""

    def cancel(self, job: Any) -> None:
        """End it, whatever it does."""


def open_engine(executor: Executor, out: Path, terms: Terms) -> Engine:
    """An engine that is ready to take cells; what it writes goes below `out`.

    Raises UsageError: it is not installed, takes no such option, or has no machine with so many GPUs and cores.
    """
    options = {}
    for key, equals, value in (option.partition("=") for option in terms.options):
        if not (key and equals and value):
            raise UsageError(f"--executor-option {key}{equals}{value} is no KEY=VALUE, e.g. address=auto")
        options[key] = value
    if executor == "local" and (terms.gpus or options):
        raise UsageError(
            "the local executor gives a cell every GPU of this machine and takes no options: leave --gpus-per-cell "
            "and --executor-option out (--device chooses a GPU), or use --executor ray"
        )
    engine: Engine = (
        Local() if executor == "local" else Ray(terms, options) if executor == "ray" else Submitit(out, terms, options)
    )
    engine.retries = engine.retries if terms.retries is None else terms.retries
    engine.at_once = engine.at_once if terms.at_once is None else terms.at_once
    return engine


class Local:
    """This machine: a cell has a process of its own, and whatever it leaves in memory goes with it."""

    at_once, retries = 1, 0

    def __init__(self) -> None:
        self._context: Any = context()

    def submit(self, cell: Cell) -> tuple[Any, Connection]:
        end, sends = self._context.Pipe(duplex=False)
        process = self._context.Process(target=work, args=(Order.of(cell.command), sends))
        process.start()
        sends.close()  # so that the end of the process is the end of the pipe
        return process, end

    def outcome(self, job: tuple[Any, Connection]) -> Outcome | None:
        process, end = job
        if not end.poll():
            return None
        try:
            outcome: Outcome = end.recv()
        except EOFError:
            process.join()
            code = process.exitcode
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
            return Outcome(f"its process ended with {how} (see the log)")
        process.join()
        return outcome

    def cancel(self, job: tuple[Any, Connection]) -> None:
        job[0].kill()
        job[0].join()


def context() -> multiprocessing.context.BaseContext:
    """Cells are forked from a process that has imported everything and done nothing, where the system can."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload(list(PRELOAD))
    return forkserver


def work(order: Order, end: Connection) -> None:
    """What the process of a cell does; `end` gets the outcome."""

    def end_with_parent() -> None:  # a cell whose suite was killed would go on unseen
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    end.send(perform(order))
    sys.stdout.flush()


class Ray:
    """A running cluster (option `address`, `RAY_ADDRESS`, or one on this machine), else one of this machine alone."""

    at_once, retries = QUEUE, 2

    def __init__(self, terms: Terms, options: dict[str, str]) -> None:
        try:
            import ray
        except ImportError:
            raise UsageError("--executor ray needs Ray: pip install 'pcc-bench[ray]'") from None
        if unknown := sorted(options.keys() - {"address"}):
            raise UsageError(f"--executor-option {unknown[0]}: with ray there is only address=HOST:PORT")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a benchmark reports to nobody
        with foreign("there is no Ray cluster to work with", "see 'ray status'"):
            ray.init(options.get("address"), log_to_driver=False, logging_level=logging.WARNING)
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

    def submit(self, cell: Cell) -> Any:
        return self._task.remote(Order.of(cell.command))

    def outcome(self, job: Any) -> Outcome | None:
        if not self._ray.wait([job], timeout=0)[0]:
            return None
        try:
            outcome: Outcome = self._ray.get(job)
        except Exception as error:  # of Ray: `perform` has no exceptions
            return Outcome(f"Ray lost its worker ({type(error).__name__}: {first_line(error)})")
        return outcome

    def cancel(self, job: Any) -> None:
        self._ray.cancel(job, force=True)


class Submitit:
    """SLURM where there is one, else this machine (option `cluster`); other options are submitit's."""

    retries = 2

    def __init__(self, out: Path, terms: Terms, options: dict[str, str]) -> None:
        try:
            from submitit import AutoExecutor
        except ImportError:
            raise UsageError("--executor submitit needs submitit: pip install 'pcc-bench[submitit]'") from None
        if terms.gpus != int(terms.gpus):
            raise UsageError(f"--gpus-per-cell {terms.gpus:g}: SLURM gives whole GPUs; fractions are Ray's")
        given = {key: documents.parse_yaml(value, f"--executor-option {key}") for key, value in options.items()}
        cluster = given.pop("cluster", None)
        if cluster not in (None, "local", "slurm"):
            raise UsageError(f"--executor-option cluster={cluster}: it is local or slurm")
        try:
            with documents.writing(out):
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

    def submit(self, cell: Cell) -> Any:
        with foreign(f"the scheduler refused cell '{cell.label}'"):  # no such partition, no account
            return self._executor.submit(perform, Order.of(cell.command))

    def outcome(self, job: Any) -> Outcome | None:
        if not job.done():
            return None
        if job.exception() is None:
            outcome: Outcome = job.result()
            return outcome
        return Outcome(f"job {job.job_id} was lost, state {job.state} (its scheduler's logs: {job.paths.folder})")

    def cancel(self, job: Any) -> None:
        job.cancel(check=False)
