"""Cells in processes of this machine, one after the other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection

from pcc_bench.suite import cell as process
from pcc_bench.suite.cell import Order, Outcome
from pcc_bench.suite.spec import Cell


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
        """See `engine.Job`."""
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
        """See `engine.Job`."""
        self._process.kill()
        self._process.join()


def context() -> multiprocessing.context.BaseContext:
    """Cells are forked from a process that has imported everything and done nothing, where the system can."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload(list(process.PRELOAD))
    return forkserver


def work(order: Order, end: Connection) -> None:
    """What the process of a cell does; `end` gets the outcome."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    end.send(process.perform(order))
    sys.stdout.flush()


def _end_with_parent() -> None:
    """A cell whose suite was killed ends too, or it would go on unseen."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
