"""Every task on real rows, by the full context, none, a truncated one and PCC; with tiny models, for it to be quick."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from demonstrated import REAL, load, manager

from pcc_bench.host import startup
from pcc_bench.host.inventory import task_table

ROWS = 1
RULER = tuple(
    f"pcc_ruler_{kind}" for kind in ("niah_single", "niah_multikey", "niah_multivalue", "niah_multiquery", "vt", "qa")
)
OWN_ROWS = ("pcc_needle_kv", *RULER)  # generated, whatever the data
WITH_CONTEXT = (
    "squad",
    "hotpotqa",
    "adversarialqa",
    "nq",
    "reconstruction",
    "completion",
    "needle",
    "ruler",
    "drift",
)  # the others show demonstrations
NAMES = [
    name
    for name, line, file, _ in task_table().rows
    if not line.startswith("group:") and (name in OWN_ROWS or (REAL / str(file).partition("/")[0]).is_dir())
]
SMALL = {"documents": 40, "tokens": 64, "continuation_tokens": 32, "segment_length": 64, "keys": "names"}
SMALL |= {"lengths": [256], "depths": [0.5], "distances": [16], "per_cell": ROWS, "negatives": 2}
SIZES = {"pcc_gsm8k_8_memory": 1319, "pcc_sst2": 872, "pcc_wsc_750_text": 104, "pcc_msc_1_memory": 500}
SIZES |= {"pcc_personachat_0": 1000, "pcc_squad": 5928}
QUESTION_SETS = {"pcc_squad": 5928, "pcc_hotpotqa": 759, "pcc_adversarialqa": 1546, "pcc_nq": 1328}

pytestmark = pytest.mark.skipif(
    not (REAL / "squad").is_dir(), reason=f"no real data under {REAL}: set PCC_DATA to a folder with squad, gsm8k, ..."
)


@pytest.fixture(scope="module")
def tasks(models: Path) -> list[Any]:
    decoder = str(models / "llama")
    return [load(name, data=str(REAL), tokenizer=decoder, population="all", **SMALL) for name in NAMES]


def test_the_data_has_rows_for_all_tasks_but_one() -> None:
    every = {name for name, line, *_ in task_table().rows if not line.startswith("group:")}
    assert {name.split("_")[1] for name in every - set(NAMES)} <= {"hpd"}


def test_populations_are_those_of_the_published_sets(tasks: list[Any]) -> None:
    kept = {name: task.config.metadata["population"]["kept"] for name, task in zip(NAMES, tasks, strict=True)}
    assert {name: kept[name] for name in SIZES | QUESTION_SETS} == SIZES | QUESTION_SETS


@pytest.mark.parametrize("method", ["pcc", "full-context", "no-context", "truncated-context"])
def test_every_task_runs(method: str, tasks: list[Any], models: Path) -> None:
    startup.install()
    arguments = {"pretrained": str(models / "llama"), "batch_size": 8, "device": "cpu"}
    arguments |= {"pretrained": str(models / "pcc")} if method == "pcc" else {}
    arguments |= {"rate": 4} if method in ("pcc", "truncated-context") else {}
    results = lm_eval.simple_evaluate(
        method,
        model_args=arguments,
        tasks=tasks,
        task_manager=manager(),
        limit=ROWS,
        bootstrap_iters=0,
        gen_kwargs="max_gen_toks=8",
    )
    for name in NAMES:
        scores = results["results"][name]
        known = [
            value for key, value in scores.items() if isinstance(value, float) and not key.startswith("compression")
        ]
        assert known
        assert scores["sample_len"] == ROWS
        assert any(map(math.isfinite, known)), (name, json.dumps(scores, default=str))
        account = results["samples"][name][0]["compression"]
        has_context = name.endswith("_memory") or name.split("_")[1] in WITH_CONTEXT
        assert (account["contexts"] > 0) == has_context, name


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("full-context", {"pretrained": "lab-llama"}),
        ("no-context", {"pretrained": "lab-llama"}),
        ("truncated-context", {"pretrained": "lab-llama", "rate": 4}),
        ("pcc", {}),
    ],
)
def test_trained_models_read_real_questions(method: str, arguments: dict[str, Any]) -> None:
    """The lab's decoder knows nothing of the real world: that the sets run, and what they cost, is what is seen."""
    startup.install()
    results = lm_eval.simple_evaluate(
        method,
        model_args={**arguments, "batch_size": 2, "device": "cpu", "overflow": "truncate"},
        tasks=list(QUESTION_SETS),
        task_manager=manager(**arguments, data=str(REAL), prompt="short", population="all"),
        limit=2,
        bootstrap_iters=0,
    )
    for name in QUESTION_SETS:
        population = results["configs"][name]["metadata"]["population"]
        assert (population["source"], population["dataset"]) == ("folder", name.removeprefix("pcc_"))
        assert population["prompt"] == "short"
        assert (population["rows_read"], population["dropped"]) == (QUESTION_SETS[name], {})
        for sample in results["samples"][name]:
            assert sample["arguments"][0][0].endswith(
                f"Question: {sample['doc']['question']}\nShort answer (a few words):"
            )
            assert 0 <= sample["exact_match"] <= sample["f1"] <= 1
            account = sample["compression"]
            read = account["slots"] + account["boundary"]
            assert (read == 0) == (method == "no-context")
            whole = account.get("truncated_bytes") or read >= account["source_tokens"]  # a window of 4,096 tokens
            assert bool(whole) == (method == "full-context")
