"""How the project tells a user that something is wrong: one sentence, no traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pickle import UnpicklingError  # for its name only
from types import TracebackType

from pcc_bench.core.texttable import visible


class UsageError(ValueError):
    """A mistake the user can fix: one sentence (what, where, how to fix it), printed alone, and status 2."""


def print_usage_errors_plainly() -> None:
    """Let an uncaught `UsageError` end the process with its sentence; the hook in place keeps all other errors."""
    previous = sys.excepthook
    if getattr(previous, "_pcc_bench", False):
        return

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(error, UsageError):
            sys.stderr.write(f"pcc-bench: error: {visible(str(error))}\n")
            raise SystemExit(2)  # the interpreter takes the status of its hook's
        previous(kind, error, traceback)

    hook._pcc_bench = True  # type: ignore[attr-defined]
    sys.excepthook = hook


@contextmanager
def foreign(sentence: str, remedy: str = "") -> Iterator[None]:
    """Let whatever a library raises about a file of unknown origin be one sentence, with its first line."""
    try:
        yield
    except (UsageError, MemoryError, UnpicklingError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for its name
            raise
        raise UsageError(f"{sentence} ({first_line(error)})" + (f": {remedy}" if remedy else "")) from error


@contextmanager
def memory_errors(doing: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch's own are of the latter
        first = first_line(error)
        lack = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if not lack and not any(word in first.lower() for word in ("alloc", "overflow")):
            raise
        raise UsageError(f"out of memory while {doing} ({first[:120]}): {remedy}") from error


def first_line(error: BaseException) -> str:  # short enough to stand in a sentence of ours
    text = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return f"{type(error).__name__}: {text}" if isinstance(error, KeyError | IndexError | AttributeError) else text
