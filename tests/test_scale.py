"""Suites whose cells are run by an engine: attempts, machines that lack something, Ray and submitit for real."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SAMPLE

from pcc_bench.cli import main
from pcc_bench.core import provenance
from pcc_bench.core.errors import UsageError
from pcc_bench.suite import engines as process
from pcc_bench.suite import runner
from pcc_bench.suite.engines import Order, Outcome, open_engine, perform, write_done
from pcc_bench.suite.spec import Cell, Executor, Settings, Suite, Terms


@pytest.fixture
def suite(models: Path, tmp_path: Path) -> Path:
    """Two methods on a few real rows."""
    args = {"pretrained": str(models / "llama"), "dtype": "float32"}
    pcc = {**args, "pretrained": str(models / "pcc")}
    state = {
        "name": "mine",
        "defaults": {"metadata": {"data": str(SAMPLE), "population": "all"}, "limit": 4, "batch_size": 4},
        "cells": [
            {"label": "full", "method": "full-context", "tasks": ["pcc_squad"], "model_args": args},
            {"label": "pcc", "method": "pcc", "tasks": ["pcc_squad"], "model_args": pcc},
        ],
    }
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(state))
    return path


def cells_of(suite: Path, out: Path, **options: Any) -> list[Cell]:
    return Suite.read(str(suite)).plan(out, Settings(), **options)


# Attempts


class Script:
    """An engine whose attempts end as a script says."""

    def __init__(self, *endings: Outcome, at_once: int = 1, retries: int = 2) -> None:
        self.endings, self.at_once, self.retries = list(endings), at_once, retries
        self.submitted: list[str] = []
        self.running = self.most = self.cancelled = 0

    def submit(self, cell: Cell) -> Cell:
        self.submitted.append(cell.label)
        self.running += 1
        self.most = max(self.most, self.running)
        return cell

    def outcome(self, job: Cell) -> Outcome:
        self.running -= 1
        ending = self.endings.pop(0)
        if not ending.error:
            path = job.command.output / "results_1.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
            write_done(job.command, path)
        return ending

    def cancel(self, job: Cell) -> None:
        self.cancelled += 1


DONE, LOST, WRONG = Outcome(), Outcome("the worker died"), Outcome("no such rate", final=True)


def play(suite: Path, engine: Script) -> tuple[dict[str, str], list[str]]:
    out, said = suite.parent / "out", []
    failed = runner.run(Suite.read(str(suite)), out, cells_of(suite, out), said.append, lambda: engine)
    return failed, said


def test_a_lost_cell_is_tried_again_and_a_mistake_is_not(suite: Path) -> None:
    engine = Script(LOST, DONE, DONE)
    failed, said = play(suite, engine)
    assert failed == {}
    assert engine.submitted == ["full", "pcc", "full"]  # the others first
    assert any("the worker died; it is tried again" in line for line in said)
    engine = Script()
    assert play(suite, engine)[0] == {}
    assert engine.submitted == []


def test_attempts_have_an_end(suite: Path) -> None:
    engine = Script(LOST, WRONG, LOST, LOST)
    failed, _ = play(suite, engine)
    assert failed == {"full": "the worker died", "pcc": "no such rate"}
    assert engine.submitted == ["full", "pcc", "full", "full"]


@pytest.mark.parametrize("at_once", [1, 2])
def test_no_more_cells_at_a_time_than_stated(suite: Path, at_once: int) -> None:
    engine = Script(DONE, DONE, at_once=at_once)
    play(suite, engine)
    assert engine.most == at_once


def test_an_interrupted_suite_leaves_nothing_running(suite: Path) -> None:
    engine = Script(at_once=2)  # the first look at a job fails

    with pytest.raises(IndexError):
        play(suite, engine)
    assert engine.cancelled == 2


def test_results_that_are_not_seen_here_are_no_results(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "VISIBLE", 0)
    monkeypatch.setattr(Script, "outcome", lambda *_: DONE)
    failed, _ = play(suite, Script())
    assert failed["full"].startswith("it ended, and its results are not here: is --output a folder that all machines")


# A cell on some machine


def in_a_child(order: Order) -> Outcome:
    """`perform` takes over the process it is in."""
    receives, sends = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=lambda: sends.send(perform(order)))
    child.start()
    outcome: Outcome = receives.recv()
    child.join()
    return outcome


def test_a_cell_is_not_run_twice(suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines have the same cell: the second waits for the first, and finds its results."""
    cell = cells_of(suite, tmp_path / "out")[0]
    order = Order.of(cell.command)
    ran = tmp_path / "ran"

    def evaluate(command: Any) -> list[Path]:
        with ran.open("a") as file:
            file.write("x")
        time.sleep(0.5)
        path = command.output / "results_1.json"
        path.write_text("{}")
        return [path]

    monkeypatch.setattr(process.evaluate, "run", evaluate)
    children = [multiprocessing.get_context("fork").Process(target=perform, args=(order,)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert process.results(cell.command)
    assert ran.read_text() == "x"


def test_a_machine_that_lacks_something_says_what(suite: Path, tmp_path: Path) -> None:
    (cell, _) = cells_of(suite, tmp_path / "out")
    order = Order.of(cell.command)
    elsewhere = replace(cell.command, output=tmp_path / "elsewhere")
    for changed, says in (
        (order._replace(folder=tmp_path / "gone"), "can't enter the working folder .*gone"),
        (order._replace(command=elsewhere), "does not see .*elsewhere: choose an --output that all machines share"),
        (order._replace(code="0"), "has another version of pcc-bench"),
    ):
        outcome = in_a_child(changed)
        assert outcome.final
        with pytest.raises(UsageError, match=says):
            raise UsageError(outcome.error)


def test_an_order_carries_what_decides_a_cell(suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCC_DATA", "rows")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    order = Order.of(cells_of(suite, tmp_path / "out")[0].command)
    assert order.environment["PCC_DATA"] == "rows"
    assert "CUDA_VISIBLE_DEVICES" not in order.environment  # the engine's to say
    assert order.code == provenance.code()


def test_a_store_of_memories_makes_no_other_cell(suite: Path, tmp_path: Path) -> None:
    plain, stored = (cells_of(suite, tmp_path, memory_store=store) for store in (None, tmp_path / "store"))
    assert [cell.command.output for cell in plain] == [cell.command.output for cell in stored]
    assert stored[1].command.memory_store == tmp_path / "store"


# Bad input


def test_bad_input_is_one_sentence(suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in (
        (["--gpus-per-cell", "1"], "the local executor gives a cell every GPU of this machine"),
        (["--executor-option", "address=auto"], "the local executor gives a cell every GPU"),
        (["--executor", "submitit", "--gpus-per-cell", "0.5"], "SLURM gives whole GPUs"),
        (["--executor", "submitit", "--executor-option", "cluster=lsf"], "cluster=lsf: it is local or slurm"),
        (["--executor", "submitit", "--executor-option", "colour=red"], "does not take --executor-option colour"),
        (["--executor", "submitit", "--executor-option", "cluster"], "--executor-option cluster is no KEY=VALUE"),
        (["--executor", "ray", "--executor-option", "adress=auto"], "with ray there is only address=HOST:PORT"),
    ):
        if "submitit" in words:
            pytest.importorskip("submitit", reason="needs pip install 'pcc-bench[submitit]'")
        if "ray" in words:
            pytest.importorskip("ray", reason="needs pip install 'pcc-bench[ray]'")
        with pytest.raises(SystemExit) as ended:
            main(["run", str(suite), "--output", str(tmp_path / "out"), *words])
        error = capsys.readouterr().err
        assert ended.value.code == 2
        assert says in error
        assert error.count("\n") == 1


@pytest.mark.parametrize("executor", ["ray", "submitit"])
def test_an_extra_that_is_missing_is_named(executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, executor, None)
    with pytest.raises(UsageError, match=rf"pip install 'pcc-bench\[{executor}\]'"):
        open_engine(executor, tmp_path, Terms())


# Real engines


def start(suite: Path, out: Path, *words: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "pcc_bench.cli", "run", str(suite), "--output", str(out), *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def sequential(suite: Path, tmp_path: Path) -> str:
    """The table of the cells one after the other on this machine."""
    run = start(suite, tmp_path / "sequential")
    _, error = run.communicate()
    assert run.returncode == 0, error[-3000:]
    return (tmp_path / "sequential" / "table.md").read_text()


def kill_one(run: subprocess.Popen[str], out: Path) -> str:
    """Kill the process that runs the cell `pcc`, and let the suite end; what it printed."""
    while not (owners := [*out.glob("pcc-*/.pcc_bench.owner.json")]):
        assert run.poll() is None, run.communicate()
        time.sleep(0.02)
    os.kill(json.loads(owners[0].read_text())["pid"], signal.SIGKILL)
    printed, error = run.communicate()
    assert run.returncode == 0, error[-3000:]
    return printed


def check_against(sequential: str, out: Path, printed: str) -> None:
    """The table is that of a sequential run, the killed cell was started twice and the other one once."""
    assert (out / "table.md").read_text() == sequential
    assert printed.count("it is tried again") == 1
    starts = [line for line in printed.splitlines() if ", log in " in line]
    assert sorted(line.split()[1] for line in starts) == ["full", "pcc", "pcc"]


def test_submitit_makes_the_sequential_table_though_a_job_is_killed(
    suite: Path, sequential: str, tmp_path: Path
) -> None:
    pytest.importorskip("submitit", reason="needs pip install 'pcc-bench[submitit]'")
    out = tmp_path / "out"
    run = start(suite, out, "--executor", "submitit", "--executor-option", "cluster=local")
    check_against(sequential, out, kill_one(run, out))


@pytest.fixture
def two_workers() -> Iterator[str]:
    """The address of a Ray cluster of a head that runs nothing and two machines of one core."""
    pytest.importorskip("ray", reason="needs pip install 'pcc-bench[ray]'")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1)
            cluster.wait_for_nodes()
            yield cluster.address
        finally:
            cluster.shutdown()


def test_a_ray_cluster_makes_the_sequential_table_though_a_worker_is_killed(
    suite: Path, sequential: str, tmp_path: Path, two_workers: str
) -> None:
    out = tmp_path / "out"
    ray = ("--executor", "ray", "--executor-option", f"address={two_workers}")
    run = start(suite, tmp_path / "large", *ray, "--gpus-per-cell", "1")
    _, error = run.communicate()
    assert run.returncode == 2
    assert "no machine of the Ray cluster has 1 GPUs and 1 CPU cores for a cell" in error.splitlines()[-1]
    run = start(suite, out, *ray, "--memory-store", str(tmp_path / "store"))
    check_against(sequential, out, kill_one(run, out))
    assert list((tmp_path / "store").rglob("*.safetensors"))
