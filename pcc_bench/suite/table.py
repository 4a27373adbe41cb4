"""The table of a suite: a line a cell and a column a task and metric, or turned where that is too wide to read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pcc_bench.reports.metrics import NAMES, PERCENT
from pcc_bench.reports.summary import Result, Table, read

WIDEST = 14  # scores of a table that has a column for each; with more it has a line for each
USUAL = ("f1", "exact_match", "acc_calibrated", "acc", "perplexity", "ranking_acc", "bleu", "rougeL", "recall")


def table(lines: Sequence[tuple[str, Path | None]], metrics: Sequence[str] = ()) -> Table:
    """The table of cells.

    Args:
        lines: Label of each cell and its result file; None where it is missing.
        metrics: What to show; by default what is usual.

    Returns:
        Scores, and in `achieved` source tokens per position of memory, the ratio of sums over all tasks of a cell.
    """
    read_lines = [(label, read(path) if path else []) for label, path in lines]
    scores = [_scores(results, metrics or USUAL) for _, results in read_lines]
    columns = list(dict.fromkeys(column for found in scores for column in found))
    rows = [
        (label, _achieved(results), *(found.get(column, "") for column in columns))
        for (label, results), found in zip(read_lines, scores, strict=True)
    ]
    made = Table(("method", "achieved", *columns), tuple(rows), _notes(read_lines)).without_empty_columns()
    return made if len(columns) <= WIDEST else _turned(made)


def _turned(made: Table) -> Table:
    """The table with a line for each score and a column for each cell."""
    methods, *scores = zip(made.columns, *made.rows, strict=True)
    return Table(("", *methods[1:]), tuple(scores), made.notes)


def _scores(results: Sequence[Result], metrics: Sequence[str]) -> dict[str, str]:
    """Column -> score, tasks first and then the averages of their groups."""
    found: dict[str, str] = {}
    groups: dict[str, Mapping[str, Any]] = {}
    for result in results:
        found |= _named(result.task, result.scores, metrics)
        groups |= result.data.get("groups", {})
    for group, values in groups.items():
        found |= _named(f"{group} mean", {key.partition(",")[0]: value for key, value in values.items()}, metrics)
    return found


def _named(task: str, values: Mapping[str, Any], metrics: Sequence[str]) -> dict[str, str]:
    found = {}
    for metric in metrics:
        value = values.get(metric)
        if not isinstance(value, int | float):
            continue
        heading = f"{task.removeprefix('pcc_')} {NAMES.get(metric, metric)}"
        found[heading] = f"{100 * value:.1f}" if metric in PERCENT else f"{value:.4g}"
    return found


def _achieved(results: Sequence[Result]) -> str:
    samples = [sample for result in results for sample in result.samples]
    positions = sum(sample["slots"] + sample["boundary"] for sample in samples)
    ratio = sum(sample["source_tokens"] for sample in samples) / positions if positions else math.nan
    return f"{ratio:.2f}x" if math.isfinite(ratio) else ""


def _notes(lines: Sequence[tuple[str, Sequence[Result]]]) -> tuple[str, ...]:
    """How many rows each task asked, and which cells asked others."""
    asked: dict[str, dict[tuple[Any, ...], list[str]]] = {}
    for label, results in lines:
        for result in results:
            n = result.scores.get("sample_len", 0)
            kind = (n, result.skipped, *(str(value) for value in result.asked.values()))
            asked.setdefault(result.task, {}).setdefault(kind, []).append(label)
    notes = []
    for task, kinds in asked.items():
        says = [f"{kind[0]} rows" + (f" ({kind[1]} skipped)" if kind[1] else "") for kind in kinds]
        if len(kinds) == 1:
            notes.append(f"{task}: {says[0]}.")
        else:
            who = "; ".join(
                f"{said} for {', '.join(labels)}" for said, labels in zip(says, kinds.values(), strict=True)
            )
            notes.append(f"{task}: NOT the same rows in all lines, do not compare them: {who}.")
    return tuple(notes)
