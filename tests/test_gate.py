"""The gate: what it lets through, what it stops, and in what words."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import SAMPLE
from result_files import Task, write_run

from pcc_bench import cli
from pcc_bench.gate.compare import compare
from pcc_bench.gate.policy import Policy, Stage
from pcc_bench.gate.result import Comparison, Verdict, headline
from pcc_bench.gate.scores import select
from pcc_bench.host import evaluate
from pcc_bench.host.evaluate import Command
from pcc_bench.results.frozen import freeze, load
from pcc_bench.results.run import Run

pytest_plugins = ["pytester"]

ROWS = 1000


def run_folder(folder: Path, tasks: dict[str, dict[str, Any]], **changes: Any) -> Path:
    """Results in lm-eval's format, as `pcc-bench eval` leaves them; returns the results file."""
    population = {"protocol": "strict", "population": "all", "kept": ROWS, "rows_read": ROWS}
    files = {
        name: Task(
            dict.fromkeys(task["scores"], 0.5),
            samples(**task),
            population={**population, "fingerprint": task.get("fingerprint", "f00")},
            config={"generation_kwargs": {"until": []}, "metric_list": []},  # 0.5 is no mean of the rows
        )
        for name, task in tasks.items()
    }
    higher = {name: dict.fromkeys(task["scores"], True) for name, task in tasks.items()}
    ours = {"method": "pcc", "requested_rate": 4.0}
    return write_run(folder, files, ours, **{"higher_is_better": higher, "model_name": "some/checkpoint", **changes})


def samples(
    scores: dict[str, Sequence[float | None]],
    rows: Sequence[int] | None = None,
    contexts: int = 5,
    edited: Sequence[int] = (),
    ratio: float = 4.0,
    seconds: float = 0.01,
    **_: Any,
) -> list[dict[str, Any]]:
    """Lines of a samples file; `contexts` rows share a context, `edited` rows have other content."""
    numbers = list(rows) if rows is not None else list(range(len(next(iter(scores.values())))))
    lines = []
    for position, row in enumerate(numbers):
        given = {name: values[position] for name, values in scores.items() if values[position] is not None}
        record = {"source_tokens": 400, "slots": int(400 / ratio) - 2, "boundary": 2, "prompt_positions": 140}
        record |= {f"{part}_seconds": seconds for part in ("compress", "prefill", "decode")} | {"new_tokens": 10}
        line = {
            "doc_id": row,
            "doc": {"context": f"context {row // contexts}"},
            "filter": "none",
            "metrics": list(given),
            "doc_hash": f"doc {row}{' edited' if row in edited else ''}",
            "prompt_hash": f"prompt {row}",
            "target_hash": f"target {row}",
            **given,
        }
        lines.append({**line, "compression": record} if given else line)
    return lines


def answers(rows: int = ROWS, right: float = 0.65, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(rows) < right).astype(float)


def damaged(scores: np.ndarray, lost: float, seed: int = 1) -> np.ndarray:
    """The scores with a share of all rows turned from right to wrong."""
    rng = np.random.default_rng(seed)
    worse = scores.copy()
    worse[rng.choice(np.flatnonzero(scores), round(lost * len(scores)), replace=False)] = 0.0
    return worse


def qa(em: np.ndarray, f1: np.ndarray | None = None) -> dict[str, list[float]]:
    return {"exact_match": em.tolist(), "f1": (em * 0.9 if f1 is None else f1).tolist()}


def judged(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any], policy: dict[str, Any] | None = None
) -> Verdict:
    """The verdict on two synthetic runs of one task."""
    base, new = run_folder(tmp_path / "base", {"t": before}), run_folder(tmp_path / "new", {"t": after})
    return compare(load(new), load(base), Policy.model_validate(policy or {}))


def line(verdict: Verdict, metric: str, task: str = "t") -> Comparison:
    (found,) = [one for one in verdict.comparisons if (one.task, one.metric) == (task, metric)]
    return found


def gate(*words: object) -> int:
    try:
        cli.main(["gate", *map(str, words)])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


# ---------------------------------------------------------------- verdicts


def test_the_same_run_again_passes(tmp_path: Path) -> None:
    verdict = judged(tmp_path, {"scores": qa(answers())}, {"scores": qa(answers())})
    assert (verdict.verdict, verdict.status) == ("pass", 0)
    assert {one.verdict for one in verdict.comparisons} == {"pass"}
    em = line(verdict, "exact_match")
    assert (em.n, em.contexts, em.difference, em.wins) == (1000, 200, 0.0, (0, 0, 1000))


