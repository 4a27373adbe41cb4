"""Two methods in a row: the text is the first one's, the vectors are PCC's, the sizes are the whole context's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from command import lm_eval_run

from pcc_bench.baselines.composed import ComposedCompressor
from pcc_bench.baselines.controls import Bm25Context, TruncatedContext
from pcc_bench.baselines.llmlingua2 import LlmLingua2
from pcc_bench.core import shipped
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError
from pcc_bench.model import init
from pcc_bench.model.compressor import PccCompressor

CHECKPOINT = "pcc-lab-4x"


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return init.open_decoder(shipped.located(shipped.DECODER))


@pytest.fixture(scope="module")
def texts(rows: list[dict[str, Any]]) -> list[str]:
    return sorted({row["context"] for row in rows})[:4]


def test_memories_are_pccs_of_the_shortened_text(decoder: Decoder, texts: list[str]) -> None:
    composed = ComposedCompressor.load(CHECKPOINT, decoder, first="truncated-context", first_rate=2)
    shortened = TruncatedContext(decoder, 2, keep="first").compress(texts)
    alone = PccCompressor.load(CHECKPOINT, decoder).compress([memory.text or "" for memory in shortened])
    for text, whole, expected, memory in zip(texts, shortened, alone, composed.compress(texts), strict=True):
        assert memory.vectors is not None and expected.vectors is not None
        torch.testing.assert_close(memory.vectors, expected.vectors, rtol=0, atol=1e-5)
        assert memory.slots == expected.slots
        assert (memory.source_tokens, memory.source_bytes) == (whole.source_tokens, len(text.encode()))
    assert composed.rate == 8


def test_a_first_method_that_reads_the_question_makes_both_read_it(decoder: Decoder, texts: list[str]) -> None:
    composed = ComposedCompressor.load(CHECKPOINT, decoder, first="bm25-context", first_rate=4)
    assert composed.query_aware and not ComposedCompressor.query_aware
    queries = [text.split(".")[-2] for text in texts]
    chosen = [Bm25Context(decoder, 4).select(text, query) for text, query in zip(texts, queries, strict=True)]
    expected = PccCompressor.load(CHECKPOINT, decoder).compress(chosen)
    for alone, memory in zip(expected, composed.compress_for(texts, queries), strict=True):
        assert memory.vectors is not None and alone.vectors is not None
        torch.testing.assert_close(memory.vectors, alone.vectors, rtol=0, atol=1e-5)
    with pytest.raises(UsageError, match="none is given here"):
        composed.compress(texts)


def test_nothing_of_a_context_is_read_behind_no_context(decoder: Decoder, texts: list[str]) -> None:
    composed = ComposedCompressor.load(CHECKPOINT, decoder, first="no-context")
    assert [memory.slots for memory in composed.compress(texts)] == [0] * len(texts)


def test_options_tell_compositions_apart(decoder: Decoder) -> None:
    kinds = [{"first_rate": 2.0}, {"first_rate": 4.0}, {"first": "random-context"}, {"first": "no-context"}]
    prints = {ComposedCompressor.load(CHECKPOINT, decoder, **kind).fingerprint() for kind in kinds}
    assert len(prints) == 4 and PccCompressor.load(CHECKPOINT, decoder).fingerprint() not in prints


def test_the_recorded_rate_is_the_product() -> None:
    assert ComposedCompressor.recorded_rate(CHECKPOINT, {"first_rate": 2.0}) == 8
    assert ComposedCompressor.recorded_rate(CHECKPOINT, {"first": "no-context"}) == float("inf")


def test_a_first_method_may_have_a_checkpoint(decoder: Decoder, texts: list[str]) -> None:
    first = {"first": "llmlingua2", "first_pretrained": "llmlingua2-lab"}
    composed = ComposedCompressor.load(CHECKPOINT, decoder, **first, first_rate=3)
    alone = LlmLingua2.load("llmlingua2-lab", decoder, rate=3)
    shortened = [memory.text or "" for memory in alone.compress(texts)]
    expected = PccCompressor.load(CHECKPOINT, decoder).compress(shortened)
    for whole, memory in zip(expected, composed.compress(texts), strict=True):
        assert memory.vectors is not None and whole.vectors is not None
        torch.testing.assert_close(memory.vectors, whole.vectors, rtol=0, atol=1e-5)
    assert alone.weights_fingerprint() in composed.weights_fingerprint()
    assert set(composed.first.tokenizers) <= set(composed.tokenizers) and composed.rate == 12


@pytest.mark.parametrize("first", ["pcc", "composed"])
def test_a_first_method_that_leaves_no_text_is_refused(decoder: Decoder, first: str) -> None:
    with pytest.raises(UsageError, match=f"first={first}: the first of two methods has to leave text"):
        ComposedCompressor.load(CHECKPOINT, decoder, first=first)


@pytest.mark.parametrize(
    ("first", "pretrained", "sentence"),
    [
        ("llmlingua2", None, "first=llmlingua2 needs first_pretrained=<its checkpoint>, llmlingua2-lab or so"),
        ("bm25-context", "llmlingua2-lab", "first=bm25-context has no checkpoint: leave first_pretrained out"),
    ],
)
def test_a_checkpoint_where_none_belongs_is_refused(
    decoder: Decoder, first: str, pretrained: str | None, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        ComposedCompressor.load(CHECKPOINT, decoder, first=first, first_pretrained=pretrained)


def test_a_rate_that_the_first_method_does_not_take_is_refused(decoder: Decoder) -> None:
    with pytest.raises(UsageError, match="first=no-context takes no rate"):
        ComposedCompressor.load(CHECKPOINT, decoder, first="no-context", first_rate=4)


def test_lm_eval_runs_it(tmp_path: Path) -> None:
    arguments = "first=bm25-context,first_rate=2"
    fixed = (
        "--model",
        "composed",
        "--model_args",
        arguments,
        "--tasks",
        "pcc_squad",
        "--device",
        "cpu",
        "--batch_size",
        8,
    )
    described = lm_eval_run(tmp_path, *fixed, "--metadata", '{"population": "all"}')["config"]["pcc_bench"]
    assert described["requested_rate"] == 8 and described["label"].startswith("BM25 context + PCC")
    assert described["capabilities"]["query_aware"] and described["compressions"] == 24
