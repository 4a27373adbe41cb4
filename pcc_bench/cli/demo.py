"""`pcc-bench demo`: the lab's models answer questions of its world, or with `--real` a pretrained LLM real ones."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from statistics import pvariance
from textwrap import fill
from typing import Any

from transformers.utils.logging import disable_progress_bar

from pcc_bench.core import shipped
from pcc_bench.core.texttable import TextTable
from pcc_bench.host.evaluate import Command
from pcc_bench.host.evaluate import run as evaluate
from pcc_bench.reports.compare import summarise
from pcc_bench.results.reading import read_answers, read_run
from pcc_bench.results.run import Run
from pcc_bench.tasks.rows import REAL

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
DemoRun = tuple[str, str, dict[str, Any]]  # label, method, its arguments
RUNS: tuple[DemoRun, ...] = (
    ("full context", "full-context", {"pretrained": "lab-llama"}),
    ("PCC 4x", "pcc", {"pretrained": "pcc-lab-4x"}),
    ("PCC 16x", "pcc", {"pretrained": "pcc-lab-16x"}),
    ("truncated 4x", "truncated-context", {"pretrained": "lab-llama", "rate": 4}),
    ("no context", "no-context", {"pretrained": "lab-llama"}),
)
REAL_ABOUT = (
    "REAL ROWS: SQuAD questions on Wikipedia paragraphs (CC BY-SA 4.0), read by {decoder}, a pretrained LLM of 135\n"
    "million parameters that is trained no further, with the prompt 'short'. It answers few of them with the whole\n"
    "paragraph before it: compare methods with full context, not with 100."
)
DECODER = "smollm2-135m"
CHECKPOINT, TUNED = "pcc-smollm2-4x", "pcc-smollm2-1x"  # tuned: nothing compressed, fine-tuned on the same rows
SIDE_BY_SIDE = 2  # rows shown with all their answers


def run(out: Path, rows: int) -> TextTable:
    """Ask `rows` of the lab's questions of every method, and tabulate; results go into `out`."""
    return summarise(_ask(out / f"lab-{rows}", RUNS, TASKS, {"data": "lab", "lab_rows": rows}).values())


def run_real(out: Path, rows: int, checkpoint: str | None) -> tuple[TextTable, str]:
    """Ask real SQuAD questions; the table, and the rows whose answers differ most, with passages and all answers."""
    whole: dict[str, Any] = {"pretrained": DECODER, "dtype": "float32"}
    pcc = checkpoint or (CHECKPOINT if shipped.find(CHECKPOINT) else None)
    runs: list[DemoRun] = [("full context", "full-context", whole)]
    if shipped.find(TUNED):
        runs.append(("full context, tuned", "pcc", {**whole, "pretrained": TUNED}))
    runs += [("no context", "no-context", whole), ("truncated 4x", "truncated-context", {**whole, "rate": 4})]
    if pcc:
        runs.append((f"PCC, {Path(pcc).name}", "pcc", {**whole, "pretrained": pcc}))
    settings = {"data": REAL, "population": "all", "prompt": "short"}
    files = _ask(out / f"real-{rows}", runs, ("pcc_squad",), settings, limit=rows)
    return summarise(files.values()), _side_by_side({label: read_run(file) for label, file in files.items()})


def _side_by_side(runs: Mapping[str, Run]) -> str:
    """The rows, on different passages, whose F1 differs most between methods; ties in the order of the rows."""
    answers = (sorted(read_answers(run.tasks["pcc_squad"]), key=attrgetter("row")) for run in runs.values())
    by_row = list(zip(*answers, strict=True))
    shown: dict[str, str] = {}  # by passage
    for row in sorted(by_row, key=lambda row: -pvariance([answer.scores["f1"] for answer in row])):
        first = row[0]
        if first.context in shown or len(shown) == SIDE_BY_SIDE:
            continue
        pairs = zip(runs, row, strict=True)
        lines = tuple((label, repr(answer.answer), f"{100 * answer.scores['f1']:.0f}") for label, answer in pairs)
        asked = f"Question: {first.question}\nReference: {', '.join(first.references)}"
        table = TextTable(("method", "answer", "F1"), lines).markdown()
        shown[first.context] = f"{fill(first.context, 100)}\n\n{asked}\n\n{table}"
    return "\n\n".join(shown.values())


def _ask(
    out: Path, runs: Sequence[DemoRun], names: Sequence[str], settings: dict[str, Any], limit: int | None = None
) -> dict[str, Path]:
    """The result file of each run, by its label; what an earlier call answered is not asked again."""
    disable_progress_bar()
    os.environ.setdefault("LMEVAL_LOG_LEVEL", "WARNING")
    tasks, metadata, files = ",".join(names), json.dumps(settings), {}
    for label, method, options in runs:
        arguments = ",".join(f"{name}={value}" for name, value in options.items())
        folder = out / re.sub(r"[ ,]+", "-", label)
        command = Command(method, arguments, tasks, folder, limit, "16", "cpu", metadata)
        files[label] = evaluate(command)[-1]
    return files
