"""Names of what runs the cells of a suite; apart from the engines, so that `--help` imports none."""

from enum import StrEnum


class Executor(StrEnum):
    """Engines, by what the user calls them."""

    LOCAL = "local"
    RAY = "ray"
    SUBMITIT = "submitit"
