"""One result file of lm-eval as a run: what ran, on what, with which scores."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pcc_bench.reports import files
from pcc_bench.reports.results import Run, TaskResult

SEEDS = ("random_seed", "numpy_seed", "torch_seed", "fewshot_seed")


def read_run(path: Path) -> Run:
    """The run of one result file; its id is made unique by `load`."""
    data = files.read_result(path)
    config = data["config"]
    ours: Mapping[str, Any] = config.get("pcc_bench", {})
    arguments = _arguments(config.get("model_args"))
    method = str(ours.get("method") or config.get("model"))
    rate = ours.get("requested_rate")
    checkpoint = str(arguments.get("pretrained") or data.get("model_name") or "")
    tasks = {task: _task(path, data, task, ours) for task in files.tasks_of(data)}
    date = data.get("date")
    return Run(
        id=_id(method, ours.get("control"), rate, checkpoint),
        path=path,
        place=path.name,
        labels=_labels(path),
        method=method,
        control=ours.get("control"),
        checkpoint=checkpoint,
        decoder=str(ours.get("decoder") or arguments.get("decoder") or (checkpoint if not ours else "")),
        rate=float(rate) if isinstance(rate, int | float) else None,
        arguments=arguments,
        seeds=tuple(config.get(seed) for seed in SEEDS),
        date=datetime.fromtimestamp(date, UTC).isoformat(timespec="seconds") if isinstance(date, int | float) else "",
        schema_version=int(ours.get("schema_version", 0)),
        reported=ours,
        data={**{key: value for key, value in config.items() if key != "pcc_bench"}, **_versions(data)},
        tasks=tasks,
    )


def _task(path: Path, data: Mapping[str, Any], task: str, ours: Mapping[str, Any]) -> TaskResult:
    config = data["configs"][task]
    metadata = config.get("metadata") or {}
    population = metadata.get("population")
    scores: dict[str, Any] = {}
    for key, value in data["results"][task].items():
        if "," in key:
            scores.setdefault(key.partition(",")[0], value)
    numbers = {key: float(value) for key, value in scores.items() if isinstance(value, int | float)}
    higher = data.get("higher_is_better", {}).get(task) or {}
    return TaskResult(
        name=task,
        scores={key: value for key, value in numbers.items() if not key.endswith("_stderr")},
        errors={key.removesuffix("_stderr"): value for key, value in numbers.items() if key.endswith("_stderr")},
        aggregations={entry["metric"]: _function(entry) for entry in config.get("metric_list") or ()},
        higher_is_better={key: value for key, value in higher.items() if isinstance(value, bool)},
        rows=int(data["results"][task].get("sample_len", _effective(data, task))),
        skipped=len(ours.get("skipped", {}).get(task, [])),
        population=population if isinstance(population, dict) else {},
        metadata=metadata,
        shots=data.get("n-shot", {}).get(task),
        version=data.get("versions", {}).get(task),
        samples=files.samples_file(path, task),
    )


def _function(entry: Mapping[str, Any]) -> str:
    """Name of an aggregation; lm-eval writes down the source of those that are functions."""
    text = str(entry.get("aggregation") or "mean")
    return text.removeprefix("def ").partition("(")[0].strip()


def _effective(data: Mapping[str, Any], task: str) -> int:
    return int(data.get("n-samples", {}).get(task, {}).get("effective", 0))


def _arguments(given: Any) -> dict[str, Any]:
    """lm-eval writes a mapping; older versions wrote the string of the command line."""
    if isinstance(given, str):
        return dict(part.split("=", 1) for part in given.split(",") if "=" in part)
    return dict(given or {})


def _versions(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: data[key] for key in ("lm_eval_version", "transformers_version", "git_hash") if key in data}


def _labels(path: Path) -> dict[str, str]:
    """Suite and label of the cell whose folder a result file is in."""
    for folder in path.parents:
        mark = folder.parent / "suite.json"
        if mark.is_file():
            name, _, digest = folder.name.rpartition("-")
            label = name if len(digest) == 8 and name else folder.name
            return {str(files.read_object(mark).get("suite", "")): label.replace("-", " ")}
    return {}


def _id(method: str, control: Any, rate: Any, checkpoint: str) -> str:
    parts = [method, control, f"{rate:g}x" if isinstance(rate, int | float) else None, Path(checkpoint).name]
    return "-".join(str(part) for part in parts if part)
