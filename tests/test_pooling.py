"""Pooled slots: an encoder made of the decoder's layers, started so that at 1x nothing is lost."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError
from pcc_bench.core.questions import question_prompt
from pcc_bench.host import validate
from pcc_bench.model import PccCompressor, checkpoint, init
from pcc_bench.model.converter import Converter
from pcc_bench.model.pcc import CLOSE, OPEN, PCC
from pcc_bench.model.training import loop, objectives
from pcc_bench.model.training.corpus import Position, corpora_of, exchanges, read_corpora, read_documents
from pcc_bench.model.training.loop import PccForTraining
from pcc_bench.model.training.objectives import Task
from pcc_bench.model.training.recipe import Data, Recipe
from pcc_bench.model.training.samples import Collator, Sample, Samples

TEXT = "The quick brown fox jumps over the lazy dog while seven more dogs watch from behind an old fence."


@pytest.fixture
def decoder(models: Path) -> Decoder:
    return init.open_decoder(str(models / "llama"))


@pytest.fixture
def state(models: Path, tmp_path: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A recipe of six steps of two rates."""
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(sorted({row["context"] for row in rows})) * 3)
    return {
        "name": "test",
        "decoder": str(models / "llama"),
        "encoder_layers": 1,
        "lora_rank": 4,
        "lora_dropout": 0.0,
        "pooling": "mean",
        "converter_start": "identity",
        "boundaries": "once",
        "train": ["encoder", "converter", "special"],
        "data": {"path": str(path), "held_out_rows": 2},
        "objective": {"completion": 0},
        "phases": [{"until": 2, "segment_length": 16, "rate": 1}, {"segment_length": 16, "rate": 4, "rates": [2, 4]}],
        "optimisation": {"learning_rate": 1e-3, "warmup_steps": 2, "batch_size": 2, "micro_batch_size": 1, "steps": 6},
        "checks": {"evaluate_every": 3, "save_every": 2, "generated_rows": 1},
    }


def checked(state: dict[str, Any], **changes: Any) -> Recipe:
    merged = {key: {**state[key], **value} if isinstance(value, dict) else value for key, value in changes.items()}
    return Recipe.checked({**state, **merged}, "test recipe")


def for_training(state: dict[str, Any], folder: Path, **changes: Any) -> PccForTraining:
    recipe = checked(state, **changes)
    decoder = init.open_decoder(recipe.decoder)
    return PccForTraining(loop.starting_point(recipe, decoder, folder), decoder, recipe)


def fresh(decoder: Decoder, folder: Path, **options: Any) -> PCC:
    lora = init.layer_lora_config(4, 4, 0.0) if options.pop("lora", True) else None
    return init.from_decoder(decoder, options.pop("layers", 1), [1, 2, 4, 8], folder, lora=lora, **options)


def perturbed(pcc: PCC) -> PCC:
    """Every weight of the encoder's and the converter's own moved away from where it started."""
    for name, parameter in (*pcc.encoder.named_parameters(), *pcc.converter.named_parameters()):
        own = name == "gate" or "dense" in name
        if "embed" not in name and (own or "lora_" in name or pcc.config.encoder.kind == "full"):
            parameter.data = parameter.data + 0.05 * torch.randn_like(parameter)
    return pcc


def test_untrained_at_1x_the_decoder_reads_the_text_itself(decoder: Decoder, tmp_path: Path) -> None:
    compressor = PccCompressor(fresh(decoder, tmp_path), decoder)
    (memory,) = compressor.compress([TEXT])
    ids = decoder.tokenizer.encode(TEXT, add_special_tokens=False)
    frame = [compressor.pcc.special_vector(token)[None] for token in (OPEN, CLOSE)]
    torch.testing.assert_close(memory.vectors, torch.cat([frame[0], decoder.embed(ids), frame[1]]))


def test_at_1x_untrained_log_likelihoods_are_the_full_texts_with_the_same_frame(
    decoder: Decoder, tmp_path: Path
) -> None:
    pcc = fresh(decoder, tmp_path)
    ids, target = (decoder.tokenizer.encode(text, add_special_tokens=False) for text in (TEXT, " watch the fox"))
    (encoded,) = pcc.encode([ids])
    with torch.no_grad():
        text = replace(encoded, slots=[decoder.embed(ids)])
        plans = objectives.memory_plans(pcc, decoder, [encoded, text], Task.ANSWERING)
        ours, theirs = (objectives.token_nll(decoder, objectives.behind(decoder, [plan], [target])) for plan in plans)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5), rate=st.sampled_from([1, 2, 4, 8]))
