"""What `pcc-bench cost` measures and predicts: the arithmetic is torch's, the counts are those of real memories."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pcc_bench.cli import main
from pcc_bench.core.errors import UsageError
from pcc_bench.cost import geometry, measure, records
from pcc_bench.cost import predict as few_layers
from pcc_bench.cost import predict as predicting
from pcc_bench.cost.estimate import encoding_flops
from pcc_bench.cost.predict import Layers
from pcc_bench.cost.records import CostRecord, Mode, Phase, Provenance
from pcc_bench.cost.sweeps import MEASURED, PREDICTED
from pcc_bench.cost.work import Laps, Point, Setting, Shape
from pcc_bench.cost.work import records as as_records
from pcc_bench.model import checkpoint, init, published
from pcc_bench.results.collection import costs

CPU = torch.device("cpu")
SETTING = Setting("cpu", "float32", 1, Provenance(weights="random", seed=0, code="", versions={}, hardware=""))
PAIRS = ("tiny-gpt2+tiny-llama", "lora-tiny-llama+tiny-llama")
RATES = (4, 16, 64)
SPEED = (1e12, 1e9, "as stated")
QUICK = ["--repeats", "2", "--new-tokens", "3", "--question-tokens", "5", "--device", "cpu", "--threads", "1"]


def subject(pair: str = PAIRS[0], **policies: str) -> measure.Subject:
    made = geometry.named(pair)
    pcc, decoder = geometry.build(made, RATES, CPU, torch.float32, seed=0)
    pcc.config = pcc.config.with_options(**policies)
    shape = Shape(made.encoder_name, made.decoder, pcc.config, geometry.model_config(made.decoder))
    return measure.Subject(shape, pcc, decoder, SETTING)


@pytest.fixture(scope="module")
def tiny_lite() -> measure.Subject:
    return subject()


def counted(run: Callable[[], Any]) -> int:
    """FLOPs that torch counts; attention as plain products, since fused CPU kernels are not counted."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


# ---------------------------------------------------------------- arithmetic


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("pair", PAIRS)
def test_flops_of_every_mode_are_what_torch_counts(pair: str, mode: Mode) -> None:
    made = subject(pair)
    point = Point(context=512, question=24, new=6, batch=2, rate=4)
    runner = measure.Runner(made, point)
    runner.run(mode)  # a warm memory is there from then on
    work = made.shape.work(point, mode)
    assert work.once + work.prefill + work.decode == pytest.approx(counted(lambda: runner.run(mode)), rel=0.01)


@pytest.mark.parametrize("pair", PAIRS)
def test_flops_of_compressing_are_what_torch_counts(pair: str) -> None:
    made = subject(pair)
    point = Point(context=768, question=1, new=1, batch=1, rate=16)
    runner = measure.Runner(made, point)
    with torch.inference_mode():
        flops = counted(lambda: runner._compress(runner._encoder_ids()))
    assert made.shape.work(point, Mode.COLD).once == pytest.approx(flops, rel=0.01)


@pytest.mark.parametrize("pair", PAIRS)
def test_the_converter_is_in_the_flops_of_compressing(pair: str) -> None:
    made = subject(pair)
    point = Point(context=768, question=1, new=1, batch=1, rate=4)
    slots = torch.zeros(sum(count for _, count in made.shape.segments(point)), made.pcc.encoder.hidden_size)
    encoding = sum(encoding_flops(made.shape.sizes, sum(segment)) for segment in made.shape.segments(point))
    flops = counted(lambda: made.pcc.converter(slots))
    assert flops > 0
    assert made.shape.work(point, Mode.COLD).once - encoding == pytest.approx(flops, rel=0.05)  # biases are counted


@pytest.mark.parametrize("boundaries", ["per_segment", "once", "none"])
@pytest.mark.parametrize("slots", ["official", "proportional"])
@pytest.mark.parametrize("context", [1, 255, 256, 257, 300, 700])
def test_slots_and_bytes_predicted_are_those_of_real_memories(context: int, slots: str, boundaries: str) -> None:
    made = subject(slots=slots, boundaries=boundaries)
    for rate in RATES:
        point = Point(context, question=2, new=1, batch=1, rate=rate)
        runner = measure.Runner(made, point)
        runner.run(Mode.COLD)
        work = made.shape.work(point, Mode.COLD)
        assert (work.slots, work.boundary) == (runner.slots, runner.boundary)
        assert 4 * work.memory == runner.memories[0].nbytes


