"""A run as the gate sees it: scores and costs by row, from lm-eval's result files or a frozen baseline."""

from __future__ import annotations

import hashlib
import json
import lzma
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pcc_bench.cost import records
from pcc_bench.cost.records import CostRecord
from pcc_bench.errors import UsageError
from pcc_bench.reports import files, summary

FROZEN_VERSION = 1
SUFFIX = ".json.xz"
COSTS = "cost_measured.jsonl"
# Of a row's account (records.SampleRecord): what a frozen baseline keeps, and what only holds on the machine it ran on.
COUNTS = ("source_tokens", "slots", "boundary", "prompt_positions")
TIMES = ("new_tokens", "compress_seconds", "prefill_seconds", "decode_seconds", "cached")


class TaskRun(BaseModel):
    """One task of a run. Lists have one entry a row.

    Attributes:
        asked: The protocol: what must be equal for two runs to be compared, under the name it has in messages.
        fingerprint: Of the population, where the task records one.
        higher_is_better: By metric; None where the task does not say.
        rows: Numbers of the rows in the data set.
        hashes: Of each row's content and prompt.
        contexts: Equal for rows on the same context.
        scores: By metric; None where a row has none (it was skipped for its length).
        costs: By count or time of its account; None where there is no account.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    asked: Mapping[str, Any]
    fingerprint: str | None
    higher_is_better: Mapping[str, bool | None]
    rows: list[int]
    hashes: list[str]
    contexts: list[int]
    scores: Mapping[str, list[float | None]]
    costs: Mapping[str, list[float | None]]


class Run(BaseModel):
    """All tasks of a run.

    Attributes:
        schema_version: Of the frozen file.
        name: What ran: method, model and fingerprints, for messages and tables.
        tasks: By name.
        spent: Records of `pcc-bench cost` in the same folder; never in a frozen file, they are of one machine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = FROZEN_VERSION
    name: Mapping[str, Any]
    tasks: Mapping[str, TaskRun]
    spent: list[CostRecord] = []


def load(path: Path) -> Run:
    """A run from a results folder, a `results_*.json`, or a frozen baseline; a folder may hold records of cost only.

    Raises:
        UsageError: It is none of these, or can't be read, or holds a task twice or without its samples.
    """
    if path.is_file() and path.suffix == ".xz":
        return _load_frozen(path)
    spent = [record for file in files.found([path], COSTS) for record in records.read(file)] if path.is_dir() else []
    if spent and not files.found([path], "results_*.json"):
        return Run(name={"method": "cost of", "model": _weights(spent)}, tasks={}, spent=spent)
    results = [result for file in files.result_files([path]) for result in summary.read(file)]
    places: dict[str, Path] = {}
    for result in results:
        if result.task in places:
            raise UsageError(
                f"{path} holds two results of {result.task} ({places[result.task].name} and {result.path.name}): "
                "name the file that is meant"
            )
        places[result.task] = result.path
    return Run(name=_name(results[0]), tasks={result.task: _task_run(result) for result in results}, spent=spent)


def freeze(run: Run) -> bytes:
    """A run as a small file: the same run gives the same bytes.

    Timings and records of cost are left out: they say nothing on another machine.

    Raises:
        UsageError: A score is not a finite number.
    """
    for task, kept in run.tasks.items():
        for metric, scores in kept.scores.items():
            check_finite(scores, kept.rows, f"{metric} of {task}")
    tasks = {task: kept.model_copy(update={"costs": _only(kept.costs, COUNTS)}) for task, kept in run.tasks.items()}
    content = run.model_copy(update={"tasks": tasks}).model_dump(mode="json", exclude={"spent"})
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return lzma.compress(text.encode(), format=lzma.FORMAT_XZ, preset=9)


def check_finite(scores: Iterable[float | None], rows: Iterable[int], what: str) -> None:
    """Refuse scores that are no numbers.

    Raises:
        UsageError: One is not finite; it names the first.
    """
    wrong = [row for row, score in zip(rows, scores, strict=True) if score is not None and not math.isfinite(score)]
    if wrong:
        raise UsageError(
            f"{what}: {len(wrong)} scores are not finite numbers (first in row {wrong[0]}), so nothing can be compared "
            "with them: repeat the run, or leave the metric out"
        )


