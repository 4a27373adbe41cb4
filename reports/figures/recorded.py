"""Scores beside what `pcc-bench cost` recorded for the same checkpoint."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pcc_bench.reports.figures.frames import scores
from pcc_bench.reports.table import Table
from pcc_bench.results.collection import Results
from pcc_bench.results.run import Run

SIZES = ["predicted", "context_tokens", "question_tokens", "batch", "device", "dtype", "threads"]
MODES = {"cold": "memory made first", "warm": "memory there"}
FULL, PCC = "full-context", "pcc"


def first_token(results: Results, table: Table, column: str, mode: str) -> tuple[pd.DataFrame, str]:
    """A column's cells with the milliseconds to the first token: `method`, `label`, `cost`, `value`, `low`, `high`.

    Of all sizes those are taken that most runs have; among them measured ones before predicted ones, long contexts
    before short ones, small batches before large ones.

    Args:
        results: What the table was measured on, and records of cost.
        table: The table.
        column: Key of the column.
        mode: `cold` or `warm`.

    Returns:
        It, empty where fewer than two runs have records; and what the cost is, for the axis.
    """
    frame = scores(table, [column])
    frame["label"] = [f"{rate:g}x" if rate == rate else "" for rate in frame["requested"]]
    runs = [results.run(names[0]) if names else None for names in frame["runs"]]
    best, axis = frame.iloc[:0].assign(cost=0.0), ""
    for found in _sizes(results.cost, mode):
        known = frame.assign(cost=[_milliseconds(found, run) for run in runs]).dropna(subset="cost")
        if len(known) >= max(2, len(best)):
            best, axis = known, _axis(found.iloc[0], mode)
    return best[["method", "label", "cost", "value", "low", "high"]].reset_index(drop=True), axis


def _sizes(records: pd.DataFrame, mode: str) -> list[pd.DataFrame]:
    """The records of each size that was measured or predicted, the one to be preferred last."""
    if not len(records):
        return []
    wanted = records[(records["phase"] == "ttft") & records["mode"].isin([mode, "full"])]
    order = wanted.sort_values(["predicted", "context_tokens", "batch"], ascending=[False, True, False], kind="stable")
    return [found for _, found in order.groupby(SIZES, sort=False)]


def _milliseconds(records: pd.DataFrame, run: Run | None) -> float:
    """Of the newest record that is about a run; nan without one."""
    if run is None or run.control or run.method not in (FULL, PCC):
        return float("nan")
    about = (records["method"] == run.method) & (records["decoder"].map(_name) == _name(run.decoder))
    if run.method == PCC:
        about &= (records["encoder"] == run.checkpoint) & (records["rate"] == run.rate)
    found = records[about]
    return 1000 * float(found["median_s"].iloc[-1]) if len(found) else float("nan")


def _name(model: str) -> str:
    return Path(model).name


def _axis(record: pd.Series, mode: str) -> str:
    batch = f", batch {record['batch']}" if record["batch"] > 1 else ""
    predicted = ", predicted" if record["predicted"] else ""
    size = f"{record['context_tokens']:,} tokens{batch}, {record['device']}{predicted}"
    return f"ms to the first token\n{MODES[mode]} ({size})"