def test_a_slot_is_the_mean_of_its_tokens_whatever_is_batched_with_them(
    models: Path, lengths: list[int], rate: int
) -> None:
    decoder = init.open_decoder(str(models / "llama"))
    pcc = perturbed(fresh(decoder, models, segment_length=16))
    pcc.encoder.config = pcc.config.with_options(rate=rate)
    contexts = [torch.randint(5, 200, (length,)).tolist() for length in lengths]
    with torch.no_grad():
        together = pcc.encode(contexts)
        for ids, encoded in zip(contexts, together, strict=True):
            pieces = [ids[start : start + 16] for start in range(0, len(ids), 16)]
            assert [len(slots) for slots in encoded.slots] == [-(-len(piece) // rate) for piece in pieces]
            for piece, slots in zip(pieces, encoded.slots, strict=True):
                hidden = pcc.encoder.body(input_ids=torch.tensor([piece])).last_hidden_state[0]
                groups = [range(start, min(start + rate, len(piece))) for start in range(0, len(piece), rate)]
                means = torch.stack([hidden[list(group)].mean(0) for group in groups])
                own = torch.stack(
                    [decoder.embed([piece[i] for i in group]).sum(0) / len(group) ** 0.5 for group in groups]
                )
                torch.testing.assert_close(slots, pcc.converter(torch.cat([means, own], -1)), atol=1e-5, rtol=1e-5)


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4), rate=st.sampled_from([1, 2, 4, 8]))
def test_a_gate_weights_the_tokens_of_a_group_whatever_is_batched_with_them(
    models: Path, lengths: list[int], rate: int
) -> None:
    decoder = init.open_decoder(str(models / "llama"))
    pcc = perturbed(fresh(decoder, models, segment_length=64, gate=True))
    pcc.encoder.config = pcc.config.with_options(rate=rate)
    contexts = [torch.randint(5, 200, (length,)).tolist() for length in lengths]
    with torch.no_grad():
        for ids, encoded in zip(contexts, pcc.encode(contexts), strict=True):
            hidden = pcc.encoder.body(input_ids=torch.tensor([ids])).last_hidden_state[0]
            for number, slot in enumerate(encoded.slots[0]):
                group = range(number * rate, min((number + 1) * rate, len(ids)))
                scores = torch.stack([hidden[i] @ pcc.encoder.gate for i in group])
                weights = torch.exp(scores) / torch.exp(scores).sum()
                own = sum(w * decoder.embed([ids[i]])[0] for w, i in zip(weights, group, strict=True))
                raw = [sum(w * hidden[i] for w, i in zip(weights, group, strict=True)), own / weights.norm()]
                torch.testing.assert_close(slot, pcc.converter(torch.cat(raw)), atol=1e-5, rtol=1e-4)


def test_a_gate_is_the_plain_mean_until_it_has_learned(decoder: Decoder, tmp_path: Path) -> None:
    plain, gated = (PccCompressor(fresh(decoder, tmp_path, gate=gate), decoder) for gate in (False, True))
    for compressor in (plain, gated):
        compressor.pcc.encoder.config = compressor.pcc.config.with_options(rate=4)
    (mean,), (weighted,) = (compressor.compress([TEXT]) for compressor in (plain, gated))
    torch.testing.assert_close(mean.vectors, weighted.vectors)


def test_a_gate_can_be_learned_on_top_of_a_checkpoint_without_one(state: dict[str, Any], tmp_path: Path) -> None:
    loop.train(checked(state), tmp_path / "plain")
    start = {"encoder_layers": None, "start": str(tmp_path / "plain"), "lora_rank": 0, "pooling": "memory_tokens"}
    fresh_keys = {"converter_start": "random", "train": ["encoder", "gate", "converter"]}
    trained = loop.train(checked(state, **start, **fresh_keys), tmp_path / "gated")
    assert trained is not None and trained.encoder.gate is not None and trained.encoder.gate.abs().max() > 0
    decoder = init.open_decoder(state["decoder"])
    loaded = checkpoint.load(str(tmp_path / "gated"), decoder)
    torch.testing.assert_close(loaded.encoder.gate, trained.encoder.gate)
    assert checkpoint.weights_fingerprint(loaded) != checkpoint.weights_fingerprint(without_gate(loaded))


