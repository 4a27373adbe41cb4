"""A run of lm-eval and its tasks, read from result files or a frozen baseline; what makes two another experiment.

A protocol is plain data, a value under the name that messages give it. It is the same for the gate, the comparison, the
report's tables and the choice of the newest of two equal runs; they differ only in what they look up row by row.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pcc_bench.core.errors import UsageError
from pcc_bench.core.questions import OFFICIAL
from pcc_bench.cost.records import CostRecord
from pcc_bench.results import rows as frames
from pcc_bench.results.files import Population, Reported, ResultFile
from pcc_bench.results.rows import Rows

Protocol = Mapping[str, Any]
FINGERPRINT, TEMPLATE, DECODER, DTYPE = "data fingerprint", "chat template", "decoder", "dtype"
# Where rows are matched by number and content, the rows themselves say whether the data are the same.
DATA = ("data source", FINGERPRINT, "number of rows")
READER = (DECODER, DTYPE)  # a table of methods may have several, and names them


@dataclass(frozen=True)
class TaskRun:
    name: str
    protocol: Protocol  # what makes it another experiment; see `protocol`
    population: Population  # the account of the rows; all None for tasks that are not ours
    higher_is_better: Mapping[str, bool]  # by metric, where the task says
    scores: Mapping[str, float] = field(default_factory=dict)  # metric -> lm-eval's aggregate of the first filter
    errors: Mapping[str, float] = field(default_factory=dict)  # metric -> lm-eval's standard error, where it has one
    aggregations: Mapping[str, str] = field(default_factory=dict)  # metric -> `mean`, `ratio_of_sums`, ...
    scored: int = 0  # rows that were scored
    skipped: int = 0  # rows left out for their length
    marked: tuple[str, ...] = ()  # columns of a row whose text may be compressed: its context
    samples: Path | None = None  # its file of samples; None where none were logged
    frozen: Rows | None = None  # the rows of a frozen baseline

    @property
    def logged(self) -> bool:
        """Are its rows known, and not only its scores?"""
        return self.frozen is not None or self.samples is not None

    @cached_property
    def rows(self) -> Rows:
        """Read when first asked for. Raises UsageError: none were logged, or the file of samples can't be read."""
        if self.frozen is not None:
            return self.frozen
        if self.samples is None:
            raise UsageError(f"no samples of {self.name} were logged: repeat the run with lm-eval's --log_samples")
        return frames.read(self.samples, self.marked, tuple(self.scores))


@dataclass(frozen=True)
class Run:
    """One run of lm-eval: a result file, several of one folder for the gate, or a frozen baseline."""

    id: str  # what it is called; unique among the results of a report
    path: Path
    place: str  # the same as it is printed: from the folder that was named on
    method: str  # of the registry, or a model of lm-eval
    model: str  # name of the model, without its folder
    rate: float | None  # requested source tokens per slot; None where there is no such thing
    fingerprints: Mapping[str, str | None]  # of weights and code, as the run reported them
    tasks: Mapping[str, TaskRun]
    control: str | None = None  # e.g. `wrong_memory`
    labels: Mapping[str, str] = field(default_factory=dict)  # suite that it is a cell of -> what it is called there
    checkpoint: str = ""  # `pretrained`, folder or hub id
    decoder: str = ""  # folder or hub id
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of the model
    seeds: tuple[int | None, ...] = ()  # of Python, numpy, torch and the few-shot sampler
    date: str = ""  # when it ended, ISO 8601; "" where not recorded
    parameters: int | None = None  # of the model; None where it does not say
    dtype: str = ""  # of its weights; "" where not recorded
    versions: Mapping[str, str] = field(default_factory=dict)  # of lm-eval, transformers and the code, where recorded
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # group of tasks -> lm-eval's averages
    reported: Reported | None = None  # what our model reports about itself; None for lm-eval's own
    costs: tuple[CostRecord, ...] = ()  # of the same folder; never in a frozen file, they are of one machine

    @property
    def name(self) -> dict[str, Any]:
        """What ran, for verdicts and frozen baselines."""
        given = {"method": self.method, "model": self.model, "requested_rate": self.rate}
        return given | {"fingerprints": dict(self.fingerprints)}

    @property
    def setting(self) -> tuple[str, ...]:
        """What makes two runs the same but for their seeds: of ours the fingerprints say it, not the folders' names."""
        if self.reported is None or not self.fingerprints:
            return (self.method, str(sorted(self.arguments.items(), key=str)))
        ours = self.reported
        options = (ours.options, ours.overflow, ours.add_bos_token, ours.decoder_arguments, ours.control_seed)
        models = [str(self.fingerprints.get(key)) for key in ("compressor", "decoder_weights")]
        return (self.method, str(self.control), self.dtype, *models, *map(str, options), str(self.rate))


