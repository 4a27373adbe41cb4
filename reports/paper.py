"""The published numbers, as data: `paper.yaml` beside this file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pcc_bench.reports.table import Published, Strict

FILE = Path(__file__).with_name("paper.yaml")


class Known(Strict):
    """One published number."""

    table: str  # of ours that it belongs to
    dataset: str  # `squad`, ..., or `average`
    metric: str  # as in our results
    method: str  # of the registry; `pcc-lite` and `pcc-large` where the source says which, else `pcc`
    rate: float | None  # source tokens per slot; None where it is not known or there is none
    shown: str  # what stands before the question: tokens of demonstrations, shots; "" where nothing does
    published: Published  # its value, certainty and source
    rerun: str = ""  # name of the later paper that measured it; "" for the paper itself


class Settings(Strict):
    """The paper's hyper-parameters."""

    source: str  # where they were read
    certainty: str  # as in `Published`
    rows: tuple[str, ...]  # their names
    columns: dict[str, tuple[str, ...]]  # method -> values, in the same order


def cells(table: str | None = None) -> list[Known]:
    """What the paper is known to print, of one table or of all."""
    return [known for known in _read("paper") if table in (None, known.table)]


def reruns(table: str | None = None) -> list[Known]:
    """What later papers measured."""
    return [known for known in _read("reruns") if table in (None, known.table)]


def settings() -> Settings:
    """The paper's hyper-parameters."""
    told = dict(_load()["settings"])
    fixed = {key: told.pop(key) for key in ("source", "certainty", "rows")}
    return Settings(**fixed, columns=told)


@cache
def _load() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return data


def _read(part: str) -> Iterator[Known]:
    for line in _load()[part]:
        yield _known(line, part == "reruns")


def _known(line: Sequence[Any], rerun: bool) -> Known:
    table, dataset, metric, method, rate, shown, value, certainty, source, *printed = line
    text = str(printed[0]) if printed else f"{value:.2f}"
    told = Published(value=value, printed=text, certainty=certainty, source=_load()["sources"][source])
    return Known(
        table=table,
        dataset=dataset,
        metric=metric,
        method=method,
        rate=rate,
        shown=shown,
        published=told,
        rerun=source if rerun else "",
    )
