"""The lab: how its models begin, what they learn from, and what ships."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from pcc_bench import lab
from pcc_bench.core import shipped, tiny
from pcc_bench.lab import DecoderRecipe, build, check, stages
from pcc_bench.lab.check import findings
from pcc_bench.lab.compressors import at_rate, start_lite
from pcc_bench.lab.decoders import Lessons, start
from pcc_bench.lab.heads import draw_induction_heads
from pcc_bench.lab.lessons import ANSWER, RANDOM, draw_lesson
from pcc_bench.model import checkpoint, init
from pcc_bench.model.pcc import SPECIAL_TOKENS

TINY = DecoderRecipe(family="llama", layers=2, vocabulary=600, steps=2, tokens=256)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    texts = (piece.text for index in range(300) for run in draw_lesson(0, index, 0.5) for piece in run)
    return tiny.make_tokenizer(texts, 600, prefix_space=True, special=SPECIAL_TOKENS)


@pytest.fixture(scope="module")
def decoder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained decoder with the copying circuit."""
    return tiny.make_model("llama", tokenizer, tmp_path_factory.mktemp("lab") / "decoder", width=128, std=0.02)


# How models begin


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "phi3"])
def test_a_drawn_decoder_copies_a_random_string_and_an_undrawn_one_does_not(
    family: str, tokenizer: Any, tmp_path: Path
) -> None:
    options = {"num_key_value_heads": 4, "tie_word_embeddings": True, "rope_theta": 100_000.0}
    tiny.make_model(family, tokenizer, tmp_path, width=256, std=0.02, **options)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    said = torch.randint(300, 590, (16, 20), generator=torch.Generator().manual_seed(0))

    def copied() -> float:
        with torch.no_grad():
            logits = model(input_ids=torch.cat([said, said], dim=1)).logits[:, 20:-1]
        return float((logits.argmax(-1) == said[:, 1:]).float().mean())

    assert copied() < 0.05
    draw_induction_heads(model)
    assert copied() > 0.3


def test_a_fresh_lite_gives_the_decoder_each_token_as_its_own_embedding(decoder: Path, tmp_path: Path) -> None:
    frozen = init.open_decoder(str(decoder))
    pcc = checkpoint.load(str(start_lite(frozen, tmp_path / "start", lab.CompressorRecipe(rate=4), 16)), frozen)
    ids = torch.randint(300, 590, (16,), generator=torch.Generator().manual_seed(0)).tolist()
    with torch.no_grad():
        slots = pcc.encode([ids])[0].slots[0]
    nearest = torch.nn.functional.cosine_similarity(slots[:, None], frozen.embedding.weight[None], dim=-1).argmax(-1)
    assert (nearest == torch.tensor(ids)).float().mean() > 0.9


