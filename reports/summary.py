"""One table of lm-eval result files: a line a method and task, scores beside what they cost."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pcc_bench.core.texttable import TextTable
from pcc_bench.results.files import result_files
from pcc_bench.results.protocol import check_one_table
from pcc_bench.results.reading import read_run
from pcc_bench.results.rows import COMPRESSION, Rows
from pcc_bench.results.run import Run, TaskRun

METRICS = {"exact_match": "EM", "f1": "F1", "contains": "contains"}
LEGEND = {
    "EM": "EM, F1 and contains are percentages, each with its standard error.",
    "rate": "rate: source tokens per slot that the method was asked for.",
    "achieved": "achieved: source tokens (decoder's) per vector or token of memory, boundary vectors counted.",
    "slots only": "slots only: the same without boundary vectors. Both are ratios of sums over all rows.",
    "kept": "kept: rows of the data set that the task asks, of those read; n may be fewer (limit, skipped rows).",
    "s/row": "s/row: compression (charged to every question on a context), prefill and decoding, on this machine.",
}
SECONDS = ("compress_seconds", "prefill_seconds", "decode_seconds")


def summarise(paths: Iterable[Path]) -> TextTable:
    """The table of result files.

    Args:
        paths: Files `results_*.json`, or folders that hold some at any depth.

    Raises:
        UsageError: No result is there, a file can't be read, or two files answer different questions.
    """
    runs = [read_run(path) for path in result_files(paths)]
    entries = sorted(((run, task) for run in runs for task in run.tasks.values()), key=lambda entry: entry[1].name)
    check_one_table(entries)
    columns = ("method", "model", "task", "n", *METRICS.values(), "rate", "achieved", "slots only", "kept", "s/row")
    rows = tuple(_row(run, task) for run, task in entries)
    return TextTable(columns, rows, legend=LEGEND).without_empty_columns()


def _row(run: Run, task: TaskRun) -> tuple[str, ...]:
    rows = task.rows if task.logged else None
    population = task.population
    return (
        run.method + (f" ({run.control})" if run.control else ""),
        run.model,
        task.name,
        f"{task.scored}" + (f" ({task.skipped} skipped)" if task.skipped else ""),
        *(_percent(task.scores.get(name), task.errors.get(name)) for name in METRICS),
        _times(run.rate),
        _times(task.scores.get(COMPRESSION)),
        _times(_slots_only(rows) if rows is not None else None),
        f"{population.kept} of {population.rows_read}" if population.kept is not None else "",
        _seconds(rows) if rows is not None else "",
    )


def _percent(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    return f"{100 * value:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}x"


def _slots_only(rows: Rows) -> float | None:
    """The ratio of the sums: a mean of ratios would weigh short contexts as much as long ones."""
    if not {"source_tokens", "slots"} <= set(rows.account):
        return None
    source, slots = (float(np.nansum(rows.account[name])) for name in ("source_tokens", "slots"))
    return source / slots if slots else None


def _seconds(rows: Rows) -> str:
    if not set(SECONDS) <= set(rows.account):
        return ""
    total = np.sum([rows.account[name] for name in SECONDS], axis=0)
    return f"{np.nanmean(total):.3f}" if np.isfinite(total).any() else ""
