"""`pcc-bench demo`: the main job in miniature, with no network: real questions, models that know nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager
from transformers.utils.logging import disable_progress_bar

from pcc_bench import _startup, tasks
from pcc_bench.evaluate import new_results
from pcc_bench.model import checkpoint, init, tiny
from pcc_bench.reports.summary import Table, summarise
from pcc_bench.tasks.data import sample_folder

WARNING = (
    "RANDOM WEIGHTS: this checkpoint and its decoder were made a moment ago and know nothing, so scores near 0 are "
    "right. Real are the questions (SQuAD), the code, the counts, the ratios and the seconds (of toy models)."
)
NEXT = (
    "With a real checkpoint:\n"
    "  pcc-bench eval --model pcc --model-args pretrained=<checkpoint>,rate=4 --tasks pcc_squad --batch-size 8 "
    "--output results/pcc-4x\n"
    "or a fresh one to train: pcc-bench init --help"
)
TASK = "pcc_squad"
RUNS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("full-context", "decoder", {}),
    ("pcc", "checkpoint", {"rate": 4}),
    ("pcc", "checkpoint", {"rate": 16}),
    ("truncated-context", "decoder", {"rate": 4}),
    ("no-context", "decoder", {}),
)


def run(out: Path) -> Table:
    """Make models, answer the sample questions with every method, and tabulate.

    Args:
        out: Folder for models and results; older results in it are left alone and out of the table.

    Raises:
        UsageError: Something can't be written.
    """
    disable_progress_bar()
    _startup.install()
    make_models(out)
    results = [path for method, model, options in RUNS for path in _evaluate(out, method, model, options)]
    return summarise(results)


def make_models(folder: Path) -> None:
    """A Llama of width 64, and a PCC checkpoint for it (GPT-2 of width 48 as encoder, 4x and 16x), all random."""
    texts = list(_texts())
    tiny.make_model("llama", tiny.make_tokenizer(texts), folder / "decoder", width=64, window=8192)
    encoder = tiny.make_tokenizer(texts, adds_bos=False)
    tiny.make_model("gpt2", encoder, folder / "encoder", width=48, window=512)
    decoder = init.open_decoder(str(folder / "decoder"))
    target = folder / "checkpoint"
    pcc = init.fresh(str(folder / "encoder"), decoder, [4, 16], target, notes=f"**{WARNING}**")
    checkpoint.save(pcc, target)


def _texts() -> Iterable[str]:
    for path in sorted(sample_folder().rglob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)["context"]


def _evaluate(out: Path, method: str, model: str, options: dict[str, Any]) -> list[Path]:
    """One run of lm-eval; returns its result file."""
    folder = out / "results"
    before = set(folder.rglob("results_*.json"))
    arguments = {"pretrained": str(out / model), **options}
    metadata = {**arguments, "data": str(sample_folder()), "population": "all"}
    tracker = EvaluationTracker(output_path=str(folder))
    results = simple_evaluate(
        model=method,
        model_args=arguments,
        tasks=[TASK],
        batch_size=8,
        device="cpu",
        evaluation_tracker=tracker,
        task_manager=TaskManager(include_path=tasks.__path__[0], include_defaults=False, metadata=metadata),
    )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    tracker.save_results_samples(task_name=TASK, samples=samples[TASK])
    return new_results(folder, before)
