"""benchmarks/gpu: all five parts at tiny size, and what becomes of a part that fails or hangs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks" / "gpu"
sys.path.insert(0, str(FOLDER))

import run as script  # type: ignore[import-not-found]  # noqa: E402
from rows import Row, Setting  # type: ignore[import-not-found]  # noqa: E402

PARTS = ["device", "parity", "cost", "questions", "training"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("gpu") / "results"
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    command = ["bash", str(FOLDER / "run.sh"), "900", "--small", "--out", str(out)]
    done = subprocess.run(command, env=environment, cwd=out.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]


def test_every_part_comes_to_its_end(small: tuple[Path, str]) -> None:
    whole = {row["part"]: row["note"] for row in rows_of(small[0]) if row["what"] == "whole part"}
    assert whole == dict.fromkeys(PARTS, ""), (small[0] / "log.txt").read_text()[-3000:]


def test_every_part_says_what_it_is_there_for(small: tuple[Path, str]) -> None:
    rows = {row["what"]: row for row in rows_of(small[0])}
    for what in ("matrix product, bfloat16", "copy, read and written"):
        assert rows[what]["value"] > 0
    exact = [row for what, row in rows.items() if row["part"] == "parity" and what.endswith("float32")]
    assert len(exact) >= 4 and all(row["met"] for row in exact)  # on a CPU the device is the CPU
    assert rows["first token, tiny-gpt2 16x warm, 128 tokens"]["goal"] == ">= 12x sooner than full"
    assert any(what.startswith("predicted over measured") for what in rows)
    assert any(what.startswith("decoding, full") and what.endswith("batch 2") for what in rows)
    assert any(what.startswith("peak memory") for what in rows)
    assert rows["cold, 128 tokens, 4x, 1 a context"]["goal"] == ">= 10x the official way"
    assert {rows[f"{name}: of the matrix product"]["goal"] for name in ("smollm2", "lite-4x")} == {">= 35%"}
    assert not [row for row in rows.values() if row["met"] is False and not row["goal"]]  # nothing failed


def test_results_are_few_small_files_and_a_table(small: tuple[Path, str]) -> None:
    out, printed = small
    files = list(out.iterdir())
    assert len(files) <= 8 and all(path.stat().st_size <= 16 << 20 for path in files)
    assert printed.strip().endswith((out / "table.md").read_text().strip())
    assert "no figure means anything" in printed


def test_an_earlier_runs_results_are_kept(small: tuple[Path, str]) -> None:
    command = [sys.executable, str(FOLDER / "run.py"), "9", "--small", "--out", str(small[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "holds the results of an earlier run" in done.stderr


def test_a_part_that_hangs_or_fails_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "GRACE", 0.5)
    programs = {
        "hangs": "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)",
        "fails": "raise RuntimeError('no room for it')",
        "dies": "import os\nos.kill(os.getpid(), 9)",
        "works": "",
    }
    parts = []
    for name, text in programs.items():
        (tmp_path / f"{name}.py").write_text(text)
        parts.append(script.Part(name, tmp_path / f"{name}.py", 1))
    setting = Setting(tmp_path, True)
    script.run(setting, parts, 18)
    notes = {row.part: row.note for row in setting.rows()}
    assert notes["hangs"].startswith("stopped at its limit of 4 s")
    assert notes["fails"] == "RuntimeError: no room for it"
    assert notes["dies"] == "killed by signal 9"
    assert notes["works"] == ""
    assert "no room for it" in (tmp_path / "table.md").read_text()


def test_a_goal_that_was_missed_stands_out(tmp_path: Path) -> None:
    setting = Setting(tmp_path, False)
    setting.add(Row("cost", "first token", 2.0, "ms", ">= 4x", False, "3x"))
    assert "| cost | first token | 2 ms | >= 4x | NO | 3x |" in script.table(setting)
