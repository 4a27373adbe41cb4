"""Record what the lab's models can do, and see later that they still do: `pcc-bench lab record` and `lab check`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict

from pcc_bench.core.documents import checked, read_json, write_text
from pcc_bench.core.errors import UsageError
from pcc_bench.core.shipped import CARD, PRETRAINED
from pcc_bench.lab.build import read_card
from pcc_bench.lab.parts import PARTS, identity
from pcc_bench.lab.skills import RECONSTRUCTION, Measured, measure, tracking
from pcc_bench.tasks.lab import DATASETS, rows
from pcc_bench.tasks.lab.world import VERSION

RECORD = "lab.json"
CHECK_ROWS, CHECK_DOCUMENTS = 40, 20  # few: the same rows as recorded, so that nothing is left to chance
TOLERANCE = 1.0  # points; another processor may round a rare answer over to another one


class Record(BaseModel):
    """What `lab check` compares with."""

    model_config = ConfigDict(extra="forbid")

    world: int  # version of the generator
    data: dict[str, str]  # fingerprint of rows of each data set of the world
    parts: dict[str, str]
    files: dict[str, str]  # SHA-256 of each file of the parts
    measured: tuple[Measured, ...]
    check: tuple[Measured, ...]  # figures on few rows, which `lab check` measures again


def record(folder: Path, names: Sequence[str] = (), figures: Path | None = None) -> Record:
    """Measure the finished parts in a folder and write their record beside them, part by part.

    A part that is in the record as it is now is not measured again.

    Args:
        folder: Where the parts are.
        names: Parts; all that are finished where empty.
        figures: A folder whose record has the figures, which are then not measured here: of these parts and of others,
            that are not to be shipped.

    Raises:
        UsageError: There is no finished part, or the other record is of parts that were made otherwise.
    """
    finished = [name for name in (names or PARTS) if read_card(folder, name)]
    if not finished:
        raise UsageError(f"{folder} has no finished part of the lab: make some with 'pcc-bench lab build'")
    known = read_record(folder) if (folder / RECORD).is_file() else None
    taken: tuple[Measured, ...] = ()
    if figures is not None:
        other = read_record(figures)
        for name in other.parts:
            if _is_other(name, other):
                raise UsageError(f"{figures / RECORD}: {name} was made by another recipe: measure it again there")
        taken = other.measured
    now = Record(world=VERSION, data=_world(), parts={}, files={}, measured=taken, check=())
    for name in finished:
        files = _hashes(folder, [name])
        old = None
        if known and (known.world, known.data) == (now.world, now.data) and files.items() <= known.files.items():
            old = known if known.parts.get(name) == identity(name) else None
        measured: tuple[Measured, ...] = ()
        if figures is None:
            measured = _of(name, old.measured) if old else (*measure(folder, name), *_besides(folder, name))
        if old:  # but the figures of a checkpoint that is not here any more
            here = (folder / name / PRETRAINED).is_dir()
            few = tuple(figure for figure in _of(name, old.check) if here or figure.task != RECONSTRUCTION)
        else:
            few = _quick(folder, [name])
        now = now.model_copy(
            update={
                "parts": {**now.parts, name: identity(name)},
                "files": {**now.files, **files},
                "measured": (*now.measured, *measured),
                "check": (*now.check, *few),
            }
        )
        write_text(folder / RECORD, now.model_dump_json(indent=1) + "\n")
    return now


def _of(name: str, figures: Iterable[Measured]) -> tuple[Measured, ...]:
    """A part's figures; a decoder's are named `<part>, full-context`."""
    return tuple(figure for figure in figures if figure.model.partition(",")[0] == name)


def read_record(folder: Path) -> Record:
    """The record of a folder.

    Raises:
        UsageError: It is missing or damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        raise UsageError(f"{path} is missing: 'pcc-bench lab record' writes it")
    return checked(Record, read_json(path), f"{path} is damaged")


def check(folder: Path) -> list[str]:
    """What is not as recorded, a sentence each; none where all is well.

    Raises:
        UsageError: There is no record.
    """
    known = read_record(folder)
    wrong = []
    if known.world != VERSION:
        wrong.append(f"the record is of version {known.world} of the world, this generator is version {VERSION}")
    wrong += [
        f"the world's {name} rows have changed" for name, digest in _world().items() if known.data.get(name) != digest
    ]
    wrong += [
        f"{name}: its recipe, or what it is made from, has changed" for name in known.parts if _is_other(name, known)
    ]
    missing = [name for name in known.files if not (folder / name).is_file()]
    wrong += [f"{folder / name} is missing" for name in missing]
    present = {name: digest for name, digest in _hashes(folder, known.parts).items() if name in known.files}
    wrong += [f"{folder / name} has changed" for name, digest in present.items() if known.files[name] != digest]
    if missing:
        return wrong
    expected = tuple(figure for name in known.parts for figure in _of(name, known.check))
    return [*wrong, *_differences(expected, _quick(folder, known.parts))]


def table(known: Record) -> pd.DataFrame:
    """The figures, a row a model: value and 95 % interval."""
    shown = [figure for figure in known.measured if figure.metric in ("f1", "bleu")]
    frame = pd.DataFrame([figure.model_dump() for figure in shown])
    frame["cell"] = [f"{figure.value:.1f} [{figure.low:.1f}, {figure.high:.1f}]" for figure in shown]
    frame["column"] = [f"{figure.task.removeprefix('pcc_')} {figure.metric}" for figure in shown]
    wide = frame.pivot(index="model", columns="column", values="cell")
    ratios = frame[frame["metric"] == "f1"].groupby("model")["ratio"].mean()
    wide.insert(0, "achieved ratio", ratios.map("{:.2f}".format, na_action="ignore"))
    ordered = dict.fromkeys(frame["model"])
    columns = ["achieved ratio", *(column for column in dict.fromkeys(frame["column"]) if column in wide)]
    return wide.loc[list(ordered), columns].fillna("-")


def _is_other(name: str, known: Record) -> bool:
    return name not in PARTS or known.parts[name] != identity(name)


def _besides(folder: Path, name: str) -> Iterator[Measured]:
    """What `lab check` does not measure again: tracking, and reconstruction of a checkpoint that was not kept."""
    if (folder / name / PRETRAINED).is_dir():
        tracked = tracking(folder, name)
        if tracked is not None:
            yield tracked
    elif (at_build := (read_card(folder, name) or {}).get(RECONSTRUCTION)) is not None:
        yield checked(Measured, at_build, f"{folder / name / CARD} is damaged")


def _quick(folder: Path, names: Iterable[str]) -> tuple[Measured, ...]:
    return tuple(figure for name in names for figure in measure(folder, name, CHECK_ROWS, CHECK_DOCUMENTS))


def _differences(expected: Sequence[Measured], measured: Sequence[Measured]) -> list[str]:
    values = {(figure.model, figure.task, figure.metric): figure.value for figure in measured}
    return [
        f"{figure.model}: {figure.task} {figure.metric} is {now}, it was {figure.value}"
        for figure in expected
        if abs((now := values.get((figure.model, figure.task, figure.metric), float("nan"))) - figure.value) > TOLERANCE
        or now != now
    ]


def _world() -> dict[str, str]:
    return {name: _digest(json.dumps(rows(name, "test", 20)).encode()) for name in DATASETS}


def _hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    paths = sorted(path for name in names for path in (folder / name).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _digest(path.read_bytes()) for path in paths}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
