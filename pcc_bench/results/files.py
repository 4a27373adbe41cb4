"""Result files: where they lie (`results_*.json`, `samples_*.jsonl[.gz|.xz]` beside them), and what is read of them."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pcc_bench.core.documents import COMPRESSED
from pcc_bench.core.errors import UsageError

RESULTS = "results_*.json"


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


def samples_file(results: Path, task: str) -> Path | None:
    """The samples of a task beside a result file, compressed or not; None where none were logged."""
    # Names are compared with those in the folder, so that no task's name ever becomes a path.
    stamp, present = results.name.removeprefix("results_"), {file.name for file in results.parent.iterdir()}
    names = [f"samples_{task}_{stamp}l{end}" for end in ("", *COMPRESSED)]
    return next((results.parent / name for name in names if name in present), None)


Number = Annotated[float, Field(allow_inf_nan=False)]


def is_number(value: Any) -> bool:
    """Is it finite, as a double too? JSON has integers of any length."""
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


Scalar = str | int | float | bool | None


class Foreign(BaseModel):
    """A record of others, checked before anything is taken from it; what it lacks, or says with null, has a default."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, state: Any) -> Any:
        return {key: value for key, value in state.items() if value is not None} if isinstance(state, dict) else state


class Population(Foreign):
    """Our tasks' account of their rows (`configs.<task>.metadata.population`); all None for other tasks."""

    source: str | None = None
    fingerprint: str | None = None
    protocol: str | None = None
    population: str | None = None
    kept: int | None = None
    rows_read: int | None = None
    prompt: str | None = None


class Metadata(Foreign):
    """`configs.<task>.metadata`: `compress` names the columns whose text may be compressed."""

    compress: dict[str, Any] = {}
    population: Population = Population()


class Metric(Foreign):
    """An entry of `metric_list`; lm-eval writes down the source of aggregations that are functions."""

    metric: str
    aggregation: str = "mean"


class TaskConfig(Foreign):
    """`configs.<task>`."""

    metadata: Metadata = Metadata()
    generation_kwargs: dict[str, Any] | None = None
    metric_list: list[Metric] = []


class Reported(Foreign):
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
    options: dict[str, Any] = {}
    capabilities: dict[str, bool | None] = {}
    fingerprints: dict[str, str | None] = {}
    skipped: dict[str, list[Any]] = {}


class RunConfig(Foreign):
    """`config`: the arguments of the run."""

    model: str = ""
    model_args: dict[str, Any] | str = {}
    model_num_parameters: int | None = None
    model_dtype: str = ""
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
        return self.model_args


class ResultFile(Foreign):
    """`results_*.json`."""

    results: dict[str, dict[str, Any]]
    configs: dict[str, TaskConfig]
    config: RunConfig
    groups: dict[str, dict[str, Any]] = {}
    versions: dict[str, Scalar] = {}
    shots: dict[str, Scalar] = Field(default={}, alias="n-shot")
    samples: dict[str, dict[str, int]] = Field(default={}, alias="n-samples")
    higher_is_better: dict[str, dict[str, bool | None] | None] = {}
    date: Annotated[Number, Field(ge=0, lt=253_402_300_800)] | str | None = None  # to the end of the year 9999
    model_name: str = ""
    chat_template_sha: str | None = None
    system_instruction_sha: str | None = None
    fewshot_as_multiturn: bool = False
    lm_eval_version: str | None = None
    transformers_version: str | None = None
    git_hash: str | None = None
