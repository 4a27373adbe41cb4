"""One table of lm-eval result files: a line a method and task, scores beside what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcc_bench.errors import UsageError
from pcc_bench.reports import files

METRICS = {"exact_match": "EM", "f1": "F1", "contains": "contains"}
NOTES = {
    "EM": "EM, F1 and contains are percentages, each with its standard error.",
    "rate": "rate: source tokens per slot that the method was asked for.",
    "achieved": "achieved: source tokens (decoder's) per vector or token of memory, boundary vectors counted.",
    "slots only": "slots only: the same without boundary vectors. Both are ratios of sums over all rows.",
    "kept": "kept: rows of the data set that the task asks, of those read; n may be fewer (limit, skipped rows).",
    "s/row": "s/row: compression (charged to every question on a context), prefill and decoding, on this machine.",
}


@dataclass(frozen=True)
class Table:
    """Named columns of text.

    Attributes:
        columns: Headings.
        rows: One cell a column; "" where there is nothing to say.
        notes: Sentences that stand under the table.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def without_empty_columns(self) -> Table:
        """The table without the columns that say nothing, and without the notes on them."""
        full = [i for i in range(len(self.columns)) if any(row[i] for row in self.rows)]
        columns = tuple(self.columns[i] for i in full)
        notes = tuple(
            note for note in self.notes if note not in {NOTES.get(c) for c in self.columns if c not in columns}
        )
        return Table(columns, tuple(tuple(row[i] for i in full) for row in self.rows), notes)

    def markdown(self) -> str:
        """A Markdown table, its columns aligned for reading as plain text, and the notes."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        text = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
        text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        return "\n".join([*text, *(["", *self.notes] if self.notes else [])])


@dataclass(frozen=True)
class Result:
    """One task of one result file.

    Attributes:
        path: The file.
        task: The task's name.
        data: The whole file.
        samples: The accounts of its samples, where they were logged.
    """

    path: Path
    task: str
    data: Mapping[str, Any]
    samples: tuple[Mapping[str, Any], ...] = ()

    @property
    def scores(self) -> Mapping[str, Any]:
        """Metric -> value, of lm-eval's first filter."""
        found: dict[str, Any] = {}
        for key, value in self.data["results"][self.task].items():
            found.setdefault(key.partition(",")[0], value)
        return found

    @property
    def ours(self) -> Mapping[str, Any]:
        """What our model reports about itself; empty for lm-eval's own models."""
        reported: Mapping[str, Any] = self.data["config"].get("pcc_bench", {})
        return reported

    @property
    def population(self) -> Mapping[str, Any]:
        """The account of the rows; empty for tasks that are not ours."""
        account: Mapping[str, Any] = self.data["configs"][self.task].get("metadata", {}).get("population", {})
        return account

    @property
    def skipped(self) -> int:
        """Rows left out of the scores for their length."""
        return len(self.ours.get("skipped", {}).get(self.task, []))

    @property
    def asked(self) -> dict[str, Any]:
        """What must be equal for two lines to stand in one table, under the name it has in messages."""
        return {
            "data fingerprint": self.population.get("fingerprint"),
            "protocol": self.population.get("protocol"),
            "population": self.population.get("population"),
            "number of rows": self.scores.get("sample_len", 0) + self.skipped,
            "number of shots": self.data.get("n-shot", {}).get(self.task),
            "task version": self.data.get("versions", {}).get(self.task),
        }


def summarise(paths: Iterable[Path]) -> Table:
    """The table of result files.

    Args:
        paths: Files `results_*.json`, or folders that hold some at any depth.

    Raises:
        UsageError: No result is there, a file can't be read, or two files answer different questions.
    """
    results = [result for path in files.result_files(paths) for result in read(path)]
    check_comparable(results)
    columns = ("method", "model", "task", "n", *METRICS.values(), "rate", "achieved", "slots only", "kept", "s/row")
    order = sorted(results, key=lambda result: result.task)
    return Table(columns, tuple(map(_row, order)), tuple(NOTES.values())).without_empty_columns()


def read(path: Path) -> list[Result]:
    """The tasks of a result file, groups left out.

    Raises:
        UsageError: It is not a result file, or from a newer version, or its samples are cut.
    """
    data = files.read_result(path)
    return [Result(path, task, data, _samples(path, task)) for task in files.tasks_of(data)]


def check_comparable(results: Sequence[Result]) -> None:
    """Refuse to put answers to different questions into one table.

    Raises:
        UsageError: Two files differ in rows or protocol of a task; it names both and the difference.
    """
    first: dict[str, Result] = {}
    for result in results:
        other = first.setdefault(result.task, result)
        for what, value in result.asked.items():
            if value != other.asked[what]:
                raise UsageError(
                    f"{result.path} and {other.path} do not belong in one table: {what} of {result.task} is {value} "
                    f"in the first and {other.asked[what]} in the second; summarise them apart"
                )


def _samples(path: Path, task: str) -> tuple[Mapping[str, Any], ...]:
    """The accounts of the samples logged beside a result file; rows that were skipped have none."""
    file = files.samples_file(path, task)
    lines = files.json_lines(file) if file else ()
    return tuple(line["compression"] for line in lines if isinstance(line.get("compression"), dict))


def _row(result: Result) -> tuple[str, ...]:
    ours, scores, population = result.ours, result.scores, result.population
    method = ours.get("method") or result.data["config"]["model"]
    control = f" ({ours['control']})" if ours.get("control") else ""
    return (
        method + control,
        Path(str(result.data.get("model_name", ""))).name,
        result.task,
        str(scores["sample_len"]) + (f" ({result.skipped} skipped)" if result.skipped else ""),
        *(_percent(scores.get(name), scores.get(f"{name}_stderr")) for name in METRICS),
        _times(ours.get("requested_rate")),
        _times(scores.get("compression")),
        _times(_slots_only(result.samples)),
        f"{population['kept']} of {population['rows_read']}" if population else "",
        _seconds(result.samples),
    )


def _percent(value: Any, error: Any) -> str:
    if not isinstance(value, int | float):
        return ""
    return f"{100 * value:.1f}" + (f" ± {100 * error:.1f}" if isinstance(error, int | float) else "")


def _times(ratio: Any) -> str:
    return f"{ratio:.2f}x" if isinstance(ratio, int | float) and math.isfinite(ratio) else ""


def _slots_only(samples: Sequence[Mapping[str, Any]]) -> float | None:
    """The ratio of the sums: a mean of ratios would weigh short contexts as much as long ones."""
    slots = sum(sample["slots"] for sample in samples)
    return sum(sample["source_tokens"] for sample in samples) / slots if slots else None


def _seconds(samples: Sequence[Mapping[str, Any]]) -> str:
    parts = ("compress_seconds", "prefill_seconds", "decode_seconds")
    timed = [sum(sample[part] for part in parts) for sample in samples if all(part in sample for part in parts)]
    return f"{sum(timed) / len(timed):.3f}" if timed else ""
