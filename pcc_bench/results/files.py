"""Result files: where they lie (lm-eval's `results_*.json`, `samples_*.jsonl[.gz|.xz]` beside them), what is in them.

What is read of a result file is checked whole before anything is taken from it. What it lacks, or says with null, has a
default here; what it says in another shape is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from pcc_bench.core.documents import COMPRESSED
from pcc_bench.core.errors import UsageError

RESULTS = "results_*.json"
MEASURED = (RESULTS, "log.jsonl", "cost_*.jsonl")


def matching(paths: Iterable[Path], pattern: str) -> list[Path]:
    """Files of a pattern in folders at any depth, and the paths that are such files; each once, in a fixed order."""
    files: dict[Path, None] = {}
    for path in paths:
        inside = sorted(path.rglob(pattern), key=lambda file: (file.name, file)) if path.is_dir() else [path]
        files |= dict.fromkeys(file for file in inside if file.match(pattern))
    return list(files)


def result_files(paths: Iterable[Path]) -> list[Path]:
    """Result files, those of each folder in the order they were made. Raises UsageError: a path has none."""
    files: list[Path] = []
    for path in paths:
        inside = matching([path], RESULTS) if path.is_dir() else [path]
        if not inside or not path.exists():
            raise UsageError(f"no results at {path}: give a results_*.json, or a folder that 'pcc-bench eval' wrote")
        files += inside
    return list(dict.fromkeys(files))


def check_measured(path: Path) -> None:
    """Raises `UsageError` where a folder or file holds nothing that was measured."""
    if not any(matching([path], pattern) for pattern in MEASURED):
        raise UsageError(
            f"no results at {path}: give a results_*.json, or a folder that 'pcc-bench eval', 'run', 'train' or "
            "'cost' wrote"
        )


def samples_file(results: Path, task: str) -> Path | None:
    """The samples of a task beside a result file, compressed or not; None where none were logged.

    Names are compared with those in the folder, so that no task's name ever becomes a path.
    """
    stamp = results.name.removeprefix("results_")
    if stamp == results.name:
        return None
    present = {file.name for file in results.parent.iterdir()}
    names = [f"samples_{task}_{stamp}l{end}" for end in ("", *COMPRESSED)]
    return next((results.parent / name for name in names if name in present), None)


Number = Annotated[float, Field(allow_inf_nan=False)]
Scalar = str | int | float | bool | None
_NULL_IS_EMPTY = BeforeValidator(lambda value: {} if value is None else value)


class Strict(BaseModel):
    """A record that nobody changes and that has no unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Foreign(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Population(_Foreign):
    """Our tasks' account of their rows (`configs.<task>.metadata.population`); all None for other tasks."""

    source: str | None = None
    fingerprint: str | None = None
    protocol: str | None = None
    population: str | None = None
    kept: int | None = None
    rows_read: int | None = None
    prompt: str | None = None


class Metadata(_Foreign):
    """`configs.<task>.metadata`: `compress` names the columns whose text may be compressed."""

    compress: Annotated[dict[str, Any], _NULL_IS_EMPTY] = {}
    population: Annotated[Population, _NULL_IS_EMPTY] = Population()


class Metric(_Foreign):
    """An entry of `metric_list`; lm-eval writes down the source of aggregations that are functions."""

    metric: str
    aggregation: str | None = None

    @property
    def function(self) -> str:
        """Name of the aggregation."""
        return (self.aggregation or "mean").removeprefix("def ").partition("(")[0].strip()


class TaskConfig(_Foreign):
    """`configs.<task>`."""

    metadata: Annotated[Metadata, _NULL_IS_EMPTY] = Metadata()
    generation_kwargs: dict[str, Any] | None = None
    metric_list: Annotated[list[Metric], BeforeValidator(lambda value: [] if value is None else value)] = []


class Reported(_Foreign):
    """`config.pcc_bench`: what our model says about itself."""

    schema_version: Annotated[int, Field(ge=0)] = 0
    method: str | None = None
    label: str | None = None
    control: str | None = None
    control_seed: Any = None
    requested_rate: Annotated[Number, Field(gt=0)] | None = None
    decoder: str | None = None
    decoder_arguments: Any = None
    add_bos_token: Any = None
    overflow: str | None = None
    options: Annotated[dict[str, Any], _NULL_IS_EMPTY] = {}
    capabilities: Annotated[dict[str, bool | None], _NULL_IS_EMPTY] = {}
    fingerprints: Annotated[dict[str, str | None], _NULL_IS_EMPTY] = {}
    skipped: Annotated[dict[str, list[Any]], _NULL_IS_EMPTY] = {}


class Settings(_Foreign):
    """`config`: the arguments of the run."""

    model: str = ""
    model_args: dict[str, Any] | str | None = None
    model_num_parameters: int | None = None
    model_dtype: str | None = None
    random_seed: int | None = None
    numpy_seed: int | None = None
    torch_seed: int | None = None
    fewshot_seed: int | None = None
    pcc_bench: Reported | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the model: lm-eval writes a mapping; older versions wrote the string of the command line."""
        if isinstance(self.model_args, str):
            return dict(part.split("=", 1) for part in self.model_args.split(",") if "=" in part)
        return self.model_args or {}


class ResultFile(_Foreign):
    """`results_*.json`."""

    results: dict[str, dict[str, Any]]
    configs: dict[str, TaskConfig]
    config: Settings
    groups: Annotated[dict[str, dict[str, Any]], _NULL_IS_EMPTY] = {}
    versions: Annotated[dict[str, Scalar], _NULL_IS_EMPTY] = {}
    shots: Annotated[dict[str, Scalar], _NULL_IS_EMPTY] = Field(default={}, alias="n-shot")
    samples: Annotated[dict[str, dict[str, int]], _NULL_IS_EMPTY] = Field(default={}, alias="n-samples")
    higher_is_better: Annotated[dict[str, dict[str, bool | None] | None], _NULL_IS_EMPTY] = {}
    date: Annotated[Number, Field(ge=0, lt=253_402_300_800)] | str | None = None  # to the end of the year 9999
    model_name: str | None = None
    chat_template_sha: str | None = None
    system_instruction_sha: str | None = None
    fewshot_as_multiturn: bool | None = None
    lm_eval_version: str | None = None
    transformers_version: str | None = None
    git_hash: str | None = None
