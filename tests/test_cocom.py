"""COCOM, COCOM-light and PISCO equal the original code, load published folders, and keep the contract."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import toy_cocom as toy
from command import lm_eval_run
from golden_files import GOLDEN
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from pcc_bench.baselines.cocom import CocomCompressor
from pcc_bench.baselines.pisco import PiscoCompressor
from pcc_bench.core.context import Prompt, literal, mark
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError
from pcc_bench.core.generation import cut_after, generate, score
from pcc_bench.core.plan import PromptEncoder
from pcc_bench.host import models as lm_models
from pcc_bench.model import init

ROOT = GOLDEN
COCOM = sorted(path.parent for path in ROOT.glob("cocom*/**/io.safetensors"))
PISCO = sorted(path.parent for path in ROOT.glob("pisco*/**/io.safetensors"))


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=3e-4, rtol=0)


# ---------------------------------------------------------------- golden vectors


@dataclass
class Golden:
    """Inputs and outputs of the original code, and our compressor with its weights."""

    config: dict[str, Any]
    io: dict[str, torch.Tensor]
    compressor: CocomCompressor

    @property
    def decoder(self) -> Decoder:
        return self.compressor.decoder

    def words(self, ids: list[int]) -> str:
        """Ids as text of the golden tokenizers, which have one word for each id."""
        return " ".join(self.compressor.encoder.tokenizer.convert_ids_to_tokens(ids))

    @property
    def contexts(self) -> list[str]:
        """The texts inside the encoder's inputs."""
        specials = {self.config[name] for name in ("bos", "eos", "enc_token_id") if name in self.config}
        if self.config.get("bert_config"):
            tokenizer = self.compressor.encoder.tokenizer
            specials = {tokenizer.cls_token_id, tokenizer.sep_token_id}
        rows = zip(self.io["enc_input_ids"].tolist(), self.io["enc_attention_mask"].tolist(), strict=True)
        memory = self.memory_ids
        return [
            self.words([i for i, seen in zip(row, mask, strict=True) if seen and i not in specials | memory])
            for row, mask in rows
        ]

    @property
    def memory_ids(self) -> set[int]:
        return set(self.config.get("mem_token_ids") or [self.config["mem_token_id"]])

    def prompts(self, ids: str = "dec_input_ids") -> list[Prompt]:
        """The questions behind their contexts."""
        opening, closing = self.config.get("inst_ids", [3, 4])
        k = self.config["generation_top_k"]
        prompts = []
        for row, ids_of_row in enumerate(self.io[ids].tolist()):
            question = ids_of_row[ids_of_row.index(opening) + 1 : ids_of_row.index(closing)]
            text = self.decoder.tokenizer.decode(question)
            marked = "".join(mark(context) for context in self.contexts[row * k : (row + 1) * k])
            prompts.append(Prompt.parse(marked + literal(text)))
        return prompts

    def inputs(self) -> list[torch.Tensor]:
        """The decoder's input of each question, made as a run makes it."""
        encoder = PromptEncoder(self.compressor)
        plans = [encoder.encode(p, self.compressor.compress(list(p.contexts))) for p in self.prompts()]
        return [plan.vectors(self.decoder) for plan in plans]

    def unpadded(self, name: str, mask: str) -> list[torch.Tensor]:
        return [row[seen.bool()] for row, seen in zip(self.io[name], self.io[mask], strict=True)]


def base_decoder(folder: Path, config: dict[str, Any]) -> Decoder:
    """A model of the base's sizes; COCOM's state brings all its weights."""
    described = AutoConfig.for_model(**{k: v for k, v in config["decoder_config"].items() if k != "torch_dtype"})
    model = AutoModelForCausalLM.from_config(described, dtype=torch.float32)
    return Decoder(model, AutoTokenizer.from_pretrained(folder / "tokenizers" / "decoder"), "base")