@pytest.mark.parametrize("mode", [Mode.FULL, Mode.COLD])
def test_bytes_of_keys_and_values_are_those_of_the_cache(tiny_lite: measure.Subject, mode: Mode) -> None:
    point = Point(context=300, question=0, new=1, batch=2, rate=4)
    runner = measure.Runner(tiny_lite, point)
    with torch.inference_mode():
        *_, cache, _ = runner._prefill(mode)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert held == 4 * tiny_lite.shape.work(point, mode).cached


@pytest.mark.parametrize(
    ("name", "encoder", "decoder"),
    [
        ("lite", 774_030_080, 8_030_261_248),
        ("large", 8_030_261_248, 8_030_261_248),
        ("gpt2-large+mistral-7b", 774_030_080, 7_248_023_552),
        ("gpt2-large+qwen2.5-7b", 774_030_080, 7_615_616_512),
        ("gpt2-large+phi-3.5-mini", 774_030_080, 3_821_079_552),
    ],
)
def test_true_geometries_have_the_published_parameters(name: str, encoder: int, decoder: int) -> None:
    sizes = shape_of(name).sizes
    assert (sizes.encoder.parameters, sizes.decoder.parameters) == (encoder, decoder)


def test_the_small_encoder_is_about_a_tenth_of_its_decoder() -> None:
    sizes = shape_of("small").sizes
    assert 0.08 < sizes.encoder.parameters / sizes.decoder.parameters < 0.12


@pytest.mark.parametrize("pair", PAIRS)
def test_what_is_built_has_the_sizes_that_are_computed(pair: str) -> None:
    made = subject(pair)
    sizes = made.shape.sizes
    assert sum(p.numel() for p in made.decoder.model.parameters()) == sizes.decoder.parameters
    rows = 64 * sizes.encoder.hidden_size
    full = sizes.encoder.parameters + rows - sizes.encoder.own_head
    with_head = sizes.encoder.parameters + sizes.lora + 2 * rows
    assert sum(p.numel() for p in made.pcc.encoder.parameters()) == (with_head if sizes.lora else full)


def shape_of(name: str) -> Shape:
    pair = geometry.named(name)
    return Shape(pair.encoder_name, pair.decoder, pair.config(RATES), geometry.model_config(pair.decoder))


def test_an_8k_context_of_llama_3_takes_a_gibibyte_of_cache() -> None:
    work = shape_of("lite").work(Point(8191, 1, 1, 1, None), Mode.FULL)  # and BOS
    assert 2 * work.cached == 2**30


# ---------------------------------------------------------------- seconds


def predicted(point: Point, modes: tuple[Mode, ...] = tuple(Mode), reuse: tuple[int, ...] = (1,)) -> dict[Any, float]:
    shape = shape_of("lite")
    found = predicting.predict(shape, point, modes, reuse, SETTING, predicting.Stated(shape, "float32", *SPEED))
    return {(record.mode, record.phase, record.reuse): record.median_s for record in found}


def test_decoding_one_row_takes_as_long_as_reading_the_weights() -> None:
    point = Point(context=100, question=1, new=2, batch=1, rate=None)
    shape = shape_of("lite")
    sizes = shape.sizes.decoder
    read = 4 * (sizes.body + sizes.head + sizes.cache_values(101 + 1 + 1))
    laps = predicting.Stated(shape, "float32", 1e30, 1e9).laps(point, Mode.FULL)
    assert laps.decode == pytest.approx(read / 1e9, rel=1e-6)


def test_a_prefill_takes_its_flops_without_the_later_positions() -> None:
    point = Point(context=4000, question=95, new=1, batch=1, rate=None)
    sizes = shape_of("lite").sizes.decoder
    flops = sizes.read(4096, predicted=1) - sizes.masked(4096)
    assert predicted(point)[Mode.FULL, Phase.TTFT, 1] == pytest.approx(flops / 1e12)


def memory(slots: int = 0, boundary: int = 0) -> dict[str, int]:
    return {"slots": slots, "boundary": boundary, "memory_bytes": 0}


def test_questions_on_a_context_share_what_is_done_once() -> None:
    laps = [Laps(once=6.0, prefill=1.0, decode=2.0)] * 3
    for mode, first in ((Mode.COLD, 7.0), (Mode.PREFIX_CACHED, 1.0)):
        found = list(as_records(shape_of("tiny"), Point(256, 1, 3, 1, 4), mode, laps, (1, 3), SETTING, **memory()))
        seconds = {(record.phase, record.reuse): record.median_s for record in found}
        assert seconds[Phase.TTFT, 1] == first
        assert (seconds[Phase.TOTAL, 1], seconds[Phase.TOTAL, 3]) == (9.0, 5.0)


