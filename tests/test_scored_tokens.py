"""A mean over tokens divides by the tokens that were scored, whatever a chat template ends in."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from demonstrated import load, manager
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer

from pcc_bench.core.errors import UsageError
from pcc_bench.host import startup
from pcc_bench.host.answering import Answering
from pcc_bench.host.responses import Score
from pcc_bench.tasks.task import TAIL

TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>:"
TASKS = ("pcc_hpd_0", "pcc_sst2", "pcc_completion")


def with_template(models: Path, folder: Path, end: str) -> Path:
    shutil.copytree(models / "llama", folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE + "{{ " + repr(end) + " }}"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "plain"])
@pytest.mark.parametrize("method", ["pcc", "full-context", "hf"])
def test_the_counted_tokens_are_the_scored_ones(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, chat: bool
) -> None:
    startup.install()
    decoder = str(with_template(models, tmp_path / "decoder", "\n \n"))
    scored: dict[float, int] = {}  # by log-likelihood
    score, tokens = Answering._score, HFLM._loglikelihood_tokens

    def ours(self: Any, batch: Any) -> Any:
        found = score(self, batch)
        scored.update((float(s[0]), len(job.continuation)) for job, s in zip(batch, found, strict=True))
        return found

    def theirs(self: Any, requests: Any, *args: Any, **kwargs: Any) -> Any:
        found = tokens(self, requests, *args, **kwargs)
        scored.update((float(s[0]), len(request[2])) for request, s in zip(requests, found, strict=True))
        return found

    monkeypatch.setattr(Answering, "_score", ours)
    monkeypatch.setattr(HFLM, "_loglikelihood_tokens", theirs)
    given = {"pretrained": str(models / "pcc"), "decoder": decoder} if method == "pcc" else {"pretrained": decoder}
    results = lm_eval.simple_evaluate(
        method,
        model_args={**given, "batch_size": 2, "device": "cpu", "dtype": "float32"},
        tasks=list(TASKS),
        task_manager=manager(**given, data="lab", lab_rows=3, documents=3, tokens=40),
        limit=2,
        bootstrap_iters=0,
        apply_chat_template=chat,
    )
    for name in TASKS:
        for sample in results["samples"][name]:
            if "perplexity" in sample:
                logprob, counted = sample["perplexity"]
                assert counted == scored[logprob], name
            if method != "hf":
                own = [scored[float(answer[0][0])] for answer in sample["resps"]]
                assert sample["compression"]["scored_tokens"] == (own[0] if name == "pcc_completion" else sum(own))


def test_tokens_behind_a_template_are_those_lm_eval_splits_off(models: Path) -> None:
    task = load("pcc_personachat_0", tokenizer=str(models / "llama"))
    model = HFLM(pretrained=str(models / "llama"), device="cpu", add_bos_token=False)

    @settings(max_examples=40, deadline=None)
    @given(end=st.text("\n \t:", max_size=5), answer=st.text("ab c.\n", min_size=1, max_size=9))
    def check(end: str, answer: str) -> None:
        prompt = "<|user|>who is there and why are we to ask for it?<|end|><|assistant|>:" + end
        task._template_end = prompt[-TAIL:]
        _, ids = model._encode_pair(prompt, answer)
        results = [(-1.0, False), Score(-1.0, False, {"scored_tokens": 7})]
        assert task.likelihoods({}, [answer, answer], results) == [(-1.0, len(ids)), (-1.0, 7)]

    check()


def test_calibration_is_not_silently_lost(models: Path) -> None:
    task = load("pcc_sst2", tokenizer=str(models / "llama"), calibration=True)
    doc = task.eval_docs[0]
    results = [Score(-1.0, False, {"scored_tokens": 2})] * 2
    skipped = [Score(float("nan"), False, {"skipped": True})] * 2
    with pytest.raises(UsageError, match="content-free prompt that all rows are calibrated by was skipped"):
        task.process_results(doc, [*results, *skipped])
