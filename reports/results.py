"""What was measured: runs of lm-eval, their samples, training logs and costs, read from any number of folders.

The frame of samples (`Results.samples`) has a line a scored row of a run, with the columns

| column | |
|---|---|
| `run`, `task` | id of the run, name of the task |
| `row` | number of the row in the data set |
| `context` | a number, equal for rows on the same context |
| `content` | a number, equal for rows of the same content and prompt |
| `source_tokens`, `slots`, `boundary`, `ratio`, ... | the account of `records.SampleRecord`; nan where there is none |
| a metric | its score of the row: a share is from 0 to 1; nan where the row has none |
| `<metric>/of` | for a metric that is a ratio of sums: what its column is divided by (tokens for `perplexity`) |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcc_bench.errors import UsageError
from pcc_bench.reports import files

if TYPE_CHECKING:
    import pandas as pd

    from pcc_bench.reports.samples import Answer

MEASURED = ("results_*.json", "log.jsonl", "cost_*.jsonl")


@dataclass(frozen=True)
class TaskResult:
    """One task of a run.

    Attributes:
        name: The task's.
        scores: Metric -> aggregate of lm-eval's first filter, shares from 0 to 1.
        errors: Metric -> lm-eval's standard error, where it has one.
        aggregations: Metric -> how rows become the aggregate: `mean`, `weighted_perplexity`, `ratio_of_sums`, ...
        higher_is_better: By metric, where the task says.
        rows: Scored rows.
        skipped: Rows left out for their length.
        population: The account of the rows; empty for tasks that are not ours.
        metadata: Of the task's configuration.
        shots: lm-eval's few-shot examples.
        version: Of the task.
        samples: Its file of samples; None where none were logged.
    """

    name: str
    scores: Mapping[str, float]
    errors: Mapping[str, float]
    aggregations: Mapping[str, str]
    higher_is_better: Mapping[str, bool]
    rows: int
    skipped: int
    population: Mapping[str, Any]
    metadata: Mapping[str, Any]
    shots: int | None
    version: Any
    samples: Path | None

    @property
    def asked(self) -> dict[str, Any]:
        """What must be equal for two runs to stand in one table, under the name it has in messages."""
        return {
            "data source": self.population.get("source"),
            "data fingerprint": self.population.get("fingerprint"),
            "protocol": self.population.get("protocol"),
            "population": self.population.get("population"),
            "number of rows": self.rows + self.skipped,
            "number of shots": self.shots,
            "task version": self.version,
        }


@dataclass(frozen=True)
class Run:
    """One run of lm-eval: a result file.

    Attributes:
        id: Unique among the results.
        path: The result file.
        place: The same as it is printed: from the folder that was named on.
        labels: Suite -> its name there, as far as the folder's name keeps it, for every suite that it is a cell of.
        method: Of the registry, or a model of lm-eval.
        control: E.g. `wrong_memory`; None without.
        checkpoint: `pretrained`, folder or hub id.
        decoder: Folder or hub id.
        rate: Requested source tokens per slot; None where there is no such thing.
        arguments: Of the model.
        seeds: Of Python, numpy, torch and the few-shot sampler.
        date: When it ended, ISO 8601; "" where not recorded.
        schema_version: Of our part of the file; 0 for lm-eval's own models.
        reported: What our model reports about itself; empty for lm-eval's own.
        data: The settings of the file that are the same for all tasks (lm-eval's `config` and versions).
        tasks: By name.
    """

    id: str
    path: Path
    place: str
    labels: Mapping[str, str]
    method: str
    control: str | None
    checkpoint: str
    decoder: str
    rate: float | None
    arguments: Mapping[str, Any]
    seeds: tuple[int | None, ...]
    date: str
    schema_version: int
    reported: Mapping[str, Any]
    data: Mapping[str, Any]
    tasks: Mapping[str, TaskResult]

    @property
    def setting(self) -> tuple[str, ...]:
        """What makes two runs the same but for their seeds: of ours the fingerprints say it, not the folders' names."""
        prints = self.reported.get("fingerprints", {})
        if not prints:
            return (self.method, str(sorted(self.arguments.items(), key=str)))
        keys = ("options", "overflow", "add_bos_token", "decoder_arguments", "control_seed", "requested_rate")
        told = [str(self.reported.get(key)) for key in keys]
        models = [str(prints.get(key)) for key in ("compressor", "decoder_weights")]
        return (self.method, str(self.control), str(self.data.get("model_dtype")), *models, *told)


@dataclass(frozen=True)
class Training:
    """One training run (`pcc-bench train`).

    Attributes:
        name: Of its folder.
        path: The folder.
        recipe: `recipe.json`; empty where there is none.
        log: A line a logged step: `step`, `loss`, `tokens_seen`, ...
        evaluation: A line a measurement of held-out text: `step`, `reconstruction_loss`, `bleu`, ...; may be empty.
    """

    name: str
    path: Path
    recipe: Mapping[str, Any]
    log: pd.DataFrame
    evaluation: pd.DataFrame


@dataclass(frozen=True)
class Results:
    """Everything that was read.

    Attributes:
        runs: In the order of their files; of runs made twice, the newest.
        trainings: Training logs.
        cost: A line a measurement of `pcc-bench cost` (`method`, `rate`, `phase`, `median_s`, ...); may be empty.
        notes: What the reader of a table must know, e.g. that a run was made twice.
    """

    runs: tuple[Run, ...]
    trainings: tuple[Training, ...]
    cost: pd.DataFrame
    notes: tuple[str, ...] = ()
    _frames: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict, repr=False, compare=False)

    def run(self, name: str) -> Run:
        """The run of an id."""
        return next(run for run in self.runs if run.id == name)

    def with_tasks(self, prefixes: Iterable[str]) -> list[Run]:
        """The runs that have a task whose name is one of these, or begins with one that ends in `*`."""
        wanted = tuple(prefixes)
        return [run for run in self.runs if any(matches(task, wanted) for task in run.tasks)]

    def frame(self, run: Run, task: str) -> pd.DataFrame:
        """The samples of a task of a run, read when first asked for; empty where none were logged."""
        from pcc_bench.reports.samples import read_frame

        key = (run.id, task)
        if key not in self._frames:
            self._frames[key] = read_frame(run, run.tasks[task])
        return self._frames[key]

    @cached_property
    def samples(self) -> pd.DataFrame:
        """The samples of all runs; see the module."""
        import pandas as pd

        parts = [self.frame(run, task) for run in self.runs for task in run.tasks]
        full = [part for part in parts if len(part)]
        if not full:
            return pd.DataFrame(columns=["run", "task", "row", "context"])
        return pd.concat(full, ignore_index=True).astype({"run": "category", "task": "category"})

    def answers(self, run: Run, task: str, rows: Iterable[int] | None = None) -> Iterator[Answer]:
        """Texts of samples (context, question, reference, answer), read from the file at every call.

        Args:
            run: The run.
            task: The task.
            rows: Numbers of the rows wanted; None: all.
        """
        from pcc_bench.reports.samples import read_answers

        yield from read_answers(run, run.tasks[task], None if rows is None else frozenset(rows))


