"""Everything that was measured: runs of lm-eval, training logs and costs, read from any number of folders."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import pandas as pd
from pydantic import BaseModel, Field, model_validator

from pcc_bench.core.documents import checked, read_json, read_json_lines
from pcc_bench.core.errors import UsageError
from pcc_bench.cost import records
from pcc_bench.results.files import RESULTS, matching
from pcc_bench.results.reading import read_run
from pcc_bench.results.run import Run


@dataclass(frozen=True)
class Training:
    """One training run (`pcc-bench train`)."""

    name: str  # of its folder
    path: Path
    recipe: Mapping[str, Any]  # `recipe.json`; empty where there is none
    log: pd.DataFrame  # a line a logged step: `step`, `loss`, `tokens_seen` ...
    evaluation: pd.DataFrame  # a line a measurement of held-out text: `step`, `ae_loss`, `bleu`, ...; may be empty
    rows: pd.DataFrame  # a line a measurement and loss, with each row's: `step`, `measure`, `nll`, `tokens`


@dataclass(frozen=True)
class Results:
    runs: tuple[Run, ...]  # in the order of their files; of runs made twice, the newest
    trainings: tuple[Training, ...]
    cost: pd.DataFrame  # a line a measurement of `pcc-bench cost` (`method`, `rate`, `phase`, `median_s`, ...)
    notes: tuple[str, ...] = ()  # what the reader of a table must know
    _frames: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict, repr=False, compare=False)

    def run(self, name: str) -> Run:
        return next(run for run in self.runs if run.id == name)

    def frame(self, run: Run, task: str) -> pd.DataFrame:
        """The rows of a task of a run as a frame (see `rows.Rows.frame`); empty where none were logged."""
        key, result = (run.id, task), run.tasks[task]
        if key not in self._frames:
            self._frames[key] = result.rows.frame(run.id, task) if result.logged else pd.DataFrame()
        return self._frames[key]

    @cached_property
    def samples(self) -> pd.DataFrame:
        """The rows of all runs in one frame."""
        empty = pd.DataFrame(columns=["run", "task", "row", "context"])
        parts = [self.frame(run, task) for run in self.runs for task in run.tasks]
        parts = [part for part in parts if len(part)] or [empty]
        return pd.concat(parts, ignore_index=True).astype({"run": "category", "task": "category"})


def load(paths: Iterable[Path]) -> Results:
    """Read folders with anything measured at any depth, and files `results_*.json`.

    Raises UsageError: a path is missing or holds nothing, a file can't be read or is from a newer version.
    """
    paths = list(paths)
    for path in paths:
        if not any(matching([path], pattern) for pattern in (RESULTS, "log.jsonl", "cost_*.jsonl")):
            kinds = "a results_*.json, or a folder that 'pcc-bench eval', 'run', 'train' or 'cost' wrote"
            raise UsageError(f"no results at {path}: give {kinds}")
    runs = []
    for path in matching(paths, RESULTS):
        root = next(root for root in paths if root in (path, *path.parents))
        # From the folder that was named on, which says where the file is on any machine.
        runs.append(replace(read_run(path), place=str(path.relative_to(root.parent))))
    newest: dict[tuple[Any, ...], Run] = {}  # of tasks run twice in the same way
    labels: dict[Path, dict[str, str]] = {run.path: dict(run.labels) for run in runs}
    older: dict[tuple[str, str, str], list[str]] = {}
    for run in sorted(runs, key=lambda run: (run.date, run.path.name)):
        for task, result in run.tasks.items():
            key = (run.setting, run.seeds, task, *(str(item) for item in sorted(result.protocol.items())))
            if key in newest:
                older.setdefault((run.id, run.place, newest[key].place), []).append(task)
                labels[run.path] = labels[newest[key].path] | labels[run.path]
            newest[key] = run
    notes = tuple(
        f"{', '.join(tasks)}: {name} was run twice; {newer} is shown, {old} is older and left out."
        for (name, newer, old), tasks in older.items()
    )
    shown = {(run.path, key[2]) for key, run in newest.items()}
    counts: Counter[str] = Counter()
    named = []
    for run in runs:
        if tasks := {name: task for name, task in run.tasks.items() if (run.path, name) in shown}:
            counts[run.id] += 1
            name = run.id if counts[run.id] == 1 else f"{run.id}-{counts[run.id]}"
            named.append(replace(run, id=name, tasks=tasks, labels=labels[run.path]))
    return Results(tuple(named), trainings(paths), costs(paths), notes)


class _Line(BaseModel, extra="allow", strict=True):
    __pydantic_extra__: dict[str, float | bool | str | None]

    step: int


class _Losses(BaseModel, extra="allow", strict=True, allow_inf_nan=False):
    step: int
    measure: str
    nll: list[float]
    tokens: list[Annotated[int, Field(gt=0)]]

    @model_validator(mode="after")
    def _are_of_the_same_rows(self) -> Self:
        if len(self.nll) != len(self.tokens):
            raise ValueError(f"{len(self.nll)} losses of {len(self.tokens)} rows")
        return self


class _Recipe(BaseModel, extra="allow", strict=True):
    """What a report reads of `recipe.json`."""

    optimisation: dict[str, Any] = {}
    phases: list[dict[str, Any]] | None = None
    train: list[str] | None = None
    data: dict[str, Any] | None = None
    objective: dict[str, Any] | None = None


def trainings(paths: Iterable[Path]) -> tuple[Training, ...]:
    """The folders of `pcc-bench train` among these, by their `log.jsonl`. Raises UsageError: one is damaged."""

    def frame(path: Path, kind: type[_Line | _Losses] = _Line) -> pd.DataFrame:
        lines = read_json_lines(path) if path.is_file() else ()
        return pd.DataFrame(checked(kind, line, f"{path}, line {number}").model_dump() for number, line in lines)

    folders = [log.parent for log in matching(paths, "log.jsonl")]
    counts = Counter(folder.name for folder in folders)
    return tuple(
        Training(
            name=folder.name if counts[folder.name] == 1 else f"{folder.parent.name}/{folder.name}",
            path=folder,
            recipe=checked(_Recipe, read_json(recipe), str(recipe)).model_dump() if recipe.is_file() else {},
            log=frame(folder / "log.jsonl"),
            evaluation=frame(folder / "evaluation.jsonl"),
            rows=frame(folder / "evaluation-rows.jsonl", _Losses),
        )
        for folder in folders
        for recipe in [folder / "recipe.json"]
    )


def costs(paths: Iterable[Path]) -> pd.DataFrame:
    """All records of `cost_*.jsonl`, with their file in the column `path`. Raises UsageError: see `records.read`."""
    return pd.DataFrame(
        {**record.model_dump(mode="json"), "path": str(path)}
        for path in matching(paths, "cost_*.jsonl")
        for record in records.read(path)
    )
