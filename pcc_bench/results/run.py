"""A run of lm-eval and its tasks, whether they were read from result files or from a frozen baseline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pcc_bench.core.errors import UsageError
from pcc_bench.cost.records import CostRecord
from pcc_bench.results import answers
from pcc_bench.results import rows as frames
from pcc_bench.results.protocol import Protocol
from pcc_bench.results.rows import Rows
from pcc_bench.results.shapes import Population, Reported


@dataclass(frozen=True)
class TaskRun:
    """One task of a run.

    Attributes:
        name: The task's.
        protocol: What makes it another experiment; see `results.protocol`.
        population: The account of the rows; all None for tasks that are not ours.
        higher_is_better: By metric, where the task says.
        scores: Metric -> aggregate of lm-eval's first filter, shares from 0 to 1; none for a frozen baseline.
        errors: Metric -> lm-eval's standard error, where it has one.
        aggregations: Metric -> how rows become the aggregate: `mean`, `weighted_perplexity`, `ratio_of_sums`, ...
        scored: Rows that were scored.
        skipped: Rows left out for their length.
        marked: Columns of a row whose text may be compressed: its context.
        samples: Its file of samples; None where none were logged.
        frozen: The rows of a frozen baseline.
    """

    name: str
    protocol: Protocol
    population: Population
    higher_is_better: Mapping[str, bool]
    scores: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    aggregations: Mapping[str, str] = field(default_factory=dict)
    scored: int = 0
    skipped: int = 0
    marked: tuple[str, ...] = ()
    samples: Path | None = None
    frozen: Rows | None = None

    @property
    def logged(self) -> bool:
        """Are its rows known, and not only its scores?"""
        return self.frozen is not None or self.samples is not None

    @cached_property
    def rows(self) -> Rows:
        """Its rows, read when first asked for.

        Raises:
            UsageError: None were logged, or the file of samples can't be read.
        """
        if self.frozen is not None:
            return self.frozen
        if self.samples is None:
            raise UsageError(f"no samples of {self.name} were logged: repeat the run with lm-eval's --log_samples")
        return frames.read(self.samples, self.marked, tuple(self.scores))

    def answers(self, numbers: frozenset[int] | None = None) -> Iterator[answers.Answer]:
        """Texts of samples (context, question, reference, answer), read from the file at every call.

        Args:
            numbers: Of the rows wanted; None: all.
        """
        if self.samples is not None:
            metrics = [name for name in self.scores if name != frames.COMPRESSION]
            yield from answers.read(self.samples, self.marked, metrics, numbers)


@dataclass(frozen=True)
class Run:
    """One run of lm-eval: a result file, several of one folder for the gate, or a frozen baseline.

    Attributes:
        id: What it is called; unique among the results of a report.
        path: The file.
        place: The same as it is printed: from the folder that was named on.
        method: Of the registry, or a model of lm-eval.
        model: Name of the model, without its folder.
        rate: Requested source tokens per slot; None where there is no such thing.
        fingerprints: Of weights and code, as the run reported them.
        tasks: By name.
        control: E.g. `wrong_memory`; None without.
        labels: Suite -> its name there, as far as the folder's name keeps it, for every suite that it is a cell of.
        checkpoint: `pretrained`, folder or hub id.
        decoder: Folder or hub id.
        arguments: Of the model.
        seeds: Of Python, numpy, torch and the few-shot sampler.
        date: When it ended, ISO 8601; "" where not recorded.
        parameters: Of the model; None where it does not say.
        dtype: Of its weights; "" where not recorded.
        versions: Of lm-eval, transformers and the code, where recorded.
        groups: Group of tasks -> lm-eval's averages.
        reported: What our model reports about itself; None for lm-eval's own.
        costs: Records of `pcc-bench cost` in the same folder; never in a frozen file, they are of one machine.
    """

    id: str
    path: Path
    place: str
    method: str
    model: str
    rate: float | None
    fingerprints: Mapping[str, str | None]
    tasks: Mapping[str, TaskRun]
    control: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    checkpoint: str = ""
    decoder: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int | None, ...] = ()
    date: str = ""
    parameters: int | None = None
    dtype: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reported: Reported | None = None
    costs: tuple[CostRecord, ...] = ()

    @property
    def name(self) -> dict[str, Any]:
        """What ran, for verdicts and frozen baselines."""
        return {
            "method": self.method,
            "model": self.model,
            "requested_rate": self.rate,
            "fingerprints": dict(self.fingerprints),
        }

    @property
    def setting(self) -> tuple[str, ...]:
        """What makes two runs the same but for their seeds: of ours the fingerprints say it, not the folders' names."""
        if self.reported is None or not self.fingerprints:
            return (self.method, str(sorted(self.arguments.items(), key=str)))
        told = self.reported
        options = (told.options, told.overflow, told.add_bos_token, told.decoder_arguments, told.control_seed)
        models = [str(self.fingerprints.get(key)) for key in ("compressor", "decoder_weights")]
        return (self.method, str(self.control), self.dtype, *models, *map(str, options), str(self.rate))