def without_gate(pcc: PCC) -> PCC:
    assert pcc.encoder.gate is not None
    pcc.encoder.gate.data.zero_()
    return pcc


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gate": True},
        {"lora": False},
        {"identity": False},
        {"layers": 0, "lora": False},
        {"pooling": "memory_tokens", "identity": False, "segment_length": 32},
    ],
    ids=["lora", "gate", "whole", "random start", "no layers", "memory tokens"],
)
def test_a_checkpoint_gives_the_same_memories_and_holds_nothing_of_the_decoder(
    decoder: Decoder, tmp_path: Path, options: dict[str, Any]
) -> None:
    if options.get("pooling"):
        lora = init.layer_lora_config(4, 4, 0.0)
        pcc = perturbed(init.from_decoder(decoder, 1, [4, 8], tmp_path, lora=lora, **options))
    else:
        pcc = perturbed(fresh(decoder, tmp_path, **options))
    checkpoint.save(pcc, tmp_path)
    before = PccCompressor(pcc, decoder).compress([TEXT, TEXT * 3])
    again = init.open_decoder(decoder.name)
    after = PccCompressor.load(str(tmp_path), again).compress([TEXT, TEXT * 3])
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one.vectors, other.vectors)
    assert not any("embed" in key for key in load_file(tmp_path / "model.safetensors"))
    assert "_name_or_path" not in json.loads((tmp_path / "config.json").read_text())["encoder"]["config"]
    assert not list(tmp_path.glob("tokenizer*"))
    report = validate.validate("pcc", f"pretrained={tmp_path},decoder={decoder.name}", "")
    assert [check.what for check in report.checks if not check.holds] == []


