"""Every task: perfect answers have the best score there is, damaged ones a worse one."""

from __future__ import annotations

from typing import Any

import lm_eval
import pytest
from demonstrated import DATA, TASKS, bytes_tokenizer
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

# Their rows come from documents or are generated.
LAB = ("reconstruction", "completion", "needle", "needle_kv", "ruler_qa", *(f"drift_{n}" for n in range(1, 5)))
NAMES = sorted(path.stem for path in TASKS.glob("*/*.yaml"))
BEST = {"bleu": 100.0, "perplexity": 1.0, "byte_perplexity": 1.0}  # the others: 1, or 0 where lower is better
UNSCORED = ("compression", "seed_spread")


class Oracle(LM):
    """Knows each row's answer.

    Args:
        targets: Task -> the answer to one of its rows: a text, or the number of the right option.
        damaged: Give texts backwards, and each option the log-likelihood that another one deserves.
    """

    def __init__(self, targets: dict[str, Any], damaged: bool) -> None:
        super().__init__()
        self.targets, self.damaged = targets, damaged

    def generate_until(self, requests: list[Any]) -> list[str]:
        answers = []
        for request in requests:
            target = self.targets[request.task_name](request.doc)
            answer = str(target[0] if isinstance(target, list) else target)
            answers.append(answer[::-1] if self.damaged else answer)
        return answers

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        answers = []
        for request in requests:
            target = self.targets[request.task_name](request.doc)
            options = request.doc.get("candidates") or [None, None]
            right = isinstance(target, str) or request.idx % len(options) == target
            bias = "N/A" in request.args[0]  # the content-free input says nothing for any option
            answers.append((-20.0 if bias else 0.0 if right != self.damaged else -40.0, right))
        return answers

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        raise NotImplementedError


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    small = {"documents": 20, "tokens": 120, "continuation_tokens": 40, "segment_length": 64, "lengths": [256]}
    small |= {"depths": [0.5], "distances": [16], "per_cell": 2, "keys": "names", "population": "all", "seeds": [0]}
    return {**small, "negatives": 2, "tokenizer": bytes_tokenizer(tmp_path_factory.mktemp("bytes"))}


def scores(name: str, settings: dict[str, Any], damaged: bool) -> dict[str, tuple[float, bool]]:
    """Metric of a task -> its value, and whether more is better."""
    settings = {**settings, "data": "lab" if name in LAB else str(DATA)}
    if name.startswith("ruler"):  # longer than what is hidden
        settings["lengths"] = [2048]
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=settings)
    task = manager.load([f"pcc_{name}"])["tasks"][f"pcc_{name}"]
    results: Any = lm_eval.simple_evaluate(
        Oracle({f"pcc_{name}": task.doc_to_target}, damaged),
        tasks=[f"pcc_{name}"],
        task_manager=manager,
        limit=2,
        bootstrap_iters=0,
    )
    higher = results["higher_is_better"][f"pcc_{name}"]
    return {
        key: (value, higher[metric])
        for key, value in results["results"][f"pcc_{name}"].items()
        if (metric := key.partition(",")[0]) in higher and metric not in UNSCORED and isinstance(value, float)
    }


def test_there_are_tasks() -> None:
    assert {"squad", "gsm8k", "sst2", "hpd_0", *LAB} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_perfect_answers_score_best_and_damaged_ones_worse(name: str, settings: dict[str, Any]) -> None:
    perfect, damaged = scores(name, settings, damaged=False), scores(name, settings, damaged=True)
    assert perfect
    assert perfect.keys() == damaged.keys()
    for key, (value, higher) in perfect.items():
        best = BEST.get(key.partition(",")[0], 1.0 if higher else 0.0)
        assert value == pytest.approx(best), key
        assert (damaged[key][0] < value) if higher else (damaged[key][0] > value), key