def matches(task: str, names: Iterable[str]) -> bool:
    """Is a task one of these names, or does it begin with one that ends in `*`?"""
    return any(task.startswith(name[:-1]) if name.endswith("*") else task == name for name in names)


def load(paths: Iterable[Path]) -> Results:
    """Read result folders and files.

    Args:
        paths: Folders with anything that was measured at any depth, or files `results_*.json`.

    Raises:
        UsageError: A path is missing or holds nothing that was measured, a file can't be read or is from a newer
            version.
    """
    from pcc_bench.reports import logs
    from pcc_bench.reports.reading import read_run

    paths = list(paths)
    for path in paths:
        _check_holds_something(path)
    read = [replace(read_run(path), place=_place(path, paths)) for path in files.found(paths, "results_*.json")]
    runs, notes = _newest(read)
    return Results(_named(runs), logs.trainings(paths), logs.costs(paths), notes)


def _newest(runs: Sequence[Run]) -> tuple[list[Run], tuple[str, ...]]:
    """Of tasks run twice in the same way, the newest; and a sentence about each file that gives way."""
    kept: dict[tuple[Any, ...], Run] = {}
    labels: dict[Path, dict[str, str]] = {}
    older: dict[tuple[str, str, str], list[str]] = {}
    for run in sorted(runs, key=lambda run: (run.date, run.path.name)):
        for task, result in run.tasks.items():
            key = (run.setting, run.seeds, task, *map(str, result.asked.values()))
            labels.setdefault(run.path, dict(run.labels))
            if key in kept:
                older.setdefault((run.id, run.place, kept[key].place), []).append(task)
                labels[run.path] = labels[kept[key].path] | labels[run.path]
            kept[key] = run
    shown = {(run.path, key[2]) for key, run in kept.items()}
    left = [_part(run, [task for task in run.tasks if (run.path, task) in shown], labels[run.path]) for run in runs]
    notes = tuple(
        f"{', '.join(tasks)}: {name} was run twice; {newer} is shown, {old} is older and left out."
        for (name, newer, old), tasks in older.items()
    )
    return [run for run in left if run.tasks], notes


def _place(path: Path, roots: Iterable[Path]) -> str:
    """A file from the folder that was named on, which says where it is on any machine."""
    root = next(root for root in roots if root in (path, *path.parents))
    return str(path.relative_to(root.parent))


def _part(run: Run, tasks: Iterable[str], labels: Mapping[str, str]) -> Run:
    return replace(run, tasks={task: run.tasks[task] for task in tasks}, labels=labels)


def _named(runs: Iterable[Run]) -> tuple[Run, ...]:
    """Runs with ids of their own: the second of a name is `<name>-2`."""
    seen: Counter[str] = Counter()
    named = []
    for run in runs:
        seen[run.id] += 1
        named.append(run if seen[run.id] == 1 else replace(run, id=f"{run.id}-{seen[run.id]}"))
    return tuple(named)


def _check_holds_something(path: Path) -> None:
    if not any(files.found([path], pattern) for pattern in MEASURED):
        raise UsageError(
            f"no results at {path}: give a results_*.json, or a folder that 'pcc-bench eval', 'run', 'train' or "
            "'cost' wrote"
        )
