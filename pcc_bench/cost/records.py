"""Records of cost: a JSON line for each phase of each point, measured or predicted (`cost_*.jsonl`); and tables."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from pcc_bench.core.documents import Strict, checked, is_file, read_json_lines, write_text
from pcc_bench.core.errors import UsageError
from pcc_bench.core.texttable import TextTable

SCHEMA_VERSION = 1  # raised when an old reader could not read a new file


class Mode(StrEnum):
    FULL = "full"  # the whole text, read anew for each question
    PREFIX_CACHED = "prefix-cached"  # the whole text, its keys and values kept from the question before
    COLD = "cold"  # compressed, then the memory is read
    WARM = "warm"  # the memory is there


class Phase(StrEnum):
    COMPRESS = "compress"  # contexts to memories
    PREFILL = "prefill"  # the decoder reads its input, up to the logits of the first new token
    DECODE = "decode"  # every new token but the first
    TTFT = "ttft"  # time to first token: all that comes before it, the compressing of a cold context included
    TOTAL = "total"  # the whole answer; work done once a context is shared by the `reuse` questions on it


class Provenance(Strict):
    weights: str  # `random`, or the checkpoint as it was named
    seed: int  # of weights and inputs
    code: str  # hash of this package's source files; "" in a file made elsewhere
    versions: dict[str, str]  # of Python, torch and transformers
    hardware: str
    speed: str = ""  # of a prediction: FLOP/s, bytes/s and where they come from; "" of a measurement


class CostRecord(Strict):
    """One phase of one point. Times, FLOPs and bytes are those of the whole batch, per question."""

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
    tokens_per_s: float | None  # context tokens compressed, positions read, tokens written; None for `ttft` and `total`
    peak_device_bytes: int | None  # most that the accelerator held, weights included; None on a CPU and of a prediction
    peak_host_bytes: int | None  # largest resident set; None where the system does not tell, and of a prediction
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
        records.append(checked(CostRecord, line, where := f"{path}, line {number}"))
        if (version := records[-1].schema_version) > SCHEMA_VERSION:
            raise UsageError(
                f"{where} has schema version {version}, this reads up to {SCHEMA_VERSION}: update pcc-bench"
            )
    return records


KEY = ("context", "batch", "rate", "achieved")
TIME = ("TTFT full", "TTFT cached", "TTFT cold", "TTFT warm", "cold x", "warm x", "tokens/s full", "tokens/s memory")
TIME_NOTES = (
    "TTFT: seconds to the first new token, for the whole batch; median (95th percentile).",
    "full: the whole text is read. cached: its keys and values are there. "
    "cold: it is compressed, then the memory is read. warm: the memory is there.",
    "cold x, warm x: how many times sooner than full.",
    "tokens/s: new tokens after the first, over the whole batch.",
)
ANSWERED = ("questions", "answer full", "answer cached", "answer cold", "answer warm", "cold x", "warm x")
WORK = (*ANSWERED, "Q*", "Q* by FLOPs", "GFLOP full", "GFLOP cold", "GFLOP warm")
WORK_NOTES = (
    "answer: seconds of all phases for the whole batch; work done once a context is shared by so many questions.",
    "cold x, warm x: how many times faster than full.",
    "Q*: questions on a context from which on compressing it has paid; never: reading the memory is no faster.",
    "GFLOP: to the first new token, as torch's FlopCounterMode counts.",
)
BYTES = ("KV full", "KV memory", "memory", "peak full", "peak cold", "peak warm")
BYTES_NOTES = (
    "KV: keys and values of the contexts in the decoder's cache. memory: the vectors on disk.",
    "peak: tensors on the GPU, or on a CPU the process's resident set, weights included.",
)


class _Group(NamedTuple):
    """All that is known at one context length, batch and rate (0: of the full text alone)."""

    context: int
    batch: int
    rate: int
    records: dict[tuple[Phase, Mode, int], CostRecord]  # by phase, mode and questions a context

    @property
    def memory(self) -> CostRecord | None:
        return next((record for record in self.records.values() if record.slots), None)

    @property
    def key(self) -> tuple[str, ...]:
        ratio = self.memory.ratio if self.memory else None
        rate, achieved = (f"{self.rate}x" if self.rate else "", f"{ratio:.2f}x" if ratio else "")
        return (f"{self.context:,}", str(self.batch), rate, achieved)

    def cell(self, say: Callable[[CostRecord], str], phase: Phase, mode: Mode, reuse: int = 1) -> str:
        record = self.records.get((phase, mode, reuse))
        return say(record) if record else ""

    def gain(self, phase: Phase, mode: Mode, reuse: int = 1) -> str:
        """How many times faster than the full text."""
        full, other = (self.records.get((phase, one, reuse)) for one in (Mode.FULL, mode))
        return f"{full.median_s / other.median_s:.2f}" if full and other and other.median_s else ""

    def break_even(self, of: Callable[[CostRecord], float]) -> str:
        """Q* = compressing / (reading the text - reading the memory)."""
        once = self.records.get((Phase.COMPRESS, Mode.COLD, 1))
        full, warm, cold = (self.records.get((Phase.PREFILL, mode, 1)) for mode in (Mode.FULL, Mode.WARM, Mode.COLD))
        read = warm or cold
        if not (once and full and read):
            return ""
        saved = of(full) - of(read)
        return f"{of(once) / saved:.2f}" if saved > 0 else "never"


def tables(records: Iterable[CostRecord]) -> list[TextTable]:
    """Three tables of records of one geometry on one device: time, work and break-even, bytes."""
    gained, three = (Mode.COLD, Mode.WARM), (Mode.FULL, Mode.COLD, Mode.WARM)
    time, work, size = [], [], []
    for group in _groups(records):
        speeds = (group.cell(_speed, Phase.DECODE, mode) for mode in (Mode.FULL, Mode.WARM))
        waits = (group.cell(_seconds, Phase.TTFT, mode) for mode in Mode)
        time.append((*group.key, *waits, *(group.gain(Phase.TTFT, mode) for mode in gained), *speeds))
        for reuse in sorted({reuse for phase, _, reuse in group.records if phase is Phase.TOTAL}):
            flops = (group.cell(lambda r: f"{r.flops / 1e9:,.4g}", Phase.TTFT, mode) for mode in three)
            answers = (group.cell(lambda r: f"{r.median_s:.4g}", Phase.TOTAL, mode, reuse) for mode in Mode)
            gains = (group.gain(Phase.TOTAL, mode, reuse) for mode in gained)
            pays = (group.break_even(lambda r: r.median_s), group.break_even(lambda r: r.flops))
            work.append((*group.key, str(reuse), *answers, *gains, *pays, *flops))
        kept = (_mib(group.memory.kv_bytes), _mib(group.memory.memory_bytes)) if group.memory else ("", "")
        peaks = (group.cell(_peak, Phase.TTFT, mode) for mode in three)
        size.append((*group.key, group.cell(lambda r: _mib(r.kv_bytes), Phase.TTFT, Mode.FULL), *kept, *peaks))
    parts = ((TIME, time, TIME_NOTES), (WORK, work, WORK_NOTES), (BYTES, size, BYTES_NOTES))
    return [TextTable((*KEY, *names), tuple(rows), notes).without_empty_columns() for names, rows, notes in parts]


def heading(records: Sequence[CostRecord]) -> str:
    first = records[0]
    encoder = next((record.encoder for record in records if record.encoder), "")
    said = "PREDICTED, not measured: " + first.provenance.speed if first.predicted else "measured"
    threads = f", {first.threads} threads" if first.device == "cpu" else ""
    return (
        f"{f'{encoder} for ' if encoder else ''}{first.decoder}, {first.dtype}, {first.device} "
        f"({first.provenance.hardware}){threads}; {said}\n"
        f"question {first.question_tokens} tokens, answer {first.new_tokens} tokens"
    )


def _groups(records: Iterable[CostRecord]) -> Iterator[_Group]:
    """By context, batch and rate; where memories were measured, the full text stands beside each rate."""
    records = list(records)
    places = sorted({(record.context_tokens, record.batch, record.rate or 0) for record in records})
    for context, batch, rate in places:
        if rate or (context, batch) not in {place[:2] for place in places if place[2]}:
            here = [record for record in records if (record.context_tokens, record.batch) == (context, batch)]
            cells = {(one.phase, one.mode, one.reuse): one for one in here if one.rate in (None, rate)}
            yield _Group(context, batch, rate, cells)


def _seconds(record: CostRecord) -> str:
    return f"{record.median_s:.4g}" + ("" if record.p95_s is None else f" ({record.p95_s:.4g})")


def _speed(record: CostRecord) -> str:
    return f"{record.tokens_per_s:,.1f}" if record.tokens_per_s else ""


def _peak(record: CostRecord) -> str:
    peak = record.peak_device_bytes if record.peak_device_bytes is not None else record.peak_host_bytes
    return "" if peak is None else _mib(peak)


def _mib(size: float) -> str:
    return f"{size / 2**20:,.4g} MiB"
