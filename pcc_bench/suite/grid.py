"""The table of a suite: a line a cell and a column a task and metric, or turned where that is too wide to read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pcc_bench.core.texttable import TextTable
from pcc_bench.reports import measure
from pcc_bench.reports.table import NAMES, PERCENT
from pcc_bench.reports.words import ceilings
from pcc_bench.results.reading import read_run
from pcc_bench.results.run import READER, Run

WIDEST = 14  # scores of a table that has a column for each; with more it has a line for each
USUAL = ("f1", "exact_match", "acc_calibrated", "acc", "perplexity", "ranking_acc", "bleu", "rougeL", "recall")


def table(lines: Sequence[tuple[str, Path | None]], metrics: Sequence[str] = ()) -> TextTable:
    """The table of cells by their labels and result files (None: missing).

    Returns:
        Scores, and in `achieved` source tokens per position of memory, the ratio of sums over all tasks of a cell.
    """
    runs = [(label, read_run(path) if path else None) for label, path in lines]
    scores = [_scores(run, metrics or USUAL) if run else {} for _, run in runs]
    columns = list(dict.fromkeys(column for line in scores for column in line))
    rows = []
    for (label, run), line in zip(runs, scores, strict=True):
        ratio = measure.achieved(task for task in run.tasks.values() if task.logged) if run else None
        achieved = "" if ratio is None else f"{ratio:.2f}x"
        rows.append((label, achieved, *(line.get(column, "") for column in columns)))
    notes = _notes([(label, run) for label, run in runs if run])
    lined = TextTable(("method", "achieved", *columns), tuple(rows), notes).without_empty_columns()
    if len(columns) <= WIDEST:
        return lined
    methods, *turned = zip(lined.columns, *lined.rows, strict=True)
    return TextTable(("", *methods[1:]), tuple(turned), lined.notes)


def _scores(run: Run, metrics: Sequence[str]) -> dict[str, str]:
    """Column -> score, tasks first and then the averages of their groups."""
    parts: list[tuple[str, Mapping[str, Any]]] = [(task.name, task.scores) for task in run.tasks.values()]
    for group, values in run.groups.items():
        parts.append((f"{group} mean", {key.partition(",")[0]: value for key, value in values.items()}))
    columns = {}
    for name, values in parts:
        for metric in metrics:
            value = values.get(metric)
            if isinstance(value, int | float) and math.isfinite(value):
                heading = f"{name.removeprefix('pcc_')} {NAMES.get(metric, metric)}"
                columns[heading] = f"{100 * value:.1f}" if metric in PERCENT else f"{value:.4g}"
    return columns


def _notes(runs: Sequence[tuple[str, Run]]) -> tuple[str, ...]:
    """How many rows each task asked, and which cells asked others."""
    asked: dict[str, dict[tuple[Any, ...], list[str]]] = {}
    for label, run in runs:
        for task in run.tasks.values():
            protocol = {name: str(value) for name, value in task.protocol.items() if name not in READER}
            kind = (task.scored, task.skipped, *protocol.values())
            asked.setdefault(task.name, {}).setdefault(kind, []).append(label)
    same: dict[str, list[str]] = {}
    notes = []
    for name, kinds in asked.items():
        says = [f"{kind[0]} rows" + (f" ({kind[1]} skipped)" if kind[1] else "") for kind in kinds]
        if len(kinds) == 1:
            same.setdefault(says[0], []).append(name)
        else:
            who = "; ".join(
                f"{said} for {', '.join(labels)}" for said, labels in zip(says, kinds.values(), strict=True)
            )
            notes.append(f"{name}: NOT the same rows in all lines, do not compare them: {who}.")
    equal = [f"{', '.join(names)}: {rows}." for rows, names in same.items()]
    return (*equal, *notes, *ceilings(run for _, run in runs))
