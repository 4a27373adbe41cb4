"""Everything that was measured: runs of lm-eval, training logs and costs, read from any number of folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcc_bench.results import files
from pcc_bench.results.reading import read_run
from pcc_bench.results.run import Run

if TYPE_CHECKING:
    import pandas as pd

    from pcc_bench.results.logs import Training


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

    def with_task(self, name: str) -> list[Run]:
        """The runs that have a task."""
        return [run for run in self.runs if name in run.tasks]

    def frame(self, run: Run, task: str) -> pd.DataFrame:
        """The rows of a task of a run as a frame (see `rows.Rows.frame`); empty where none were logged."""
        import pandas as pd

        key = (run.id, task)
        if key not in self._frames:
            told = run.tasks[task]
            self._frames[key] = told.rows.frame(run.id, task) if told.logged else pd.DataFrame()
        return self._frames[key]

    @cached_property
    def samples(self) -> pd.DataFrame:
        """The rows of all runs in one frame."""
        import pandas as pd

        parts = [self.frame(run, task) for run in self.runs for task in run.tasks]
        full = [part for part in parts if len(part)]
        if not full:
            return pd.DataFrame(columns=["run", "task", "row", "context"])
        return pd.concat(full, ignore_index=True).astype({"run": "category", "task": "category"})


def load(paths: Iterable[Path]) -> Results:
    """Read result folders and files.

    Args:
        paths: Folders with anything that was measured at any depth, or files `results_*.json`.

    Raises:
        UsageError: A path is missing or holds nothing that was measured, a file can't be read or is from a newer
            version.
    """
    from pcc_bench.results import logs

    paths = list(paths)
    for path in paths:
        files.check_measured(path)
    read = [replace(read_run(path), place=_place(path, paths)) for path in files.matching(paths, files.RESULTS)]
    runs, notes = _newest(read)
    return Results(_named(runs), logs.trainings(paths), logs.costs(paths), notes)


def _newest(runs: Sequence[Run]) -> tuple[list[Run], tuple[str, ...]]:
    """Of tasks run twice in the same way, the newest; and a sentence about each file that gives way."""
    newest: dict[tuple[Any, ...], Run] = {}
    labels: dict[Path, dict[str, str]] = {}
    older: dict[tuple[str, str, str], list[str]] = {}
    for run in sorted(runs, key=lambda run: (run.date, run.path.name)):
        for task, result in run.tasks.items():
            key = (run.setting, run.seeds, task, *(str(item) for item in sorted(result.protocol.items())))
            labels.setdefault(run.path, dict(run.labels))
            if key in newest:
                older.setdefault((run.id, run.place, newest[key].place), []).append(task)
                labels[run.path] = labels[newest[key].path] | labels[run.path]
            newest[key] = run
    shown = {(run.path, key[2]) for key, run in newest.items()}
    left = [_part(run, [task for task in run.tasks if (run.path, task) in shown], labels) for run in runs]
    notes = tuple(
        f"{', '.join(tasks)}: {name} was run twice; {newer} is shown, {old} is older and left out."
        for (name, newer, old), tasks in older.items()
    )
    return [run for run in left if run.tasks], notes


def _place(path: Path, roots: Iterable[Path]) -> str:
    """A file from the folder that was named on, which says where it is on any machine."""
    root = next(root for root in roots if root in (path, *path.parents))
    return str(path.relative_to(root.parent))


def _part(run: Run, tasks: Iterable[str], labels: Mapping[Path, Mapping[str, str]]) -> Run:
    return replace(run, tasks={task: run.tasks[task] for task in tasks}, labels=labels.get(run.path, run.labels))


def _named(runs: Iterable[Run]) -> tuple[Run, ...]:
    """Runs with ids of their own: the second of a name is `<name>-2`."""
    seen: Counter[str] = Counter()
    named = []
    for run in runs:
        seen[run.id] += 1
        named.append(run if seen[run.id] == 1 else replace(run, id=f"{run.id}-{seen[run.id]}"))
    return tuple(named)
