"""A few moments of `benchmarks/kill9.py`: a killed command run again gives what an uninterrupted one gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "kill9.py"


@pytest.mark.parametrize("verb", ["freeze", "compress"])
def test_a_killed_command_run_again_ends_as_an_uninterrupted_one(verb: str, tmp_path: Path) -> None:
    words = [sys.executable, str(SCRIPT), "--trials", "3", "--only", verb, "--output", str(tmp_path)]
    for _ in range(2):  # the second time, all trials stand in the journal
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr[-2000:]
        assert len((tmp_path / "trials.jsonl").read_text("utf-8").splitlines()) == 3
        assert done.stdout.endswith(" kills, 0 wrong\n")
