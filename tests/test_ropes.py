"""Decoders whose rotations depend on length answer a prompt as if it were alone and read whole."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from test_processors import Identity
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, Phi3Config

from pcc_bench.core import registry
from pcc_bench.core.context import Prompt, literal, mark
from pcc_bench.core.decoder import Ropes
from pcc_bench.host import models as lm_models
from pcc_bench.host.lm import CompressedLM

WINDOW = 241
QUESTIONS = ["Who?", "Where did it happen, and in which year, and who was there to tell us of it today?", "Why?"]
GREEDY = {"until": [], "do_sample": False, "max_gen_toks": 12}
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.5,
}


def config(kind: str, vocabulary: int) -> Any:
    sizes = {**SIZES, "vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1}
    if kind == "dynamic":
        rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
        return LlamaConfig(**sizes, max_position_embeddings=WINDOW, rope_parameters=rope)
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    sizes |= {"max_position_embeddings": 2048, "original_max_position_embeddings": WINDOW}
    return Phi3Config(**sizes, rope_parameters=rope)


@pytest.fixture(scope="module", params=["longrope", "dynamic"])
def folder(request: pytest.FixtureRequest, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = AutoTokenizer.from_pretrained(models / "llama")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config(request.param, len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load(folder: Path, soft: bool = False, **arguments: Any) -> CompressedLM:
    given = {"pretrained": str(folder), "device": "cpu", "dtype": "float32", "max_length": 2048, **arguments}
    kind = type("identity", (CompressedLM,), {"method": "identity"}) if soft else lm_models.full_context  # type: ignore[attr-defined]
    model: CompressedLM = kind(**given)
    return model


def prompts(rows: Sequence[dict[str, Any]], model: CompressedLM) -> list[Prompt]:
    """Several questions on contexts that end below the window, so that prompts lie on both sides of it, and shorter."""
    text = " ".join(sorted({row["context"] for row in rows}))
    words = text.split(" ")
    contexts = []
    for aim in (60, WINDOW - 40, WINDOW - 22, WINDOW - 12, WINDOW + 30):
        count = next(n for n in range(1, len(words)) if len(model.tokenizer.encode(" ".join(words[:n]))) >= aim)
        contexts.append(" ".join(words[:count]))
    return [Prompt.parse(f"{mark(c)}Question: {literal(q)} Answer: ") for c in contexts for q in QUESTIONS]


def asked(kind: str, texts: Sequence[Prompt]) -> list[Instance]:
    pairs = [
        (text, argument)
        for text in texts
        for argument in ([GREEDY] if kind == "generate_until" else [" x", " in London"])
    ]
    return [Instance(kind, {}, (text, copy.deepcopy(a)), i, metadata=("t", i, 1)) for i, (text, a) in enumerate(pairs)]


def alone(folder: Path, requests: Sequence[Instance], kind: str) -> list[Any]:
    """Each request by a decoder that has read nothing else."""
    return [getattr(load(folder, batch_size=1, reuse_prefix=False), kind)([request], True)[0] for request in requests]


@pytest.mark.parametrize("soft", [False, True], ids=["text", "memory"])
@pytest.mark.parametrize("kind", ["loglikelihood", "generate_until"])
def test_neither_neighbours_nor_shared_beginnings_nor_order_change_an_answer(
    folder: Path, rows: list[dict[str, Any]], kind: str, soft: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = registry.get
    monkeypatch.setattr(registry, "get", lambda name: Identity if name == "identity" else known(name))
    requests = asked(kind, prompts(rows, load(folder)))
    expected = alone(folder, requests, kind)
    for batch_size, reuse in ((1, True), (9, True), (9, False)):
        model = load(folder, soft, batch_size=batch_size, reuse_prefix=reuse)
        answers = getattr(model, kind)(requests, True)
        if kind == "generate_until":
            assert answers == expected
        else:
            assert [score[0] for score in answers] == pytest.approx([score[0] for score in expected], abs=1e-3)
            assert [score[1] for score in answers] == [score[1] for score in expected]
        reused = model.describe()["counts"].get("prefixes_reused", 0)
        assert (reused > 0) == reuse  # below the window beginnings are still shared


def test_the_window_decides_here(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Without the care, answers are others: these models and prompts do lie on both sides."""
    model = load(folder, batch_size=9, reuse_prefix=False)
    requests = asked("loglikelihood", prompts(rows, model))
    right = model.loglikelihood(requests, True)
    model.frozen.__dict__["ropes"] = Ropes()
    wrong = model.loglikelihood(requests, True)
    assert max(abs(a[0] - b[0]) for a, b in zip(right, wrong, strict=True)) > 0.1


def test_ropes_are_read_from_the_decoders_own_configuration(models: Path) -> None:
    class Model:
        def __init__(self, configuration: Any) -> None:
            self.config = configuration

    assert Ropes.of(Model(config("longrope", 64))) == Ropes((WINDOW,), ())  # type: ignore[arg-type]
    assert Ropes.of(Model(config("dynamic", 64))) == Ropes((), (WINDOW,))  # type: ignore[arg-type]
    plain = LlamaConfig(**SIZES, rope_parameters={"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4})
    assert Ropes.of(Model(plain)) == Ropes()  # type: ignore[arg-type]
    plain.rope_parameters = {
        "full": {"rope_type": "longrope", "original_max_position_embeddings": 9},
        "near": {"rope_type": "default"},
    }
    assert Ropes.of(Model(plain)) == Ropes((9,), ())  # type: ignore[arg-type]
    plain.rope_parameters = {"rope_type": "of its own kind"}
    assert Ropes.of(Model(plain)) == Ropes((), (0,))  # type: ignore[arg-type]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(1, 60), max_size=2),
    st.lists(st.integers(0, 60), max_size=2),
    st.integers(1, 80),
    st.integers(1, 80),
    st.integers(0, 12),
)
def test_rows_keep_company_only_if_they_choose_alike_at_every_step(
    switching: list[int], growing: list[int], one: int, other: int, new: int
) -> None:
    ropes = Ropes(tuple(switching), tuple(growing))

    def factors(length: int) -> tuple[object, ...]:
        return (*(length > limit for limit in switching), *(max(length, limit) for limit in growing))

    together = [factors(max(one, other) + step) for step in range(new + 1)]
    if ropes.company(one, new) == ropes.company(other, new):
        assert [factors(one + step) for step in range(new + 1)] == together
        assert [factors(other + step) for step in range(new + 1)] == together
    if ropes.stay(one):
        assert all(factors(one) == factors(length) for length in range(1, one + 1))
