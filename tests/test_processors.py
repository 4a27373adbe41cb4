"""Penalties, bans and least lengths act on a row's new tokens: in any batch, for soft and hard methods alike."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance

from pcc_bench.core import registry
from pcc_bench.core.compressor import Compressor, Memory
from pcc_bench.core.context import Prompt, literal, mark
from pcc_bench.core.errors import UsageError
from pcc_bench.core.processors import over_new_tokens
from pcc_bench.host import models as lm_models
from pcc_bench.host.lm import CompressedLM
from pcc_bench.model import init

ROWS = 9
END = 3  # any ordinary token that the tests make an end or force
SETTINGS: dict[str, dict[str, Any]] = {
    "penalty": {"repetition_penalty": 1.3, "min_new_tokens": 40},
    "whole penalty": {"repetition_penalty": 2},
    "reward": {"repetition_penalty": 0.7},
    "least": {"min_new_tokens": 40},
    "unigrams": {"no_repeat_ngram_size": 1, "min_new_tokens": 20},
    "bigrams": {"no_repeat_ngram_size": 2},
    "bad words": {"bad_words_ids": [[7, 9], [11, 12, 13], *([n] for n in range(20, 200))]},
    "bias": {"sequence_bias": [[[5], 4.0], [[5, 6], 9.0]]},
    "forced end": {"forced_eos_token_id": END},
    "forced end over a ban": {"forced_eos_token_id": END, "bad_words_ids": [[END]]},
    "decay": {"exponential_decay_length_penalty": [5, 1.5]},
    "suppressed": {"suppress_tokens": [*range(20, 200)], "begin_suppress_tokens": [*range(200, 500)]},
    "all": {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "bad_words_ids": [[7, 9]], "min_new_tokens": 12},
}
REFUSED = {
    "min_length": 300,
    "max_length": 300,
    "stop_strings": ["a"],
    "forced_bos_token_id": 0,
    "encoder_repetition_penalty": 1.2,
    "encoder_no_repeat_ngram_size": 2,
    "guidance_scale": 1.5,
}


class Identity(Compressor):
    """A soft compressor that compresses nothing: the memory is the context's own token embeddings."""

    name = "identity"
    soft = True

    def compress(self, contexts: Sequence[str]) -> list[Memory]:
        memories = []
        for context in contexts:
            ids = self.decoder.tokenizer.encode(context, add_special_tokens=False)
            size = len(context.encode())
            memories.append(Memory(len(ids), len(ids), size, slots=len(ids), vectors=self.decoder.embed(ids)))
        return memories


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    known = registry.get
    monkeypatch.setattr(registry, "get", lambda name: Identity if name == "identity" else known(name))


def load(folder: Path, method: str, **arguments: Any) -> CompressedLM:
    own = type("identity", (CompressedLM,), {"method": "identity"})
    kind = own if method == "identity" else getattr(lm_models, method.replace("-", "_"))
    model: CompressedLM = kind(**{"pretrained": str(folder), "device": "cpu", "dtype": "float32", **arguments})
    return model


def asked(rows: Sequence[dict[str, Any]], setting: dict[str, Any]) -> list[Instance]:
    greedy = {"until": [], "do_sample": False, "max_gen_toks": 40, **setting}
    # No token crosses from the memory into the text (see test_lm), so that soft and hard read the same.
    texts = [Prompt.parse(f"{mark(r['context'])}Question: {literal(r['question'])} Answer: ") for r in rows[:ROWS]]
    return [Instance("generate_until", {}, (t, dict(greedy)), i, metadata=("t", i, 1)) for i, t in enumerate(texts)]


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS.keys())
def test_answers_are_the_same_in_any_batch_and_for_soft_and_hard(
    models: Path, rows: list[dict[str, Any]], setting: dict[str, Any]
) -> None:
    requests = asked(rows, setting)
    answers = {
        (method, batch_size, reuse): load(
            models / "llama", method, batch_size=batch_size, reuse_prefix=reuse
        ).generate_until(requests, True)
        for method in ("identity", "full-context")
        for batch_size, reuse in ((1, False), (9, False), (9, True))
    }
    first = answers["full-context", 1, False]
    assert all(other == first for other in answers.values()), [key for key in answers if answers[key] != first]
    if not setting.keys() <= {"min_new_tokens"}:
        plain = load(models / "llama", "full-context", batch_size=1).generate_until(asked(rows, {}), True)
        assert first != plain  # the setting does something here


@pytest.mark.parametrize("setting", ["penalty", "unigrams", "all"])
def test_pcc_answers_as_in_a_batch_of_one(models: Path, rows: list[dict[str, Any]], setting: str) -> None:
    requests = asked(rows, SETTINGS[setting])
    one, nine = (load(models / "pcc", "pcc", batch_size=size).generate_until(requests, True) for size in (1, 9))
    assert one == nine


