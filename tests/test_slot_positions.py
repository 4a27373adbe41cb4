"""Slots at the centres of the tokens they stand for: in training, evaluation, stores, memory files and the API."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance

from pcc_bench.core.compressor import Memory
from pcc_bench.core.context import Prompt, literal, mark
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.documents import write_text
from pcc_bench.core.errors import UsageError
from pcc_bench.core.plan import Plan, positions
from pcc_bench.host import models as lm_models
from pcc_bench.host.api import ContextCompressor
from pcc_bench.host.compressing import open_memory
from pcc_bench.host.lm import CompressedLM
from pcc_bench.model import PccCompressor, checkpoint, init
from pcc_bench.model.config import Boundaries, PccConfig
from pcc_bench.model.pcc import PCC, centres
from pcc_bench.model.training import loop, objectives
from pcc_bench.model.training.objectives import Task
from pcc_bench.model.training.recipe import Recipe

CENTRE = {"slot_positions": "centre"}
TEXT = "The quick brown fox jumps over the lazy dog while seven more dogs watch from behind an old fence."
LENGTH, NEW = 16, 8


@pytest.fixture
def decoder(models: Path) -> Decoder:
    return init.open_decoder(str(models / "llama"))


def pooled(decoder: Decoder, folder: Path, boundaries: Boundaries = "per_segment") -> PCC:
    """A compressor of mean pooled slots, not where it started, saved in a folder."""
    folder.mkdir(exist_ok=True)
    pcc = init.from_decoder(decoder, 1, [4, 1, 2], folder, segment_length=LENGTH)
    for name, parameter in pcc.converter.named_parameters():
        parameter.data = parameter.data + 0.05 * torch.randn_like(parameter) * ("dense" in name)
    layout = {"boundaries": boundaries, "slot_positions": "centre"}
    pcc.config = pcc.encoder.config = pcc.config.model_copy(update=layout)
    checkpoint.save(pcc, folder)
    return pcc.eval()


def load(folder: Path, **arguments: Any) -> CompressedLM:
    model: CompressedLM = lm_models.pcc(**{"pretrained": str(folder), "device": "cpu", "dtype": "float32", **arguments})
    return model


def prompts(rows: Sequence[dict[str, Any]]) -> list[Prompt]:
    """Contexts of several lengths, two questions each."""
    texts = [*sorted({row["context"] for row in rows})[:2], TEXT]
    questions = ("Who?", "Where did it happen, and in which year?")
    pairs = [(text, question) for question in questions for text in texts]
    return [Prompt.parse(f"{mark(text)}Question: {literal(question)} Answer: ") for text, question in pairs]


def answers(model: CompressedLM, asked: Sequence[Prompt]) -> tuple[list[str], list[float]]:
    arguments = {"until": [], "do_sample": False, "max_gen_toks": NEW}
    generations = [
        Instance("generate_until", {}, (p, dict(arguments)), i, metadata=("t", i, 1)) for i, p in enumerate(asked)
    ]
    scorings = [Instance("loglikelihood", {}, (p, " London"), i, metadata=("t", i, 1)) for i, p in enumerate(asked)]
    return model.generate_until(generations, True), [score for score, _ in model.loglikelihood(scorings, True)]


def logits(decoder: Decoder, vectors: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
    """A plain forward, without padding or cache."""
    with torch.no_grad():
        row = {"position_ids": torch.tensor([list(ids)]), "attention_mask": torch.ones(1, len(vectors)).long()}
        out = decoder.model(inputs_embeds=vectors[None], **row, use_cache=False)
    return torch.log_softmax(out.logits[0], -1)


def by_hand(decoder: Decoder, plan: Plan, ids: Sequence[int], continuation: Sequence[int]) -> tuple[list[int], float]:
    """Greedy decoding and a log-likelihood of one prompt whose position ids are given."""
    vectors, places = plan.vectors(decoder), list(ids)
    whole = torch.cat([vectors, decoder.embed(continuation[:-1])])
    rest = logits(decoder, whole, [*ids, *range(ids[-1] + 1, ids[-1] + len(continuation))])[len(vectors) - 1 :]
    score = sum(float(rest[i, token]) for i, token in enumerate(continuation))
    chosen = []
    for _ in range(NEW):
        chosen.append(int(logits(decoder, vectors, places)[-1].argmax()))
        vectors, places = torch.cat([vectors, decoder.embed(chosen[-1:])]), [*places, places[-1] + 1]
    return chosen, score


def test_centres_of_groups() -> None:
    assert centres(16, 4, 4) == [1, 5, 9, 13]  # linspace(1.5, 13.5, 4), rounded down
    assert centres(5, 2, 4) == [1, 4]  # a shorter last group
    assert centres(16, 16, 1) == list(range(16))
    assert centres(1, 4, 4) == [0, 1, 2, 3]  # more slots than tokens
    for rate in (2, 3, 4, 8, 16):
        expected = torch.linspace((rate - 1) / 2, 48 - 1 - (rate - 1) / 2, 48 // rate, dtype=torch.float64).floor()
        assert centres(48, 48 // rate, rate) == expected.long().tolist()


@pytest.mark.parametrize("boundaries", ["per_segment", "once"])
def test_positions_of_a_memory(decoder: Decoder, tmp_path: Path, boundaries: Boundaries) -> None:
    pcc = pooled(decoder, tmp_path, boundaries)
    text = TEXT[:43]
    tokens = decoder.tokenizer.encode(text, add_special_tokens=False)
    assert 16 < len(tokens) < 32
    (memory,) = PccCompressor(pcc, decoder).compress([text])
    assert memory.positions is not None
    last = len(tokens) - 16
    first, second = [2, 6, 10, 14], [slot + 1 for slot in centres(last, -(-last // 4), 4)]
    if boundaries == "once":
        assert memory.positions == (0, *first, *(16 + p for p in second), len(tokens) + 1)
    else:
        assert memory.positions == (0, *first, 17, 18, *(18 + p for p in second), len(tokens) + 3)
    assert memory.span == len(tokens) + (2 if boundaries == "once" else 4)
    plan = Plan(([1, 2], memory, [3]))
    assert plan.positions() == [0, 1, *(2 + p for p in memory.positions), 2 + memory.span]
    assert plan.span == 3 + memory.span
    (empty,) = PccCompressor(pcc, decoder).compress([""])
    assert (empty.positions, empty.span) == ((), 0)


def test_at_rate_1_nothing_differs(decoder: Decoder, tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    pooled(decoder, tmp_path)
    one, other = (load(tmp_path, rate=1, slot_positions=how, batch_size=3) for how in ("centre", "consecutive"))
    assert one.compressor.options()["slot_positions"] == "centre"
    assert "slot_positions" not in other.compressor.options()  # memories made before the option stay valid
    assert one.compressor.fingerprint() != other.compressor.fingerprint()
    assert answers(one, prompts(rows)) == answers(other, prompts(rows))


@pytest.mark.parametrize("kind", ["pooled", "memory tokens"])
@pytest.mark.parametrize("reuse", [True, False], ids=["shared beginnings", "whole prompts"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_answers_are_those_of_a_plain_forward(
    models: Path, decoder: Decoder, tmp_path: Path, rows: list[dict[str, Any]], kind: str, reuse: bool, batch_size: int
) -> None:
    folder = models / "pcc"
    if kind == "pooled":
        pooled(decoder, folder := tmp_path / "pooled")
    slots = {} if kind == "pooled" else {"slots": "proportional"}
    model = load(folder, reuse_prefix=reuse, batch_size=batch_size, **slots, **CENTRE)
    asked = prompts(rows)
    texts, scores = answers(model, asked)
    for prompt, text, score in zip(asked, texts, scores, strict=True):
        memories = model.compressor.compress(prompt.contexts)
        plan = model.encoder.encode(prompt, memories)
        ids = plan.positions()
        assert ids[-1] + 1 > plan.length
        chosen, _ = by_hand(model.frozen, plan, ids, [0])
        assert str(text) == model.tok_decode(chosen)
        plan, continuation = model.encoder.encode_pair(prompt, memories, " London")
        assert score == pytest.approx(by_hand(model.frozen, plan, plan.positions(), continuation)[1], abs=1e-4)
    if reuse:
        assert model.describe()["counts"]["prefixes_reused"] > 0
    assert answers(load(folder, batch_size=batch_size, **slots, slot_positions="consecutive"), asked)[1] != scores


def test_training_reads_what_evaluation_reads(decoder: Decoder, tmp_path: Path) -> None:
    pcc = pooled(decoder, tmp_path)
    contexts = [decoder.tokenizer.encode(TEXT, add_special_tokens=False), [7, 8, 9]]
    targets = [[5, 6, 7, 8], [9, 10]]
    for task in (Task.RECONSTRUCTION, Task.ANSWERING):
        with torch.no_grad():
            inputs = objectives.behind(
                decoder, objectives.memory_plans(pcc, decoder, pcc.encode(contexts), task), targets
            )
            together = objectives.token_nll(decoder, inputs).sum(1)
            for context, target, nll in zip(contexts, targets, together, strict=True):
                (encoded,) = pcc.encode([context])
                memory = pcc.positions(encoded.tokens, [len(slots) for slots in encoded.slots])
                assert memory is not None
                vectors = objectives.memory_plans(pcc, decoder, [encoded], task)[0].vectors(decoder)
                start = len(decoder.bos)
                ids = [*range(start), *(start + place for place in memory)]
                ids += range(ids[-1] + 1, ids[-1] + 1 + (task is Task.RECONSTRUCTION))
                score = by_hand(decoder, Plan((vectors,)), ids, target)[1]
                assert float(nll) == pytest.approx(-score, abs=1e-4)


def test_a_recipe_trains_and_records_it(models: Path, tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    write_text(tmp_path / "text.txt", "\n\n".join(sorted({row["context"] for row in rows})) * 3)
    state = {
        "name": "test",
        "decoder": str(models / "llama"),
        "encoder_layers": 1,
        "pooling": "mean",
        "converter_start": "identity",
        "slot_positions": "centre",
        "data": {"path": str(tmp_path / "text.txt"), "held_out_rows": 2},
        "phases": [{"segment_length": 16, "rate": 4}],
        "optimisation": {"learning_rate": 1e-3, "batch_size": 2, "micro_batch_size": 2, "steps": 1},
        "checks": {"generated_rows": 1},
    }
    loop.train(Recipe.checked(state, "recipe"), tmp_path / "run")
    assert PccConfig.read(tmp_path / "run").slot_positions == "centre"
    assert "| slot positions | centre |" in (tmp_path / "run" / "README.md").read_text()
    for change in ({"boundaries": "none"}, {"start": "somewhere", "encoder_layers": None, "pooling": "memory_tokens"}):
        with pytest.raises(UsageError, match=r"slot_positions centre needs a fresh checkpoint .* and boundaries"):
            Recipe.checked({**state, "converter_start": "random", **change}, "recipe")


def test_it_needs_boundary_vectors(models: Path) -> None:
    with pytest.raises(UsageError, match="slot_positions centre needs boundary vectors"):
        load(models / "pcc", boundaries="none", **CENTRE)


def test_files_and_the_api_answer_alike(decoder: Decoder, tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    pooled(decoder, tmp_path / "pcc")
    texts = sorted({row["context"] for row in rows})[:2]
    compressor = ContextCompressor.from_pretrained(str(tmp_path / "pcc"), device="cpu", dtype="float32")
    for text in texts:
        memory = compressor.compress(text)
        memory.save(tmp_path / "memory.safetensors")
        said = memory.answer("Who?")
        plan = memory.plan("Who?")
        (ids,) = positions([plan], None) or [[]]
        chosen, _ = by_hand(compressor.compressor.decoder, plan, ids, [0])
        assert compressor.tokenizer.decode(chosen, skip_special_tokens=True).startswith(said[:10])
        assert compressor.load_memory(tmp_path / "memory.safetensors").answer("Who?") == said
        assert open_memory(tmp_path / "memory.safetensors", device="cpu", dtype="float32").answer("Who?") == said
        with pytest.raises(UsageError, match="numbers positions in its own way"):
            memory.inputs_embeds("Who?")


@pytest.mark.parametrize("precision", ["exact", "float32"])
def test_a_store_keeps_positions(decoder: Decoder, tmp_path: Path, rows: list[dict[str, Any]], precision: str) -> None:
    pooled(decoder, tmp_path / "pcc")
    plain = answers(load(tmp_path / "pcc"), prompts(rows))
    kept = {"memory_store": str(tmp_path / "store"), "memory_store_dtype": precision}
    for hits in (0, 3):
        model = load(tmp_path / "pcc", **kept)
        texts, scores = answers(model, prompts(rows))
        assert texts == plain[0] and scores == pytest.approx(plain[1], abs=1e-4)
        assert model.describe()["memory_store"]["hits"] == hits


def test_positions_that_do_not_fit_their_vectors_are_refused() -> None:
    counts: dict[str, Any] = {"source_tokens": 2, "compressor_tokens": 2, "source_bytes": 2, "slots": 2}
    for wrong in ((0,), (1, 1), (3, 2)):
        with pytest.raises(ValueError, match="positions of 2 vectors, or they do not ascend"):
            Memory(**counts, vectors=torch.zeros(2, 4), positions=wrong)


def test_the_window_is_that_of_positions(decoder: Decoder, tmp_path: Path) -> None:
    pooled(decoder, tmp_path)
    model = load(tmp_path, max_length=140)
    prompt = Prompt.parse(f"{mark(TEXT * 3)}Question: {literal('Who?')} Answer: ")
    (memory,) = model.compressor.compress(prompt.contexts)
    assert memory.length + NEW + 40 < 140 < memory.span
    with pytest.raises(UsageError, match=r"takes \d+ positions, the decoder has room for"):
        answers(model, [prompt])