def _load_frozen(path: Path) -> Run:
    try:
        data = json.loads(lzma.decompress(path.read_bytes()))
        version = data["schema_version"]
        if version > FROZEN_VERSION:
            raise UsageError(f"{path} has version {version}, this pcc-bench reads up to {FROZEN_VERSION}: update it")
        return Run.model_validate(data)
    except UsageError:
        raise
    except (OSError, lzma.LZMAError, ValueError, KeyError, TypeError, ValidationError) as error:
        why = " ".join(str(error).split())[:200]
        raise UsageError(f"{path} is no frozen baseline ({type(error).__name__}: {why}): freeze it again") from None


def _weights(spent: Iterable[CostRecord]) -> str:
    return ", ".join(sorted({record.encoder for record in spent} - {""})) or "the full text"


def _name(result: summary.Result) -> dict[str, Any]:
    ours = result.ours
    return {
        "method": ours.get("method") or result.data["config"].get("model"),
        "model": Path(str(result.data.get("model_name", ""))).name,
        "requested_rate": ours.get("requested_rate"),
        "fingerprints": dict(ours.get("fingerprints", {})),
    }


def _task_run(result: summary.Result) -> TaskRun:
    samples = _scored(result)
    metrics = {name: None for sample in samples.values() for name in sample["scores"]}
    records = [sample["compression"] for sample in samples.values()]
    costs = {key: [_number(record.get(key)) for record in records] for key in (*COUNTS, *TIMES)}
    numbers: dict[str, int] = {}
    higher = result.data.get("higher_is_better", {}).get(result.task, {})
    return TaskRun(
        asked=_protocol(result),
        fingerprint=result.population.get("fingerprint"),
        higher_is_better={name: higher.get(name.partition(",")[0]) for name in metrics},
        rows=list(samples),
        hashes=[sample["hash"] for sample in samples.values()],
        contexts=[numbers.setdefault(sample["context"], len(numbers)) for sample in samples.values()],
        scores={name: [sample["scores"].get(name) for sample in samples.values()] for name in metrics},
        costs={key: values for key, values in costs.items() if any(value is not None for value in values)},
    )


def _scored(result: summary.Result) -> dict[int, dict[str, Any]]:
    """Row number -> hash, context, scores by metric and account, in the order of the numbers."""
    columns = result.data["configs"][result.task].get("metadata", {}).get("compress") or {}
    rows: dict[int, dict[str, Any]] = {}
    lines = list(_lines(result))
    several = len({line["filter"] for line in lines}) > 1
    for line in lines:
        content = [line["doc_hash"], line["prompt_hash"], line["target_hash"]]
        context = [line["doc"].get(column) for column in columns] if columns else content
        fresh: dict[str, Any] = {"hash": _hash(content), "context": _hash(context), "scores": {}, "compression": {}}
        row = rows.setdefault(line["doc_id"], fresh)
        if isinstance(line.get("compression"), dict):
            row["compression"] = line["compression"]
        for metric in line["metrics"]:
            if isinstance(
                line[metric], int | float
            ):  # accounts and parts of corpus-wide metrics are no scores of a row
                row["scores"][f"{metric},{line['filter']}" if several else metric] = float(line[metric])
    return dict(sorted(rows.items()))


def _lines(result: summary.Result) -> Iterator[dict[str, Any]]:
    path = files.samples_file(result.path, result.task)
    if path is None:
        raise UsageError(
            f"no samples of {result.task} beside {result.path}: the gate compares row by row, so run lm_eval with "
            "--log_samples ('pcc-bench eval' does)"
        )
    for sample in files.json_lines(path):
        missing = {"doc_id", "doc", "filter", "metrics", "doc_hash", "prompt_hash", "target_hash"} - set(sample)
        if missing:
            raise UsageError(
                f"{path} is no file of samples (a line lacks {', '.join(sorted(missing))}): repeat the run"
            )
        yield sample


def _protocol(result: summary.Result) -> dict[str, Any]:
    config = result.data["configs"][result.task]
    return {
        "protocol": result.population.get("protocol"),
        "number of shots": result.data.get("n-shot", {}).get(result.task),
        "task version": result.data.get("versions", {}).get(result.task),
        "decoding": config.get("generation_kwargs"),
        "chat template": result.data.get("chat_template_sha"),
        "system instruction": result.data.get("system_instruction_sha"),
    }


def _only(costs: Mapping[str, list[float | None]], names: Iterable[str]) -> dict[str, list[float | None]]:
    return {name: costs[name] for name in names if name in costs}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _hash(parts: list[Any]) -> str:
    """48 bits: rows are matched by number; the hash only has to notice another content."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]
