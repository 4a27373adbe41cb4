"""A run that scored nothing says so; a model in a subfolder is counted with its own tokenizer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import lm_eval_run
from conftest import SAMPLE
from hypothesis import given
from hypothesis import strategies as st
from test_tasks import load

from pcc_bench import cli
from pcc_bench.host import responses
from pcc_bench.host.responses import Tally
from pcc_bench.tasks.metadata import TokenCounter

SKIPPING = ("--tasks", "pcc_squad", "--limit", "3")


@pytest.fixture
def arguments(models: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PCC_DATA", str(SAMPLE))
    return f"pretrained={models / 'llama'},overflow=skip,max_length=40,dtype=float32"


def test_nothing_scored_is_said_by_lm_evals_command(
    arguments: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        lm_eval_run(tmp_path, "--model", "full-context", "--model_args", arguments, *SKIPPING)
    assert end.value.code == 3
    assert "error: nothing was scored: all rows of pcc_squad (3) are longer than" in capsys.readouterr().err
    assert list(tmp_path.rglob("results_*.json"))  # with the rows that were skipped


def test_nothing_scored_is_said_by_our_command(
    arguments: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(
            ["eval", "--model", "full-context", "--model-args", arguments, *SKIPPING, "--output", str(tmp_path / "out")]
        )
    assert end.value.code == 3
    assert "error: nothing was scored: all rows of pcc_squad (3)" in capsys.readouterr().err


def test_the_plain_command_ends_with_its_status(arguments: str, tmp_path: Path) -> None:
    words = ["-m", "lm_eval", "--model", "full-context", "--model_args", arguments, *SKIPPING]
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr[-2000:]
    assert "error: nothing was scored" in done.stderr
    assert "Traceback" not in done.stderr


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sets(st.integers(0, 3)), st.sets(st.integers(0, 3))), max_size=5))
def test_a_task_has_no_score_if_every_row_was_skipped_in_part(calls: list[tuple[str, set[int], set[int]]]) -> None:
    tally = responses.latest = Tally()
    asked: dict[str, set[int]] = {"a": set(), "b": set()}
    skipped: dict[str, set[int]] = {"a": set(), "b": set()}
    for task, rows, left_out in calls:
        if rows:
            share = Tally()
            share.asked, share.skipped = {task: set(rows)}, {task: rows & left_out}
            tally.merge(share)
            asked[task] |= rows
            skipped[task] |= rows & left_out
    empty = {task for task in asked if asked[task] and asked[task] == skipped[task]}
    assert set(tally.unscored()) == empty
    if empty and empty == {task for task in asked if asked[task]}:
        with pytest.raises(SystemExit) as end:
            responses.finish()
        assert end.value.code == 3
    else:
        responses.finish()


def test_the_population_of_a_model_in_a_subfolder(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "llama", tmp_path / "model" / "inner")
    model = {"pretrained": str(tmp_path / "model"), "subfolder": "inner"}
    counters = [TokenCounter.open(words, "a test") for words in (model, {"pretrained": str(models / "llama")})]
    assert counters[0].tokenizer.vocab_size == counters[1].tokenizer.vocab_size
    population = load("pcc_squad", **model).config.metadata["population"]
    plain = load("pcc_squad", pretrained=str(models / "llama")).config.metadata["population"]
    assert (population["kept"], population["dropped"]) == (plain["kept"], plain["dropped"])
