"""The one writer of result files for tests: lm-eval's `results_*.json` with `samples_*.jsonl` beside it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STAMP = "2026-01-01T00-00-00"
POPULATION = {"source": "lab", "fingerprint": "f00", "protocol": "strict", "population": "paper"}


@dataclass(frozen=True)
class Task:
    """A task of a run.

    Attributes:
        scores: Metric -> what lm-eval writes for it, of the first filter.
        lines: Of samples; none: no file of them.
        aggregations: Metric -> how rows become the score, where it is not the mean.
        population: Of our account; empty: the task is not ours.
        config: What else stands in its configuration.
        count: Rows scored, where there are no lines.
    """

    scores: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]] = ()
    aggregations: Mapping[str, str] = field(default_factory=dict)
    population: Mapping[str, Any] = field(default_factory=lambda: POPULATION)
    config: Mapping[str, Any] = field(default_factory=dict)
    count: int | None = None


def write_run(
    folder: Path,
    tasks: Mapping[str, Task],
    ours: Mapping[str, Any],
    stamp: str = STAMP,
    zipped: bool = False,
    arguments: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A result file and its samples.

    Args:
        folder: Where to.
        tasks: By name.
        ours: What our model reports about itself, its method above all.
        stamp: In the files' names.
        zipped: Compress the samples.
        arguments: Of the run, as its `config` has them.
        changes: Further keys of the file, or others in the place of what stands here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"results_{stamp}.json"
    results: dict[str, Any] = {}
    configs: dict[str, Any] = {}
    for name, task in tasks.items():
        count = len(task.lines) if task.count is None else task.count
        results[name] = {"sample_len": count} | {f"{metric},none": score for metric, score in task.scores.items()}
        metrics = [metric for metric in task.scores if metric != "compression" and not metric.endswith("_stderr")]
        configs[name] = {
            "metadata": {"compress": {"context": "\n\n"}, "population": dict(task.population)},
            "metric_list": [{"metric": key, "aggregation": task.aggregations.get(key, "mean")} for key in metrics],
            **task.config,
        }
        if task.lines:
            text = "".join(json.dumps(line) + "\n" for line in task.lines).encode()
            samples = folder / f"samples_{name}_{stamp}.jsonl{'.gz' if zipped else ''}"
            samples.write_bytes(gzip.compress(text) if zipped else text)
    reported = {"schema_version": 1, "control": None, **ours}
    data = {
        "results": results,
        "configs": configs,
        "config": {"model": ours["method"], "pcc_bench": reported, **(arguments or {})},
        "versions": dict.fromkeys(tasks, 1),
        "n-shot": dict.fromkeys(tasks, 0),
        "date": 1.8e9,
        "lm_eval_version": "0.4.13",
    }
    path.write_text(json.dumps(data | changes), "utf-8")
    return path
