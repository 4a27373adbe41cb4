"""Whole runs through lm-eval's own command line: plain, cached, killed and in two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import lm_eval_run, results
from conftest import SAMPLE

import pcc_bench.tasks

TASKS = pcc_bench.tasks.__path__[0]

METRICS = ("exact_match,none", "f1,none", "contains,none", "compression,none")


# lm-eval's command line with our tasks alone: each process would read lm-eval's thousands for seconds.
ONLY_OURS = f"""
import lm_eval.tasks
manager = lm_eval.tasks.TaskManager
lm_eval.tasks.TaskManager = lambda metadata, **_: manager(None, {TASKS!r}, False, metadata)
from lm_eval.__main__ import cli_evaluate
cli_evaluate()
"""


def arguments(models: Path, method: str = "pcc") -> list[str]:
    checkpoint = models / ("pcc" if method == "pcc" else "llama")
    named = ["--model", method, "--tasks", "pcc_squad", "--model_args", f"pretrained={checkpoint},dtype=float32"]
    return [*named, "--batch_size", "4"]


def run(models: Path, out: Path, *more: str, method: str = "pcc") -> dict[str, Any]:
    """`lm_eval run` in this process."""
    return lm_eval_run(out, *arguments(models, method), *more)


def start(models: Path, out: Path, *launcher: str, **extra: str) -> dict[str, Any]:
    """`lm_eval run` in a process of its own."""
    command = [sys.executable, *launcher, "run", *arguments(models), "--output_path", str(out), "--log_samples"]
    environment = os.environ | {"PCC_DATA": str(SAMPLE), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment | extra, cwd=out.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return results(out)


def answers(results: dict[str, Any]) -> list[str]:
    return [row["resps"][0][0] for row in results["samples"]]


def scores(results: dict[str, Any]) -> list[float]:
    return [results["results"]["pcc_squad"][metric] for metric in METRICS]


@pytest.fixture(scope="module")
def plain(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return start(models, tmp_path_factory.mktemp("plain") / "out", "-m", "lm_eval")


def test_the_plain_command_finds_model_and_task_and_accounts_for_every_row(plain: dict[str, Any]) -> None:
    ours = plain["config"]["pcc_bench"]
    assert plain["config"]["model"] == "pcc"
    assert ours["method"] == "pcc"
    assert ours["requested_rate"] == 4
    assert set(ours["fingerprints"]) == {"checkpoint", "compressor", "decoder", "decoder_weights", "code"}
    assert all(ours["fingerprints"].values())
    population = plain["configs"]["pcc_squad"]["metadata"]["population"]
    assert population["rows_read"] == 24
    assert population["kept"] == len(plain["samples"]) == ours["counts"]["requests"]
    assert ours["compressions"] == len({row["doc"]["context"] for row in plain["samples"]})
    records = [row["compression"] for row in plain["samples"]]
    vectors = sum(record["slots"] + record["boundary"] for record in records)
    achieved = sum(record["source_tokens"] for record in records) / vectors
    assert plain["results"]["pcc_squad"]["compression,none"] == pytest.approx(achieved)
    assert all(record["prefill_seconds"] > 0 and record["decode_seconds"] > 0 for record in records)


def test_two_processes_give_what_one_gives(plain: dict[str, Any], models: Path, tmp_path: Path) -> None:
    # `--multi_gpu` starts the processes, ACCELERATE_USE_CPU puts them on the CPU (`--cpu` alone would want MPI).
    launcher = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")
    (tmp_path / "only_ours.py").write_text(ONLY_OURS)
    two = start(models, tmp_path / "out", *launcher, str(tmp_path / "only_ours.py"), ACCELERATE_USE_CPU="true")
    assert two["config"]["pcc_bench"]["processes"] == 2
    assert scores(two) == scores(plain)
    assert answers(two) == answers(plain)
    assert two["config"]["pcc_bench"]["compressions"] == plain["config"]["pcc_bench"]["compressions"]


def test_cached_answers_are_used_and_belong_to_their_checkpoint(
    plain: dict[str, Any], models: Path, tmp_path: Path
) -> None:
    cache = ("--use_cache", str(tmp_path / "answers"))
    half = run(models, tmp_path / "half", "--limit", "10", *cache)
    assert half["config"]["pcc_bench"]["counts"].get("cached", 0) == 0
    whole = run(models, tmp_path / "whole", *cache)  # as after a kill: only the missing rows are answered
    assert whole["config"]["pcc_bench"]["counts"]["cached"] == 10
    assert answers(whole) == answers(plain)
    assert scores(whole) == scores(plain)
    # lm-eval's own key lacks the model: another one must not see these answers.
    other = run(models, tmp_path / "other", *cache, method="full-context")
    assert other["config"]["pcc_bench"]["counts"].get("cached", 0) == 0
    assert answers(other) != answers(plain)


def test_lm_evals_hf_reads_the_same_task_as_plain_text(models: Path, tmp_path: Path) -> None:
    theirs = run(models, tmp_path / "hf", method="hf")
    ours = run(models, tmp_path / "full", method="full-context")
    assert answers(ours) == answers(theirs)
    assert scores(ours)[:3] == [theirs["results"]["pcc_squad"][metric] for metric in METRICS[:3]]
    assert ours["results"]["pcc_squad"]["compression,none"] == 1
