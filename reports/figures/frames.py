"""From results and tables to the frames that figures are drawn of; a frame without rows draws nothing."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from pandas import DataFrame

from pcc_bench.core.errors import UsageError
from pcc_bench.reports import measure
from pcc_bench.reports.table import Table
from pcc_bench.reports.tables import FULL, NONE, RANKS, family, label, label_of
from pcc_bench.results.collection import Results
from pcc_bench.results.rows import of_first_filter
from pcc_bench.results.run import Run

NEEDLES = ("pcc_needle", "pcc_needle_kv", "pcc_ruler_niah_single", "pcc_ruler_niah_multikey", "pcc_ruler_qa")
RECONSTRUCTION = "pcc_reconstruction"
ERRORS = {
    "error_word": "all words",
    "error_number": "numbers",
    "error_date": "dates",
    "error_name": "names",
    "error_rare": "rare words",
    "error_boundary": "at a boundary",
}
MARKS = 300  # of a run in a figure of single contexts
PRICED = ["method", "label", "cost", "value", "low", "high"]  # columns of quality over cost


def named(runs: Iterable[Run]) -> list[tuple[Run, str]]:
    """Runs with what figures call them: as the tables do, or by the id where two settings share a name.

    Ceiling and floor first, then the methods as in the tables, each by its rate.
    """
    runs = sorted(runs, key=lambda run: (RANKS.get(family(run), len(RANKS)), run.rate or 0))
    called = [(run, label_of(run)) for run in runs]
    settings = Counter(name for name, _ in {(name, run.setting) for run, name in called})
    return [(run, name if settings[name] == 1 else run.id) for run, name in called]


def scores(table: Table, columns: Iterable[str]) -> DataFrame:
    """Measured cells: `set`, `method`, `requested`, `rate` (achieved), `value`, `low`, `high`, `runs`, `label`."""
    keys, rows = set(columns), []
    for row, cells in table.lines():
        for column, cell in zip(table.columns, cells, strict=True):
            if column.key in keys and cell.value is not None:
                achieved = None if row.role == "ceiling" or row.rate is None else cell.ratio
                place = (column.group or column.name, row.name, row.rate, achieved)
                rows.append((*place, cell.value, cell.low, cell.high, row.runs))
    frame = DataFrame(rows, columns=["set", "method", "requested", "rate", "value", "low", "high", "runs"])
    frame = frame.astype(dict.fromkeys(["requested", "rate", "value", "low", "high"], float))
    return frame.assign(label=[f"{rate:g}x" if rate == rate else "" for rate in frame["requested"]])


def quality_and_positions(results: Results, table: Table, column: str) -> tuple[DataFrame, str]:
    """The cells of a column (its key) with the mean positions of a prompt: `PRICED`, and what the axis says."""
    tasks = {f"pcc_{column.key.partition('.')[0]}" for column in table.columns}
    frame, costs = scores(table, [column]), []
    for runs in frame["runs"]:
        parts = [results.frame(run, task) for run in map(results.run, runs) for task in tasks & set(run.tasks)]
        full = [part["prompt_positions"] for part in parts if "prompt_positions" in part]
        costs.append(float(pd.concat(full).mean()) if full else math.nan)
    frame["cost"] = costs
    return frame.loc[frame["cost"] > 0, PRICED].reset_index(drop=True), "decoder positions a question"


def memory(results: Results) -> DataFrame:
    """Peak memory: `series`, `tokens`, `batch`, `gigabytes`, `source`, `where`; of the batch with most lengths."""
    columns = ["series", "tokens", "batch", "gigabytes", "source", "where"]
    cost = results.cost
    if not {"peak_device_bytes", "peak_host_bytes", "mode"} <= set(cost):
        return DataFrame(columns=columns)
    where = "device" if cost["peak_device_bytes"].notna().any() else "host"
    peak = f"peak_{where}_bytes"
    known = cost[cost["mode"].isin(("full", "cold")) & cost[peak].notna()]
    known = known.sort_values("rate", na_position="first", kind="stable")
    if not len(known):
        return DataFrame(columns=columns)
    settings = zip(known["method"], known["rate"].astype(float), strict=True)
    known["series"] = [label(method, rate if rate == rate else None) for method, rate in settings]
    known["source"] = known["predicted"].map({True: "predicted", False: "measured"})
    known = known.rename(columns={"context_tokens": "tokens"})
    batch = known.groupby("batch")["tokens"].nunique().idxmax()
    most = known[known["batch"] == batch].groupby(["series", "tokens", "batch", "source"], sort=False)[peak].max()
    return most.div(1e9).rename("gigabytes").reset_index().assign(where=where)[columns]


def needles(results: Results, task: str) -> DataFrame:
    """Share of needles found: `method`, `depth`, `length`, `value`, `n`."""
    rows = []
    for run, name in named(results.runs):
        path = run.tasks[task].samples if task in run.tasks else None
        for sample in of_first_filter(path) if path else ():
            right, place = sample.get("contains"), [sample["doc"].get(key) for key in ("depth", "length")]
            if not isinstance(right, int | float):
                continue
            if not all(isinstance(value, int | float) for value in place):
                raise UsageError(f"{path}: row {sample['doc_id']} does not say where its needle is: repeat the run")
            rows.append((name, *place, right))
    frame = DataFrame(rows, columns=["method", "depth", "length", "right"])
    return frame.groupby(["method", "depth", "length"], sort=False)["right"].agg(value="mean", n="size").reset_index()


def errors(results: Results) -> DataFrame:
    """Words of each class that reconstructions get wrong: `method`, `kind`, `value`, `low`, `high`, in percent."""
    rows = []
    for (run, name), (metric, kind) in itertools.product(named(results.runs), ERRORS.items()):
        score = measure.measure([run], RECONSTRUCTION, metric)
        if score is not None and score.value == score.value:
            rows.append((name, kind, score.value, *(score.interval() or (math.nan, math.nan))))
    frame = DataFrame(rows, columns=["method", "kind", "value", "low", "high"])
    return frame.drop_duplicates(["method", "kind"], keep="last")  # of several seeds the last


def pairs(results: Results) -> DataFrame:
    """Contexts that were both reconstructed and asked about: `method`, `reconstruction`, `answers`, a row a context.

    `reconstruction` is the token accuracy of `pcc_reconstruction`, `answers` the F1 of all other tasks.
    """
    runs = named(results.runs)
    parts: dict[str, list[DataFrame]] = {"reconstruction": [], "answers": []}
    for run, name in runs:
        for task in run.tasks:
            kind, metric = ("reconstruction", "token_accuracy") if task == RECONSTRUCTION else ("answers", "f1")
            frame = results.frame(run, task)
            if metric in frame:
                scores = frame[["context", metric]].set_axis(["context", kind], axis=1)
                parts[kind].append(scores.assign(method=name))
    if not all(parts.values()):
        return DataFrame(columns=["method", "reconstruction", "answers"])
    means = [pd.concat(full).groupby(["method", "context"], sort=False)[kind].mean() for kind, full in parts.items()]
    both = pd.concat(means, axis=1, join="inner").dropna().reset_index()
    places = {name: place for place, (_, name) in enumerate(runs)}
    return both.drop(columns="context").sort_values("method", key=lambda names: names.map(places), kind="stable")


def ratios(results: Results) -> DataFrame:
    """Achieved compression of contexts: `run`, `requested`, `tokens`, `ratio`; at most some hundred of a run."""
    point, parts = ["source_tokens", "ratio"], []
    for run, name in named(results.runs):
        if run.rate is None or run.method in (FULL, NONE):
            continue
        full = [frame for task in run.tasks if set(point) <= set(frame := results.frame(run, task))]
        if full:  # different contexts, spread evenly over all lengths
            one = pd.concat(full).dropna(subset=point).drop_duplicates(point).sort_values(point)
            one = one.iloc[:: max(1, -(-len(one) // MARKS))]
            columns = {"requested": run.rate, "tokens": one["source_tokens"], "ratio": one["ratio"]}
            parts.append(DataFrame({"run": name, **columns}))
    empty = DataFrame(columns=["run", "requested", "tokens", "ratio"])
    return (pd.concat(parts, ignore_index=True) if parts else empty).astype({"requested": float})


SIZES = ["predicted", "context_tokens", "question_tokens", "batch", "reuse", "device", "dtype", "threads"]
MODES = {"cold": "memory made first", "warm": "memory there"}
PHASES = {"ttft": "ms to the first token", "total": "seconds a question"}  # as the axis says
PCC = "pcc"


def quality_and_time(results: Results, table: Table, column: str, phase: str, mode: str) -> tuple[DataFrame, str]:
    """The cells of a column (its key) with the time recorded for the checkpoint: `PRICED`, and what the axis says.

    Empty where fewer than two runs have records. Of all sizes those are taken that most runs have; among them measured
    ones before predicted ones, long contexts before short ones, small batches before large ones, one question a context
    before several.
    """
    frame, cost = scores(table, [column]), results.cost
    runs = [results.run(names[0]) if names else None for names in frame["runs"]]
    best, axis = frame.iloc[:0].assign(cost=0.0), ""
    if not len(cost):
        return best[PRICED], axis

    def seconds(records: DataFrame, run: Run | None) -> float:
        """Of the newest record that is about a run; nan without one."""
        if run is None or run.control or run.method not in (FULL, PCC):
            return math.nan
        decoders = records["decoder"].map(lambda name: Path(name).name)
        about = (records["method"] == run.method) & (decoders == Path(run.decoder).name)
        if run.method == PCC:
            about &= (records["encoder"] == run.checkpoint) & (records["rate"] == run.rate)
        return float(records["median_s"][about].iloc[-1]) if about.any() else math.nan

    keys, rising = ["predicted", "context_tokens", "batch", "reuse"], [False, True, False, False]
    of_phase = cost[(cost["phase"] == phase) & cost["mode"].isin([mode, "full"])]
    rising_order = of_phase.sort_values(keys, ascending=rising, kind="stable")  # the size to be preferred last
    for _, records in rising_order.groupby(SIZES, sort=False):
        record = records.iloc[0]
        scale = 1000.0 if phase == "ttft" else 1 / int(record["batch"])  # from the batch's seconds to the axis' unit
        known = frame.assign(cost=[scale * seconds(records, run) for run in runs]).dropna(subset="cost")
        if len(known) >= max(2, len(best)):
            best, size = known, f"{record['context_tokens']:,} tokens"
            size += f", batch {record['batch']}" if record["batch"] > 1 else ""
            size += f", {record['reuse']} questions a context" if record["reuse"] > 1 else ""
            size += f", {record['device']}{', predicted' if record['predicted'] else ''}"
            axis = f"{PHASES[phase]}\n{MODES[mode]} ({size})"
    return best[PRICED].reset_index(drop=True), axis