@pytest.mark.parametrize("rate", [2, 4, 16])
def test_memory_tokens_look_at_the_places_of_their_rate(rate: int, decoder: Path, tmp_path: Path) -> None:
    frozen = init.open_decoder(str(decoder))
    begun = start_lite(frozen, tmp_path / "start", lab.CompressorRecipe(rate=rate))
    pcc = checkpoint.load(str(at_rate(begun, tmp_path / "next", frozen, rate, rate)), frozen)
    body = pcc.encoder.body
    body.set_attn_implementation("eager")
    inputs = torch.tensor([[*range(300, 364), *pcc.encoder.memory_ids[: 64 // rate]]])
    with torch.no_grad():
        attentions = body(input_ids=inputs, output_attentions=True).attentions
    heads = body.config.n_head
    for place in range(max(rate, heads)):
        seen = attentions[place // heads][0, place % heads, 64:].argmax(-1)
        assert seen.tolist() == [rate * slot + place * rate // max(rate, heads) for slot in range(64 // rate)]


def test_stages_double_the_rate_up_to_the_last() -> None:
    assert [rate for rate, _ in stages.stages(lab.CompressorRecipe(rate=16))] == [1, 2, 4, 8, 16]
    recipe = lab.CompressorRecipe(rate=4, pretraining=500)
    assert stages.stages(recipe) == [(1, 40), (2, 100), (4, 360)]
    assert stages.stages(lab.CompressorRecipe(rate=4, pretraining=0)) == []


def test_a_large_compressor_begins_at_4x_with_short_segments() -> None:
    recipe = lab.CompressorRecipe(rate=8, kind="large", pretraining=500)
    assert stages.stages(recipe) == [(4, 480), (8, 20)]
    first = stages.pretraining_recipe("large", recipe, 4, 480, "start", "decoder", "data")
    assert [(phase.segment_length, phase.until) for phase in first.phases] == [
        (4, 60),
        (8, 140),
        (16, 240),
        (32, 380),
        (64, None),
    ]


def test_only_the_converter_learns_before_the_rest() -> None:
    recipe = lab.AdaptationRecipe(start="pcc-lab-4x", decoder="lab-mistral")
    first = stages.converting_recipe("part", recipe, 4, "start", "decoder", "data")
    assert first.train == ("converter",)
    assert [phase.segment_length for phase in first.phases] == [4], "one slot"
    then = stages.adapting_recipe("part", recipe, 4, "start", "decoder", "data")
    assert set(then.train) == {"converter", "encoder"}
    assert [phase.segment_length for phase in then.phases] == [4, 8, 16, 32, 64, 64]
    assert [then.completion_at(index) for index in range(6)] == [0, 0, 0, 0, 0, 0.3]


def test_what_an_adaptation_starts_from_keeps_its_pretrained_checkpoint() -> None:
    for recipe in lab.PARTS.values():
        if isinstance(recipe, lab.AdaptationRecipe):
            origin = lab.part(recipe.start)
            assert isinstance(origin, lab.CompressorRecipe) and origin.keep_pretrained


# What decoders learn from


def test_a_lesson_depends_on_its_number_alone_and_grows() -> None:
    assert draw_lesson(0, 7, 0.3) == draw_lesson(0, 7, 0.3)
    assert draw_lesson(0, 7, 0.3) != draw_lesson(1, 7, 0.3)

    def characters(ease: float) -> int:
        return sum(len(piece.text) for index in range(200) for run in draw_lesson(0, index, ease) for piece in run)

    assert characters(0.0) > 1.5 * characters(1.0)


def test_a_run_that_goes_on_sees_the_batches_it_has_not_seen(tmp_path: Path) -> None:
    recipe = TINY.model_copy(update={"steps": 20})
    tokenizer, _ = start(recipe, tmp_path)
    whole, rest = list(Lessons(recipe, tokenizer)), list(Lessons(recipe, tokenizer, step=11))
    assert len(rest) == len(whole) - 11
    for one, other in zip(whole[11:], rest, strict=True):
        assert torch.equal(one["input_ids"], other["input_ids"])
        assert torch.equal(one["weights"], other["weights"])


def test_answers_and_the_end_after_them_are_scored_and_questions_are_not(tmp_path: Path) -> None:
    tokenizer, _ = start(TINY, tmp_path)
    lessons = Lessons(TINY, tokenizer)
    asked = (
        lesson
        for i in itertools.count()
        if "Question" in str(lesson := draw_lesson(0, i, 0.5)) and RANDOM not in str(lesson)
    )
    for lesson in itertools.islice(asked, 5):
        ((ids, weights),) = lessons._encode([lesson], 0)
        scored = tokenizer.decode([token for token, weight in zip(ids, weights, strict=True) if weight == ANSWER])
        answers = [piece.text for run in lesson for piece in run if piece.weight == ANSWER]
        assert "".join(scored.split()) == "".join("".join(answers).split())


# What ships


@pytest.mark.skipif(not shipped.names(), reason="no model of the lab ships with this version")
def test_what_ships_is_what_was_recorded_and_small() -> None:
    record = check.read_record(shipped.FOLDER)
    assert check._hashes(shipped.FOLDER, record.parts) == record.files
    assert record.data == check._world()
    assert sum(path.stat().st_size for path in shipped.FOLDER.rglob("*") if path.is_file()) <= build.LIMIT
    assert {path.parent.name for path in shipped.FOLDER.glob("*/config.json")} == set(record.parts)
    assert set(record.parts) <= set(shipped.SHIPPED)
    assert shipped.DEFAULT in record.parts


def test_no_shipped_model_names_the_folder_where_it_was_trained() -> None:
    files = list(shipped.FOLDER.rglob("*.json"))
    assert len(files) > len(shipped.SHIPPED)
    for path in files:
        assert '_name_or_path": "/' not in path.read_text(encoding="utf-8"), path


@pytest.mark.skipif(not shipped.names(), reason="no model of the lab ships with this version")
def test_the_page_shows_what_was_recorded() -> None:
    record = check.read_record(shipped.FOLDER)
    page = (Path(__file__).parent.parent / "docs" / "lab.md").read_text(encoding="utf-8")
    assert findings(record.measured).to_markdown(index=False) in page