def test_a_checkpoint_serves_every_rate_it_declares_and_no_other(decoder: Decoder, tmp_path: Path) -> None:
    checkpoint.save(fresh(decoder, tmp_path), tmp_path)
    tokens = len(decoder.tokenizer.encode(TEXT, add_special_tokens=False))
    for rate in (1, 2, 4, 8):
        (memory,) = PccCompressor.load(str(tmp_path), decoder, rate=rate).compress([TEXT])
        assert memory.slots == -(-tokens // rate)
    with pytest.raises(UsageError, match="rate 16 was not trained"):
        PccCompressor.load(str(tmp_path), decoder, rate=16)


def test_a_memory_is_finished_from_its_raw_slots(decoder: Decoder, tmp_path: Path) -> None:
    compressor = PccCompressor(perturbed(fresh(decoder, tmp_path)), decoder)
    (raw,), (memory,) = compressor.compress_raw([TEXT]), compressor.compress([TEXT])
    torch.testing.assert_close(compressor.convert(raw).vectors, memory.vectors)


def test_a_checkpoint_is_called_by_what_its_encoder_does(decoder: Decoder, tmp_path: Path) -> None:
    checkpoint.save(fresh(decoder, tmp_path), tmp_path)
    labels = [PccCompressor.load(str(tmp_path), decoder, rate=rate).label for rate in (1, 4)]
    assert labels == ["tuned context", "PCC pooled"]


def test_a_checkpoint_is_refused_by_another_decoder(models: Path, decoder: Decoder, tmp_path: Path) -> None:
    checkpoint.save(fresh(decoder, tmp_path), tmp_path)
    with pytest.raises(UsageError, match="was made for the decoder"):
        checkpoint.load(str(tmp_path), init.open_decoder(str(models / "mistral")))


def test_what_learns_gets_gradients_and_the_decoder_none(state: dict[str, Any], tmp_path: Path) -> None:
    model = for_training(state, tmp_path)
    perturbed(model.pcc)
    before = {name: value.clone() for name, value in model.decoder.model.state_dict().items()}
    corpora, _ = corpora_of(model.recipe)
    samples = iter(Samples(model.recipe, corpora, model.pcc.encoder))
    model(**Collator(model.decoder, model.recipe)([next(samples)]))["loss"].backward()
    for name, parameter in model.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert reached == parameter.requires_grad, name
        assert parameter.requires_grad == ("lora_" in name or "converter" in name or name.endswith("special")), name
    assert all(parameter.grad is None for parameter in model.decoder.model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.decoder.model.state_dict().items())


def test_a_run_of_two_rates_measures_both_and_goes_on_where_it_was_stopped(
    state: dict[str, Any], tmp_path: Path
) -> None:
    whole = loop.train(checked(state), tmp_path / "whole")
    import transformers

    class Stop(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = state.global_step == 4

    with pytest.MonkeyPatch.context() as patch:
        trainer = loop.Trainer
        patch.setattr(loop, "Trainer", lambda callbacks, **rest: trainer(callbacks=[*callbacks, Stop()], **rest))
        loop.train(checked(state), tmp_path / "stopped")
    resumed = loop.train(checked(state), tmp_path / "stopped")
    assert whole is not None and resumed is not None
    assert checkpoint.weights_fingerprint(whole) == checkpoint.weights_fingerprint(resumed)
    lines = [json.loads(line) for line in (tmp_path / "whole" / "evaluation.jsonl").read_text().splitlines()]
    assert {"ae_loss_2x", "ae_loss_4x", "bleu_2x", "bleu_4x"} <= set(lines[-1])
    assert whole.config.declared_rates == (4, 2)


def test_rates_are_drawn_by_seed_and_step(state: dict[str, Any]) -> None:
    recipe = checked(state, phases=[{"segment_length": 16, "rate": 4, "rates": [2, 4, 4, 4]}])
    rates = [recipe.rate_at(step) for step in range(2_000)]
    assert rates == [recipe.rate_at(step) for step in range(2_000)]
    assert rates.count(4) / 2_000 == pytest.approx(0.75, abs=0.03)
    assert rates != [recipe.model_copy(update={"seed": 7}).rate_at(step) for step in range(2_000)]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_groups_of_weights_have_learning_rates_of_their_own(
    state: dict[str, Any], tmp_path: Path, optimizer: str
) -> None:
    rates = {"converter": 2e-4, "special": 5e-3}
    model = for_training(state, tmp_path, optimisation={"optimizer": optimizer, "learning_rates": rates})
    chosen = loop.chosen_optimizer(model, model.recipe)
    assert chosen is not None
    by_weight = {id(weight): group["lr"] for group in chosen.param_groups for weight in group["params"]}
    for name, parameter in model.named_parameters():
        expected = 5e-3 if name.endswith("special") else 2e-4 if "converter" in name else 1e-3
        assert by_weight.get(id(parameter)) == (expected if parameter.requires_grad else None), name


def test_the_divergence_from_a_decoder_that_reads_the_text_is_zero_where_nothing_is_compressed(
    state: dict[str, Any], tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tuning: dict[str, Any] = {
        "data": {"kind": "qa", "path": str(data), "held_out_rows": 2},
        "objective": {"distillation": 0.5},
        "boundaries": "none",
    }
    for rate, zero in ((1, True), (4, False)):
        model = for_training(state, tmp_path, **tuning, phases=[{"segment_length": 256, "rate": rate}]).eval()
        assert model.pcc.config.prompt == "official"  # the checkpoint says what it was tuned to answer
        corpora, _ = corpora_of(model.recipe)
        samples = iter(Samples(model.recipe, corpora, model.pcc.encoder))
        loss = model(**Collator(model.decoder, model.recipe)([next(samples), next(samples)]))["loss"].item()
        means = model.drain()
        assert (means["divergence_loss"] == pytest.approx(0, abs=1e-5)) == zero
        assert loss == pytest.approx(means["rag_loss"] + 0.5 * means["divergence_loss"], rel=1e-4)


def test_the_vocabulary_head_sees_only_positions_that_predict_a_label(decoder: Decoder, tmp_path: Path) -> None:
    pcc = fresh(decoder, tmp_path)
    contexts = [list(range(20, 20 + n)) for n in (9, 30)]
    targets = [[31, 32, 33, 34], [41, 42]]
    labels = [[-100, -100, 33, 34], [-100, 42]]
    plans = objectives.memory_plans(pcc, decoder, pcc.encode(contexts), Task.ANSWERING)
    inputs = objectives.behind(decoder, plans, targets, labels)
    seen: list[int] = []
    handle = decoder.model.get_output_embeddings().register_forward_hook(
        lambda m, args, out: seen.append(args[0].shape[0])
    )
    with torch.no_grad():
        nll = objectives.token_nll(decoder, inputs)
        handle.remove()
        logits = decoder.model(inputs_embeds=inputs.vectors, attention_mask=inputs.mask).logits
    assert seen == [3]
    reference = nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), inputs.labels[:, 1:], reduction="none")
    torch.testing.assert_close(nll[:, 1:], reference, atol=1e-5, rtol=1e-5)


def test_an_identity_converter_gives_its_residual() -> None:
    converter = Converter(6, 4, residual=True)
    slots = torch.randn(3, 10)
    torch.testing.assert_close(converter(slots), slots[:, 6:])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"encoder_layers": None}, "one of start"),
        ({"encoder_layers": 99}, "has 2 layers, not 99"),
        ({"pooling": "memory_tokens"}, "converter_start identity needs pooling mean"),
        (
            {"pooling": "memory_tokens", "converter_start": "random", "train": ["gate"]},
            "gate, which needs pooling mean",
        ),
        ({"special_from": ["a", "b"]}, "three tokens"),
        ({"special_from": ["a", "b", "not one token at all"]}, "choose one that is one"),
        ({"phases": [{"rate": 4, "rates": [2, 8]}]}, "not one of rates"),
        ({"phases": [{"segment_length": 16, "rate": 4, "rates": [3, 4]}]}, "rate 3 does not divide"),
        ({"optimisation": {"learning_rates": {"memory_tokens": 1e-3}}}, "memory_tokens, which does not learn"),
        ({"objective": {"distillation": 1.0}}, "distillation is for fine-tuning"),
    ],
)
def test_a_recipe_that_can_not_be_is_one_sentence(
    state: dict[str, Any], tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says) as raised:
        for_training(state, tmp_path, **change)
    assert "\n" not in str(raised.value)


