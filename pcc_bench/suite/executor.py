"""What runs the cells of a suite, and how; apart from the engines, so that `--help` imports none."""

from dataclasses import dataclass
from enum import StrEnum


class Executor(StrEnum):
    """Engines, by what the user calls them."""

    LOCAL = "local"
    RAY = "ray"
    SUBMITIT = "submitit"


@dataclass(frozen=True)
class Terms:
    """How an engine runs cells.

    Attributes:
        gpus: Of a machine, for a cell; a fraction shares one (Ray). 0 leaves the matter to the engine.
        cpus: CPU cores for a cell.
        retries: See `Engine`; None is the engine's own default, and so it is with `at_once`.
        at_once: See `Engine`.
    """

    gpus: float = 0
    cpus: int = 1
    retries: int | None = None
    at_once: int | None = None