def open_cocom(folder: Path, tmp: Path) -> Golden:
    config = json.loads((folder / "config.json").read_text())
    io = load_file(folder / "io.safetensors")
    light = config["bert_config"] is not None
    fields = {"compr_model_name": None, "sep": config["sep"], "lora_r": config["lora"]["r"]}
    fields |= {"compr_rate": config["compr_rate"], "compr_linear_type": config["compr_linear_type"]}
    if light:
        AutoTokenizer.from_pretrained(folder / "tokenizers" / "bert").save_pretrained(tmp / "bert")
        (tmp / "bert" / "config.json").write_text(json.dumps(config["bert_config"]))
        fields["compr_model_name"] = "bert"  # beside the checkpoint
    toy.write(tmp, toy.configuration(tmp, **fields), load_file(folder / "weights.safetensors"))
    length = config["n_mem"] * config["compr_rate"]  # a whole batch's documents were filled up to the longest
    decoder = base_decoder(folder, config)
    compressor = CocomCompressor.load(str(tmp), decoder, slots="fixed", document_length=length)
    return Golden(config, io, compressor)


def open_pisco(folder: Path) -> Golden:
    config = json.loads((folder / "config.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    decoder = Decoder(model, AutoTokenizer.from_pretrained(folder / "base"), "base")
    words = {"opening": "", "lead": "[INST]", "closing": "\n[/INST]\n"}
    compressor = PiscoCompressor.load(str(folder / "checkpoint"), decoder, overlong="truncate", **words)
    return Golden(config, load_file(folder / "io.safetensors"), compressor)


@pytest.fixture(scope="module", params=[*COCOM, *PISCO], ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    folder = request.param
    return open_pisco(folder) if folder in PISCO else open_cocom(folder, tmp_path_factory.mktemp("golden"))


def test_golden_folders_are_there() -> None:
    kinds = {folder.relative_to(ROOT).parts[0].startswith("cocom_light") for folder in COCOM}
    assert kinds == {True, False}, f"not all COCOM under {ROOT}"
    assert PISCO, f"no PISCO under {ROOT}"


def test_golden_encoder_inputs_and_embeddings(golden: Golden) -> None:
    memories = golden.compressor.compress(golden.contexts)
    for memory, expected in zip(memories, golden.io["compressed_embs"], strict=True):
        assert memory.vectors is not None
        assert (memory.slots, memory.boundary) == (golden.config["n_mem"], int(golden.config["sep"]))
        close(memory.vectors[: memory.slots], expected)
    encoder, wanted = golden.compressor.encoder, golden.unpadded("enc_input_ids", "enc_attention_mask")
    for context, ids in zip(golden.contexts, wanted, strict=True):
        (read,), _ = encoder.tokenize_within_limit([context])
        (document,) = encoder.documents(read)
        special = golden.memory_ids | {golden.config.get("enc_token_id")}
        assert encoder.framed(document) == [i for i in ids.tolist() if i not in special]


def test_golden_layout_logits_and_greedy_ids(golden: Golden) -> None:
    prompts = golden.inputs()
    for prompt, expected in zip(prompts, golden.unpadded("inputs_embeds", "dec_attention_mask"), strict=True):
        close(prompt, expected)
    wanted = golden.io["generated_ids"].tolist()
    for vectors, logits in zip(prompts, golden.io["last_logits"], strict=True):
        close(golden.decoder.model(inputs_embeds=vectors[None]).logits[0, -1], logits)
    ends = {golden.config["eos"]}  # the original was told never to stop
    out = generate(golden.decoder, prompts, len(wanted[0]))
    assert out.ids == [cut_after(ids, ends) for ids in wanted]


def test_golden_losses(golden: Golden) -> None:
    labels = [row[row >= 0].tolist() for row in golden.io["train_labels"]]
    out = score(golden.decoder, golden.inputs(), labels)
    close(torch.tensor([-sum(out.logprobs) / sum(map(len, labels))]), golden.io["train_loss"].flatten())
    assert golden.prompts("train_dec_input_ids") == golden.prompts()


def test_golden_reconstruction_prompt(golden: Golden) -> None:
    if "ae_last_logits" not in golden.io:
        assert "pisco" in golden.config["kind"].lower()
        return
    (memory,) = golden.compressor.compress(golden.contexts[1:2])
    assert memory.vectors is not None
    before = golden.decoder.embed([golden.config["ae_token_id"], golden.config["bos"]])
    vectors = torch.cat([before, memory.vectors[: memory.slots]])
    close(golden.decoder.model(inputs_embeds=vectors[None]).logits[:, -1], golden.io["ae_last_logits"])


def test_golden_memories_read_their_context_and_not_their_batch(golden: Golden) -> None:
    """The published helper's memory tokens stand before the document and are all alike: its spread is 0."""
    together = golden.compressor.compress(golden.contexts)
    spread = max(float((a.vectors - b.vectors).abs().max()) for a in together for b in together)  # type: ignore[operator]
    assert spread > 0.1
    for context, memory in zip(golden.contexts, together, strict=True):
        close(golden.compressor.compress([context])[0].vectors, memory.vectors)  # type: ignore[arg-type]


# ---------------------------------------------------------------- published folders, at toy size

TEXTS = [
    "Rain.",
    "",
    "Zoë said “grüß Gott” 日本語 🌧️ <|eot_id|> <MEM>.",
    "One two three four five. " * 60,
    "Rain fell. " * 9,
]


@pytest.fixture(scope="module")
def hub(models: Path, rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, base = tmp_path_factory.mktemp("hub"), models / "mistral"
    toy.write_cocom(root / "cocom", base)
    toy.write_cocom(root / "cocom-128", base, compr_rate=128)
    toy.write_pisco(root / "pisco", base)
    bert = toy.write_bert(root / "bert", [row["context"] for row in rows])
    toy.write_light(root / "light", base, bert)
    return root


def load(folder: Path, **options: Any) -> Any:
    """As `lm_eval --model cocom` (or pisco) does."""
    kind = lm_models.pisco if "pisco" in folder.name else lm_models.cocom  # type: ignore[attr-defined]
    return kind(pretrained=str(folder), device="cpu", dtype="float32", **options)


def vectors(model: Any, texts: list[str] = TEXTS) -> torch.Tensor:
    return torch.cat([memory.vectors for memory in model.compressor.compress(texts)])


@pytest.mark.parametrize("name", ["cocom", "cocom-128", "light", "pisco"])
def test_published_folders_load_and_name_their_base(hub: Path, name: str) -> None:
    model = load(hub / name)
    assert model.frozen.name.endswith("mistral")
    assert model.compressor.rate == {"cocom-128": 128, "pisco": 16}.get(name, 4)
    wanted = {"cocom-128": 6, "pisco": 48}.get(name)
    tokens = len(model.compressor.encoder.tokenize(TEXTS[3:4])[0])
    (memory,) = model.compressor.compress(TEXTS[3:4])
    documents = -(-tokens // model.compressor.encoder.room)
    assert memory.boundary == documents
    assert wanted is None or memory.slots == documents * wanted // 6


def test_shards_a_single_file_and_a_bin_hold_the_same(hub: Path, models: Path, tmp_path: Path) -> None:
    expected = load(hub / "cocom")
    state = toy.cocom_state(models / "mistral")
    config = toy.configuration(models / "mistral")
    found = [load(toy.write(tmp_path / "one", config, state, shards=1))]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "config.json").write_text(json.dumps(config))
    torch.save(state, tmp_path / "bin" / "pytorch_model.bin")
    for model in [*found, load(tmp_path / "bin")]:
        assert torch.equal(vectors(model), vectors(expected))
        assert model.compressor.fingerprint() == expected.compressor.fingerprint()


def test_adapters_with_the_vocabulary_in_them_hold_the_same(hub: Path, models: Path, tmp_path: Path) -> None:
    expected = load(hub / "pisco")
    found = load(toy.write_pisco(tmp_path / "pisco", models / "mistral", with_ends=True))
    assert torch.equal(vectors(found), vectors(expected))
    assert found.compressor.fingerprint() == expected.compressor.fingerprint()


def test_the_decoder_answers_with_the_adapter_and_piscos_compresses_with_another(hub: Path, models: Path) -> None:
    ids = torch.arange(5, 60)[None]
    plain = init.open_decoder(str(models / "mistral"))
    for name in ("cocom", "pisco"):
        model = load(hub / name)
        assert not torch.allclose(model.frozen.model(ids).logits[..., :1024], plain.model(ids).logits)
        assert model.frozen.fingerprint != plain.fingerprint
        body = model.compressor.encoder.body
        alike = torch.allclose(body(ids).last_hidden_state, model.frozen.model.base_model(ids).last_hidden_state)
        assert alike == (name == "cocom")
        assert not any(parameter.requires_grad for parameter in model.frozen.model.parameters())
    own = {id(parameter) for parameter in model.frozen.model.parameters()}
    extra = [name for name, parameter in body.named_parameters() if id(parameter) not in own]
    assert extra and all(".lora_" in name for name in extra)  # base weights are held once


# ---------------------------------------------------------------- the contract


@pytest.mark.parametrize("name", ["cocom", "light", "pisco"])
def test_what_was_read_and_what_was_left_out_add_up(hub: Path, name: str) -> None:
    model = load(hub / name, overlong="truncate")
    for text, memory in zip(TEXTS, model.compressor.compress(TEXTS), strict=True):
        assert memory.source_bytes + memory.truncated_bytes == len(text.encode())
        assert memory.boundary == bool(text)
        assert memory.compressor_tokens <= 128 + 1
        assert bool(memory.truncated_bytes) == (text == TEXTS[3])
    whole = load(hub / name)
    for text, memory in zip(TEXTS, whole.compressor.compress(TEXTS), strict=True):
        assert (memory.source_bytes, memory.truncated_bytes) == (len(text.encode()), 0)


def test_slots_follow_the_documents_length_or_are_fixed(hub: Path) -> None:
    few = load(hub / "cocom").compressor.compress(TEXTS)
    many = load(hub / "cocom", slots="fixed").compressor.compress(TEXTS)
    for text, memory, full in zip(TEXTS, few, many, strict=True):
        lengths = [min(128, memory.compressor_tokens - start) for start in range(0, memory.compressor_tokens, 128)]
        assert memory.slots == sum(-(-length // 4) for length in lengths), text
        assert full.slots == 32 * len(lengths)


def test_light_vectors_do_not_depend_on_how_long_the_others_of_a_batch_are(hub: Path) -> None:
    for model in (load(hub / "light"), load(hub / "light", slots="fixed")):
        for text, memory in zip(TEXTS, model.compressor.compress(TEXTS), strict=True):
            close(model.compressor.compress([text])[0].vectors, memory.vectors)


def test_light_can_average_its_groups(hub: Path, models: Path, tmp_path: Path) -> None:
    folder = toy.write_light(tmp_path / "mean", models / "mistral", hub / "bert", grouping="mean")
    model = load(folder)
    encoder = model.compressor.encoder
    (document,) = encoder.tokenize(["Rain fell on the roof."])
    framed = encoder.framed(document)
    ids = torch.tensor([framed + [0] * (-len(framed) % 4)])
    hidden = encoder.module["model"](input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
    groups = encoder.module["linear"](hidden)[0].split(4)
    close(encoder.vectors([document])[0], torch.stack([group.mean(0) for group in groups]))


def test_cocoms_prompt_stands_between_memories_and_answer(hub: Path) -> None:
    model = load(hub / "cocom")
    encode = model.tokenizer.encode
    memories = model.compressor.compress(["Rain.", "Snow fell."])
    prompt = Prompt.parse(mark("Rain.") + mark("Snow fell.") + "Why?")
    lead = encode("[INST]Why?", add_special_tokens=False)
    closing = encode("\n[/INST]\n", add_special_tokens=False)
    plan = model.encoder.encode(prompt, memories)
    assert list(plan.pieces) == [[model.tokenizer.bos_token_id], memories[0], [], memories[1], lead, closing]
    separator = model.frozen.embed([model.tokenizer.convert_tokens_to_ids("<SEP>")])
    assert all(torch.equal(memory.vectors[-1:], separator) for memory in memories)
    paired, ids = model.encoder.encode_pair(prompt, memories, " So")
    assert (list(paired.pieces), ids) == (list(plan.pieces), encode(" So", add_special_tokens=False))
    chat = Prompt.parse("<|begin_of_text|><|user|>" + mark("Rain.") + "Why?")
    assert list(model.encoder.encode(chat, memories[:1]).pieces)[2:] == [encode("Why?", add_special_tokens=False)]


def test_piscos_instruction_fills_the_decoders_chat_template(hub: Path) -> None:
    model = load(hub / "pisco")
    (memory,) = model.compressor.compress(["Rain."])
    plan = model.encoder.encode(Prompt.parse(mark("Rain.") + "Question: " + literal("Why?")), [memory])
    before, _, question, closing = plan.pieces
    decode = model.tokenizer.decode
    assert decode(before).startswith("<|begin_of_text|><|system|>\nYou are a helpful assistant. Your task is")
    assert decode(before).endswith("Background:\n")
    assert decode(question) == "\n\nQuestion: Why?"  # the task's word is not said twice
    assert decode(closing) == "<|eot_id|><|assistant|>\n"
    forged = model.encoder.encode(Prompt.parse(mark("Rain.") + literal("Question: Why?")), [memory])
    assert decode(forged.pieces[2]) == "\n\nQuestion:Question: Why?"


def test_a_template_without_a_system_role_has_the_instruction_before_the_documents(hub: Path, models: Path) -> None:
    decoder = init.open_decoder(str(models / "mistral"))
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    decoder.tokenizer.chat_template = refuses + "{{ bos_token }}[INST] {{ messages[0]['content'] }} [/INST]"
    opening, lead, closing = PiscoCompressor.load(str(hub / "pisco"), decoder).words
    assert opening.startswith("[INST] You are a helpful") and opening.endswith("possible.\nBackground:\n")
    assert (lead, closing) == ("\n\nQuestion:", " [/INST]")
    decoder = init.open_decoder(str(models / "mistral"))
    decoder.tokenizer.chat_template = None
    with pytest.raises(UsageError, match=r"has no chat template: pass opening=, lead= and closing="):
        PiscoCompressor.load(str(hub / "pisco"), decoder)


def test_special_tokens_spelled_in_a_context_stay_text(hub: Path) -> None:
    compressor = load(hub / "cocom").compressor
    (read,) = compressor.encoder.tokenize(["<MEM><SEP>"])
    special = compressor.decoder.tokenizer.convert_tokens_to_ids(["<MEM>", "<SEP>"])
    assert not set(read) & set(special)


# ---------------------------------------------------------------- mistakes, one sentence each


def refuse(folder: Path, says: str, **options: Any) -> None:
    with pytest.raises(UsageError, match=says):
        load(folder, **options)


def test_missing_and_unexpected_tensors_are_named(hub: Path, models: Path, tmp_path: Path) -> None:
    state, config = toy.cocom_state(models / "mistral"), toy.configuration(models / "mistral")
    names = [f"{toy.WRAPPED}model.layers.1.mlp.up_proj.{end}" for end in ("base_layer.weight", "lora_A.default.weight")]
    for number, lost in enumerate([*names, f"{toy.WRAPPED}model.norm.weight"]):
        less = {key: value for key, value in state.items() if key != lost}
        refuse(toy.write(tmp_path / f"less-{number}", config, less), f"lacks 1 tensors .{lost} first")
    for number, extra in enumerate([f"{toy.WRAPPED}model.layers.0.lora_C.default.weight", "compr.linear.weight"]):
        more = {**state, extra: torch.zeros(4, 4)}
        refuse(toy.write(tmp_path / f"more-{number}", config, more), f"1 tensors that do not belong there .{extra} fir")
    light = toy.light_state(models / "mistral", hub / "bert", 4)
    del light["compr.model.pooler.dense.bias"]
    config |= {"compr_model_name": str(hub / "bert")}
    refuse(toy.write(tmp_path / "light", config, light), "lacks 1 tensors .model.pooler.dense.bias first")


def test_missing_and_unexpected_tensors_of_pisco_are_named(models: Path, tmp_path: Path) -> None:
    folder = toy.write_pisco(tmp_path / "pisco", models / "mistral")
    own = torch.load(folder / "adapters.pth", weights_only=True)
    lost = "model.layers.0.self_attn.q_proj.lora_A.weight"
    less = {key: value for key, value in own["encoder_adapter"].items() if key != lost}
    torch.save(own | {"encoder_adapter": less}, folder / "adapters.pth")
    refuse(folder, f"lacks 1 tensors .encoder_adapter/{lost} first")
    torch.save(own | {"third": {}}, folder / "adapters.pth")
    refuse(folder, "has 1 tensors that do not belong there .third first")
    torch.save({"decoder_adapter": own["decoder_adapter"]}, folder / "adapters.pth")
    refuse(folder, "lacks 1 tensors .encoder_adapter first")
    torch.save({**own, "encoder_adapter": "lora"}, folder / "adapters.pth")
    refuse(folder, "encoder_adapter in .* holds no tensors")
    (folder / "adapters.pth").unlink()
    refuse(folder, r"adapters.pth is missing")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", ["encoder_adapter", "decoder_adapter", "ends"])
def test_tensors_of_pisco_that_are_not_finite_are_named(models: Path, tmp_path: Path, place: str, value: float) -> None:
    folder = toy.write_pisco(tmp_path / "pisco", models / "mistral")
    path = folder / ("decoder_first_last_layers.pth" if place == "ends" else "adapters.pth")
    state = torch.load(path, weights_only=True)
    tensors = state if place == "ends" else state[place]
    name = next(iter(tensors))
    tensors[name].view(-1)[-1] = value
    torch.save(state, path)
    refuse(folder, f"{path.name}.*: {name} has values that are not finite numbers")
    tensors[name] = torch.zeros(tensors[name].shape, dtype=torch.int64)
    torch.save(state, path)
    refuse(folder, f"{path.name}.*: {name} holds int64, not float32")


def test_another_base_model_is_refused(hub: Path, models: Path, tmp_path: Path) -> None:
    from pcc_bench.core import tiny

    tokenizer = AutoTokenizer.from_pretrained(models / "mistral")
    narrow = tiny.make_model("mistral", tokenizer, tmp_path / "narrow", width=48)
    small = tiny.make_model("mistral", tiny.make_tokenizer(["Rain."], 300), tmp_path / "small")
    other = tiny.make_model("mistral", tokenizer, tmp_path / "other", seed=7)
    for name in ("cocom", "pisco"):
        refuse(hub / name, "another base model than .*narrow.* would have 10\\d\\d and 48", decoder=str(narrow))
        refuse(hub / name, "another base model than .*small", decoder=str(small))
    refuse(hub / "pisco", "another base model than .*other.* .other values in model.embed", decoder=str(other))
    model = load(hub / "cocom", decoder=str(other))  # its state has the base model in it
    assert torch.equal(vectors(model), vectors(load(hub / "cocom")))
    deep = tiny.make_model("mistral", tokenizer, tmp_path / "deep", layers=3)
    refuse(hub / "cocom", "lacks 23 tensors .*layers.2", decoder=str(deep))
    tall = tiny.make_model("mistral", tokenizer, tmp_path / "tall", heads=2)
    assert load(hub / "cocom", decoder=str(tall))  # other heads, same shapes
    grouped = tiny.make_model("mistral", tokenizer, tmp_path / "grouped", num_key_value_heads=1)
    refuse(hub / "cocom", "k_proj.* is .64, 64., the decoder's is|k_proj.* is .32, 64., the", decoder=str(grouped))


def test_another_rank_and_another_rate_are_refused(hub: Path, models: Path, tmp_path: Path) -> None:
    state = toy.cocom_state(models / "mistral")
    refuse(toy.write(tmp_path / "a", toy.configuration(models / "mistral", lora_r=16), state), "rank 8, .* lora_r=16")
    refuse(toy.write_pisco(tmp_path / "pisco", models / "mistral", rank=4), "has rank 4, config.json says lora_r=8")
    refuse(hub / "cocom", "was trained for rate=4, not for rate=16", rate=16)
    refuse(hub / "pisco", "was trained for rate=16, not for rate=4", rate=4)
    assert load(hub / "cocom-128", rate=128).compressor.rate == 128
    light = toy.light_state(models / "mistral", hub / "bert", 4)
    config = toy.configuration(models / "mistral", compr_model_name=str(hub / "bert"), compr_rate=16)
    refuse(toy.write(tmp_path / "light", config, light), r"linear.weight has shape \[64, 128\], expected \[64, 512\]")


def test_a_missing_bert_is_named(hub: Path, models: Path, tmp_path: Path) -> None:
    state = toy.light_state(models / "mistral", hub / "bert", 4)
    config = toy.configuration(models / "mistral", compr_model_name="bert-base-uncased")
    folder = toy.write(tmp_path / "light", config, state)
    refuse(folder, "BERT encoder 'bert-base-uncased' .* pass encoder=<folder of that BERT>")
    refuse(folder, "BERT encoder 'elsewhere' is neither", encoder="elsewhere")
    refuse(folder, "has no .CLS., .SEP. or .PAD.: it is no BERT's", encoder=str(models / "llama"))
    found = load(folder, encoder=str(hub / "bert"))
    assert torch.equal(vectors(found), vectors(load(hub / "light")))


def test_options_and_folders_without_sense_are_refused(hub: Path, models: Path, tmp_path: Path) -> None:
    refuse(hub / "cocom", "slots: Input should be 'proportional' or 'fixed'", slots="many")
    refuse(hub / "cocom", "overlong", overlong="drop")
    refuse(hub / "pisco", "overlong", overlong="drop")
    refuse(hub / "cocom", "document_length: Input should be greater than 0", document_length=0)
    refuse(hub / "light", "document_length=2 leaves no room", document_length=2)
    refuse(hub / "light", "takes 600 positions, the model has 512", document_length=600)
    refuse(hub / "cocom", "pass a smaller document_length", document_length=10**12)  # refused before a list is as long
    refuse(hub / "cocom", "the model has 4096: pass a smaller document_length", document_length=4000)
    refuse(
        models / "mistral", "is no COCOM or PISCO configuration: decoder_model_name", decoder=str(models / "mistral")
    )
    with pytest.raises(UsageError, match="has two adapters: it is a PISCO checkpoint, pass --model pisco"):
        CocomCompressor.load(str(hub / "pisco"), init.open_decoder(str(models / "mistral")))
    with pytest.raises(UsageError, match="it is a COCOM checkpoint, pass --model cocom"):
        PiscoCompressor.load(str(hub / "cocom"), init.open_decoder(str(models / "mistral")))
    own = toy.write_pisco(tmp_path / "pisco-own", models / "mistral", compr_model_name="a")
    refuse(own, "has a compressor of its own")


class Bomb:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def test_adapters_with_code_in_them_are_refused_and_not_run(models: Path, tmp_path: Path) -> None:
    folder = toy.write_pisco(tmp_path / "pisco", models / "mistral")
    torch.save({"decoder_adapter": Bomb(tmp_path / "ran")}, folder / "adapters.pth")
    refuse(folder, "holds more than tensors and was not opened")
    (tmp_path / "cocom").mkdir()
    (tmp_path / "cocom" / "config.json").write_text(json.dumps(toy.configuration(models / "mistral")))
    torch.save({"decoder.lm_head.weight": Bomb(tmp_path / "ran")}, tmp_path / "cocom" / "pytorch_model.bin")
    refuse(tmp_path / "cocom", "holds more than tensors and was not opened")
    assert not (tmp_path / "ran").exists()


# ---------------------------------------------------------------- command line


@pytest.mark.parametrize("name", ["cocom", "light", "pisco"])
def test_lm_eval_runs_on_the_sample_rows(hub: Path, models: Path, tmp_path: Path, name: str) -> None:
    method = "pisco" if name == "pisco" else "cocom"
    arguments = f"pretrained={hub / name},decoder={models / 'mistral'},dtype=float32"
    fixed = ("--model", method, "--model_args", arguments, "--tasks", "pcc_squad", "--batch_size", 4)
    results = lm_eval_run(tmp_path / "out", *fixed, "--gen_kwargs", "max_gen_toks=4")
    ours, rows = results["config"]["pcc_bench"], results["samples"]
    assert (ours["method"], ours["requested_rate"]) == (method, 16 if name == "pisco" else 4)
    assert ours["compressions"] == len({row["doc"]["context"] for row in rows})
    records = [row["compression"] for row in rows]
    assert all(record["slots"] > record["boundary"] > 0 for record in records)
    achieved = sum(r["source_tokens"] for r in records) / sum(r["slots"] + r["boundary"] for r in records)
    assert results["results"]["pcc_squad"]["compression,none"] == pytest.approx(achieved)