def test_break_even_is_compressing_over_what_each_question_saves() -> None:
    shape, point = shape_of("tiny"), Point(256, 1, 3, 1, 4)
    found = [
        *as_records(shape, point, Mode.FULL, [Laps(0, 5.0, 2.0)], (1,), SETTING, **memory()),
        *as_records(shape, point, Mode.COLD, [Laps(6.0, 1.0, 2.0)], (1,), SETTING, **memory(64, 2)),
    ]
    assert cell(markdown(found), "Q*") == "1.50"  # 6 / (5 - 1)
    assert cell(markdown(found), "cold x") == "0.71"  # 5 / 7 to the first token


def test_what_never_pays_is_said() -> None:
    shape, point = shape_of("tiny"), Point(256, 1, 3, 1, 4)
    found = [
        *as_records(shape, point, Mode.FULL, [Laps(0, 1.0, 2.0)], (1,), SETTING, **memory()),
        *as_records(shape, point, Mode.COLD, [Laps(6.0, 1.0, 2.0)], (1,), SETTING, **memory(64, 2)),
    ]
    assert cell(markdown(found), "Q*") == "never"


def markdown(found: Sequence[CostRecord]) -> str:
    return "\n\n".join(table.markdown() for table in records.tables(found))


def cell(text: str, column: str) -> str:
    """The first cell of the first table that has the column."""
    lines = text.splitlines()
    header = next(i for i, line in enumerate(lines) if f"| {column} " in line)
    place = [name.strip() for name in lines[header].split("|")].index(column)
    return lines[header + 2].split("|")[place].strip()


def test_a_forward_takes_the_longest_of_arithmetic_reading_and_starting() -> None:
    speed = predicting.Stated(shape_of("tiny"), "float32", 1.0, 1.0, start=4.0)
    assert (speed.seconds(3, 2), speed.seconds(3, 5), speed.seconds(6, 5)) == (4, 5, 6)


class Scripted(Layers):
    """Takes a second for each position, and one for each layer and position that it attends to."""

    def _quickest(self, run: Callable[[], Any]) -> float:
        counts: list[tuple[int, int, int]] = []
        hooks = [
            model.register_forward_pre_hook(
                lambda model, args, kwargs: counts.append(
                    (kwargs["input_ids"].numel(), model.config.num_hidden_layers, kwargs["input_ids"].shape[1])
                ),
                with_kwargs=True,
            )
            for model in (*self._decoders, *self._encoders)
        ]
        run()
        for hook in hooks:
            hook.remove()
        return float(sum(positions * (1 + layers * width) for positions, layers, width in counts))


@pytest.mark.parametrize("pair", PAIRS)
def test_seconds_of_all_layers_and_long_texts_follow_from_a_few(pair: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_layers, "LONGEST", 256)
    shape = shape_of(pair)
    layers, context = 2, 696  # longer than what is timed
    point = Point(context, question=96, new=3, batch=2, rate=4)
    clock = Scripted(shape, CPU, torch.float32)
    full = clock.laps(point, Mode.FULL)
    read = context + 97
    assert full.prefill == pytest.approx(2 * read * (1 + layers * read))
    assert full.decode == 2 * 2 * (1 + layers)
    cold = clock.laps(point, Mode.COLD)
    assert cold.prefill < full.prefill
    tokens = 2 * (2 * 320 + 184 + 64)  # segments with their memory tokens
    assert cold.once == pytest.approx(tokens * (1 + layers * 320))
    assert clock.laps(point, Mode.WARM).once == 0


@pytest.mark.parametrize("pair", PAIRS)
def test_parts_of_models_are_timed_in_every_mode(pair: str) -> None:
    clock = Layers(shape_of(pair), CPU, torch.float32)
    for mode in Mode:
        laps = clock.laps(Point(40, question=4, new=3, batch=2, rate=4), mode)
        assert laps.prefill > 0
        assert laps.decode > 0
        assert (laps.once > 0) == (mode in (Mode.COLD, Mode.PREFIX_CACHED))


def test_the_peak_of_memory_sees_what_was_held_and_let_go() -> None:
    measure.reset_peaks(CPU)
    before = measure.peak_host()
    if before is None:
        pytest.skip("only Linux tells the peak of a process")
    torch.ones(25_000_000).sum()  # 100 MB
    assert measure.peak_host() > before + 90_000_000  # type: ignore[operator]


