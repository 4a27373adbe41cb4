"""Whether a run of lm-eval scored anything: a table without a number looks like success."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

NOTHING_SCORED = 3  # exit status

_asked: dict[str, set[int]] = {}
_skipped: dict[str, set[int]] = {}


def clear() -> None:
    """A new model begins."""
    _asked.clear()
    _skipped.clear()


def note(asked: Mapping[str, Iterable[int]], skipped: Mapping[str, Iterable[int]]) -> None:
    """Rows of tasks that were asked, and those among them that were skipped for their length."""
    for known, rows in ((_asked, asked), (_skipped, skipped)):
        for task, numbers in rows.items():
            known.setdefault(task, set()).update(numbers)


def unscored() -> dict[str, int]:
    """Tasks of which every row was skipped, at least in part, with the number of their rows."""
    return {task: len(rows) for task, rows in _asked.items() if rows <= _skipped.get(task, set())}


def finish() -> None:
    """Say which tasks have no score.

    Raises:
        SystemExit: None has one; its status is `NOTHING_SCORED`.
    """
    empty = unscored()
    if not empty:
        return
    rows = ", ".join(f"{task} ({count})" for task, count in sorted(empty.items()))
    alone = len(empty) == len(_asked)
    sys.stderr.write(
        f"pcc-bench: {'error: nothing was scored' if alone else 'some tasks have no score'}: all rows of {rows} are "
        "longer than the decoder's window and were skipped; pass a larger max_length, a higher rate or "
        "overflow=truncate\n"
    )
    if alone:
        raise SystemExit(NOTHING_SCORED)
