"""One table of lm-eval result files: a line a method and task, scores beside what they cost."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pcc_bench.core.texttable import TextTable
from pcc_bench.reports.table import NAMES, PERCENT
from pcc_bench.reports.tables.notes import ceilings
from pcc_bench.results.files import result_files
from pcc_bench.results.reading import read_run
from pcc_bench.results.rows import COMPRESSION, Rows
from pcc_bench.results.run import Run, TaskRun, check_one_table

METRICS = {"exact_match": "EM", "f1": "F1", "contains": "contains"}
OTHERS = ("acc_calibrated", "acc", "perplexity", "ranking_acc", "bleu", "rougeL")  # the main ones of our other tasks
WIDE_ONLY = ("model", "contains", "rate", "slots only", "kept", "s/row")
LEGEND = {
    "EM": "EM, F1 and contains are percentages, each with its standard error.",
    "rate": "rate: source tokens per slot that the method was asked for.",
    "achieved": "achieved: source tokens (decoder's) per vector or token of memory, boundary vectors counted.",
    "slots only": "slots only: the same without boundary vectors. Both are ratios of sums over all rows.",
    "kept": "kept: rows of the data set that the task asks, of those read; n may be fewer (limit, skipped rows).",
    "s/row": "s/row: compression (charged to every question on a context), prefill and decoding, on this machine.",
}
SECONDS = ("compress_seconds", "prefill_seconds", "decode_seconds")


def summarise(paths: Iterable[Path], wide: bool = True) -> TextTable:
    """The table of result files.

    Args:
        paths: Files `results_*.json`, or folders that hold some at any depth.
        wide: All columns; else methods, tasks, the main scores and the achieved compression.

    Raises:
        UsageError: No result is there, a file can't be read, or two files answer different questions.
    """
    runs = [read_run(path) for path in result_files(paths)]
    entries = sorted(((run, task) for run in runs for task in run.tasks.values()), key=lambda entry: entry[1].name)
    check_one_table(entries)
    scores = (*METRICS.values(), *map(_heading, OTHERS))
    columns = ("method", "model", "task", "n", *scores, "rate", "achieved", "slots only", "kept", "s/row")
    rows = tuple(_row(run, task) for run, task in entries)
    table = TextTable(columns, rows, ceilings(runs), LEGEND).without_empty_columns()
    return table if wide else table.with_columns(column for column in table.columns if column not in WIDE_ONLY)


def _row(run: Run, task: TaskRun) -> tuple[str, ...]:
    rows = task.rows if task.logged else None
    population = task.population
    return (
        run.method + (f" ({run.control})" if run.control else ""),
        run.model,
        task.name,
        f"{task.scored}" + (f" ({task.skipped} skipped)" if task.skipped else ""),
        *(_percent(task.scores.get(name), task.errors.get(name)) for name in METRICS),
        *(_other(name, task) for name in OTHERS),
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


def _heading(metric: str) -> str:
    return NAMES.get(metric, metric)


def _other(metric: str, task: TaskRun) -> str:
    value = task.scores.get(metric)
    if metric in PERCENT:
        return _percent(value, task.errors.get(metric))
    return "" if value is None else f"{value:.4g}"


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