# ---------------------------------------------------------------- the command


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    main_quietly("cost", *words)
    return capsys.readouterr().out


def main_quietly(*words: str) -> None:
    try:
        main(words)
    except SystemExit as end:
        assert end.code in (0, None)


def test_a_sweep_is_measured_shown_and_read_by_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--random-weights",
        "tiny",
        "--context",
        "300",
        "--rate",
        "4",
        "--rate",
        "16",
        "--reuse",
        "1",
        "--reuse",
        "5",
    ]
    said = told(capsys, *words, *QUICK, "--batch-size", "2", "--output", str(tmp_path))
    assert "measured" in said
    assert cell(said, "achieved") == "2.27x"  # 300 / (2 * 64 + 4)
    frame = costs([tmp_path])
    assert set(frame["mode"]) == {"full", "prefix-cached", "cold", "warm"}
    assert set(frame["phase"]) == {"compress", "prefill", "decode", "ttft", "total"}
    assert (frame["median_s"] > 0).all()
    assert (frame["p95_s"] >= frame["median_s"]).all()
    assert not frame["predicted"].any()
    cold = frame[(frame["mode"] == "cold") & (frame["rate"] == 4)].set_index(["phase", "reuse"])["median_s"]
    assert cold["total", 1] > cold["total", 5] > cold["decode", 1]


def test_a_second_call_measures_only_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--random-weights", "tiny", "--context", "256", *QUICK, "--output", str(tmp_path)]
    told(capsys, *words)
    before = (tmp_path / MEASURED).read_text("utf-8")
    seen: list[Point] = []
    real = measure.measure
    monkeypatch.setattr(measure, "measure", lambda s, point, *rest: seen.append(point) or real(s, point, *rest))
    said = told(capsys, *words, "--rate", "4", "--rate", "8")
    assert [point.rate for point in seen] == [8]
    assert "2 of 3 points" in said
    after = (tmp_path / MEASURED).read_text("utf-8")
    assert after.startswith(before)
    assert len(after) > len(before)
    told(capsys, *words, "--reuse", "1", "--reuse", "3")  # measured anew: each phase still has one record
    found = [record.setting() for record in records.read(tmp_path / MEASURED)]
    assert len(set(found)) == len(found)


def test_prediction_loads_no_model_and_says_that_it_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geometry, "build", None)
    words = ["--predict", "--random-weights", "large", "--context", "4000", "--rate", "16", "--output", str(tmp_path)]
    said = told(capsys, *words, "--device-peak", "989", "--bandwidth", "4800")
    assert "PREDICTED, not measured" in said
    for _ in range(2):  # a second prediction takes the place of the first
        told(capsys, *words, "--device-peak", "312", "--bandwidth", "2000")
    found = records.read(tmp_path / PREDICTED)
    assert all(record.predicted and record.p95_s is None for record in found)
    assert len({record.setting() for record in found}) == len(found)
    assert {record.provenance.hardware for record in found} == {"312 TFLOP/s, 2000 GB/s"}


