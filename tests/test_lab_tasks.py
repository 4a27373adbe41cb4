"""The lab's results of all tasks, and the table beside them."""

from __future__ import annotations

import pytest

from pcc_bench.reports import report
from pcc_bench.suite.runner import table
from pcc_bench.suite.spec import Settings, Suite


def test_the_table_of_all_tasks_is_that_of_the_shipped_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PCC_DATA", raising=False)  # a part of what names a cell's folder
    suite = Suite.read("lab-tasks")
    cells = suite.plan(report.shipped() / suite.name, Settings())
    lines = [(cell.label, next(iter(cell.command.output.rglob("results_*.json")))) for cell in cells]
    shown = (report.shipped() / suite.name / "table.md").read_text("utf-8")
    assert shown == table(lines, suite.metrics).markdown() + "\n"
