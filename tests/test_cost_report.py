"""Reports join what `pcc-bench cost` recorded of a checkpoint with its scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pcc_bench.core.errors import UsageError
from pcc_bench.cost import geometry, predict, records, sweeps
from pcc_bench.cost.records import Mode, Provenance
from pcc_bench.cost.work import Point, Setting, Shape
from pcc_bench.reports import report
from pcc_bench.reports.figures import frames
from pcc_bench.results.collection import load

SPEED = (1e12, 1e9, "as stated")
LAB = {"pcc-lab-4x": 4, "pcc-lab-16x": 16, "pcc-lab-64x": 64}


def record(path: Path, checkpoints: dict[str, int], contexts: Sequence[int], predicted: bool = False) -> Path:
    """Records of checkpoints for the lab's decoder, as `cost` writes them."""
    pair = geometry.named("tiny")
    origin = Provenance(weights="", seed=0, code="", versions={}, hardware="here")
    setting = Setting("cpu", "float32", 1, origin, predicted)
    for name, rate in checkpoints.items():
        shape = Shape(name, "lab-llama", pair.config([rate]), geometry.model_config(pair.decoder))
        clock = predict.Stated(shape, "float32", *SPEED)
        made = [
            found
            for context in contexts
            for found in predict.predict(shape, Point(context, 8, 4, 1, rate), Mode, (1,), setting, clock)
        ]
        records.replace(path / (sweeps.PREDICTED if predicted else sweeps.MEASURED), made)
    return path


def shipped() -> Path:
    try:
        return report.shipped() / "lab-table2"
    except UsageError:
        pytest.skip("this package ships no results of the lab")


@pytest.mark.parametrize("mode", ["cold", "warm"])
def test_scores_stand_over_the_seconds_of_the_same_checkpoint(tmp_path: Path, mode: str) -> None:
    results = load([shipped(), record(tmp_path, LAB, [512, 1024])])
    table = report.BUILDERS["table2"](results)
    frame, axis = frames.quality_and_time(results, table, table.headline or "", "ttft", mode)
    assert axis.endswith("(1,024 tokens, cpu)")
    assert sorted(frame["label"]) == ["", "16x", "4x", "64x"]  # and the full text; PCC-Large has no record
    known = {(r.rate, r.mode): r.median_s for r in records.read(tmp_path / sweeps.MEASURED) if r.phase == "ttft"
             and r.context_tokens == 1024}  # fmt: skip
    costs = frame.set_index("label")["cost"]
    assert costs["16x"] == pytest.approx(1000 * known[16, Mode(mode)])
    assert costs[""] == pytest.approx(1000 * known[None, Mode.FULL])


def test_measured_costs_are_preferred_and_predicted_ones_are_named(tmp_path: Path) -> None:
    told = record(tmp_path / "a", LAB, [4096], predicted=True)
    for folders, ends in (([told], "(4,096 tokens, cpu, predicted)"), ([told, tmp_path / "b"], "(512 tokens, cpu)")):
        record(tmp_path / "b", LAB, [512])
        results = load([shipped(), *folders])
        _, axis = frames.quality_and_time(
            results, table2 := report.BUILDERS["table2"](results), table2.headline or "", "ttft", "cold"
        )
        assert axis.endswith(ends)


def test_another_checkpoints_records_are_not_taken(tmp_path: Path) -> None:
    results = load([shipped(), record(tmp_path, {"some-pcc-4x": 4}, [512])])
    table = report.BUILDERS["table2"](results)
    frame, _ = frames.quality_and_time(results, table, table.headline or "", "ttft", "cold")
    assert frame.empty


def test_a_report_draws_quality_over_cost(tmp_path: Path) -> None:
    made = report.write([shipped(), record(tmp_path / "costs", LAB, [512])], tmp_path / "out")
    names = {path.name for path in made.files}
    assert {"answers-first-token-cold.svg", "answers-first-token-warm.svg", "answers-seconds-cold.svg"} <= names
    assert "cost" in {table.key for table in made.tables}
