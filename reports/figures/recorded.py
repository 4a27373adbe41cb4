"""Scores beside what `pcc-bench cost` recorded for the same checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pcc_bench.reports.figures.frames import scores
from pcc_bench.reports.table import Table
from pcc_bench.results.collection import Results
from pcc_bench.results.run import Run

SIZES = ["predicted", "context_tokens", "question_tokens", "batch", "reuse", "device", "dtype", "threads"]
MODES = {"cold": "memory made first", "warm": "memory there"}


@dataclass(frozen=True)
class Clock:
    """A phase of the records as an axis.

    Attributes:
        key: In names of files.
        axis: What the axis says.
        scale: From the batch's seconds to its unit, given the batch.
    """

    key: str
    axis: str
    scale: Callable[[int], float]


PHASES = {
    "ttft": Clock("first-token", "ms to the first token", lambda batch: 1000.0),
    "total": Clock("seconds", "seconds a question", lambda batch: 1 / batch),
}
FULL, PCC = "full-context", "pcc"


def quality_and_time(results: Results, table: Table, column: str, phase: str, mode: str) -> tuple[pd.DataFrame, str]:
    """A column's cells with the time recorded for the checkpoint: `method`, `label`, `cost`, `value`, `low`, `high`.

    Of all sizes those are taken that most runs have; among them measured ones before predicted ones, long contexts
    before short ones, small batches before large ones, one question a context before several.

    Args:
        results: What the table was measured on, and records of cost.
        table: The table.
        column: Key of the column.
        phase: A key of `PHASES`.
        mode: `cold` or `warm`.

    Returns:
        It, empty where fewer than two runs have records; and what the cost is, for the axis.
    """
    frame = scores(table, [column])
    frame["label"] = [f"{rate:g}x" if rate == rate else "" for rate in frame["requested"]]
    runs = [results.run(names[0]) if names else None for names in frame["runs"]]
    best, axis = frame.iloc[:0].assign(cost=0.0), ""
    for records in _sizes(results.cost, phase, mode):
        scale = PHASES[phase].scale(int(records["batch"].iloc[0]))
        known = frame.assign(cost=[scale * _seconds(records, run) for run in runs]).dropna(subset="cost")
        if len(known) >= max(2, len(best)):
            best, axis = known, _axis(records.iloc[0], phase, mode)
    return best[["method", "label", "cost", "value", "low", "high"]].reset_index(drop=True), axis


def _sizes(records: pd.DataFrame, phase: str, mode: str) -> list[pd.DataFrame]:
    """The records of each size that was measured or predicted, the one to be preferred last."""
    if not len(records):
        return []
    of_phase = records[(records["phase"] == phase) & records["mode"].isin([mode, "full"])]
    keys, rising = ["predicted", "context_tokens", "batch", "reuse"], [False, True, False, False]
    order = of_phase.sort_values(keys, ascending=rising, kind="stable")
    return [size for _, size in order.groupby(SIZES, sort=False)]


def _seconds(records: pd.DataFrame, run: Run | None) -> float:
    """Of the newest record that is about a run; nan without one."""
    if run is None or run.control or run.method not in (FULL, PCC):
        return float("nan")
    about = (records["method"] == run.method) & (records["decoder"].map(_name) == _name(run.decoder))
    if run.method == PCC:
        about &= (records["encoder"] == run.checkpoint) & (records["rate"] == run.rate)
    of_run = records[about]
    return float(of_run["median_s"].iloc[-1]) if len(of_run) else float("nan")


def _name(model: str) -> str:
    return Path(model).name


def _axis(record: pd.Series, phase: str, mode: str) -> str:
    reuse = f", {record['reuse']} questions a context" if record["reuse"] > 1 else ""
    batch = f", batch {record['batch']}" if record["batch"] > 1 else ""
    predicted = ", predicted" if record["predicted"] else ""
    size = f"{record['context_tokens']:,} tokens{batch}{reuse}, {record['device']}{predicted}"
    return f"{PHASES[phase].axis}\n{MODES[mode]} ({size})"