@pytest.mark.parametrize("name", ["pcc", "pcc-large"])
def test_a_checkpoint_costs_what_was_predicted_in_slots_flops_and_bytes(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    words = [str(models / name), "--context", "300", *QUICK, "--output", str(tmp_path)]
    told(capsys, *words)
    told(capsys, *words, "--predict")
    pair = records.read(tmp_path / MEASURED), records.read(tmp_path / PREDICTED)
    keys = ("phase", "mode", "rate", "slots", "boundary", "flops", "kv_bytes", "memory_bytes")
    measured, computed = ([tuple(getattr(r, key) for key in keys) for r in found] for found in pair)
    assert measured == computed


@pytest.mark.parametrize("name", ["pcc", "pcc-large"])
def test_a_checkpoint_in_the_published_layout_costs_what_ours_does(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    reader = init.open_decoder(str(models / "llama"))
    ours = checkpoint.load(str(models / name), reader)
    folder = tmp_path / f"p-{ours.config.rate}x"
    published.export(ours, folder)
    words = ["--decoder", str(models / "llama"), "--context", "300", "--rate", "4", *QUICK]
    told(capsys, str(folder), *words, "--output", str(tmp_path / "a"))
    told(capsys, str(folder), *words, "--predict", "--output", str(tmp_path / "a"))
    told(capsys, str(models / name), *words, "--predict", "--output", str(tmp_path / "b"))
    keys = ("phase", "mode", "rate", "slots", "boundary", "flops", "kv_bytes", "memory_bytes")
    files = [tmp_path / "a" / MEASURED, tmp_path / "a" / PREDICTED, tmp_path / "b" / PREDICTED]
    measured, computed, own = ([tuple(getattr(r, key) for key in keys) for r in records.read(file)] for file in files)
    assert measured == computed == own


def test_out_of_memory_halves_the_batch_and_says_so(
    tiny_lite: measure.Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = measure.Runner.run

    def run(self: measure.Runner, mode: Mode) -> Laps:
        if self.point.batch > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, mode)

    monkeypatch.setattr(measure.Runner, "run", run)
    monkeypatch.setattr(measure, "release", lambda device: None)  # slow, and there is nothing to give back
    said: list[str] = []
    point = Point(context=256, question=2, new=2, batch=8, rate=4)
    found = measure.measure(tiny_lite, point, [Mode.COLD], [1], 1, said.append)
    assert {record.batch for record in found} == {2}
    assert [line.rpartition(": ")[2] for line in said] == ["trying batch 4", "trying batch 2"]
    assert said[0].startswith("out of memory while measuring pcc 4x of 256 tokens, batch 8")


def test_a_point_that_never_fits_is_left_out_and_said(
    tiny_lite: measure.Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(self: measure.Runner, mode: Mode) -> Laps:
        raise MemoryError

    monkeypatch.setattr(measure.Runner, "run", run)
    monkeypatch.setattr(measure, "release", lambda device: None)  # slow, and there is nothing to give back
    said: list[str] = []
    assert measure.measure(tiny_lite, Point(256, 2, 2, 1, 4), [Mode.COLD], [1], 1, said.append) == []
    assert said[0].endswith("left out")


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--random-weights tiny --device cuda:9 --output x", "--device cuda:9 can't be used"),
        (
            "--random-weights tiny --context 40000 --predict",
            "tiny-llama has 32,768: give a --context of at most 32,703",
        ),
        ("--random-weights tiny", "--output names no folder"),
        ("--random-weights nobody --predict", "there is no geometry 'nobody'"),
        ("--random-weights tiny-gpt2+lama-3-8b --predict", "did you mean"),
        ("--random-weights lora-gpt2-large+llama-3-8b --predict", "the adapter is for Llama's layers"),
        ("--random-weights tiny --rate 7 --predict", "rate 7 does not divide segments of 256 tokens"),
        ("--random-weights tiny --mode lukewarm --predict", "--mode lukewarm is unknown"),
        ("--random-weights tiny --predict --device-peak 989", "--device-peak and --bandwidth go together"),
        ("--random-weights tiny --predict --utilisation 2", "is no share"),
        ("--random-weights tiny --predict --utilisation 0.5", "go with --device-peak"),
        ("--random-weights tiny --predict --overhead 1", "go with --device-peak"),
        ("--random-weights tiny --bandwidth 3 --output x", "are for --predict"),
        ("--random-weights tiny --dtype int3 --predict", "--dtype int3 is unknown"),
        ("--random-weights tiny --decoder here --predict", "--decoder goes with a checkpoint"),
        ("somewhere --random-weights tiny --predict", "a checkpoint and --random-weights (lite"),
        ("nowhere/at/all --predict", "neither a folder here nor a hub id"),
    ],
)
def test_a_mistake_is_one_sentence(capsys: pytest.CaptureFixture[str], words: str, said: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(["cost", *words.split()])
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert said in message


def test_a_damaged_or_newer_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "cost_x.jsonl"
    shape = shape_of("tiny")
    clock = predicting.Stated(shape, "float32", *SPEED)
    found = predicting.predict(shape, Point(256, 1, 2, 1, 4), [Mode.WARM], [1], SETTING, clock)
    records.replace(path, list(found))
    line = path.read_text("utf-8").splitlines()[0]
    with path.open("a", encoding="utf-8") as file:
        file.write(line[:50])
    with pytest.raises(UsageError, match=r"cost_x\.jsonl, line 5 is not valid JSON"):
        records.read(path)
    path.write_text(json.dumps({**json.loads(line), "schema_version": 99}) + "\n", encoding="utf-8")
    with pytest.raises(UsageError, match="schema version 99"):
        records.read(path)


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    shape = shape_of("tiny")
    clock = predicting.Stated(shape, "float32", *SPEED)
    found: list[CostRecord] = list(
        predicting.predict(shape, Point(256, 1, 2, 1, 4), list(Mode), [1, 4], SETTING, clock)
    )
    records.replace(tmp_path / "cost_x.jsonl", found)
    assert records.read(tmp_path / "cost_x.jsonl") == found
