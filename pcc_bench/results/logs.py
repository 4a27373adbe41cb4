"""Logs of training and records of cost, as frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pcc_bench.core.documents import checked, read_json, read_json_lines
from pcc_bench.cost import records
from pcc_bench.results import files


@dataclass(frozen=True)
class Training:
    """One training run (`pcc-bench train`).

    Attributes:
        name: Of its folder.
        path: The folder.
        recipe: `recipe.json`; empty where there is none.
        log: A line a logged step: `step`, `loss`, `tokens_seen`, ...
        evaluation: A line a measurement of held-out text: `step`, `reconstruction_loss`, `bleu`, ...; may be empty.
        rows: A line a measurement and column of `evaluation`, with the losses of each row: `step`, `measure`, `nll`,
            `tokens`; empty for runs that kept none.
    """

    name: str
    path: Path
    recipe: Mapping[str, Any]
    log: pd.DataFrame
    evaluation: pd.DataFrame
    rows: pd.DataFrame


class _Line(BaseModel):
    """A line of a log: numbers by name."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, float | str | None]

    step: int


class _Losses(BaseModel):
    """Losses of held-out rows at a step."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    step: int
    measure: str
    nll: list[float]
    tokens: list[Annotated[int, Field(gt=0)]]

    @model_validator(mode="after")
    def _are_of_the_same_rows(self) -> Self:
        if len(self.nll) != len(self.tokens):
            raise ValueError(f"{len(self.nll)} losses of {len(self.tokens)} rows")
        return self


class _Recipe(BaseModel):
    """What a report reads of `recipe.json`."""

    model_config = ConfigDict(extra="allow", strict=True)

    optimisation: dict[str, Any] = {}
    phases: list[dict[str, Any]] | None = None
    train: list[str] | None = None
    data: dict[str, Any] | None = None
    objective: dict[str, Any] | None = None


def trainings(paths: Iterable[Path]) -> tuple[Training, ...]:
    """The folders of `pcc-bench train` among these, found by their `log.jsonl`.

    Raises:
        UsageError: A log or recipe is cut or damaged.
    """
    folders = [log.parent for log in files.matching(paths, "log.jsonl")]
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
    found = files.matching(paths, "cost_*.jsonl")
    return pd.DataFrame(
        [{**record.model_dump(mode="json"), "path": str(path)} for path in found for record in records.read(path)]
    )


def _training(folder: Path, name: str) -> Training:
    recipe = folder / "recipe.json"
    evaluation, rows = folder / "evaluation.jsonl", folder / "evaluation-rows.jsonl"
    return Training(
        name=name,
        path=folder,
        recipe=checked(_Recipe, read_json(recipe), str(recipe)).model_dump() if recipe.is_file() else {},
        log=_frame(folder / "log.jsonl"),
        evaluation=_frame(evaluation) if evaluation.is_file() else pd.DataFrame(),
        rows=_frame(rows, _Losses) if rows.is_file() else pd.DataFrame(),
    )


def _frame(path: Path, kind: type[_Line | _Losses] = _Line) -> pd.DataFrame:
    return pd.DataFrame(
        [checked(kind, line, f"{path}, line {number}").model_dump() for number, line in read_json_lines(path)]
    )
