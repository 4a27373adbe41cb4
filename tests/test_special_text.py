"""Data that spells special tokens is tokenized as text, and as if it were tokenized in one go."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from pcc_bench.core.context import special_token_pattern
from pcc_bench.core.plan import PromptEncoder, Stretch

OWN, FORGED = "<|own|>", "<|eot_id|>"
KINDS = ("bytes", "bytes with a first blank", "blank first", "blank always")


@cache
def tokenizer(kind: str, knows_forged: bool = True, strips: bool = False) -> PreTrainedTokenizerFast:
    """A small BPE; without `knows_forged` it is the same, but for a special token that is ordinary text to it."""
    core = Tokenizer(BPE(unk_token=None, byte_fallback="blank" in kind[:5]))
    if kind.startswith("bytes"):
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space="blank" in kind)
        core.decoder = decoders.ByteLevel()
    else:
        core.pre_tokenizer = pre_tokenizers.Metaspace(
            prepend_scheme="first" if "first" in kind else "always", split=False
        )
    alphabet = [*pre_tokenizers.ByteLevel.alphabet()] if kind.startswith("bytes") else [chr(n) for n in range(10, 127)]
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=[*alphabet, "\u2581"], show_progress=False)
    words = (
        "the cab abcd ab cd said <|eot_id|> and <|own|> eot id who | > \n ab\ncd a|b >ab |cd 0ab own wn|> eot_id|>ab"
    )
    core.train_from_iterator([words] * 20, trainer)
    specials = [AddedToken(OWN, special=True, normalized=False, rstrip=strips, lstrip=strips)]
    fast = PreTrainedTokenizerFast(tokenizer_object=core)
    fast.add_special_tokens({"additional_special_tokens": specials})
    if knows_forged:
        extra = [*specials, AddedToken(FORGED, special=True, normalized=False)]
        fast.add_special_tokens({"additional_special_tokens": extra})
    return fast


def ids(fast: PreTrainedTokenizerFast, run: Stretch) -> list[int]:
    encoder = object.__new__(PromptEncoder)
    encoder.decoder = type("Decoder", (), {"tokenizer": fast})()  # type: ignore[assignment]
    encoder._special = special_token_pattern(fast)
    return encoder._ids(run, adds_special=False)


def run_of(parts: list[tuple[str, bool]]) -> Stretch:
    run = Stretch()
    for text, is_data in parts:
        run = run.add(text, is_data)
    return run


@pytest.mark.parametrize("kind", KINDS)
def test_text_gains_no_blanks(kind: str) -> None:
    fast = tokenizer(kind)
    expected = fast.encode(f"ab{FORGED}cd", add_special_tokens=False, split_special_tokens=True)
    assert ids(fast, run_of([(f"ab{FORGED}cd", True)])) == expected
    assert ids(fast, run_of([("ab", False), (FORGED, True), ("cd", False)])) == expected
    assert fast.convert_tokens_to_ids(FORGED) not in expected


PIECES = st.one_of(
    st.tuples(st.sampled_from([OWN, f"{OWN}\n", f" {OWN}", "ab cd", "\n", " who "]), st.just(False)),
    st.tuples(
        st.sampled_from([FORGED, f"ab{FORGED}cd", f" {FORGED} ", f"{FORGED}{FORGED}", "the cab", "|>", ""]),
        st.just(True),
    ),
    st.tuples(st.text("ab <|>cdet_o\n", max_size=6), st.just(True)),
)


@pytest.mark.parametrize("strips", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300, deadline=None)
@given(parts=st.lists(PIECES, max_size=7))
def test_ids_are_those_of_a_tokenizer_that_does_not_know_what_data_spells(
    kind: str, strips: bool, parts: list[Any]
) -> None:
    run = run_of(parts)
    fast, reference = tokenizer(kind, strips=strips), tokenizer(kind, knows_forged=False, strips=strips)
    spelled = [m.span() for m in special_token_pattern(fast).finditer(run.text)]  # type: ignore[union-attr]
    if any(run.text[a:b] == OWN and any(s < b and a < e for s, e in run.literals) for a, b in spelled):
        return  # data spells the other one too, which the reference knows
    assert ids(fast, run) == list(reference.encode(run.text, add_special_tokens=False))