def protocol(file: ResultFile, task: str, rows: int) -> dict[str, Any]:
    """The protocol of a task; `rows` were asked, skipped ones counted: what is left of a limit."""
    config, population, ours = file.configs[task], file.configs[task].metadata.population, file.config.pcc_bench
    decoder = None  # where it is a part of the model that is evaluated
    if ours and not ours.capabilities.get("owns_decoder"):
        name = ours.decoder or str(file.config.arguments.get("decoder") or "")
        decoder = ours.fingerprints.get("decoder_weights") or name.rstrip("/").rpartition("/")[2] or None
    values = {
        "task version": file.versions.get(task),
        "population": population.population,
        "data source": population.source,
        FINGERPRINT: population.fingerprint,
        "number of rows": rows,
        "protocol": population.protocol,
        "prompt": population.prompt or OFFICIAL,  # older files do not say it: there was one
        "number of shots": file.shots.get(task),
        "examples as turns": file.fewshot_as_multiturn,
        TEMPLATE: file.chat_template_sha,
        "system instruction": file.system_instruction_sha,
        "decoding": config.generation_kwargs,
        DECODER: decoder,
        DTYPE: file.config.model_dtype.removeprefix("torch.") or None,
    }
    return {name: comparable(value) for name, value in values.items()}


def comparable(value: Any) -> Any:
    """Plain data that JSON can hold and that is equal to itself: NaN and the infinities are texts."""
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [comparable(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def difference(first: Protocol, second: Protocol, without: Collection[str] = ()) -> tuple[str, str, str] | None:
    """The first difference of two protocols, name and both values; what one does not record is not compared."""
    for name, value in first.items():
        if name not in without and name in second and value != second[name]:
            mine, theirs = (" ".join(str(one).split()) for one in (value, second[name]))
            return name, mine[:200] + "..." * (len(mine) > 200), theirs[:200] + "..." * (len(theirs) > 200)
    return None


def check_one_table(entries: Iterable[tuple[Run, TaskRun]], apart: Callable[[Run], str] = lambda run: "") -> None:
    """Refuse to put answers to different questions into one table; runs for which `apart` differs are not compared.

    Raises UsageError: two files differ in the protocol of a task, or in where rows come from; it names both.
    """
    first: dict[tuple[str, ...], tuple[Run, TaskRun]] = {}
    for run, task in entries:
        other, same = first.setdefault((apart(run), task.name), (run, task))
        mine, theirs = dict(task.protocol), dict(same.protocol)
        if mine.get(DECODER) != theirs.get(DECODER):
            # A chat template belongs to its decoder: of two decoders it is only asked whether each used its own.
            for one in (mine, theirs):
                one[TEMPLATE] = "its own" if one.get(TEMPLATE) else None
        wrong = ""
        if unlike := difference(mine, theirs, READER):
            wrong = f"{unlike[0]} of {task.name} is {unlike[1]} in the first and {unlike[2]} in the second"
        else:
            other, same = first.setdefault((apart(run),), (run, task))
            source, before = task.population.source, same.population.source
            if source != before:
                wrong = f"the rows of {task.name} come from {source}, those of {same.name} from {before} in the second"
        if wrong:
            remedy = "show them apart, or repeat one with the other's settings"
            raise UsageError(f"{run.path} and {other.path} do not belong in one table: {wrong}; {remedy}")
