"""The lab's results of all tasks, and what the docs show of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pcc_bench.cli import terminal
from pcc_bench.reports import report
from pcc_bench.suite.grid import table
from pcc_bench.suite.spec import Settings, Suite


def test_the_table_of_all_tasks_in_the_docs_is_that_of_the_shipped_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PCC_DATA", raising=False)  # a part of what names a cell's folder
    suite = Suite.read("lab-tasks")
    cells = suite.plan(report.shipped() / suite.name, Settings())
    lines = [(cell.label, next(iter(cell.folder.rglob("results_*.json")))) for cell in cells]
    shown = (Path(__file__).parent.parent / "docs" / "tasks.md").read_text("utf-8")
    assert terminal.filled(shown, "run", {suite.name: table(lines, suite.metrics).markdown()}, partly=True) == shown
