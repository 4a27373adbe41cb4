"""Suites: what a file may say, which cells it stands for, and runs that go on where they stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SAMPLE
from result_files import Task, write_run

from pcc_bench import tasks
from pcc_bench.cli import main, terminal
from pcc_bench.core import shipped as shipped_models
from pcc_bench.core.errors import UsageError
from pcc_bench.core.registry import names as methods
from pcc_bench.host.settings import task_names
from pcc_bench.suite import engines, runner
from pcc_bench.suite.check import check, decoder, estimate, plan
from pcc_bench.suite.engines import DONE, Outcome, write_done
from pcc_bench.suite.runner import WIDEST, table
from pcc_bench.suite.spec import Cell, Settings, Suite, shipped


def write(folder: Path, **state: Any) -> Path:
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", **state}, sort_keys=False))
    return path


def cells_of(path: Path, out: Path, **changes: Any) -> list[Cell]:
    return Suite.read(str(path)).plan(out, Settings(**changes))


@pytest.fixture
def small(models: Path, tmp_path: Path) -> Path:
    """Three methods on a few real rows."""
    args = {"pretrained": str(models / "llama"), "dtype": "float32"}
    metadata = {"data": str(SAMPLE), "population": "all"}
    return write(
        tmp_path,
        defaults={"metadata": metadata, "limit": 4, "batch_size": 4},
        cells=[
            {"label": "full", "method": "full-context", "tasks": ["pcc_squad"], "model_args": args},
            {"label": "none", "method": "no-context", "tasks": ["pcc_squad"], "model_args": args},
            {
                "label": "pcc 4x",
                "method": "pcc",
                "tasks": ["pcc_squad"],
                "model_args": {**args, "pretrained": str(models / "pcc")},
            },
        ],
    )


# Files


def test_suites_are_shipped() -> None:
    assert {"table2", "lab-table2"} <= shipped().keys()


@pytest.mark.parametrize("name", shipped())
def test_shipped_suites_name_what_exists(name: str, tmp_path: Path) -> None:
    suite = Suite.read(name)
    assert suite.name == name
    assert suite.purpose
    for cell in suite.plan(tmp_path, Settings()):
        assert cell.command.model in methods()
        assert set(cell.command.tasks.split(",")) <= set(task_names())
        on_lab = json.loads(cell.command.metadata or "{}").get("data") == "lab"
        assert on_lab == name.startswith("lab-")


def test_each_suite_of_the_paper_has_a_twin_on_the_lab() -> None:
    own = {name for name in shipped() if not name.startswith("lab-")}
    real = {name for name in own if name.startswith("real-")}  # of a pretrained decoder on real rows
    own -= real
    assert real == {"real-table2", "real-table2-long", "real-pretraining", "real-ruler", "real-drift"}
    assert own == {"table2", "table3", "table4", "table5", "pretraining", "ablations"}
    assert {name.removeprefix("lab-") for name in shipped() if name.startswith("lab-")} == own | {"tasks"}


def test_a_cell_says_more_than_the_defaults_and_the_user_more_than_the_file(tmp_path: Path) -> None:
    entry = {"label": "a", "method": "pcc", "tasks": ["pcc_nq"], "limit": 7, "model_args": {"rate": 16}}
    defaults = {
        "limit": 5,
        "batch_size": 8,
        "model_args": {"rate": 4, "dtype": "bfloat16"},
        "metadata": {"data": "lab"},
    }
    path = write(tmp_path, defaults=defaults, cells=[entry])
    (cell,) = cells_of(path, tmp_path / "out")
    assert (cell.command.limit, cell.command.batch_size) == (7, "8")
    assert cell.command.model_args == "rate=16,dtype=bfloat16"
    (cell,) = cells_of(path, tmp_path / "out", limit=2, model_args={"dtype": "float32"}, metadata={"data": "hub"})
    assert cell.command.limit == 2
    assert cell.command.model_args == "rate=16,dtype=float32"
    assert cell.command.metadata == '{"data": "hub"}'


def test_a_matrix_is_every_checkpoint_with_every_decoder(tmp_path: Path) -> None:
    matrix = {"checkpoints": {"4x": "c4", "16x": "c16"}, "decoders": {"a": "A", "b": "B"}, "tasks": ["pcc_nq"]}
    cells = cells_of(write(tmp_path, matrix=[matrix]), tmp_path / "out")
    assert [cell.label for cell in cells] == ["4x on a", "4x on b", "16x on a", "16x on b"]
    assert cells[3].command.model_args == "pretrained=c16,decoder=B"


def test_a_changed_cell_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    entry = {"label": "a", "method": "pcc", "tasks": ["pcc_nq"]}
    (one,) = cells_of(write(tmp_path, cells=[entry]), tmp_path)
    (two,) = cells_of(write(tmp_path, cells=[{**entry, "limit": 3}]), tmp_path)
    (faster,) = cells_of(write(tmp_path, cells=[{**entry, "batch_size": 3}]), tmp_path)
    assert one.command.output != two.command.output
    assert one.command.output == faster.command.output  # batch size changes no answer


def test_the_labs_suite_of_all_tasks_has_every_data_set_and_kind_of_method(tmp_path: Path) -> None:
    cells = Suite.read("lab-tasks").plan(tmp_path, Settings())
    assert {cell.command.model for cell in cells} == {"pcc", "full-context", "no-context", "truncated-context"}
    assert len({cell.command.tasks for cell in cells}) == 1
    groups = {"pcc_rag": ["squad", "hotpotqa", "adversarialqa", "nq"]}
    named = [part for task in cells[0].command.tasks.split(",") for part in groups.get(task, [task])]
    data = {path.parent.name for path in Path(tasks.__path__[0]).glob("*/*.yaml")}
    data -= {"msc", "personachat", "ruler", "drift"}  # no rows of the lab, or by length and cycle
    assert {next(name for name in data if name in task) for task in named} == data


def test_a_table_of_many_scores_has_a_line_for_each(tmp_path: Path) -> None:
    tasks = {f"pcc_task{n}": Task({"f1": n / 100}, count=4) for n in range(WIDEST + 1)}
    path = write_run(tmp_path, tasks, {"method": "pcc"})
    turned = table([("one", path), ("two", path), ("missing", None)])
    assert turned.columns == ("", "one", "two", "missing")
    assert turned.rows[3] == ("task3 F1", "3.0", "3.0", "")
    assert len(turned.rows) == WIDEST + 1


def test_a_table_is_renewed_inside_a_page(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("Before.\n<!-- run:mine -->\nold\n<!-- /run -->\nAfter.\n")
    terminal.fill(path, "run", {"mine": "| new |"}, partly=True)
    assert path.read_text() == "Before.\n<!-- run:mine -->\n| new |\n<!-- /run -->\nAfter.\n"
    for change in (
        lambda: terminal.fill(path, "run", {"other": ""}, partly=True),
        lambda: terminal.fill(tmp_path / "gone.md", "run", {"mine": ""}, partly=True),
    ):
        with pytest.raises(UsageError, match=r"there is no '<!-- run:other -->'|gone.md is missing"):
            change()


# Bad input


def test_bad_input_is_one_sentence(tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text((models / "llama" / "config.json").read_text())
    good = {"label": "a", "method": "no-context", "tasks": ["pcc_squad"]}
    good["model_args"] = {"pretrained": str(models / "llama")}
    for cell, says in (
        ({**good, "method": "full-contxt"}, "cell 'a': unknown model 'full-contxt': did you mean 'full-context'?"),
        ({**good, "taks": 1}, "unknown key 'cells.0.taks'"),
        ({**good, "model_args": {"pretrained": str(bare)}}, f"cell 'a': the decoder {bare} lacks a tokenizer"),
        ({**good, "model_args": {"pretrained": "a,b"}}, "has a comma"),
        ({**good, "tasks": []}, "cells.0.tasks: Tuple should have at least 1 item"),
    ):
        _fails(["run", str(write(tmp_path, cells=[cell])), "--output", str(tmp_path / "out")], says, capsys)
    _fails(["run", "table22", "--output", "o"], "no suite 'table22': give a file, or one of ablations, lab-", capsys)
    _fails(["run", str(write(tmp_path, cells=[good, good])), "--output", "o"], "two cells are called 'a'", capsys)
    _fails(["run", str(write(tmp_path)), "--output", "o"], "neither cells nor a matrix", capsys)
    good_path = write(tmp_path, cells=[good])
    _fails(["run", str(good_path), "--output", "o", "--only", "b*"], "--only b* matches no cell: known are a", capsys)
    other = tmp_path / "other"
    runner.claim(Suite.read("lab-table2"), other)
    message = f"{other} holds results of the suite lab-table2, not of mine: choose another --out"
    _fails(["run", str(good_path), "--output", str(other)], message, capsys)
    _fails(["run", str(good_path), "--output", str(bare)], "is not empty and no suite wrote it", capsys)


def test_an_unknown_task_is_named(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoTasks:
        def match_tasks(self, names: list[str]) -> list[str]:
            return []

    monkeypatch.setattr("lm_eval.tasks.TaskManager", NoTasks)  # lm-eval's own tasks are thousands of files
    args = {"pretrained": str(models / "llama")}
    path = write(tmp_path, cells=[{"label": "a", "method": "no-context", "tasks": ["pcc_squat"], "model_args": args}])
    with pytest.raises(UsageError, match="cell 'a': unknown task 'pcc_squat': did you mean 'pcc_squad'"):
        check(cells_of(path, tmp_path / "out"))


def _fails(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert says in error
    assert "Traceback" not in error
    assert error.count("\n") == 1


# Plans


def test_a_dry_run_counts_without_a_model(small: Path, tmp_path: Path) -> None:
    cells = cells_of(small, tmp_path / "out")
    cost = estimate(cells[0])
    assert cost.rows == 4
    assert cost.contexts == 1  # the first rows of the sample share their context
    assert cost.context_tokens > cost.text_tokens > 0
    shown = plan(cells)
    assert [row[2] for row in shown.rows] == ["to do"] * 3
    assert all(float(row[3]) > 0 for row in shown.rows)
    flops = [float(row[8]) for row in shown.rows]
    assert flops[0] > flops[2] > flops[1]  # all of the text, a quarter of it, none
    assert not (tmp_path / "out").exists()


def test_the_name_of_a_shipped_model_is_enough(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped_models, "FOLDER", models)
    metadata = {"data": "lab", "documents": 4, "tokens": 40}
    tasks = ["pcc_reconstruction"]
    full = {"label": "full", "method": "full-context", "tasks": tasks, "model_args": {"pretrained": "llama"}}
    pcc = {"label": "pcc", "method": "pcc", "tasks": tasks, "model_args": {"pretrained": "pcc", "rate": 16}}
    cells = cells_of(write(tmp_path, defaults={"metadata": metadata}, cells=[full, pcc]), tmp_path / "out")
    assert [decoder(cell) for cell in cells] == [str(models / "llama")] * 2
    shown = plan(cells)
    assert [row[4] for row in shown.rows] == ["4", "4"]
    assert float(shown.rows[0][8]) > float(shown.rows[1][8])


def test_what_cannot_be_estimated_is_said(tmp_path: Path, models: Path) -> None:
    args = {"pretrained": str(models / "llama")}
    metadata = {"data": str(tmp_path / "nowhere")}
    entry = {"label": "a", "method": "no-context", "tasks": ["pcc_nq"], "model_args": args, "metadata": metadata}
    (row,) = plan(cells_of(write(tmp_path, cells=[entry]), tmp_path / "out")).rows
    assert row[3] == "unknown"
    assert "no data folder" in row[8]


# Runs, with cells that do nothing but take time


def fake_work(order: Any, end: Any) -> None:
    """Stands in for a cell."""
    command = order.command
    with (command.output / "started").open("a") as file:
        file.write("x")
    if command.tasks == "pcc_nq" and not os.environ.get("FIXED"):
        end.send(Outcome("no data"))
        return
    if command.tasks == "pcc_hotpotqa" and not os.environ.get("FIXED"):
        os.kill(os.getpid(), signal.SIGKILL)
    path = command.output / "results_1.json"
    path.write_text("{}")
    write_done(command, path)
    end.send(Outcome())


def test_failed_cells_are_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing

    monkeypatch.setattr(engines, "context", lambda: multiprocessing.get_context("fork"))
    monkeypatch.setattr(engines, "work", fake_work)
    entries = [{"label": t, "method": "pcc", "tasks": [t]} for t in ("pcc_squad", "pcc_nq", "pcc_hotpotqa")]
    path = write(tmp_path, cells=entries)
    suite, cells = Suite.read(str(path)), cells_of(path, tmp_path / "out")
    said: list[str] = []
    failed = runner.run(suite, tmp_path / "out", cells, said.append)
    assert failed == {"pcc_nq": "no data", "pcc_hotpotqa": "its process ended with signal SIGKILL (see the log)"}
    monkeypatch.setenv("FIXED", "1")
    assert runner.run(suite, tmp_path / "out", cells, said.append) == {}
    started = [len((cell.command.output / "started").read_text()) for cell in cells]
    assert started == [1, 2, 2]  # what was done is not done again
    assert sum("done before" in line for line in said) == 1


# A real run


def start(suite: Path, out: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "pcc_bench.cli", "run", str(suite), "--output", str(out)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not what():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def test_a_killed_run_goes_on_and_its_table_is_that_of_an_uninterrupted_one(small: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(small, whole)
    shown, error = process.communicate()
    assert process.returncode == 0, error[-3000:]
    text = (whole / "table.md").read_text()
    assert text in shown
    process = start(small, killed)
    wait_for(lambda: len(list(killed.glob(f"*/{DONE}"))) == 1 and len(list(killed.iterdir())) > 2, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = {path.parent.name: path.stat().st_mtime_ns for path in killed.glob(f"*/{DONE}")}
    assert 1 <= len(done) < 3
    process = start(small, killed)
    shown, error = process.communicate()
    assert process.returncode == 0, error[-3000:]
    assert shown.count("done before") == len(done)
    assert all((killed / name / DONE).stat().st_mtime_ns == time for name, time in done.items())
    assert (killed / "table.md").read_text() == text
    rows = text.splitlines()
    assert [line.split("|")[1].strip() for line in rows[2:5]] == ["full", "none", "pcc 4x"]
    assert "pcc_squad: 4 rows." in text
    files = [(name, next(whole.glob(f"{name.replace(' ', '-')}-*/**/results_*.json"))) for name in ("full", "none")]
    assert len(table(files).rows) == 2