def test_a_worse_run_fails_with_its_numbers(tmp_path: Path) -> None:
    before = answers()
    verdict = judged(tmp_path, {"scores": qa(before)}, {"scores": qa(damaged(before, 0.05))})
    em = line(verdict, "exact_match")
    assert (verdict.verdict, verdict.status, em.verdict) == ("fail", 1, "fail")
    assert em.difference == pytest.approx(-0.05)
    assert em.interval is not None and em.interval[0] < -0.05 < em.interval[1] < 0
    assert em.checks["bootstrap_interval"] == pytest.approx(em.interval, abs=0.003)
    assert em.checks["permutation_p"] < 0.001
    assert "mcnemar_p" not in em.checks  # five rows a context


def test_rows_alone_on_their_contexts_get_mcnemars_test_too(tmp_path: Path) -> None:
    before = answers()
    after = {"scores": qa(damaged(before, 0.01)), "contexts": 1}
    em = line(judged(tmp_path, {"scores": qa(before), "contexts": 1}, after), "exact_match")
    assert em.checks["mcnemar_p"] == pytest.approx(0.5**10)


def test_damage_in_steps_is_caught_from_the_detectable_drop_on(tmp_path: Path) -> None:
    """Answers are lost and (half as many) won: the gate stays green, then says it can't tell, then turns red."""
    before, verdicts = answers(2000), []
    for lost in (0.0, 0.01, 0.04, 0.1):
        worse = damaged(before, lost)
        wrong = np.flatnonzero(before == 0)
        worse[wrong[: round(lost * 2000 * 0.6)]] = 1.0
        verdicts.append(line(judged(tmp_path, {"scores": qa(before)}, {"scores": qa(worse)}), "exact_match").verdict)
    assert verdicts[0] == "pass"
    assert verdicts[-1] == "fail"
    assert verdicts == sorted(verdicts, key=["pass", "inconclusive", "fail"].index)


def test_a_small_run_is_inconclusive_and_the_policy_says_whether_that_stops(tmp_path: Path) -> None:
    small = {"scores": qa(answers(60))}
    assert judged(tmp_path, small, small).status == 0
    verdict = judged(tmp_path, small, small, {"inconclusive": "stop"})
    assert (verdict.verdict, verdict.status) == ("inconclusive", 3)
    assert "identical in all 60 rows; too few to rule out 1 point" in line(verdict, "exact_match").reason


@pytest.mark.parametrize(
    ("rule", "lost", "verdict"),
    [
        ({"absolute": 0.0}, 0.03, "fail"),
        ({"absolute": 0.05}, 0.03, "pass"),
        ({"absolute": 0.05}, 0.12, "fail"),
        ({"relative": 0.1}, 0.03, "pass"),  # 65 % may become 58.5 %
        ({"relative": 0.1}, 0.12, "fail"),
        ({"non_inferiority": 0.05}, 0.03, "pass"),
        ({"non_inferiority": 0.05}, 0.05, "inconclusive"),
        ({"non_inferiority": 0.05}, 0.12, "fail"),
    ],
)
def test_rules(tmp_path: Path, rule: dict[str, float], lost: float, verdict: str) -> None:
    before = answers(4000)
    policy = {"metrics": {"exact_match": rule}}
    found = judged(tmp_path, {"scores": qa(before)}, {"scores": qa(damaged(before, lost))}, policy)
    assert line(found, "exact_match").verdict == verdict
    assert line(found, "f1").verdict == "reported"  # the policy has no rule for it


def test_less_is_better_where_the_task_says_so(tmp_path: Path) -> None:
    loss = np.random.default_rng(0).normal(2, 0.5, 500)
    runs = [
        run_folder(
            tmp_path / name, {"t": {"scores": {"loss": values.tolist()}}}, higher_is_better={"t": {"loss": False}}
        )
        for name, values in (("base", loss), ("new", loss + 0.1))
    ]
    for rule in ({"absolute": 0.0, "scale": 10}, {"relative": 0.01, "scale": 10}):
        policy = Policy.model_validate({"metrics": {"loss": rule}})
        assert line(compare(load(runs[1]), load(runs[0]), policy), "loss").verdict == "fail"
        better = line(compare(load(runs[0]), load(runs[1]), policy), "loss")
        assert (better.verdict, better.difference) == ("pass", pytest.approx(-0.1))


