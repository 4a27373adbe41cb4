"""Where nothing is compressed, every task gives what lm-eval's `hf` gives on the same text in a task of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import lm_eval
import pytest
from demonstrated import load, manager
from lm_eval.api.task import ConfigurableTask

from pcc_bench.host import startup
from pcc_bench.host.inventory import task_table

ROWS = 2
DOCUMENTS = ("reconstruction", "completion", "needle", "needle_kv", *(f"drift_{n}" for n in range(1, 5)))
SMALL = {"documents": 20, "tokens": 40, "continuation_tokens": 20, "segment_length": 64, "keys": "names"}
SMALL |= {"lengths": [128], "depths": [0.5], "distances": [16], "per_cell": ROWS}
NAMES = [name for name, line, *_ in task_table().rows if not line.startswith("group:")]
CARRIED = ("output_type", "generation_kwargs", "target_delimiter", "doc_to_choice")


def tasks_of(decoder: str) -> dict[str, Any]:
    """Every task on a few rows: those on documents on the lab's, the others on the fixtures'."""
    made = {}
    for name in NAMES:
        on_lab = {"data": "lab"} if name.removeprefix("pcc_") in DOCUMENTS else {}
        longer = {"lengths": [1024]} if name.startswith("pcc_ruler") else {}  # than what is hidden
        made[name] = load(name, tokenizer=decoder, population="all", negatives=1, **{**SMALL, **on_lab, **longer})
    return made


def twin(name: str, task: Any) -> ConfigurableTask:
    """A task's prompts as plain text in a task of lm-eval's own."""
    kind = task.OUTPUT_TYPE
    rows = []
    for doc in list(task.eval_docs)[:ROWS]:
        target = task.doc_to_target(doc)
        row = {"prompt": str(task.fewshot_context(doc, num_fewshot=0))}
        if kind == "multiple_choice":
            row |= {"target": target, "choices": task.doc_to_choice(doc)}
        else:
            row |= {"target": target[0] if isinstance(target, list) else str(target)}
        rows.append(row)
    config = {key: getattr(task.config, key) for key in CARRIED if getattr(task.config, key) is not None}
    metric = {"multiple_choice": "acc", "loglikelihood": "perplexity", "generate_until": "exact_match"}[kind]
    config |= {"doc_to_choice": "choices"} if kind == "multiple_choice" else {}
    return ConfigurableTask(
        config={
            **config,
            "task": f"twin_{name}",
            "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(rows)},
            "test_split": "test",
            "doc_to_text": "prompt",
            "doc_to_target": "target",
            "num_fewshot": 0,
            "metric_list": [{"metric": metric}],
        }
    )


def answers(method: str, decoder: str, tasks: Sequence[Any]) -> dict[str, list[Any]]:
    """Task -> what a method answers, request by request: a text, or a log-likelihood."""
    startup.install()
    results = lm_eval.simple_evaluate(
        method,
        model_args={"pretrained": decoder, "batch_size": 4, "device": "cpu"},
        tasks=list(tasks),
        task_manager=manager(),  # or lm-eval reads its thousands of tasks
        limit=ROWS,
        bootstrap_iters=0,
        gen_kwargs="max_gen_toks=8",
    )
    found: dict[str, list[Any]] = {}
    for name, samples in results["samples"].items():
        first = samples[0]["filter"]
        flat = [answer[0] for sample in samples if sample["filter"] == first for answer in sample["resps"]]
        found[name] = [answer if isinstance(answer, str) else float(answer[0]) for answer in flat]
    return found


@pytest.fixture(scope="module")
def answered(models: Path) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """What `full-context` answers to every task, and `hf` to every twin."""
    decoder = str(models / "llama")
    tasks = tasks_of(decoder)
    twins = [twin(name, task) for name, task in tasks.items()]
    return answers("full-context", decoder, list(tasks.values())), answers("hf", decoder, twins)


@pytest.mark.parametrize("name", NAMES)
def test_full_context_is_hf_on_the_plain_twin(name: str, answered: Any) -> None:
    ours, theirs = answered[0][name], answered[1][f"twin_{name}"]
    assert any(theirs)
    if isinstance(theirs[0], str):
        assert ours == theirs
    else:
        assert ours == pytest.approx(theirs, abs=1e-4)
