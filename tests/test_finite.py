"""Numbers that are no numbers neither reach a results file nor a mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import lm_eval_run
from demonstrated import bytes_tokenizer
from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

import pcc_bench.tasks
from pcc_bench.core.errors import UsageError
from pcc_bench.tasks.metrics.perplexity.perplexity import weighted_perplexity


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} in a results file")


def test_a_fresh_results_file_is_json_where_there_is_nothing_to_divide_by(models: Path, tmp_path: Path) -> None:
    arguments = f"pretrained={models / 'llama'}"
    fixed = ("--tasks", "pcc_squad", "--limit", 2, "--metadata", '{"population": "all"}')
    lm_eval_run(tmp_path, "--model", "no-context", "--model_args", arguments, *fixed, "--gen_kwargs", "max_gen_toks=2")
    (path,) = tmp_path.rglob("results_*.json")
    results = json.loads(path.read_text("utf-8"), parse_constant=_refuse)
    assert results["results"]["pcc_squad"]["compression,none"] is None


class Diverged(LM):
    """A model whose log-likelihoods are no numbers."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def generate_until(self, requests: list[Any]) -> list[str]:
        raise NotImplementedError

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        return [(self.value, False) for _ in requests]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        raise NotImplementedError


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), -1e9])
@pytest.mark.parametrize("task", ["pcc_completion", "pcc_hpd_0"])
def test_a_score_that_is_no_number_stops_the_run_of_any_model(task: str, value: float, tmp_path: Path) -> None:
    metadata = {"data": "lab", "tokenizer": bytes_tokenizer(tmp_path), "documents": 20, "tokens": 120}
    metadata |= {"continuation_tokens": 40}
    manager = TaskManager(include_path=pcc_bench.tasks.__path__[0], include_defaults=False, metadata=metadata)
    with pytest.raises(UsageError, match=rf"^{task}: .* of row \S+.*(no finite number|no finite mean)"):
        simple_evaluate(Diverged(value), tasks=[task], task_manager=manager, limit=2, bootstrap_iters=0)


@pytest.mark.parametrize("pairs", [[], [(-1.0, 0)], [(-1e6, 1)]])
def test_a_perplexity_that_no_float_holds_is_said(pairs: list[tuple[float, int]]) -> None:
    with pytest.raises(ValueError, match=r"^perplexity"):
        weighted_perplexity(pairs)
