"""The gate reads records of cost: what a checkpoint may not take more of than the one before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from test_gate import answers, gate, qa, run_folder

from pcc_bench.cost import geometry, predict, records
from pcc_bench.cost.records import CostRecord, Mode, Phase, Provenance
from pcc_bench.cost.work import Point, Setting, Shape
from pcc_bench.gate.compare import compare
from pcc_bench.gate.policy import Policy
from pcc_bench.gate.result import Comparison, Verdict
from pcc_bench.results.frozen import SUFFIX, freeze, load

SPEED = (1e12, 1e9, "as stated")


def found(encoder: str = "old", hardware: str = "here", slower: float = 1.0, **changes: Any) -> list[CostRecord]:
    """Records of one checkpoint at two lengths, as if they had been measured."""
    pair = geometry.named("tiny")
    shape = Shape(encoder, "some decoder", pair.config([4, 8]), geometry.model_config(pair.decoder))
    origin = Provenance(weights=encoder, seed=0, code="", versions={}, hardware=hardware)
    setting = Setting("cpu", "float32", 1, origin)
    points = [Point(context, 8, 4, 1, 4) for context in (256, 512)]
    made = [
        record
        for point in points
        for record in predict.predict(shape, point, Mode, (1,), setting, predict.Stated(shape, "float32", *SPEED))
    ]
    return [record.model_copy(update={"median_s": slower * record.median_s, **changes}) for record in made]


def folder(path: Path, made: Sequence[CostRecord]) -> Path:
    records.replace(path / "cost_measured.jsonl", made)
    return path


def judged(tmp_path: Path, new: Sequence[CostRecord], rule: dict[str, float] | None = None) -> Verdict:
    base, candidate = folder(tmp_path / "base", found()), folder(tmp_path / "new", new)
    return compare(load(candidate), load(base), Policy.model_validate({"costs": {"records": rule or {}}}))


def line(verdict: Verdict, metric: str) -> Comparison:
    return next(one for one in verdict.comparisons if (one.task, one.metric) == ("cost records", metric))


def test_a_checkpoint_that_costs_the_same_passes_and_seconds_are_reported(tmp_path: Path) -> None:
    verdict = judged(tmp_path, found("new", slower=3.0))
    assert (verdict.verdict, verdict.status) == ("pass", 0)
    assert line(verdict, "flops").verdict == "pass"
    assert line(verdict, "prefill_seconds").verdict == "reported"
    assert line(verdict, "prefill_seconds").reason == "seconds of prefill: 3.00 of the baseline's"


@pytest.mark.parametrize("count", ["flops", "kv_bytes", "memory_bytes"])
def test_a_count_that_grew_at_one_point_fails_and_names_it(tmp_path: Path, count: str) -> None:
    new = found("new")
    place = next(i for i, r in enumerate(new) if (r.phase, r.mode, r.context_tokens) == (Phase.PREFILL, Mode.WARM, 512))
    new[place] = new[place].model_copy(update={count: type(getattr(new[place], count))(getattr(new[place], count) * 2)})
    verdict = judged(tmp_path, new)
    assert (verdict.verdict, verdict.status) == ("fail", 1)
    told = line(verdict, count)
    assert told.verdict == "fail"
    assert "2.000 of the baseline's, more than 1.02, in prefill (warm) of 512 tokens" in told.reason


def test_a_slower_checkpoint_fails_where_the_policy_limits_seconds(tmp_path: Path) -> None:
    rule = {"seconds_at_most": 1.25}
    assert judged(tmp_path / "a", found("new", slower=1.2), rule).verdict == "pass"
    verdict = judged(tmp_path / "b", found("new", slower=1.3), rule)
    assert line(verdict, "compress_seconds").verdict == "fail"
    assert line(verdict, "compress_seconds").n == 2


def test_a_point_that_is_missing_fails(tmp_path: Path) -> None:
    verdict = judged(tmp_path, [record for record in found("new") if record.context_tokens == 256])
    assert line(verdict, "points").reason == "the candidate lacks 9 of 18 phases that the baseline measured"
    assert verdict.status == 1


def test_what_the_full_text_takes_is_not_the_checkpoints_business(tmp_path: Path) -> None:
    new = [r if r.mode in (Mode.COLD, Mode.WARM) else r.model_copy(update={"flops": 9e9}) for r in found("new")]
    assert judged(tmp_path, new).verdict == "pass"


def test_results_and_costs_of_one_folder_are_gated_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = {}
    for name, made in (("base", found()), ("new", found("new", kv_bytes=10**9))):
        places[name] = run_folder(tmp_path / name, {"t": {"scores": qa(answers())}}).parent
        folder(places[name], made)
    assert gate(places["new"], "--against", places["base"]) == 1
    shown = capsys.readouterr().out
    assert "| t            | f1" in shown
    assert "| cost records | kv_bytes" in shown
    frozen = tmp_path / f"base{SUFFIX}"
    frozen.write_bytes(freeze(load(places["base"])))
    assert load(frozen).costs == ()  # seconds of one machine, and what else was measured there
    assert gate(places["new"], "--against", frozen) == 0
    other = folder(tmp_path / "costs", found())
    assert gate(places["new"], "--against", frozen, "--reference", other) == 1


@pytest.mark.parametrize(
    ("new", "policy", "says"),
    [
        ([*found("new"), *found("newer")], "", "of several checkpoints (new and newer)"),
        (found("new", "there"), "costs: {records: {seconds_at_most: 2}}", "different machines (here, there)"),
        (found("new"), "costs: {records: {counts_at_most: 0}}", "costs.records.counts_at_most"),
        (found("new"), "costs: {record: {}}", "unknown key 'costs.record'"),
    ],
)
def test_misuse_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], new: Sequence[CostRecord], policy: str, says: str
) -> None:
    (tmp_path / "gate.yaml").write_text(policy, "utf-8")
    base, candidate = folder(tmp_path / "base", found()), folder(tmp_path / "new", new)
    assert gate(candidate, "--against", base, "--policy", tmp_path / "gate.yaml") == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