def test_tasks_are_pooled_and_small_sets_only_reported(tmp_path: Path) -> None:
    one, other, tiny = answers(600), answers(600, seed=2), answers(104, seed=3)
    before = {"a": {"scores": qa(one)}, "b": {"scores": qa(other)}, "pcc_wsc": {"scores": qa(tiny)}}
    after = {**before, "pcc_wsc": {"scores": qa(damaged(tiny, 0.4))}}
    verdict = compare(load(run_folder(tmp_path / "new", after)), load(run_folder(tmp_path / "base", before)), Policy())
    assert verdict.verdict == "pass"
    pooled = line(verdict, "exact_match", "pooled")
    assert (pooled.n, pooled.contexts) == (1200, 240)
    assert {one.verdict for one in verdict.comparisons if one.task == "pcc_wsc"} == {"reported"}
    assert verdict.rows == 1200
    each = compare(load(tmp_path / "new"), load(tmp_path / "base"), Policy(pool=False))
    assert {one.task for one in each.comparisons if one.verdict == "pass"} == {"a", "b"}


def test_several_metrics_are_adjusted(tmp_path: Path) -> None:
    before = answers()
    after = {"scores": qa(damaged(before, 0.004), before * 0.9)}
    em = line(judged(tmp_path, {"scores": qa(before)}, after), "exact_match")
    assert em.p is not None and em.p_adjusted == pytest.approx(2 * em.p)


# ---------------------------------------------------------------- what the candidate lost


