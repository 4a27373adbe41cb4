"""What the lab's models can do: recorded, checked later, held against the paper (`lab record`, `check`, `findings`)."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from pydantic import BaseModel

from pcc_bench.core.documents import checked, read_json, write_text
from pcc_bench.core.errors import UsageError
from pcc_bench.core.shipped import CARD, PRETRAINED
from pcc_bench.lab import PARTS, identity
from pcc_bench.lab.build import read_card
from pcc_bench.lab.skills import QUESTION_SETS, RECONSTRUCTION, TRACKING, Measured, measure, tracking
from pcc_bench.tasks.lab import DATASETS, rows
from pcc_bench.tasks.lab.world import VERSION

RECORD = "lab.json"
CHECK_ROWS, CHECK_DOCUMENTS = 40, 20  # few: the same rows as recorded, so that nothing is left to chance
TOLERANCE = 1.0  # points; another processor may round a rare answer over to another one


class Record(BaseModel, extra="forbid"):
    world: int  # version of the generator
    data: dict[str, str]  # fingerprint of rows of each data set of the world
    parts: dict[str, str]
    files: dict[str, str]  # SHA-256 of each file of the parts
    measured: tuple[Measured, ...]
    check: tuple[Measured, ...]  # figures on few rows, which `lab check` measures again


def record(folder: Path, names: Sequence[str] = (), figures: Path | None = None) -> Record:
    """Measure finished parts (all where `names` is empty) and write their record beside them, part by part.

    A part that is in the record as it is now is not measured again. `figures`: a folder whose record has the figures of
    these parts, and of others that are not to be shipped.
    """
    finished = [name for name in (names or PARTS) if read_card(folder, name)]
    if not finished:
        raise UsageError(f"{folder} has no finished part of the lab: make some with 'pcc-bench lab build'")
    old = read_record(folder) if (folder / RECORD).is_file() else None
    now = Record(world=VERSION, data=_world(), parts={}, files={}, measured=(), check=())
    if figures is not None:
        other = read_record(figures)
        for name in other.parts:
            if _is_other(name, other):
                raise UsageError(f"{figures / RECORD}: {name} was made by another recipe: measure it again there")
        now.measured = other.measured
    if old and (old.world, old.data) != (now.world, now.data):
        old = None
    for name in finished:
        files = _hashes(folder, [name])
        known = old if old and files.items() <= old.files.items() and old.parts.get(name) == identity(name) else None
        now.parts[name] = identity(name)
        now.files |= files
        if figures is None:
            now.measured += _of(name, known.measured) if known else (*measure(folder, name), *_besides(folder, name))
        if known:  # but the figures of a checkpoint that is not here any more
            here = (folder / name / PRETRAINED).is_dir()
            now.check += tuple(figure for figure in _of(name, known.check) if here or figure.task != RECONSTRUCTION)
        else:
            now.check += _quick(folder, [name])
        write_text(folder / RECORD, now.model_dump_json(indent=1) + "\n")
    return now


def _of(name: str, figures: Iterable[Measured]) -> tuple[Measured, ...]:
    """A part's figures; a decoder's are named `<part>, full-context`."""
    return tuple(figure for figure in figures if figure.model.partition(",")[0] == name)


def read_record(folder: Path) -> Record:
    path = folder / RECORD
    if not path.is_file():
        raise UsageError(f"{path} is missing: 'pcc-bench lab record' writes it")
    return checked(Record, read_json(path), f"{path} is damaged")


def check(folder: Path) -> list[str]:
    """What is not as recorded, a sentence each; none where all is well."""
    known, world = read_record(folder), _world()
    wrong = []
    if known.world != VERSION:
        wrong.append(f"the record is of version {known.world} of the world, this generator is version {VERSION}")
    wrong += [f"the world's {name} rows have changed" for name in world if known.data.get(name) != world[name]]
    others = [name for name in known.parts if _is_other(name, known)]
    wrong += [f"{name}: its recipe, or what it is made from, has changed" for name in others]
    files = _hashes(folder, known.parts)
    missing = [name for name in known.files if name not in files]
    wrong += [f"{folder / name} is missing" for name in missing]
    wrong += [f"{folder / name} has changed" for name, old in known.files.items() if files.get(name, old) != old]
    if missing:
        return wrong
    values = {(now.model, now.task, now.metric): now.value for now in _quick(folder, known.parts)}
    for figure in (figure for name in known.parts for figure in _of(name, known.check)):
        value = values.get((figure.model, figure.task, figure.metric), math.nan)
        if not abs(value - figure.value) <= TOLERANCE:  # NaN is not
            wrong.append(f"{figure.model}: {figure.task} {figure.metric} is {value}, it was {figure.value}")
    return wrong


def table(known: Record) -> pd.DataFrame:
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
        if (tracked := tracking(folder, name)) is not None:
            yield tracked
    elif (at_build := (read_card(folder, name) or {}).get(RECONSTRUCTION)) is not None:
        yield checked(Measured, at_build, f"{folder / name / CARD} is damaged")


def _quick(folder: Path, names: Iterable[str]) -> tuple[Measured, ...]:
    return tuple(figure for name in names for figure in measure(folder, name, CHECK_ROWS, CHECK_DOCUMENTS))


def _world() -> dict[str, str]:
    return {name: hashlib.sha256(json.dumps(rows(name, "test", 20)).encode()).hexdigest() for name in DATASETS}


def _hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    paths = sorted(path for name in names for path in (folder / name).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


FULL, NONE = "lab-llama, full-context", "lab-llama, no-context"
FOUR, SIXTEEN, MOST = "pcc-lab-4x", "pcc-lab-16x", "pcc-lab-64x"
LARGE, LARGE_SIXTEEN = "pcc-lab-large-4x", "pcc-lab-large-16x"
ICAE, COCOM, AUTOCOMPRESSOR, LLMLINGUA2 = "icae-lab-4x", "cocom-lab-4x", "autocompressor-lab-4x", "llmlingua2-lab"
OTHERS = ("mistral", "qwen2", "phi3")  # decoders to which the 4x compressor was taken
NEAR = 0.9  # of the full context's F1 counts as near it
# What the lab says of a claim.
AGREES, DISAGREES, UNDECIDED, MISSING = "agrees", "disagrees", "undecided", "not measured"


class Interval(NamedTuple):
    value: float
    half: float  # half the width of its 95 % interval

    def __str__(self) -> str:
        return f"{self.value:.1f} ± {self.half:.1f}"


_RATE = {FOUR: 0.5, SIXTEEN: -0.5, LARGE: 0.5, LARGE_SIXTEEN: -0.5}  # from 16x to 4x, the mean of both sizes
_SIZES = ({LARGE: 1, FOUR: -1}, {LARGE_SIXTEEN: 1, SIXTEEN: -1})  # from Lite to Large, at each rate

# What the paper finds, in the lab's terms: weighted sums of models' F1, by model, that are all above 0 where it holds.
CLAIMS: dict[str, Sequence[Mapping[str, float]]] = {
    f"4x is near the full context (at least {NEAR:.0%} of its F1)": [{FOUR: 1, FULL: -NEAR}],
    "16x lies between 4x and 64x": [{FOUR: 1, SIXTEEN: -1}, {SIXTEEN: 1, MOST: -1}],
    # half of (full - none), less (64x - none)
    "64x collapses: it keeps less than half of what the context is worth": [{MOST: -1, FULL: 0.5, NONE: 0.5}],
    "without pretraining F1 is less than half": [{FOUR: 0.5, f"{FOUR}-no-pretraining": -1}],
    "both objectives are needed: each alone is worse": [
        {FOUR: 1, f"{FOUR}-{objective}": -1} for objective in ("reconstruction", "completion")
    ],
    "boundary vectors help": [{FOUR: 1, f"{FOUR}-no-boundaries": -1}],
    # above 0 where the rate's effect is larger than the size's, whichever sign that has
    "the encoder's size matters less than the rate": [
        {m: _RATE.get(m, 0) + sign * size.get(m, 0) for m in [*_RATE, *size]} for size in _SIZES for sign in (-1, 1)
    ],
    "after light tuning other decoders answer better with 4x memories than without the context": [
        {f"{FOUR}-{other}": 1, f"lab-{other}, no-context": -1} for other in OTHERS
    ],
    "trained for another decoder, 4x memories answer better than no context": [
        {"pcc-lab-mistral-4x": 1, "lab-mistral, no-context": -1}
    ],
    "PCC is above ICAE, COCOM and AutoCompressor at 4x": [
        {FOUR: 1, rival: -1} for rival in (ICAE, COCOM, AUTOCOMPRESSOR)
    ],
    "PCC is above LLMLingua-2 at 4x": [{FOUR: 1, LLMLINGUA2: -1}],
    "ICAE is above COCOM, and COCOM above AutoCompressor": [{ICAE: 1, COCOM: -1}, {COCOM: 1, AUTOCOMPRESSOR: -1}],
}


def findings(measured: Sequence[Measured]) -> pd.DataFrame:
    """A row a claim: what it says, the figures of a record (mean F1 over the four question sets), the verdict."""
    scores: dict[str, Interval] = {}
    for model in {figure.model for figure in measured}:
        each = [one for one in measured if (one.model, one.metric) == (model, "f1") and one.task in QUESTION_SETS]
        if len(each) == len(QUESTION_SETS):
            half = math.hypot(*((one.high - one.low) / 2 for one in each)) / len(each)
            scores[model] = Interval(sum(one.value for one in each) / len(each), half)
    rows = []
    for text, sums in CLAIMS.items():
        models = list(dict.fromkeys(model for weights in sums for model in weights))
        values = ", ".join(f"{model} {scores[model]}" for model in models if model in scores)
        if absent := [model for model in models if model not in scores]:
            missing = f"no figure of {', '.join(absent)}"
            rows.append((text, f"{values}; {missing}" if values else missing, MISSING))
        else:
            rows.append((text, values, verdict([_sum(weights, scores) for weights in sums])))
    text = "how well a context is reconstructed tells how well its questions are answered"
    tracking = next((figure for figure in measured if figure.task == TRACKING), None)
    if tracking is None:
        rows.append((text, "no figure", MISSING))
    else:
        low, high = tracking.low, tracking.high
        figure = f"{tracking.model}: rank correlation {tracking.value:.2f} [{low:.2f}, {high:.2f}], n = {tracking.n}"
        rows.append((text, figure, verdict([Interval((high + low) / 2, (high - low) / 2)])))
    return pd.DataFrame(rows, columns=["the paper says", "the lab measured (F1)", "verdict"])


def _sum(weights: Mapping[str, float], figures: Mapping[str, Interval]) -> Interval:
    """A weighted sum. It takes the errors of models as independent: cautious, since they answered the same rows."""
    value = sum(weight * figures[model].value for model, weight in weights.items())
    return Interval(value, math.hypot(*(weight * figures[model].half for model, weight in weights.items())))


def verdict(differences: Sequence[Interval]) -> str:
    """Agrees where all are above 0 with their intervals, disagrees where any is below 0 with its interval."""
    if all(figure.value - figure.half > 0 for figure in differences):
        return AGREES
    if any(figure.value + figure.half < 0 for figure in differences):
        return DISAGREES
    return UNDECIDED
