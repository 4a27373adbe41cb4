"""lm-eval's own command line in the process of the tests: no second interpreter, none of lm-eval's thousands of tasks.

`test_runs` and `test_startup` prove that the plain command, in a process of its own, finds our methods and tasks.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import lm_eval.tasks
import pytest
from conftest import SAMPLE
from lm_eval._cli import HarnessCLI

import pcc_bench.tasks
from pcc_bench.host import startup


def lm_eval_run(out: Path, *arguments: object) -> dict[str, Any]:
    """`lm_eval run ... --output_path <out> --log_samples` on the sample rows; the results, with rows in `samples`."""
    startup.install()
    manager, folder = lm_eval.tasks.TaskManager, pcc_bench.tasks.__path__[0]
    words = ["lm_eval", "run", *map(str, arguments), "--output_path", str(out), "--log_samples"]

    def ours(include_path: None = None, metadata: Any = None) -> lm_eval.tasks.TaskManager:
        return manager(include_path=folder, include_defaults=False, metadata=metadata)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PCC_DATA", str(SAMPLE))
        patch.setattr(sys, "argv", words)
        patch.setattr(lm_eval.tasks, "TaskManager", ours)
        harness = HarnessCLI()
        harness.execute(harness.parse_args())
    return results(out)


def results(out: Path) -> dict[str, Any]:
    """The newest results file of a run with one task, with its rows, in order, under `samples`."""
    path = sorted(out.rglob("results_*.json"))[-1]
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    samples = sorted(out.rglob("samples_*.jsonl"))[-1]
    rows = [json.loads(line) for line in samples.read_text("utf-8").splitlines()]
    return found | {"samples": sorted(rows, key=lambda row: int(row["doc_id"]))}
