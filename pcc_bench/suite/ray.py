"""Cells as tasks of a Ray cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pcc_bench.core.errors import UsageError, first_line
from pcc_bench.suite.cell import Order, Outcome, perform
from pcc_bench.suite.executor import Terms
from pcc_bench.suite.spec import Cell

if TYPE_CHECKING:
    from ray import ObjectRef

EVERYTHING = 10_000  # cells that Ray is given at a time: it queues them itself


class Ray:
    """A running cluster (option `address`, `RAY_ADDRESS`, or one on this machine), else one of this machine alone."""

    at_once = EVERYTHING
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
        self._check(terms)
        # A worker of its own for each cell: what it leaves in memory goes with it. Attempts are counted by the runner.
        self._task = ray.remote(max_calls=1, max_retries=0, num_cpus=terms.cpus, num_gpus=terms.gpus)(perform)

    def submit(self, cell: Cell) -> RayJob:
        """Hand a cell to the cluster."""
        return RayJob(self._ray, self._task.remote(Order.of(cell.command)))

    def _check(self, terms: Terms) -> None:
        """A task that fits no machine would wait for ever."""
        machines = [machine["Resources"] for machine in self._ray.nodes() if machine["Alive"]]
        if not any(m.get("GPU", 0) >= terms.gpus and m.get("CPU", 0) >= terms.cpus for m in machines):
            sizes = ", ".join(f"{m.get('GPU', 0):g} and {m.get('CPU', 0):g}" for m in machines)
            raise UsageError(
                f"no machine of the Ray cluster has {terms.gpus:g} GPUs and {terms.cpus} CPU cores for a cell (they "
                f"have {sizes}): ask for less (--gpus-per-cell, --cpus-per-cell), or start a larger one"
            )


class RayJob:
    """A task of Ray."""

    def __init__(self, ray: Any, reference: ObjectRef[Outcome]) -> None:
        self._ray, self._reference = ray, reference

    def outcome(self) -> Outcome | None:
        """See `engine.Job`."""
        ended, _ = self._ray.wait([self._reference], timeout=0)
        if not ended:
            return None
        try:
            outcome: Outcome = self._ray.get(self._reference)
        except Exception as error:  # of Ray: `perform` has no exceptions
            return Outcome(f"Ray lost its worker ({type(error).__name__}: {first_line(error)})")
        return outcome

    def cancel(self) -> None:
        """See `engine.Job`."""
        self._ray.cancel(self._reference, force=True)
