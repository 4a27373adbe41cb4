"""A run as a small file for git, and any place that holds a run: what the gate reads."""

import json
import lzma
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field, model_validator

from pcc_bench.core.documents import Strict, checked, parse_json
from pcc_bench.core.errors import UsageError
from pcc_bench.cost import records
from pcc_bench.results.files import RESULTS, Number, Population, matching, result_files
from pcc_bench.results.reading import read_run
from pcc_bench.results.rows import COUNTS, Numbers, Rows, check_finite
from pcc_bench.results.run import FINGERPRINT, Run, TaskRun, comparable

FROZEN_VERSION = 2  # 1 recorded less of the protocol
SUFFIX = ".json.xz"
COSTS = "cost_measured.jsonl"
LARGEST = 2**30  # bytes of a frozen file, unpacked

Column = list[Number | None]
Index = Annotated[int, Field(ge=0, lt=2**63)]


class FrozenTask(Strict, strict=True):
    """One task; lists have one entry a row."""

    asked: dict[str, Any]
    fingerprint: str | None  # of the population, where the task records one
    higher_is_better: dict[str, bool | None]  # by metric; None where the task does not say
    rows: Annotated[list[Index], Field(min_length=1)]  # numbers of the rows in the data set
    hashes: list[Annotated[str, Field(pattern=r"^[0-9a-f]{1,12}$")]]  # of each row's content, prompt and references
    contexts: list[Index]  # equal for rows on the same context
    scores: dict[str, Column]  # by metric; None where a row has none (it was skipped for its length)
    costs: dict[str, list[Annotated[Number, Field(ge=0)] | None]]  # by count; None where there is no account

    @model_validator(mode="after")
    def _is_rectangular(self) -> Self:
        named: dict[str, Sequence[Any]] = {"hashes": self.hashes, "contexts": self.contexts}
        columns = named | {**self.scores, **self.costs}
        for name, values in columns.items():
            if len(values) != len(self.rows):
                raise ValueError(f"{name} has {len(values)} entries for {len(self.rows)} rows")
        if len(set(self.rows)) != len(self.rows):
            raise ValueError("a row is there twice: row ids are unique in a run")
        return self


class FrozenName(Strict, strict=True):
    method: str | None
    model: str
    requested_rate: Number | None
    fingerprints: dict[str, str | None]


class FrozenRun(Strict, strict=True):
    schema_version: int
    name: FrozenName
    tasks: Annotated[dict[str, FrozenTask], Field(min_length=1)]


def load(path: Path) -> Run:
    """The run of a results folder, a `results_*.json` or a frozen baseline; a folder may hold records of cost only.

    Raises UsageError: it is none of these, or can't be read, or holds a task twice or without its samples.
    """
    if path.is_file() and path.suffix == ".xz":
        return _load_frozen(path)
    costs = [record for file in matching([path], COSTS) for record in records.read(file)]
    if costs and not matching([path], RESULTS):
        weights = ", ".join(sorted({record.encoder for record in costs} - {""})) or "the full text"
        return Run(str(path), path, path.name, "cost of", weights, None, {}, {}, costs=tuple(costs))
    tasks: dict[str, TaskRun] = {}
    places: dict[str, Path] = {}
    runs = [read_run(file) for file in result_files([path])]
    for run in runs:
        for name, task in run.tasks.items():
            if name in places:
                files = f"{places[name].name} and {run.path.name}"
                raise UsageError(f"{path} holds two results of {name} ({files}): name the file that is meant")
            if task.samples is None:
                raise UsageError(
                    f"no samples of {name} beside {run.path}: the gate compares row by row, so run lm_eval with "
                    "--log_samples ('pcc-bench eval' does)"
                )
            if not len(task.rows) or not task.rows.scores:
                raise UsageError(f"{task.samples} has no scored row: nothing can be compared with it; repeat the run")
            if task.rows.content is None:
                raise UsageError(f"{task.samples} lacks its rows' hashes (an older lm-eval wrote it): repeat the run")
            places[name], tasks[name] = run.path, task
    return replace(runs[0], tasks=tasks, costs=tuple(costs))


def freeze(run: Run) -> bytes:
    """A run as a small file: the same run gives the same bytes. Raises UsageError: no rows, or a score is not finite.

    Timings and records of cost are left out: they say nothing on another machine.
    """
    if not run.tasks:
        raise UsageError(f"{run.path} holds no rows of a task, so there is nothing to freeze: name a results folder")

    def listed(values: Numbers) -> list[float | None]:
        return [None if value != value else value for value in values.tolist()]

    tasks = {}
    for task in run.tasks.values():
        rows, numbers = task.rows, dict[int, int]()
        for name in rows.scores:
            check_finite(rows, name, f"{name} of {task.name}")
        assert rows.content is not None  # `load` has seen to it
        tasks[task.name] = {
            "asked": dict(task.protocol),
            "fingerprint": task.population.fingerprint,
            "higher_is_better": {name: task.higher_is_better.get(name.partition(",")[0]) for name in rows.scores},
            "rows": rows.number.tolist(),
            "hashes": [f"{content:012x}" for content in rows.content.tolist()],
            "contexts": [numbers.setdefault(context, len(numbers)) for context in rows.context.tolist()],
            "scores": {name: listed(values) for name, values in rows.scores.items() if name not in rows.below},
            "costs": {name: listed(values) for name, values in rows.account.items() if name in COUNTS},
        }
    content = {"schema_version": FROZEN_VERSION, "name": run.name, "tasks": tasks}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return lzma.compress(text.encode(), format=lzma.FORMAT_XZ, preset=9)


def _load_frozen(path: Path) -> Run:
    try:
        decompressor = lzma.LZMADecompressor()
        content = decompressor.decompress(path.read_bytes(), LARGEST)
        if not decompressor.eof:
            raise EOFError("it is cut, or larger than a gigabyte")
        text = content.decode("utf-8")
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a frozen baseline ({' '.join(str(error).split())}): freeze it again") from None
    state = parse_json(text, f"{path} is not a frozen baseline: its content")
    version = state.get("schema_version") if isinstance(state, dict) else None
    if isinstance(version, int) and version > FROZEN_VERSION:
        raise UsageError(f"{path} has version {version}, this pcc-bench reads up to {FROZEN_VERSION}: update it")
    frozen = checked(FrozenRun, state, f"{path} can't be read as a frozen baseline (freeze it again)")

    tasks = {}
    for task_name, task in frozen.tasks.items():
        number = np.array(task.rows, np.int64)
        order = np.argsort(number)
        filters = sorted({metric.partition(",")[2] for metric in task.scores} - {""})
        rows = Rows(
            number=number[order],
            context=np.array(task.contexts, np.int64)[order],
            content=np.array([int(content, 16) for content in task.hashes], np.int64)[order],
            scores={metric: np.array(values, np.float64)[order] for metric, values in task.scores.items()},
            account={count: np.array(values, np.float64)[order] for count, values in task.costs.items()},
            filters=tuple(filters) or ("none",),
        )
        tasks[task_name] = TaskRun(
            name=task_name,
            protocol={FINGERPRINT: task.fingerprint, **{key: comparable(value) for key, value in task.asked.items()}},
            population=Population(fingerprint=task.fingerprint),
            higher_is_better={metric: up for metric, up in task.higher_is_better.items() if up is not None},
            scored=len(number),
            frozen=rows,
        )
    name = frozen.name
    rate, place = name.requested_rate, path.name
    return Run(place, path, place, name.method or "", name.model, rate, name.fingerprints, tasks)
