"""Beginnings that prompts share are read once, and nothing that comes out tells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance

from pcc_bench.core.compressor import Memory
from pcc_bench.core.context import Prompt, literal, mark
from pcc_bench.core.plan import Plan, common_length
from pcc_bench.host import models as lm_models
from pcc_bench.host.lm import CompressedLM

QUESTIONS = ["Who?", "Where did it happen, and in which year?", "Why?"]
GREEDY = {"until": [], "do_sample": False, "max_gen_toks": 10}


def load(models: Path, method: str, family: str = "llama", **arguments: Any) -> CompressedLM:
    folder = models / ("pcc" if method == "pcc" else family)
    kind = getattr(lm_models, method.replace("-", "_"))
    model: CompressedLM = kind(**{"pretrained": str(folder), "device": "cpu", "dtype": "float32", **arguments})
    return model


def prompts(rows: Sequence[dict[str, Any]], contexts: int = 4) -> list[Prompt]:
    """Each of some contexts under three questions, one context under one, and a prompt without a context."""
    texts = sorted({row["context"] for row in rows})[: contexts + 1]
    pairs = [(text, question) for question in QUESTIONS for text in texts[:-1]] + [(texts[-1], "Who?")]
    asked = [Prompt.parse(f"{mark(text)}Question: {literal(question)} Answer: ") for text, question in pairs]
    return [*asked, Prompt.parse("Plain words")]


def generations(rows: Sequence[dict[str, Any]], arguments: dict[str, Any] = GREEDY) -> list[Instance]:
    return [
        Instance("generate_until", {}, (text, dict(arguments)), i, metadata=("t", i, 1))
        for i, text in enumerate(prompts(rows))
    ]


def scorings(rows: Sequence[dict[str, Any]]) -> list[Instance]:
    pairs = [(text, answer) for text in prompts(rows) for answer in (" London", " a much longer answer")]
    return [Instance("loglikelihood", {}, pair, i, metadata=("t", i, 1)) for i, pair in enumerate(pairs)]


class Positions:
    """Counts what a decoder computes: positions of each forward, padding included."""

    def __init__(self, model: CompressedLM) -> None:
        self.total = 0
        model.frozen.model.register_forward_pre_hook(self.note, with_kwargs=True)

    def note(self, module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        given = kwargs.get("input_ids") if kwargs.get("inputs_embeds") is None else kwargs["inputs_embeds"]
        assert given is not None
        self.total += given.shape[0] * given.shape[1]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize(
    ("method", "family"), [("pcc", "llama"), *(("full-context", family) for family in ("llama", "gpt2", "qwen2"))]
)
def test_answers_equal_those_of_whole_prompts(
    models: Path, rows: list[dict[str, Any]], method: str, family: str, batch_size: int
) -> None:
    reuse, plain = (load(models, method, family, batch_size=batch_size, reuse_prefix=reuse) for reuse in (True, False))
    assert (reuse.reuse_prefix, plain.reuse_prefix) == (True, False)
    assert reuse.generate_until(generations(rows), True) == plain.generate_until(generations(rows), True)
    stops = {**GREEDY, "until": [" t", "\n"]}  # in no special token, which lm-eval would stop at too
    assert reuse.generate_until(generations(rows, stops), True) == plain.generate_until(generations(rows, stops), True)
    ours, whole = reuse.loglikelihood(scorings(rows), True), plain.loglikelihood(scorings(rows), True)
    assert [s[0] for s in ours] == pytest.approx([s[0] for s in whole], abs=1e-4)
    assert [s[1] for s in ours] == [s[1] for s in whole]
    assert reuse.describe()["counts"]["prefixes_reused"] > 0
    assert plain.describe()["counts"].get("prefixes_reused", 0) == 0


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_a_beginning_is_read_once_whatever_the_batch_size(
    models: Path, rows: list[dict[str, Any]], batch_size: int
) -> None:
    model = load(models, "full-context", batch_size=batch_size)
    text = rows[0]["context"]
    asked = [Prompt.parse(f"{mark(text)}Question: {literal(q)} Answer: ") for q in QUESTIONS]
    tokens = len(model.tokenizer.encode(text))
    counted = Positions(model)
    pairs = [Instance("loglikelihood", {}, (p, " x"), i, metadata=("t", i, 1)) for i, p in enumerate(asked)]
    scores = model.loglikelihood(pairs, True)
    assert counted.total < tokens + 100
    reused = [score.record["reused_positions"] for score in scores]  # type: ignore[attr-defined]
    assert sorted(reused)[0] == 0
    assert sorted(reused)[1] > tokens - 5
    assert model.answering.reader.last is None  # nothing is held when a run is over


def test_a_float32_memory_before_a_bfloat16_decoder_stays_one(models: Path, rows: list[dict[str, Any]]) -> None:
    reuse, plain = (load(models, "pcc", dtype="bfloat16", batch_size=4, reuse_prefix=on) for on in (True, False))
    ours, whole = reuse.loglikelihood(scorings(rows), True), plain.loglikelihood(scorings(rows), True)
    assert [s[0] for s in ours] == pytest.approx([s[0] for s in whole], rel=0.02, abs=0.2)


def test_a_repetition_penalty_sees_the_whole_prompt(models: Path, rows: list[dict[str, Any]]) -> None:
    arguments = {**GREEDY, "repetition_penalty": 1.5}
    reuse, plain = (load(models, "full-context", batch_size=1, reuse_prefix=on) for on in (True, False))
    asked = generations(rows, arguments)
    assert reuse.generate_until(asked, True) == plain.generate_until(asked, True)
    assert reuse.describe()["counts"]["prefixes_reused"] > 0


@pytest.mark.parametrize("method", ["pcc", "full-context"])
def test_least_lengths_count_from_the_prompts_end(models: Path, rows: list[dict[str, Any]], method: str) -> None:
    arguments = {**GREEDY, "min_new_tokens": 10}
    reuse, plain = (load(models, method, batch_size=3, reuse_prefix=on) for on in (True, False))
    answers = reuse.generate_until(generations(rows, arguments), True)
    assert answers == plain.generate_until(generations(rows, arguments), True)
    assert {answer.record["new_tokens"] for answer in answers} == {10}  # type: ignore[attr-defined]
    assert reuse.describe()["counts"]["prefixes_reused"] > 0


@pytest.mark.parametrize("method", ["pcc", "full-context"])
def test_a_static_cache_gives_the_same_answers(models: Path, rows: list[dict[str, Any]], method: str) -> None:
    model = load(models, method, batch_size=4)
    static = model.generate_until(generations(rows, {**GREEDY, "cache_implementation": "static"}), True)
    assert model.describe()["counts"].get("prefixes_reused", 0) == 0  # its places are taken before anything is read
    assert static == model.generate_until(generations(rows), True)


def test_beams_read_every_prompt_whole(models: Path, rows: list[dict[str, Any]]) -> None:
    model = load(models, "pcc", batch_size=4)
    model.generate_until(generations(rows, {**GREEDY, "num_beams": 2}), True)
    assert model.describe()["counts"].get("prefixes_reused", 0) == 0


def test_a_decoder_with_a_sliding_window_reads_every_prompt_whole(models: Path, rows: list[dict[str, Any]]) -> None:
    model = load(models, "full-context", "mistral", batch_size=4)
    assert model.frozen.model.config.sliding_window
    assert not model.reuse_prefix
    model.generate_until(generations(rows), True)
    assert model.describe()["counts"].get("prefixes_reused", 0) == 0


def test_plans_share_whole_memories_and_never_all_of_a_prompt() -> None:
    one, other = (Memory(1, 1, 1, slots=3, vectors=torch.zeros(3, 2)) for _ in range(2))
    assert common_length([Plan(([1, 2], one, [5, 6])), Plan(([1, 2], one, [5, 7]))]) == 6
    assert common_length([Plan(([1, 2], one, [5, 6])), Plan(([1, 2], other, [5, 6]))]) == 2
    assert common_length([Plan(([1, 2], one, [5])), Plan(([1, 2], one, [5]))]) == 5
    assert common_length([Plan(([1, 2], one)), Plan(([1, 2], one))]) == 2
    assert common_length([Plan(([1, 2, 3],)), Plan(([1, 2],)), Plan(([1, 2, 3],))]) == 1
    head, tail = Plan(([1, 2], one, [5, 6])).split(6)
    assert (head.pieces, tail.pieces) == (([1, 2], one, [5]), ([], [6]))