def reasons(verdict: Verdict) -> str:
    return " ".join(one.reason for one in verdict.comparisons if one.verdict == "fail")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"scores": {"exact_match": answers().tolist()}}, "lacks this metric"),
        ({"scores": qa(answers()[:900])}, r"lacks 100 of 1000 rows \(first: row 900\)"),
        ({"scores": qa(answers(1010))}, "has 10 rows that the baseline has not"),
        ({"scores": qa(answers()), "rows": range(500, 1500)}, "lacks 500 of 1000 rows"),
        ({"scores": qa(answers()), "edited": [3, 4]}, "2 of 1000 common rows have another content"),
        ({"scores": qa(answers()), "fingerprint": "bar"}, "population changed: its fingerprint is bar"),
        ({"scores": {**qa(answers()), "f1": [math.nan, *answers()[1:]]}}, "1 scores of the candidate are not finite"),
        ({"scores": {n: [None, *v[1:]] for n, v in qa(answers()).items()}}, "no score for 1 rows"),
    ],
)
def test_what_is_missing_fails(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    verdict = judged(tmp_path, {"scores": qa(answers())}, change)
    assert verdict.status == 1
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(reasons(verdict))


def test_a_metric_that_the_policy_gates_and_the_baseline_lacks_fails(tmp_path: Path) -> None:
    rules = Policy.model_validate({"metrics": {"f1": {"absolute": 0.5}, "rouge": {"absolute": 0.5}}})
    base = run_folder(tmp_path / "base", {"t": {"scores": qa(answers())}})
    verdict = compare(load(base), load(base), rules)
    assert verdict.status == 1
    (line,) = [line for line in verdict.comparisons if line.verdict == "fail"]
    assert (line.metric, line.task) == ("rouge", "t")
    assert "the baseline has not got it: it has exact_match, f1" in line.reason


def test_a_missing_task_fails(tmp_path: Path) -> None:
    base = run_folder(tmp_path / "base", {"a": {"scores": qa(answers())}, "b": {"scores": qa(answers())}})
    new = run_folder(tmp_path / "new", {"a": {"scores": qa(answers())}})
    verdict = compare(load(new), load(base), Policy())
    assert (verdict.status, reasons(verdict)) == (1, "the candidate lacks this task")


def test_rows_that_both_skipped_are_left_out_of_both(tmp_path: Path) -> None:
    skipping = {"scores": {name: [None, *values[1:]] for name, values in qa(answers()).items()}}
    verdict = judged(tmp_path, skipping, skipping)
    assert (verdict.verdict, line(verdict, "exact_match").n) == ("pass", 999)


# ---------------------------------------------------------------- costs


def test_another_ratio_fails_even_with_the_same_scores(tmp_path: Path) -> None:
    before = {"scores": qa(answers())}
    for ratio in (16.0, 2.0):
        verdict = judged(tmp_path, before, {**before, "ratio": ratio})
        assert (line(verdict, "ratio").verdict, line(verdict, "exact_match").verdict) == ("fail", "pass")


def test_speed_is_compared_with_a_run_of_the_same_job(tmp_path: Path) -> None:
    plain = {"scores": qa(answers())}
    runs = {name: load(run_folder(tmp_path / name, {"t": {**plain, "seconds": seconds}}))
            for name, seconds in (("base", 0.01), ("slow", 0.02))}  # fmt: skip
    policy = Policy.model_validate({"costs": {"speed": {"at_least": 0.8}}})
    speed = line(compare(runs["slow"], runs["base"], policy, reference=runs["base"]), "speed")
    assert (speed.verdict, speed.reason) == ("fail", "0.50 of the reference's tokens per second, below 0.8")
    # A context is compressed once, whatever the number of its rows: 200 x 0.01 s + 1000 x 0.02 s for 410 tokens each.
    assert speed.baseline == pytest.approx(410_000 / (2 + 20))
    with pytest.raises(ValueError, match="--reference"):
        compare(runs["slow"], runs["base"], policy)


# ---------------------------------------------------------------- stages


def test_stages_grow_and_do_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    run = load(run_folder(tmp_path / "base", {"a": {"scores": qa(answers())}, "b": {"scores": qa(answers())}}))
    small, large = (select(run, Policy(), Stage(rows=rows, share=0.1)) for rows in (200, 1500))
    assert sum(map(len, small.values())) == 200
    assert all({*small[task]} <= {*large[task]} for task in small)
    assert min(map(len, small.values())) > 70  # in proportion
    path = next(tmp_path.rglob("samples_a_*"))
    path.write_text("\n".join(reversed(path.read_text("utf-8").splitlines())), "utf-8")
    assert select(load(tmp_path / "base"), Policy(), Stage(rows=200, share=0.1)) == small
    each = select(run, Policy(pool=False), Stage(rows=200, share=0.1))
    assert {len(rows) for rows in each.values()} == {200}


def test_a_stage_reads_its_rows_only_stops_at_disaster_and_else_asks_for_more(tmp_path: Path) -> None:
    before = answers(2000)
    base = load(run_folder(tmp_path / "base", {"t": {"scores": qa(before)}}))
    rows = sorted(select(base, Policy(), Policy().stages["smoke"])["t"])

    def smoke(scores: np.ndarray) -> Verdict:
        candidate = {"t": {"scores": qa(scores[rows]), "rows": rows}}
        return compare(load(run_folder(tmp_path / "new", candidate)), base, Policy(), "smoke")

    undecided, broken = smoke(damaged(before, 0.02)), smoke(damaged(before, 0.4))
    assert (undecided.status, undecided.rows, undecided.last) == (3, 200, False)
    assert "go on with the next stage" in headline(undecided)
    assert (broken.status, broken.rows_in_all - broken.rows) == (1, 1800)


def test_a_stage_that_lacks_one_of_its_rows_fails(tmp_path: Path) -> None:
    base = load(run_folder(tmp_path / "base", {"t": {"scores": qa(answers())}}))
    rows = sorted(select(base, Policy(), Policy().stages["smoke"])["t"])[1:]
    new = load(run_folder(tmp_path / "new", {"t": {"scores": qa(answers()[rows]), "rows": rows}}))
    assert "lacks 1 of 200 rows" in reasons(compare(new, base, Policy(), "smoke"))


# ---------------------------------------------------------------- frozen baselines


def test_a_frozen_baseline_is_small_deterministic_and_judges_the_same(tmp_path: Path) -> None:
    task = {"t": {"scores": qa(answers(13_333)), "contexts": 3}}
    results = run_folder(tmp_path / "base", task)
    file = tmp_path / "b.json.xz"
    file.write_bytes(freeze(load(results)))
    assert file.read_bytes() == freeze(load(tmp_path / "base"))
    assert len(file.read_bytes()) < 200_000  # of 5 MB of results
    worse = load(run_folder(tmp_path / "new", {"t": {**task["t"], "scores": qa(damaged(answers(13_333), 0.01))}}))
    direct, frozen = (compare(worse, load(path), Policy()) for path in (results, file))
    assert direct == frozen
    assert frozen.verdict == "fail"


def test_freezing_leaves_timings_out(tmp_path: Path) -> None:
    path = tmp_path / "b.json.xz"
    path.write_bytes(freeze(load(run_folder(tmp_path / "base", {"t": {"scores": qa(answers(10))}}))))
    assert set(load(path).tasks["t"].rows.account) == {"source_tokens", "slots", "boundary", "prompt_positions"}


# ---------------------------------------------------------------- command line and outputs


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    before = answers()
    return {
        "base": run_folder(tmp_path / "base", {"t": {"scores": qa(before)}}).parent,
        "bad": run_folder(tmp_path / "bad", {"t": {"scores": qa(damaged(before, 0.1))}}).parent,
    }


def test_exit_status_files_and_table(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert gate(runs["base"], "--against", runs["base"]) == 0
    assert "::error" not in capsys.readouterr().out
    options = [word for kind in ("json", "junit", "markdown") for word in (f"--{kind}", tmp_path / "out" / kind)]
    assert gate(runs["bad"], "--against", runs["base"], *options) == 1
    shown = capsys.readouterr().out
    assert "**gate: FAIL (1,000 of 1,000 rows)**" in shown
    assert "::error title=t exact_match%3A fail::the drop is more than chance" in shown
    verdict = Verdict.model_validate_json((tmp_path / "out" / "json").read_text("utf-8"))
    assert verdict.verdict == "fail"
    suite = ElementTree.parse(tmp_path / "out" / "junit").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "2", "0")
    assert "| t    | exact_match | FAIL" in (tmp_path / "out" / "markdown").read_text("utf-8")
    assert (tmp_path / "summary.md").read_text("utf-8").count("**gate:") == 2


def test_freeze_and_rows_on_the_command_line(runs: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "sub" / "b.json.xz"
    for words in (["freeze", runs["base"], "-o", file], ["rows", file, "--stage", "smoke"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(["baseline", *map(str, words)])
        assert not ended.value.code
    chosen = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(chosen["t"]) == 200
    assert chosen["t"] == sorted(chosen["t"])
    assert gate(runs["base"], "--against", file) == 0


def bad_policy(text: str) -> dict[str, str]:
    return {"policy": text}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"edited": range(ROWS)}, "different data: none of the 1000 rows of t"),
        ({"rows": range(ROWS, 2 * ROWS)}, "no row of t in common"),
        ({"n-shot": {"t": 3}}, "different ways: number of shots is 3 in the candidate and 0 in the baseline"),
        (bad_policy("metrics: {f1: {absolut: 0}}"), "unknown key 'metrics.f1.absolut'"),
        (bad_policy("metric: {}"), "unknown key 'metric'"),
        (bad_policy("metrics: {f1: {absolute: -1}}"), "metrics.f1.absolute: Input should be greater than or equal"),
        (bad_policy("metrics: {f1: {absolute: 1.5}}"), "a drop of 1.51 can't be told in a score with a range of 1"),
        (bad_policy("metrics: {f1: {absolute: 0, relative: 0.1}}"), "not absolute and relative"),
        (bad_policy("metrics: {f1: {}}"), "not none"),
        (bad_policy("metrics: {f1: {non_inferiority: 0.1, resolution: 0.1}}"), "its own resolution"),
        (bad_policy("alpha: 0.7"), "alpha: Input should be less than 0.5"),
        (bad_policy("alpha: .nan"), "alpha"),
        (bad_policy("stages: {all: {share: 0.5}}"), "shares add up to 0.5, not to 1"),
        (bad_policy("stages: {a: {rows: 9, share: 0.5}, b: {rows: 5, share: 0.5}}"), "only that one, has all rows"),
        (bad_policy("[1"), "is not readable YAML"),
        (bad_policy("- 1"), "can't be used: Input should be"),
        (bad_policy("tasks: [pcc_squad]"), "gates none of the baseline's tasks"),
        (bad_policy("costs: {speed: {at_least: 0.9}}"), "--reference"),
    ],
)
def test_misuse_is_one_sentence_and_status_2(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], says: str
) -> None:
    change, words = dict(change), []
    if "policy" in change:
        (tmp_path / "gate.yaml").write_text(change.pop("policy"), "utf-8")
        words = ["--policy", tmp_path / "gate.yaml"]
    shots = {name: change.pop(name) for name in ("n-shot",) if name in change}
    new = run_folder(tmp_path / "new", {"t": {"scores": qa(answers()), **change}}, **shots)
    assert gate(new, "--against", runs["base"], *words) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.startswith("pcc-bench: error: ") and error.count("\n") == 1


