"""Part 3: `pcc-bench cost` at true geometry, bfloat16, random weights, held against its own predictions.

Records are written point by point (`cost_measured.jsonl`, `cost_predicted.jsonl`), and the same command measures only
what they lack; the rows are drawn from them, also at the time limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from rows import Row, Setting, part

from pcc_bench.cost import geometry, records
from pcc_bench.cost import sweeps as costs
from pcc_bench.cost.records import CostRecord, Mode, Phase
from pcc_bench.cost.sweeps import Source, Sweep

PART = "cost"
CLOSE = 0.15  # of a prediction
SOONER = {Mode.COLD: 4.0, Mode.WARM: 12.0}  # Lite at 8,000 tokens and 16x, against the full text
QUESTION, NEW = 32, 9
DEEP = (Mode.FULL, Mode.COLD, Mode.WARM)
PHASES = (Phase.COMPRESS, Phase.PREFILL, Phase.DECODE)


@dataclass(frozen=True)
class Plan:
    """Sizes of this part.

    Attributes:
        lite: Name of the geometry with a small encoder.
        large: Name of the one with the decoder's own.
        contexts: Of the grid, batch 1, all modes.
        rates: Of the grid.
        batches: Contexts at a time, all of `deep` tokens, at the last rate.
        deep: Tokens.
        repeats: Of each mode of the grid; half as many with batches.
    """

    lite: str = "lite"
    large: str = "large"
    contexts: tuple[int, ...] = (1000, 4000, 8000)
    rates: tuple[int, ...] = (4, 16)
    batches: tuple[int, ...] = (1, 8, 32)
    deep: int = 4096
    repeats: int = 6


TINY = Plan("tiny", "lora-tiny-llama+tiny-llama", (128,), (4, 16), (1, 2), 128, 2)


def run(setting: Setting) -> None:
    """Measure and predict; draw rows whatever happens."""
    plan = TINY if setting.small else Plan()
    try:
        for step in steps(setting, plan):
            step()
    finally:
        setting.add(*drawn(setting, plan))


def steps(setting: Setting, plan: Plan) -> Iterator[Callable[[], object]]:
    """What is run, the most important first."""

    def tell(sentence: str) -> None:
        setting.add(Row(PART, "note", note=sentence))

    modes = tuple(Mode)
    grid = Sweep(plan.contexts, plan.rates, (1,), (1,), modes, QUESTION, NEW)
    lite, large = (Source(None, name, None, None, "bfloat16", None, 0) for name in (plan.lite, plan.large))
    yield lambda: costs.measure(lite, grid, plan.repeats, setting.out, tell)
    yield lambda: costs.predict(lite, grid, setting.out)
    deep = Sweep((plan.deep,), plan.rates[-1:], plan.batches, (1,), DEEP, QUESTION, NEW)
    yield lambda: costs.measure(lite, deep, plan.repeats // 2, setting.out, tell)
    # What the full text takes was measured with Lite: the decoder is the same.
    compressing = Sweep(plan.contexts, plan.rates, (1,), (1,), (Mode.COLD, Mode.WARM), QUESTION, NEW)
    yield lambda: costs.measure(large, compressing, plan.repeats, setting.out, tell)
    yield lambda: costs.predict(large, compressing, setting.out)
    peak = Sweep((plan.deep,), plan.rates[-1:], (min(8, plan.batches[-1]),), (1,), (Mode.COLD,), QUESTION, NEW)
    yield lambda: costs.measure(large, peak, 1, setting.out, tell)


def drawn(setting: Setting, plan: Plan) -> Iterator[Row]:
    """The rows of what has been measured so far."""
    measured = records.read(setting.out / costs.MEASURED)
    predicted = {key(record): record for record in records.read(setting.out / costs.PREDICTED)}
    full = {
        (record.context_tokens, record.batch): record
        for record in measured
        if record.mode is Mode.FULL and record.phase is Phase.TTFT
    }
    for record in measured:
        if record.phase is Phase.TTFT and record.batch == 1 and record.context_tokens in plan.contexts:
            yield sooner(record, full.get((record.context_tokens, 1)), plan)
    for record in measured:
        if record.context_tokens == plan.deep and record.mode in DEEP and record.rate in (None, plan.rates[-1]):
            yield from batched(record, plan)
    yield from prediction(measured, predicted, plan)


def key(record: CostRecord) -> tuple[object, ...]:
    """What a prediction and a measurement have in common."""
    return record.setting()[:-1]


def named(record: CostRecord) -> str:
    """The method and its setting."""
    encoder = f"{record.encoder} {record.rate}x " if record.rate else ""
    return f"{encoder}{record.mode}, {record.context_tokens:,} tokens"


def sooner(record: CostRecord, full: CostRecord | None, plan: Plan) -> Row:
    """Time to the first token, and how many times sooner than the full text."""
    value, what = 1e3 * record.median_s, f"first token, {named(record)}"
    if full is None or record.mode not in SOONER:
        return Row(PART, what, value, "ms")
    times = full.median_s / record.median_s
    lite = geometry.named(plan.lite).encoder_name
    held = (record.encoder, record.context_tokens, record.rate) == (lite, plan.contexts[-1], plan.rates[-1])
    goal = f">= {SOONER[record.mode]:g}x sooner than full" if held else ""
    met = times >= SOONER[record.mode] if held else None
    return Row(PART, what, value, "ms", goal, met, f"{times:.2f}x sooner than full")


def batched(record: CostRecord, plan: Plan) -> Iterator[Row]:
    """New tokens a second by batch, and the peak of memory."""
    what = f"{named(record)}, batch {record.batch}"
    if record.phase is Phase.DECODE and record.mode is not Mode.COLD:
        yield Row(PART, f"decoding, {what}", record.tokens_per_s, "tokens/s")
    if record.phase is Phase.TTFT and record.batch == min(8, plan.batches[-1]):
        peak = record.peak_device_bytes or record.peak_host_bytes
        yield Row(PART, f"peak memory, {what}", None if peak is None else peak / 2**30, "GiB")


def prediction(
    measured: Iterable[CostRecord], predicted: dict[tuple[object, ...], CostRecord], plan: Plan
) -> Iterator[Row]:
    """Predicted over measured by phase and mode."""
    ratios: dict[str, list[tuple[float, str]]] = {}
    for record in measured:
        other = predicted.get(key(record))
        if other and record.phase in PHASES and record.median_s:
            label = f"{record.encoder or 'decoder'} {record.mode} {record.phase}"
            ratios.setdefault(label, []).append((other.median_s / record.median_s, named(record)))
    for label, pairs in ratios.items():
        close = sum(abs(ratio - 1) <= CLOSE for ratio, _ in pairs)
        worst, where = max(pairs, key=lambda pair: abs(pair[0] - 1))
        yield Row(
            PART,
            f"predicted over measured, worst of {label}",
            worst,
            "",
            f"1 +- {CLOSE:g}",
            close == len(pairs),
            f"{close} of {len(pairs)} within; worst: {where}",
        )


if __name__ == "__main__":
    part(run)
