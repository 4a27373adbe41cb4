"""From a result file of lm-eval to a run: what ran, on what, with which scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeGuard

from pcc_bench.core.account import SCHEMA_VERSION
from pcc_bench.core.documents import checked, read_json
from pcc_bench.core.errors import UsageError
from pcc_bench.results import files
from pcc_bench.results.protocol import protocol
from pcc_bench.results.rows import COMPRESSION
from pcc_bench.results.run import Run, TaskRun
from pcc_bench.results.shapes import Reported, ResultFile

UNDEFINED = ("ratio_of_sums", "compression")  # aggregations that may be 0 by 0


def read_run(path: Path) -> Run:
    """The run of one result file, of this version or an older one, checked whole.

    Raises:
        UsageError: It is not a result file, or from a newer version, or a score is not a finite number.
    """
    data = checked(ResultFile, read_json(path), f"{path} is not a result file of lm-eval")
    ours = data.config.pcc_bench
    if ours and ours.schema_version > SCHEMA_VERSION:
        raise UsageError(
            f"{path} has schema version {ours.schema_version}, this pcc-bench reads up to {SCHEMA_VERSION}: update it"
        )
    told, config, arguments = ours or Reported(), data.config, data.config.arguments
    method = told.method or config.model
    checkpoint = str(arguments.get("pretrained") or data.model_name or "")
    parts = [method, told.control, told.requested_rate and f"{told.requested_rate:g}x", Path(checkpoint).name]
    versions = {"lm-eval": data.lm_eval_version, "transformers": data.transformers_version, "code": data.git_hash}
    return Run(
        id="-".join(str(part) for part in parts if part),
        path=path,
        place=path.name,
        method=method,
        model=Path(data.model_name or "").name,
        rate=told.requested_rate,
        fingerprints=told.fingerprints,
        tasks={task: _task(path, data, task, told) for task in data.results if task in data.configs},
        control=told.control,
        labels=_labels(path),
        checkpoint=checkpoint,
        decoder=told.decoder or str(arguments.get("decoder") or ("" if ours else checkpoint)),
        arguments=arguments,
        seeds=(config.random_seed, config.numpy_seed, config.torch_seed, config.fewshot_seed),
        date=datetime.fromtimestamp(data.date, UTC).isoformat(timespec="seconds") if _is_number(data.date) else "",
        parameters=config.model_num_parameters,
        dtype=(config.model_dtype or "").removeprefix("torch."),
        versions={name: version for name, version in versions.items() if version},
        groups=data.groups,
        reported=ours,
    )


def _task(path: Path, data: ResultFile, task: str, ours: Reported) -> TaskRun:
    config, values = data.configs[task], data.results[task]
    aggregations = {entry.metric: entry.function for entry in config.metric_list}
    found: dict[str, Any] = {}
    for key, value in values.items():
        if "," in key:
            found.setdefault(key.partition(",")[0], value)
    numbers = {}
    for key, value in found.items():
        if isinstance(value, int | float) and math.isfinite(value):
            numbers[key] = float(value)
        elif _says_nothing(key, value, aggregations):
            continue
        else:
            raise UsageError(
                f"{path}: {key} of {task} is {str(value)[:40]!r}, not a finite number: repeat the run, and see "
                "why if it happens again"
            )
    scored = values.get("sample_len", data.samples.get(task, {}).get("effective", 0))
    if type(scored) is not int or scored < 0:
        raise UsageError(f"{path}: sample_len of {task} is {str(scored)[:40]!r}, not a number of rows: repeat the run")
    skipped = len(ours.skipped.get(task, ()))
    return TaskRun(
        name=task,
        protocol=protocol(data, task, scored + skipped),
        population=config.metadata.population,
        higher_is_better={
            name: better for name, better in (data.higher_is_better.get(task) or {}).items() if better is not None
        },
        scores={key: value for key, value in numbers.items() if not key.endswith("_stderr")},
        errors={key.removesuffix("_stderr"): value for key, value in numbers.items() if key.endswith("_stderr")},
        aggregations=aggregations,
        scored=scored,
        skipped=skipped,
        marked=tuple(config.metadata.compress),
        samples=files.samples_file(path, task),
    )


def _says_nothing(key: str, value: Any, aggregations: Mapping[str, str]) -> bool:
    """Is a value without a number allowed: a text ("N/A"), or a ratio that no row has anything for?"""
    if isinstance(value, str) or key.endswith("_stderr"):
        return not isinstance(value, dict | list)
    undefined = value is None or (isinstance(value, float) and math.isnan(value))
    return undefined and (key == COMPRESSION or aggregations.get(key) in UNDEFINED)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float)


def _labels(path: Path) -> dict[str, str]:
    """Suite and label of the cell whose folder a result file is in."""
    for folder in path.parents:
        mark = folder.parent / "suite.json"
        if mark.is_file():
            state = read_json(mark)
            if not isinstance(state, dict) or not isinstance(state.get("suite"), str):
                raise UsageError(f"{mark} names no suite: run the suite again, or remove the file")
            name, _, digest = folder.name.rpartition("-")
            label = name if len(digest) == 8 and name else folder.name
            return {state["suite"]: label.replace("-", " ")}
    return {}