def test_special_vectors_start_from_tokens_and_are_saved_as_they_were_trained(
    state: dict[str, Any], decoder: Decoder, tmp_path: Path
) -> None:
    tokens = [decoder.tokenizer.convert_ids_to_tokens(i) for i in (40, 41, 42)]
    texts = [decoder.tokenizer.convert_tokens_to_string([token]) for token in tokens]
    model = for_training(state, tmp_path, special_from=texts)
    start = model.pcc.special.detach().clone()
    assert start.shape == (3, decoder.hidden_size)
    trained = loop.train(checked(state, special_from=texts), tmp_path / "run")
    assert trained is not None and not torch.equal(trained.special, start)
    loaded = checkpoint.load(str(tmp_path / "run"), decoder)
    torch.testing.assert_close(loaded.special, trained.special.detach())
    assert "special" in model.recipe.train


def test_one_checkpoint_is_named_once_a_rate(decoder: Decoder, tmp_path: Path) -> None:
    checkpoint.save(perturbed(fresh(decoder, tmp_path / "many")), tmp_path / "many")
    described = json.loads((tmp_path / "many" / "config.json").read_text())
    (tmp_path / "at-8x").mkdir()
    (tmp_path / "at-8x" / "config.json").write_text(json.dumps({**described, "rate": 8, "weights": "../many"}))
    (named,) = PccCompressor.load(str(tmp_path / "at-8x"), decoder).compress([TEXT])
    (chosen,) = PccCompressor.load(str(tmp_path / "many"), decoder, rate=8).compress([TEXT])
    torch.testing.assert_close(named.vectors, chosen.vectors)
    (tmp_path / "at-8x" / "config.json").write_text(json.dumps({**described, "rate": 8, "weights": "../gone"}))
    with pytest.raises(UsageError, match="gone"):
        PccCompressor.load(str(tmp_path / "at-8x"), decoder)


