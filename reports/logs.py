"""Logs of training and measurements of cost, as frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from pcc_bench.reports import files
from pcc_bench.reports.results import Training


def trainings(paths: Iterable[Path]) -> tuple[Training, ...]:
    """The folders of `pcc-bench train` among these, found by their `log.jsonl`.

    Raises:
        UsageError: A log is cut or damaged.
    """
    folders = [log.parent for log in files.found(paths, "log.jsonl")]
    counts = Counter(folder.name for folder in folders)
    return tuple(
        _training(folder, folder.name if counts[folder.name] == 1 else f"{folder.parent.name}/{folder.name}")
        for folder in folders
    )


def costs(paths: Iterable[Path]) -> pd.DataFrame:
    """All records of `cost_*.jsonl`, with the file each is from in the column `path`.

    Raises:
        UsageError: A file is cut, damaged, or from a newer version.
    """
    found = files.found(paths, "cost_*.jsonl")
    if not found:
        return pd.DataFrame()
    from pcc_bench.cost import records

    told = [{**record.model_dump(mode="json"), "path": str(path)} for path in found for record in records.read(path)]
    return pd.DataFrame(told)


def _training(folder: Path, name: str) -> Training:
    recipe = folder / "recipe.json"
    evaluation = folder / "evaluation.jsonl"
    return Training(
        name=name,
        path=folder,
        recipe=files.read_object(recipe) if recipe.is_file() else {},
        log=pd.DataFrame(list(files.json_lines(folder / "log.jsonl"))),
        evaluation=pd.DataFrame(list(files.json_lines(evaluation)) if evaluation.is_file() else []),
    )
