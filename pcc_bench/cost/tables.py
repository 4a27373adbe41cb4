"""Records of cost as Markdown tables: time, work and break-even, bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pcc_bench.core.texttable import TextTable
from pcc_bench.cost.records import CostRecord, Mode, Phase

_At: TypeAlias = tuple[Phase, Mode, int]

TIME_NOTES = (
    "TTFT: seconds to the first new token, for the whole batch; median (95th percentile).",
    "full: the whole text is read. cached: its keys and values are there. "
    "cold: it is compressed, then the memory is read. warm: the memory is there.",
    "cold x, warm x: how many times sooner than full.",
    "tokens/s: new tokens after the first, over the whole batch.",
)
WORK_NOTES = (
    "answer: seconds of all phases for the whole batch; work done once a context is shared by so many questions.",
    "cold x, warm x: how many times faster than full.",
    "Q*: questions on a context from which on compressing it has paid; never: reading the memory is no faster.",
    "GFLOP: to the first new token, as torch's FlopCounterMode counts.",
)
BYTES_NOTES = (
    "KV: keys and values of the contexts in the decoder's cache. memory: the vectors on disk.",
    "peak: tensors on the GPU, or on a CPU the process's resident set, weights included.",
)


@dataclass(frozen=True)
class _Group:
    """All that is known at one context length, batch and rate."""

    rate: int | None  # of the memories
    records: dict[_At, CostRecord]  # records by phase, mode and questions a context

    def get(self, phase: Phase, mode: Mode, reuse: int = 1) -> CostRecord | None:
        return self.records.get((phase, mode, reuse))

    @property
    def any(self) -> CostRecord:
        return next(iter(self.records.values()))

    @property
    def memory(self) -> CostRecord | None:
        """A record that has a memory."""
        return next((record for record in self.records.values() if record.slots), None)

    @property
    def cells(self) -> tuple[str, ...]:
        """Context, batch, rate and achieved compression."""
        ratio = self.memory.ratio if self.memory else None
        rate = f"{self.rate}x" if self.rate else ""
        return (f"{self.any.context_tokens:,}", str(self.any.batch), rate, f"{ratio:.2f}x" if ratio else "")

    @property
    def reuses(self) -> list[int]:
        return sorted({reuse for phase, _, reuse in self.records if phase is Phase.TOTAL})


KEY = ("context", "batch", "rate", "achieved")


def tables(records: Iterable[CostRecord]) -> list[TextTable]:
    """Three tables of records of one geometry on one device."""
    groups = _groups(list(records))
    return [table.without_empty_columns() for table in (_time(groups), _work(groups), _bytes(groups))]


def markdown(records: Sequence[CostRecord]) -> str:
    """The tables one below the other, with lines on what they are about."""
    return "\n\n".join([heading(records), *(table.markdown() for table in tables(records))])


def heading(records: Sequence[CostRecord]) -> str:
    """Models, device, and whether anything was measured."""
    first = records[0]
    encoder = next((record.encoder for record in records if record.encoder), "")
    said = "PREDICTED, not measured: " + first.provenance.speed if first.predicted else "measured"
    threads = f", {first.threads} threads" if first.device == "cpu" else ""
    return (
        f"{f'{encoder} for ' if encoder else ''}{first.decoder}, {first.dtype}, {first.device} "
        f"({first.provenance.hardware}){threads}; {said}\n"
        f"question {first.question_tokens} tokens, answer {first.new_tokens} tokens"
    )


def _groups(records: Sequence[CostRecord]) -> list[_Group]:
    """By context, batch and rate; where memories were measured, the full text stands beside each rate."""
    whole: dict[tuple[int, int], dict[_At, CostRecord]] = {}
    groups: dict[tuple[int, int, int], dict[_At, CostRecord]] = {}
    for record in records:
        place, at = (record.context_tokens, record.batch), (record.phase, record.mode, record.reuse)
        group = whole.setdefault(place, {}) if record.rate is None else groups.setdefault((*place, record.rate), {})
        group[at] = record
    alone = [_Group(None, text) for place, text in whole.items() if place not in {key[:2] for key in groups}]
    beside = [_Group(key[2], {**memories, **whole.get(key[:2], {})}) for key, memories in groups.items()]
    return sorted([*beside, *alone], key=lambda group: (group.any.context_tokens, group.any.batch, group.rate or 0))


def _time(groups: Sequence[_Group]) -> TextTable:
    modes = {Mode.FULL: "full", Mode.PREFIX_CACHED: "cached", Mode.COLD: "cold", Mode.WARM: "warm"}
    columns = (
        *KEY,
        *(f"TTFT {name}" for name in modes.values()),
        "cold x",
        "warm x",
        "tokens/s full",
        "tokens/s memory",
    )
    rows = [
        (
            *group.cells,
            *(_seconds(group.get(Phase.TTFT, mode)) for mode in modes),
            *(_gain(group.get(Phase.TTFT, Mode.FULL), group.get(Phase.TTFT, m)) for m in (Mode.COLD, Mode.WARM)),
            *(
                _text(group.get(Phase.DECODE, mode), lambda r: f"{r.tokens_per_s:,.1f}" if r.tokens_per_s else "")
                for mode in (Mode.FULL, Mode.WARM)
            ),
        )
        for group in groups
    ]
    return TextTable(columns, tuple(rows), TIME_NOTES)


def _work(groups: Sequence[_Group]) -> TextTable:
    answered = ("questions", "answer full", "answer cached", "answer cold", "answer warm", "cold x", "warm x")
    columns = (*KEY, *answered, "Q*", "Q* by FLOPs", "GFLOP full", "GFLOP cold", "GFLOP warm")
    rows = []
    for group in groups:
        for reuse in group.reuses:
            full, cached, cold, warm = (group.get(Phase.TOTAL, mode, reuse) for mode in Mode)
            firsts = (group.get(Phase.TTFT, mode) for mode in (Mode.FULL, Mode.COLD, Mode.WARM))
            flops = (_text(record, lambda r: f"{r.flops / 1e9:,.4g}") for record in firsts)
            answers = (_text(record, lambda r: f"{r.median_s:.4g}") for record in (full, cached, cold, warm))
            gains = (_gain(full, cold), _gain(full, warm))
            pays = (_break_even(group, lambda r: r.median_s), _break_even(group, lambda r: r.flops))
            rows.append((*group.cells, str(reuse), *answers, *gains, *pays, *flops))
    return TextTable(columns, tuple(rows), WORK_NOTES)


def _bytes(groups: Sequence[_Group]) -> TextTable:
    columns = (*KEY, "KV full", "KV memory", "memory", "peak full", "peak cold", "peak warm")
    rows = []
    for group in groups:
        full, cold, warm = (group.get(Phase.TTFT, mode) for mode in (Mode.FULL, Mode.COLD, Mode.WARM))
        sizes = (_text(full, lambda r: _mib(r.kv_bytes)), _text(group.memory, lambda r: _mib(r.kv_bytes)))
        memory = _text(group.memory, lambda r: _mib(r.memory_bytes))
        rows.append((*group.cells, *sizes, memory, *(_text(record, _peak) for record in (full, cold, warm))))
    return TextTable(columns, tuple(rows), BYTES_NOTES)


def _text(record: CostRecord | None, say: Callable[[CostRecord], str]) -> str:
    return say(record) if record else ""


def _seconds(record: CostRecord | None) -> str:
    if record is None:
        return ""
    return f"{record.median_s:.4g}" + ("" if record.p95_s is None else f" ({record.p95_s:.4g})")


def _gain(full: CostRecord | None, other: CostRecord | None) -> str:
    return f"{full.median_s / other.median_s:.2f}" if full and other and other.median_s else ""


def _break_even(group: _Group, of: Callable[[CostRecord], float]) -> str:
    """Q* = compressing / (reading the text - reading the memory)."""
    once, full = group.get(Phase.COMPRESS, Mode.COLD), group.get(Phase.PREFILL, Mode.FULL)
    read = group.get(Phase.PREFILL, Mode.WARM) or group.get(Phase.PREFILL, Mode.COLD)
    if not (once and full and read):
        return ""
    saved = of(full) - of(read)
    return f"{of(once) / saved:.2f}" if saved > 0 else "never"


def _mib(size: float) -> str:
    return f"{size / 2**20:,.4g} MiB"


def _peak(record: CostRecord) -> str:
    peak = record.peak_device_bytes if record.peak_device_bytes is not None else record.peak_host_bytes
    return "" if peak is None else _mib(peak)