def test_questions_on_passages_of_a_test_set_are_left_out(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    contexts = sorted({row["context"] for row in rows})
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    paragraphs = {"context": {"sentences": [["One. ", "Two."], contexts[0].replace(" ", "  ").split(". ")]}}
    shown = [{"text": contexts[1] + "\n"}, {"context": {"sentences": [[f"{contexts[2][:50]}", contexts[2][50:]]]}}]
    test.write_text("".join(json.dumps(row) + "\n" for row in (paragraphs, *shown)))
    data = Data(kind="qa", path=str(train), exclude=(str(test),))
    kept = {row["context"] for row in read_documents(data, data.path)}
    assert kept == set(contexts) - {contexts[1], contexts[2]}


def question_rows(path: Path, contexts: int = 5) -> Path:
    rows = [
        {"context": f"{TEXT} {number}", "question": f"{word}?", "answers": [word]}
        for word in ("fox", "dogs", "fence")
        for number in range(contexts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_questions_on_one_context_stand_together_whatever_the_order_of_the_rows(tmp_path: Path) -> None:
    data = Data(kind="qa", path=str(question_rows(tmp_path / "train.jsonl")), together=True, held_out_every=15)
    corpus, _ = read_corpora(data, 0)
    passes = list(islice((row.context for _, row in corpus.from_position(Position())), 28))
    first, second = passes[:14], passes[14:]
    assert sorted(first) == sorted(second)
    for contexts in (first, second):
        assert len([key for key, _ in groupby(contexts)]) == 5
    assert first != second


def alone(model: PccForTraining, sample: Sample) -> torch.Tensor:
    """Nats of a sample's answer behind a memory that no other question shares."""
    rows = model.collator().targets(Task.ANSWERING, [sample])
    encoded = model.encode([sample.context])
    inputs = objectives.behind(model.decoder, model.plans(encoded, Task.ANSWERING), rows["ids"], rows["labels"])
    return nn.functional.cross_entropy(*objectives.predictions(model.decoder, inputs), reduction="sum")


@pytest.mark.parametrize("slot_positions", ["consecutive", "centre"])
def test_a_context_of_several_questions_is_compressed_once_and_teaches_as_much(
    state: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slot_positions: str
) -> None:
    data = {"kind": "qa", "path": str(question_rows(tmp_path / "train.jsonl")), "held_out_every": 15}
    options = {"data": {**data, "together": True}, "slot_positions": slot_positions}
    options["phases"] = [{"segment_length": 16, "rate": 4}]  # at 1x both kinds of position are the same
    model = for_training(state, tmp_path / "model", **options)
    samples = list(islice(Samples(model.recipe, [read_corpora(model.recipe.data, 0)[0]], model.reader), 4))
    batch = model.collator()(samples)
    assert len({tuple(ids) for ids in batch["contexts"]}) < len(samples)
    compressed: list[int] = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda contexts: compressed.append(len(contexts)) or encode(contexts))
    together = model(**batch)["loss"]
    together.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    scored = batch["labels"].ne(objectives.IGNORED).sum()
    apart = [alone(model, sample) / scored for sample in samples]
    sum(apart).backward()
    assert compressed == [len({tuple(ids) for ids in batch["contexts"]}), 1, 1, 1, 1]
    torch.testing.assert_close(together, sum(apart))
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-5, rtol=1e-3)


def test_fine_tuning_asks_in_the_words_of_the_evaluation(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    row = {**rows[0], "question": "Who?", "answers": {"text": ["Ada"]}}
    (short,) = exchanges(Data(kind="qa", path="x", prompt="short"), [row], [0], [0], 1)
    assert (short.prompt, short.answer) == (question_prompt("short").asking("Who?"), " Ada")
    (official,) = exchanges(Data(kind="qa", path="x"), [row], [0], [0], 1)
    assert (official.prompt, official.answer) == (question_prompt().asking("Who?"), "Ada")


def test_half_of_the_bits_are_half_of_the_file(decoder: Decoder, tmp_path: Path) -> None:
    checkpoint.save(perturbed(fresh(decoder, tmp_path / "whole")), tmp_path / "whole")
    init.convert(str(tmp_path / "whole"), decoder.name, tmp_path / "half", "own", torch.float16)
    whole, half = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "half"))
    assert {value.dtype for key, value in half.items() if key != "special"} == {torch.float16}
    torch.testing.assert_close(half["special"], whole["special"])
    (one,), (other,) = (
        PccCompressor.load(str(tmp_path / name), decoder).compress([TEXT]) for name in ("whole", "half")
    )
    torch.testing.assert_close(one.vectors, other.vectors, atol=1e-2, rtol=1e-2)
