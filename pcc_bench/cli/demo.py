"""`pcc-bench demo`: the lab's models answer questions of its world, or with `--real` a pretrained LLM real ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import pvariance
from textwrap import fill
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager
from transformers.utils.logging import disable_progress_bar

from pcc_bench import tasks
from pcc_bench.core import shipped
from pcc_bench.core.texttable import TextTable
from pcc_bench.host import startup
from pcc_bench.host.evaluate import new_results
from pcc_bench.reports.compare import summarise
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
    return _ask(out, RUNS, TASKS, {"data": "lab", "lab_rows": rows})[0]


def run_real(out: Path, rows: int, checkpoint: str | None) -> tuple[TextTable, str]:
    """Ask real SQuAD questions; the table, and the rows whose answers differ most, with passages and all answers."""
    whole: dict[str, Any] = {"pretrained": DECODER, "dtype": "float32"}
    pcc = checkpoint or (CHECKPOINT if shipped.find(CHECKPOINT) else None)
    runs: list[DemoRun] = [("full context", "full-context", whole)]
    if shipped.find(TUNED):
        runs.append(("full context, tuned", "pcc", {**whole, "pretrained": TUNED}))
    runs += [("no context", "no-context", whole), ("truncated 4x", "truncated-context", {**whole, "rate": 4})]
    if pcc:
        runs.append(("PCC", "pcc", {**whole, "pretrained": pcc}))
    settings = {"data": REAL, "population": "all", "prompt": "short"}
    table, samples = _ask(out, runs, ("pcc_squad",), settings, limit=rows)
    return table, _side_by_side({label: rows_of["pcc_squad"] for label, rows_of in samples.items()})


def _side_by_side(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The rows, on different passages, whose F1 differs most between methods; ties in the order of the rows."""
    by_row = list(zip(*(sorted(rows, key=lambda row: row["doc_id"]) for rows in samples.values()), strict=True))
    shown: dict[str, str] = {}  # by passage
    for answers in sorted(by_row, key=lambda row: -pvariance([answer["f1"] for answer in row])):
        doc = answers[0]["doc"]
        if doc["context"] in shown or len(shown) == SIDE_BY_SIDE:
            continue
        lines = tuple(
            (label, repr(str(answer["filtered_resps"][0]).strip()), f"{100 * answer['f1']:.0f}")
            for label, answer in zip(samples, answers, strict=True)
        )
        table = TextTable(("method", "answer", "F1"), lines)
        asked = f"Question: {doc['question']}\nReference: {', '.join(dict.fromkeys(doc['answers']))}"
        shown[doc["context"]] = f"{fill(doc['context'], 100)}\n\n{asked}\n\n{table.markdown()}"
    return "\n\n".join(shown.values())


def _ask(
    out: Path, runs: Sequence[DemoRun], names: Sequence[str], settings: dict[str, Any], limit: int | None = None
) -> tuple[TextTable, dict[str, dict[str, Any]]]:
    """Run lm-eval for each; the table, and the samples of each run by label and task."""
    disable_progress_bar()
    startup.install()
    files, samples = [], {}
    for label, method, options in runs:
        before = set(out.rglob("results_*.json"))
        tracker = EvaluationTracker(output_path=str(out))
        metadata = {**options, **settings}
        results = simple_evaluate(
            model=method,
            model_args=options,
            tasks=list(names),
            batch_size=16,
            device="cpu",
            limit=limit,
            evaluation_tracker=tracker,
            task_manager=TaskManager(include_path=tasks.__path__[0], include_defaults=False, metadata=metadata),
        )
        samples[label] = results.pop("samples")
        tracker.save_results_aggregated(results=results, samples=samples[label])
        for task in names:
            tracker.save_results_samples(task_name=task, samples=samples[label][task])
        files += new_results(out, before)
    return summarise(files), samples
