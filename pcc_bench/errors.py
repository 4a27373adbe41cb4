"""How the project tells a user that something is wrong: one sentence, no traceback."""

from __future__ import annotations

import sys
from types import TracebackType


class UsageError(ValueError):
    """A mistake the user can mend.

    The message is one sentence (or two short ones): what is wrong, where, and how to mend it.
    Command lines print it alone and exit with a non-zero status.
    """


def print_usage_errors_plainly() -> None:
    """Let an uncaught `UsageError` end the process with its sentence instead of a traceback.

    `lm_eval --model pcc` runs inside lm-eval's own command line, which shows every exception as a traceback. Only
    `UsageError` is treated; whatever hook is in place (a debugger's, a notebook's) keeps all the others.
    """
    previous = sys.excepthook
    if getattr(previous, "_pcc_bench", False):
        return

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(error, UsageError):
            sys.stderr.write(f"pcc-bench: error: {error}\n")
        else:
            previous(kind, error, traceback)

    hook._pcc_bench = True  # type: ignore[attr-defined]
    sys.excepthook = hook