def test_the_shipped_checkpoint_answers_as_in_a_batch_of_one(rows: list[dict[str, Any]]) -> None:
    """`repetition_penalty=1.3,min_new_tokens=40` on nine questions: six answers were those of their batch."""
    requests = asked(rows, SETTINGS["penalty"])
    one, nine = (load(Path("pcc-lab-4x"), "pcc", batch_size=size).generate_until(requests, True) for size in (1, 9))
    assert one == nine and len(set(one)) > 6


@pytest.mark.parametrize("method", ["identity", "full-context"])
def test_what_the_decoders_own_configuration_brings_in_acts_alike_and_is_said(
    models: Path, rows: list[dict[str, Any]], tmp_path: Path, method: str
) -> None:
    folder = tmp_path / "decoder"
    shutil.copytree(models / "llama", folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "repetition_penalty": 1.3}), "utf-8")
    by_option = load(models / "llama", "full-context").generate_until(asked(rows, {"repetition_penalty": 1.3}), True)
    model = load(folder, method, batch_size=9)
    assert model.generate_until(asked(rows, {}), True) == by_option
    assert model.describe()["generation_config"] == {"repetition_penalty": 1.3}
    off = load(folder, method, batch_size=9).generate_until(asked(rows, {"repetition_penalty": 1.0}), True)
    assert off == load(models / "llama", method).generate_until(asked(rows, {}), True)


@pytest.mark.parametrize(("name", "value"), REFUSED.items(), ids=REFUSED.keys())
@pytest.mark.parametrize("method", ["identity", "full-context"])
def test_what_goes_by_the_prompts_tokens_is_refused(
    models: Path, rows: list[dict[str, Any]], method: str, name: str, value: Any
) -> None:
    model = load(models / "llama", method)
    with pytest.raises(UsageError, match=rf"{name}=.*the generation arguments.*whole prompt.*(leave it out|pass \w+)"):
        model.generate_until(asked(rows, {name: value}), True)
    if name != "max_length":  # a decoder's own gives way to max_gen_toks
        setattr(model.frozen.model.generation_config, name, value)
        with pytest.raises(UsageError, match=rf"{name}=.*generation_config of the decoder.*gen_kwargs"):
            model.generate_until(asked(rows, {}), True)


@pytest.mark.parametrize(
    "setting",
    [{"repetition_penalty": -1}, {"repetition_penalty": "x"}, {"no_repeat_ngram_size": 1.5}, {"bad_words_ids": "word"}],
    ids=str,
)
def test_what_transformers_refuses_is_one_sentence(
    models: Path, rows: list[dict[str, Any]], setting: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match=f"generation.* {next(iter(setting))}[:=]"):
        load(models / "llama", "full-context").generate_until(asked(rows, setting), True)


@settings(max_examples=60, deadline=None)
@given(
    prompt=st.lists(st.integers(0, 19), max_size=8),
    new=st.lists(st.integers(0, 19), max_size=8),
    padding=st.integers(0, 5),
    penalty=st.sampled_from([0.5, 1.0, 1.3, 2]),
    ngram=st.integers(0, 3),
    bad=st.lists(st.lists(st.integers(0, 19), min_size=1, max_size=3), min_size=1, max_size=3),
    least=st.integers(0, 9),
)
def test_nothing_before_the_new_tokens_counts(
    models: Path,
    prompt: list[int],
    new: list[int],
    padding: int,
    penalty: float,
    ngram: int,
    bad: list[list[int]],
    least: int,
) -> None:
    decoder = init.open_decoder(str(models / "llama"))
    options = {
        "repetition_penalty": penalty,
        "no_repeat_ngram_size": ngram,
        "bad_words_ids": bad,
        "min_new_tokens": least,
    }
    scores = torch.linspace(-1, 1, 20)[None]
    before = [0] * padding + prompt
    alone, _ = over_new_tokens(decoder, options, 0, 10, [END])
    behind, rest = over_new_tokens(decoder, options, len(before), 10, [END])
    assert alone is not None and behind is not None
    ids = torch.tensor([new], dtype=torch.long)
    assert torch.equal(
        alone(ids, scores.clone()), behind(torch.tensor([[*before, *new]], dtype=torch.long), scores.clone())
    )
    assert rest["repetition_penalty"] == 1.0 and rest["bad_words_ids"] is None


@pytest.mark.parametrize("method", ["pcc", "full-context"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_stop_the_run(
    models: Path, rows: list[dict[str, Any]], method: str, value: float
) -> None:
    model = load(models / ("pcc" if method == "pcc" else "llama"), method, batch_size=2)
    weight = next(p for name, p in model.frozen.model.named_parameters() if name.endswith("mlp.up_proj.weight"))
    weight.data[0, 0] = value
    with pytest.raises(UsageError, match="scores of the next token that are no finite numbers"):
        model.generate_until(asked(rows, {}), True)
    scorings = [
        Instance("loglikelihood", {}, (r.args[0], " x"), i, metadata=("t", i, 1)) for i, r in enumerate(asked(rows, {}))
    ]
    with pytest.raises(UsageError, match="log-likelihoods that are no finite numbers"):
        model.loglikelihood(scorings, True)
