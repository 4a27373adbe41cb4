"""Records of cost: one JSON line for each phase of each point that was measured or predicted (`cost_*.jsonl`)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from pcc_bench.core.documents import checked, is_file, read_json_lines, write_text
from pcc_bench.core.errors import UsageError

SCHEMA_VERSION = 1  # raised when an old reader could not read a new file


class Mode(StrEnum):
    """How the context gets to the decoder."""

    FULL = "full"  # the whole text, read anew for each question
    PREFIX_CACHED = "prefix-cached"  # the whole text, its keys and values kept from the question before
    COLD = "cold"  # compressed, then the memory is read
    WARM = "warm"  # the memory is there


class Phase(StrEnum):
    """What the clock stood on."""

    COMPRESS = "compress"  # contexts to memories
    PREFILL = "prefill"  # the decoder reads its input, up to the logits of the first new token
    DECODE = "decode"  # every new token but the first
    TTFT = "ttft"  # time to first token: all that comes before it, the compressing of a cold context included
    TOTAL = "total"  # the whole answer; work done once a context is shared by the `reuse` questions on it


class Provenance(BaseModel):
    """Where a number comes from.

    Attributes:
        weights: `random`, or the checkpoint as it was named.
        seed: Of weights and inputs.
        code: Hash of this package's source files; "" in a file made elsewhere.
        versions: Of Python, torch and transformers.
        hardware: Name of the processor or accelerator.
        speed: Of a prediction: FLOP/s, bytes/s and where they come from; "" of a measurement.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str
    seed: int
    code: str
    versions: dict[str, str]
    hardware: str
    speed: str = ""


class CostRecord(BaseModel):
    """One phase of one point. Times, FLOPs and bytes are those of the whole batch, per question.

    Attributes:
        schema_version: Of this record.
        method: `full-context` or `pcc`.
        encoder: Its geometry; "" for `full-context`.
        decoder: Its geometry.
        rate: Source tokens per slot; None for `full-context`.
        context_tokens: Of each context.
        question_tokens: Read behind each context.
        new_tokens: Of each answer.
        slots: Of each memory; 0 for `full-context`.
        boundary: Boundary vectors of each memory.
        batch: Different contexts at a time, one question on each.
        reuse: Questions asked of a context before it is forgotten; it changes `total` only and is 1 elsewhere.
        phase: What was timed.
        mode: How the context got to the decoder.
        median_s: Seconds of the batch.
        p95_s: 95th percentile; None of a prediction.
        repeats: Timed; 0 of a prediction.
        tokens_per_s: Tokens of the phase per second: context tokens compressed, positions read, tokens written; None
            for `ttft` and `total`.
        peak_device_bytes: Most that the accelerator held, weights included; None on a CPU and of a prediction.
        peak_host_bytes: Largest resident set of the process; None where the system does not tell, and of a prediction.
        kv_bytes: Keys and values of the contexts (or memories) in the decoder's cache.
        memory_bytes: The memories on disk; 0 for `full-context`.
        flops: Of the phase, as torch's FlopCounterMode counts (attention without the causal half).
        device: cpu, cuda ...
        dtype: Of weights and activations.
        threads: Of torch on a CPU.
        predicted: Computed, not measured.
        provenance: Where it comes from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    method: str
    encoder: str
    decoder: str
    rate: int | None
    context_tokens: int
    question_tokens: int
    new_tokens: int
    slots: int
    boundary: int
    batch: int
    reuse: int
    phase: Phase
    mode: Mode
    median_s: float
    p95_s: float | None
    repeats: int
    tokens_per_s: float | None
    peak_device_bytes: int | None
    peak_host_bytes: int | None
    kv_bytes: int
    memory_bytes: int
    flops: float
    device: str
    dtype: str
    threads: int
    predicted: bool
    provenance: Provenance

    @property
    def ratio(self) -> float | None:
        """Achieved compression: context tokens per position of the decoder's input; None for `full-context`."""
        positions = self.slots + self.boundary
        return self.context_tokens / positions if positions else None

    def setting(self) -> tuple[Any, ...]:
        """What the record is about: two records with the same one measure the same thing."""
        names = ["method", "encoder", "decoder", "rate", "context_tokens", "question_tokens", "new_tokens", "batch"]
        names += ["reuse", "phase", "mode", "device", "dtype", "threads", "predicted"]
        return tuple(getattr(self, name) for name in names)


def replace(path: Path, records: Sequence[CostRecord]) -> None:
    """Write records into a file, in the place of those about the same thing; it appears whole or not at all.

    Raises:
        UsageError: The file is damaged, or can't be written.
    """
    new = {record.setting() for record in records}
    others = [record for record in read(path) if record.setting() not in new]
    write_text(path, "".join(record.model_dump_json() + "\n" for record in (*others, *records)))


def read(path: Path) -> list[CostRecord]:
    """The records of a file, in order; none where there is no file.

    Raises:
        UsageError: A line is cut, damaged, or from a newer version.
    """
    if not is_file(path):
        return []
    records = []
    for number, line in read_json_lines(path):
        records.append(checked(CostRecord, line, f"{path}, line {number}"))
        if records[-1].schema_version > SCHEMA_VERSION:
            raise UsageError(
                f"{path}, line {number} has schema version {records[-1].schema_version}, this pcc-bench reads up to "
                f"{SCHEMA_VERSION}: update it"
            )
    return records
