"""Logs of training and measurements of cost, as frames."""

from __future__ import annotations

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
    return tuple(_training(log.parent) for log in files.found(paths, "log.jsonl"))


def costs(paths: Iterable[Path]) -> pd.DataFrame:
    """All records of `cost_*.jsonl`, with the file each is from in the column `path`.

    Raises:
        UsageError: A file is cut or damaged.
    """
    found = files.found(paths, "cost_*.jsonl")
    return pd.DataFrame([{**record, "path": str(path)} for path in found for record in files.json_lines(path)])


def _training(folder: Path) -> Training:
    recipe = folder / "recipe.json"
    evaluation = folder / "evaluation.jsonl"
    return Training(
        name=folder.name,
        path=folder,
        recipe=files.read_object(recipe) if recipe.is_file() else {},
        log=pd.DataFrame(list(files.json_lines(folder / "log.jsonl"))),
        evaluation=pd.DataFrame(list(files.json_lines(evaluation)) if evaluation.is_file() else []),
    )