def test_files_that_are_missing_or_damaged_are_named(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.json.xz").write_bytes(b"no")
    unlogged = tmp_path / "unlogged"
    shutil.copytree(runs["base"], unlogged)
    next(unlogged.glob("samples_*")).unlink()
    twice = tmp_path / "twice"
    for name in ("base", "bad"):
        shutil.copytree(runs[name], twice / name)
    cut = tmp_path / "cut"
    shutil.copytree(runs["base"], cut)
    file = next(cut.glob("samples_*"))
    file.write_text(file.read_text("utf-8")[:-30], "utf-8")
    nan = run_folder(tmp_path / "nan", {"t": {"scores": qa(answers() * math.nan)}})
    for path, says in (
        (tmp_path / "nowhere", "no results at"),
        (tmp_path / "empty", "no results at"),
        (tmp_path / "bad.json.xz", "is not a frozen baseline"),
        (unlogged, "--log_samples"),
        (twice, "holds two results of t"),
        (cut, "is not valid JSON"),
        (nan, "1000 scores are not finite numbers"),
    ):
        assert gate(runs["base"], "--against", path) == 2
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1, path
    assert gate(runs["base"], "--against", runs["base"], "--policy", tmp_path / "no.yaml") == 2
    assert "is missing" in capsys.readouterr().err
    assert gate(runs["base"], "--against", runs["base"], "--stage", "last") == 2
    assert "has no stage 'last'" in capsys.readouterr().err


# ---------------------------------------------------------------- pytest


def test_the_plug_in_makes_one_test_a_task_and_metric(runs: dict[str, Path], pytester: pytest.Pytester) -> None:
    done = pytester.runpytest_subprocess(
        f"--pcc-candidate={runs['bad']}", f"--pcc-baseline={runs['base']}", "-m", "pcc_gate", "-v", "-W", "error"
    )
    done.assert_outcomes(passed=2, failed=2)
    done.stdout.fnmatch_lines(
        ["pcc-gate::t::exact_match FAILED*", "fail: t exact_match: the drop is more than chance*"]
    )
    half = pytester.runpytest_subprocess(f"--pcc-candidate={runs['bad']}")
    assert half.ret == pytest.ExitCode.USAGE_ERROR
    half.stderr.fnmatch_lines(["*given together or not at all"])


# ---------------------------------------------------------------- real runs


def evaluated(models: Path, out: Path, rate: int, *extra: str) -> Path:
    metadata = json.dumps({"data": str(SAMPLE), "population": "all"})
    arguments = f"pretrained={models / 'pcc'},rate={rate}"
    command = Command("pcc", arguments, "pcc_squad", out, batch_size="8", device="cpu", metadata=metadata, extra=extra)
    return evaluate.run(command)[0]


def test_real_results_of_a_stage_go_through_the_gate(models: Path, tmp_path: Path, capsys: Any) -> None:
    """A run of lm-eval is frozen, a stage's rows are asked again, and another rate in its place is caught."""
    base = tmp_path / "b.json.xz"
    base.write_bytes(freeze(load(evaluated(models, tmp_path / "base", 4))))
    policy = tmp_path / "gate.yaml"
    policy.write_text("stages: {smoke: {rows: 7, share: 0.5}, full: {share: 0.5}}", "utf-8")
    with pytest.raises(SystemExit):
        cli.main(["baseline", "rows", str(base), "--stage", "smoke", "--policy", str(policy)])
    chosen = capsys.readouterr().out.splitlines()[-1]
    again = evaluated(models, tmp_path / "again", 4, "--samples", chosen)
    assert load(again).tasks["pcc_squad"].rows.number.tolist() == json.loads(chosen)["pcc_squad"]
    capsys.readouterr()
    assert gate(again, "--against", base, "--policy", policy, "--stage", "smoke") == 3  # 7 equal rows prove little
    assert "(7 of 24 rows" in capsys.readouterr().out
    other = evaluated(models, tmp_path / "other", 16, "--samples", chosen)
    assert gate(other, "--against", base, "--policy", policy, "--stage", "smoke") == 1
    assert "ratio" in capsys.readouterr().out


def test_a_run_loads_with_contexts_scores_and_costs(tmp_path: Path) -> None:
    run: Run = load(run_folder(tmp_path, {"t": {"scores": qa(answers(10))}}))
    task = run.tasks["t"]
    assert [len(set(part)) for part in (task.rows.context[:5], task.rows.context[5:], task.rows.context)] == [1, 1, 2]
    assert task.rows.scores["exact_match"].tolist() == answers(10).tolist()
    assert task.rows.account["slots"].tolist() == [98.0] * 10
    assert run.name["model"] == "checkpoint"
