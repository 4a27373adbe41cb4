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
    """Where a number comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str  # `random`, or the checkpoint as it was named
    seed: int  # of weights and inputs
    code: str  # hash of this package's source files; "" in a file made elsewhere
    versions: dict[str, str]  # of Python, torch and transformers
    hardware: str
    speed: str = ""  # of a prediction: FLOP/s, bytes/s and where they come from; "" of a measurement


class CostRecord(BaseModel):
    """One phase of one point. Times, FLOPs and bytes are those of the whole batch, per question."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    method: str  # `full-context` or `pcc`
    encoder: str  # its geometry; "" for `full-context`
    decoder: str  # its geometry
    rate: int | None  # source tokens per slot; None for `full-context`
    context_tokens: int  # of each context
    question_tokens: int  # read behind each context
    new_tokens: int  # of each answer
    slots: int  # of each memory; 0 for `full-context`
    boundary: int  # boundary vectors of each memory
    batch: int  # different contexts at a time, one question on each
    reuse: int  # questions asked of a context before it is forgotten; it changes `total` only and is 1 elsewhere
    phase: Phase
    mode: Mode  # how the context got to the decoder
    median_s: float  # seconds of the batch
    p95_s: float | None  # 95th percentile; None of a prediction
    repeats: int  # timed; 0 of a prediction
    # tokens of the phase per second: context tokens compressed, positions read, tokens written; None for `ttft`
    # and `total`
    tokens_per_s: float | None
    peak_device_bytes: int | None  # most that the accelerator held, weights included; None on a CPU and of a prediction
    # largest resident set of the process; None where the system does not tell, and of a prediction
    peak_host_bytes: int | None
    kv_bytes: int  # keys and values of the contexts (or memories) in the decoder's cache
    memory_bytes: int  # the memories on disk; 0 for `full-context`
    flops: float  # of the phase, as torch's FlopCounterMode counts (attention without the causal half)
    device: str  # cpu, cuda
    dtype: str  # of weights and activations
    threads: int  # of torch on a CPU
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
    """Write records in the place of those about the same thing, whole or not at all. Raises UsageError: as `read`."""
    new = {record.setting() for record in records}
    others = [record for record in read(path) if record.setting() not in new]
    write_text(path, "".join(record.model_dump_json() + "\n" for record in (*others, *records)))


def read(path: Path) -> list[CostRecord]:
    """The records of a file, in order; none without it. Raises UsageError: a line is damaged or from a newer one."""
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
