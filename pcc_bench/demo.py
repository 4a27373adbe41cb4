"""`pcc-bench demo`: the main job in miniature, with no network: the lab's trained models on questions of its world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager
from transformers.utils.logging import disable_progress_bar

from pcc_bench import _startup, tasks
from pcc_bench.evaluate import new_results
from pcc_bench.reports.summary import summarise
from pcc_bench.texttable import TextTable

ABOUT = (
    "THE LAB: a decoder of 4 million parameters and its compressors, trained from nothing on a generated world "
    "(docs/lab.md). Names and rows of these questions were never trained on. SQuAD and HotpotQA are names of formats "
    "here: one fact, or two in a row."
)
NEXT = (
    "More of the lab:\n"
    "  lm_eval --model pcc --tasks pcc_rag          all four question sets with the shipped pcc-lab-4x\n"
    "  pcc-bench run lab-table2 -o results/lab       every method; pcc-bench report draws tables and figures\n"
    "With a checkpoint of your own:\n"
    "  pcc-bench eval --model pcc --model-args pretrained=<checkpoint>,rate=4 --tasks pcc_squad --batch-size 8 "
    "--output results/pcc-4x\n"
    "or a fresh one to train: pcc-bench init --help"
)
TASKS = ("pcc_squad", "pcc_hotpotqa")
RUNS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("full-context", {"pretrained": "lab-llama"}),
    ("pcc", {"pretrained": "pcc-lab-4x"}),
    ("pcc", {"pretrained": "pcc-lab-16x"}),
    ("pcc", {"pretrained": "pcc-lab-64x"}),
    ("truncated-context", {"pretrained": "lab-llama", "rate": 4}),
    ("no-context", {"pretrained": "lab-llama"}),
)


def run(out: Path, rows: int) -> TextTable:
    """Ask the lab's questions of every method, and tabulate.

    Args:
        out: Folder for results; older ones in it are left alone and out of the table.
        rows: Rows of each task.

    Raises:
        UsageError: Something can't be written.
    """
    disable_progress_bar()
    _startup.install()
    return summarise([path for method, options in RUNS for path in _evaluate(out, method, options, rows)])


def _evaluate(out: Path, method: str, options: dict[str, Any], rows: int) -> list[Path]:
    """One run of lm-eval; returns its result file."""
    before = set(out.rglob("results_*.json"))
    metadata = {**options, "data": "lab", "lab_rows": rows}
    tracker = EvaluationTracker(output_path=str(out))
    results = simple_evaluate(
        model=method,
        model_args=options,
        tasks=list(TASKS),
        batch_size=16,
        device="cpu",
        evaluation_tracker=tracker,
        task_manager=TaskManager(include_path=tasks.__path__[0], include_defaults=False, metadata=metadata),
    )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in TASKS:
        tracker.save_results_samples(task_name=task, samples=samples[task])
    return new_results(out, before)
