"""Golden samples of tasks with a context, on the lab: three of each, answered by a rule to be read off the fixture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lm_eval
from demonstrated import bytes_tokenizer
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

import pcc_bench.tasks
from pcc_bench.core.context import Prompt

TASKS = Path(pcc_bench.tasks.__file__).parent


class Rule(LM):
    """Says the document again in three ways; answers right, in a sentence, and wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts: dict[tuple[str, int], Prompt] = {}

    def generate_until(self, requests: list[Any]) -> list[str]:
        answers = []
        for request in requests:
            self.prompts[request.task_name, request.doc_id] = request.args[0]
            doc = request.doc
            if "document" in doc:
                words = doc["document"].split(" ")
                says = (doc["document"], " ".join(words[1:-1]), " ".join(words[1::2] + words[::2]))
            else:
                says = (doc["answers"][0], f"I say {doc['answers'][0]}.", "nothing")
            answers.append(says[request.doc_id])
        return answers

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        for request in requests:
            self.prompts[request.task_name, request.doc_id] = request.args[0]
        return [(-10.0 * (request.doc_id + 1), False) for request in requests]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        raise NotImplementedError


def samples(names: list[str], folder: Path, **further: Any) -> dict[str, Any]:
    """Three samples of each task on the lab: prompt, the parts that may be compressed, answer and scores."""
    metadata = {"data": "lab", "tokenizer": bytes_tokenizer(folder), "documents": 20, "tokens": 120}
    metadata |= {"continuation_tokens": 40, "segment_length": 64, "lengths": [256], "distances": [16], "per_cell": 1}
    manager = TaskManager(
        include_path=str(TASKS), include_defaults=False, metadata={**metadata, "keys": "names", **further}
    )
    rule = Rule()
    results = lm_eval.simple_evaluate(rule, tasks=names, task_manager=manager, limit=3, bootstrap_iters=0)
    recorded: dict[str, Any] = {}
    for name in names:
        for sample in results["samples"][name]:
            prompt = rule.prompts[name, sample["doc_id"]]
            scores = {metric: sample[metric] for metric in sample["metrics"]}
            entry = {"prompt": str(prompt), "compressed": prompt.contexts, "answer": sample["resps"][0][0]}
            recorded.setdefault(name, {})[str(sample["doc_id"])] = {**entry, "scores": scores}
    return dict(json.loads(json.dumps(recorded)))
