"""What makes two runs another experiment, and the sentence that says so.

A protocol is plain data, a value under the name that messages give it. It is the same for the gate, the comparison, the
report's tables and the choice of the newest of two equal runs; they differ only in what they look up row by row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pcc_bench.core.errors import UsageError
from pcc_bench.core.questions import OFFICIAL
from pcc_bench.results.shapes import ResultFile

if TYPE_CHECKING:
    from pcc_bench.results.run import Run, TaskRun

Protocol = Mapping[str, Any]
FINGERPRINT, TEMPLATE, DECODER, DTYPE = "data fingerprint", "chat template", "decoder", "dtype"
# Where rows are matched by number and content, the rows themselves say whether the data are the same.
DATA = ("data source", FINGERPRINT, "number of rows")
READER = (DECODER, DTYPE)  # a table of methods may have several, and names them


def protocol(file: ResultFile, task: str, rows: int) -> dict[str, Any]:
    """The protocol of a task.

    Args:
        file: A result file.
        task: One of its tasks.
        rows: How many were asked, skipped ones counted: what is left of a limit.
    """
    config, population = file.configs[task], file.configs[task].metadata.population
    told = {
        "task version": file.versions.get(task),
        "population": population.population,
        "data source": population.source,
        FINGERPRINT: population.fingerprint,
        "number of rows": rows,
        "protocol": population.protocol,
        "prompt": population.prompt or OFFICIAL,  # older files do not say it: there was one
        "number of shots": file.shots.get(task),
        "examples as turns": bool(file.fewshot_as_multiturn),
        TEMPLATE: file.chat_template_sha,
        "system instruction": file.system_instruction_sha,
        "decoding": config.generation_kwargs,
        DECODER: _decoder(file),
        DTYPE: (file.config.model_dtype or "").removeprefix("torch.") or None,
    }
    return {name: comparable(value) for name, value in told.items()}


def comparable(value: Any) -> Any:
    """Plain data that JSON can hold and that is equal to itself: NaN and the infinities are texts."""
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [comparable(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _decoder(file: ResultFile) -> str | None:
    """The frozen decoder by its weights, or its name; None where it is a part of the model that is evaluated."""
    ours = file.config.pcc_bench
    if ours is None or ours.capabilities.get("owns_decoder"):
        return None
    name = ours.decoder or str(file.config.arguments.get("decoder") or "")
    return ours.fingerprints.get("decoder_weights") or name.rstrip("/").rpartition("/")[2] or None


class Difference(NamedTuple):
    """One thing in which two protocols differ."""

    name: str
    first: str
    second: str


def difference(first: Protocol, second: Protocol, without: Collection[str] = ()) -> Difference | None:
    """The first difference of two protocols; what one of them does not record is not compared."""
    for name, value in first.items():
        if name not in without and name in second and value != second[name]:
            return Difference(name, _short(value), _short(second[name]))
    return None


def unrecorded(one: Protocol, other: Protocol) -> list[str]:
    """What only one of two protocols records."""
    return sorted(set(one) ^ set(other))


def check_one_table(entries: Iterable[tuple[Run, TaskRun]], apart: Callable[[Run], str] = lambda run: "") -> None:
    """Refuse to put answers to different questions into one table.

    Args:
        entries: What the table shows.
        apart: Runs for which this differs are not compared with each other.

    Raises:
        UsageError: Two files differ in the protocol of a task, or in where rows come from; it names both.
    """
    first: dict[tuple[str, str], tuple[Run, TaskRun]] = {}
    sources: dict[str, tuple[Run, TaskRun]] = {}
    for run, task in entries:
        other, same = first.setdefault((apart(run), task.name), (run, task))
        # A chat template belongs to its decoder: of two decoders it is only asked whether each used its own.
        both = task.protocol.get(DECODER) == same.protocol.get(DECODER)
        mine, theirs = (one.protocol if both else _without_template(one.protocol) for one in (task, same))
        wrong = difference(mine, theirs, READER)
        if wrong:
            says = f"{wrong.name} of {task.name} is {wrong.first} in the first and {wrong.second} in the second"
            raise UsageError(_not_together(run, other, says))
        before, there = sources.setdefault(apart(run), (run, task))
        came, comes = there.population.source, task.population.source
        if came != comes:
            says = f"the rows of {task.name} come from {comes}, those of {there.name} from {came} in the second"
            raise UsageError(_not_together(run, before, says))


def _without_template(value: Protocol) -> Protocol:
    return {**value, TEMPLATE: "its own" if value.get(TEMPLATE) else None}


def _not_together(run: Run, other: Run, wrong: str) -> str:
    return (
        f"{run.path} and {other.path} do not belong in one table: {wrong}; show them apart, or repeat one with the "
        "other's settings"
    )


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else f"{text[:200]}..."
