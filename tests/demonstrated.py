"""What the tests of tasks with demonstrations share: loading, running, a tokenizer of bytes, recorded samples."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import pcc_bench.host.models  # registers the methods
import pcc_bench.tasks
from pcc_bench.core.context import Prompt
from pcc_bench.core.errors import UsageError
from pcc_bench.host import startup

TASKS = Path(pcc_bench.tasks.__file__).parent
DATA = Path(__file__).parent / "fixtures" / "data"
REAL = Path(os.environ.get("PCC_DATA", os.devnull))  # a folder of real rows, where the user has one


def manager(**metadata: Any) -> TaskManager:
    return TaskManager(
        include_path=str(TASKS), include_defaults=False, metadata={"data": str(DATA), "seeds": [0], **metadata}
    )


def load(name: str, **metadata: Any) -> Any:
    """A task as lm-eval's factory makes it, without its index of all tasks, which takes longer than the task."""
    (path,) = TASKS.glob(f"*/{name.removeprefix('pcc_')}.yaml")
    config = load_yaml(path)
    config["metadata"] = {**config["metadata"], "data": str(DATA), "seeds": [0], "calibration": False, **metadata}
    return config["class"](config=config)


def bytes_tokenizer(folder: Path) -> str:
    """A folder with a tokenizer that has one token a byte, and BOS."""
    vocabulary = {character: number for number, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return str(folder)


def sentence(expected: str, name: str, **metadata: Any) -> None:
    """The error is one line that holds `expected`."""
    with pytest.raises(UsageError) as caught:
        load(name, **metadata)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def run(models: Path, method: str, tasks: list[str], *, limit: int = 2, options: Any = None, **metadata: Any) -> Any:
    """lm-eval's own run of a method with tiny random weights; `metadata` is the tasks'."""
    startup.install()
    decoder = {"pretrained": str(models / "llama")}
    arguments = {"pretrained": str(models / "pcc"), "decoder": str(models / "llama")} if method == "pcc" else decoder
    return lm_eval.simple_evaluate(
        method,
        model_args={**arguments, "batch_size": 4, "device": "cpu", **(options or {})},
        tasks=tasks,
        task_manager=manager(**{**arguments, **metadata}),
        limit=limit,
        bootstrap_iters=0,
        gen_kwargs="max_gen_toks=8",
    )


def answers(results: Any, task: str) -> list[list[Any]]:
    """The raw answers of each row, in order."""
    return [[response[0] for response in sample["resps"]] for sample in results["samples"][task]]


class Rule(LM):
    """Answers by a rule that can be read off the fixture: no model, no tokenizer."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts: dict[tuple[str, int], list[Prompt]] = {}

    def _keep(self, request: Any) -> None:
        self.prompts.setdefault((request.task_name, request.doc_id), []).append(request.args[0])

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        for request in requests:
            self._keep(request)
        return [(-float((5 * request.idx + 3 * request.doc_id) % 7 + 1), False) for request in requests]

    def generate_until(self, requests: list[Any]) -> list[str]:
        for request in requests:
            self._keep(request)
        right = [request.doc["answer"].split("#### ")[1] for request in requests]
        says = ("So it is {}.\n#### {}", "I say {}.", "#### 1{}")
        return [says[request.doc_id].format(*[n, n]) for request, n in zip(requests, right, strict=True)]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        raise NotImplementedError


def samples(names: list[str], tokenizer: str) -> dict[str, Any]:
    """Three samples of each task: its first prompt, the parts that may be compressed, answers and scores."""
    rule = Rule()
    results = lm_eval.simple_evaluate(
        rule, tasks=names, task_manager=manager(tokenizer=tokenizer), limit=3, bootstrap_iters=0
    )
    recorded: dict[str, Any] = {}
    for name in names:
        for sample in results["samples"][name]:
            prompts = rule.prompts[name, sample["doc_id"]]
            entry = recorded.setdefault(name, {}).setdefault(
                str(sample["doc_id"]),
                {"prompt": str(prompts[0]), "compressed": prompts[0].contexts, "requests": len(prompts), "scores": {}},
            )
            entry["scores"][sample["filter"]] = {metric: sample[metric] for metric in sample["metrics"]}
    return json.loads(json.dumps(recorded))
