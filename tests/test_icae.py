"""ICAE equals the original code on its golden vectors, loads the published files, and keeps the contract."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from command import lm_eval_run
from golden_files import GOLDEN
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from pcc_bench.baselines.icae import IcaeCompressor, spans
from pcc_bench.core.context import Prompt, literal, mark
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError
from pcc_bench.core.generation import cut_after, generate, score
from pcc_bench.core.plan import PromptEncoder
from pcc_bench.host import models as lm_models
from pcc_bench.model import init

ROOT = GOLDEN
FOLDERS = sorted(path.parent for path in ROOT.glob("icae*/**/io.safetensors"))
PREFIX, TABLE = "icae.base_model.model.", "memory_token_embed.weight"


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=3e-4, rtol=0)


# ---------------------------------------------------------------- golden vectors


def words(ids: torch.Tensor | list[int]) -> str:
    """Ids as text of the golden tokenizer, which has one word for each id."""
    flat = ids.flatten().tolist() if isinstance(ids, torch.Tensor) else ids
    return " ".join(f"t{token:05}" for token in flat)


def word_tokenizer(size: int, bos: int, eos: int, adds_bos: bool = True) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({words([i]): i for i in range(size)}, unk_token=words([0])))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{words([bos])} $A", special_tokens=[(words([bos]), bos)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=words([bos]), eos_token=words([eos]))


@dataclass
class Golden:
    folder: Path
    config: dict[str, Any]
    io: dict[str, torch.Tensor]
    decoder: Decoder

    @property
    def version(self) -> int:
        return 1 if "v1" in self.folder.relative_to(ROOT).parts[0] else 2

    def load(self, use: str) -> IcaeCompressor:
        # Version 1 reads one span, however long; its rate stands nowhere.
        one_span = -(-self.io["context_ids"].numel() // self.config["mem_size"])
        options: dict[str, Any] = {"rate": self.config.get("mean_compression_rate", max(4, one_span)), "use": use}
        options["lora_alpha"] = self.config["lora"]["lora_alpha"]
        if self.version == 2:
            bos, *opening = self.config["left_template"]
            assert bos == self.config["bos_id"]
            options |= {"opening": words(opening), "closing": words(self.config["right_template"])}
        compressor = IcaeCompressor.load(str(self.folder / "weights.safetensors"), self.decoder, **options)
        assert compressor.version == self.version  # told from the names of the tensors
        return compressor

    def text(self, key: str) -> str:
        """A context without the BOS that the tokenizer adds again."""
        first, *rest = self.io[key].flatten().tolist()
        assert [first] == self.decoder.bos
        return words(rest)

    def prompt(self, use: str, after: str = "") -> tuple[IcaeCompressor, torch.Tensor]:
        """Compress and lay out the golden context as a run does: input vectors of the decoder."""
        compressor = self.load(use)
        context = self.text("context_ids")
        prompt = Prompt.parse(mark(context) + (literal(after) if after else ""))
        plan = PromptEncoder(compressor).encode(prompt, compressor.compress([context]))
        return compressor, plan.vectors(self.decoder)

    def check_decoding(self, use: str, compressor: IcaeCompressor, vectors: torch.Tensor) -> None:
        """Logits at every step, and the ids that greedy decoding gives, as far as the original goes."""
        expected, ids = self.io[f"{use}_step_logits"], self.io[f"{use}_generated_ids"].tolist()
        whole = torch.cat([vectors, self.decoder.embed(ids[: len(expected) - 1])])
        logits = self.decoder.model(inputs_embeds=whole[None]).logits[0, len(vectors) - 1 :]
        close(logits[: len(expected), : expected.shape[1]], expected)
        stops, never = compressor.layout.stop_token_ids, compressor.layout.suppressed_token_ids
        (new,) = generate(self.decoder, [vectors], len(expected), stops, never).ids
        ends = {self.config.get("eos_id", 2), self.decoder.tokenizer.eos_token_id, *stops}
        wanted = cut_after(ids, ends)
        assert [token for token in new if token not in ends] == [token for token in wanted if token not in ends]


def golden_decoder(folder: Path, config: dict[str, Any]) -> Decoder:
    """The base model inside a golden state, its added rows included."""
    state = {
        key.removeprefix(PREFIX).replace(".base_layer.", "."): value
        for key, value in load_file(folder / "weights.safetensors").items()
        if key.startswith(PREFIX) and "lora_" not in key and "inv_freq" not in key
    }
    base = {key: value for key, value in config["base_config"].items() if key != "torch_dtype"}
    described = AutoConfig.for_model(**base | {"vocab_size": len(state["lm_head.weight"])})
    model = AutoModelForCausalLM.from_config(described, dtype=torch.float32)
    assert not model.load_state_dict(state, strict=False).unexpected_keys
    tokenizer = word_tokenizer(config["vocab_size_base"], base["bos_token_id"], base["eos_token_id"])
    return Decoder(model, tokenizer, "golden")


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def golden(request: pytest.FixtureRequest) -> Golden:
    folder = request.param
    config = json.loads((folder / "config.json").read_text())
    return Golden(folder, config, load_file(folder / "io.safetensors"), golden_decoder(folder, config))


def test_golden_folders_are_there() -> None:
    assert {folder.relative_to(ROOT).parts[0].split("_")[1] for folder in FOLDERS} == {"v1", "v2"}, (
        f"not all ICAE under {ROOT}"
    )


def test_golden_slots_of_one_span_and_of_many(golden: Golden) -> None:
    compressor = golden.load("none")
    names = {key: key.replace("context", "memory_slots").removesuffix("_ids") for key in golden.io if "context" in key}
    memories = compressor.compress([golden.text(key) for key in names])
    for memory, (key, name) in zip(memories, names.items(), strict=True):
        assert memory.vectors is not None
        close(memory.vectors, golden.io[name].flatten(0, -2))
        assert memory.compressor_tokens == golden.io[key].numel()
        lengths = golden.config.get("spans", {}).get(key.removesuffix("_ids"))
        if lengths:
            assert [len(span) for span in spans(golden.io[key][0].tolist(), compressor.encoder.capacity)] == lengths


def test_golden_fine_tuned_decoding(golden: Golden) -> None:
    compressor, vectors = golden.prompt("ft", words(golden.io["prompt_ids"]))
    close(vectors[None], golden.io["ft_input_embeds"])
    if "ft_prefill_logits" in golden.io:
        expected = golden.io["ft_prefill_logits"]
        close(golden.decoder.model(inputs_embeds=vectors[None]).logits[:, -expected.shape[1] :], expected)
    golden.check_decoding("ft", compressor, vectors)


def test_golden_decoding_behind_the_other_task_tokens(golden: Golden) -> None:
    for use in ("ae", "lm"):
        if f"{use}_generated_ids" in golden.io:
            compressor, vectors = golden.prompt(use)
            if use == "ae" and "ae_prefill_last_logits" in golden.io:
                logits = golden.decoder.model(inputs_embeds=vectors[None]).logits[:, -1]
                close(logits, golden.io["ae_prefill_last_logits"])
            golden.check_decoding(use, compressor, vectors)


def mean_loss(golden: Golden, vectors: torch.Tensor, answer: list[int]) -> torch.Tensor:
    return torch.tensor(-score(golden.decoder, [vectors], [answer]).logprobs[0] / len(answer))


def test_golden_losses(golden: Golden) -> None:
    ids, labels = golden.io["train_prompt_answer_ids"][0].tolist(), golden.io["train_labels"][0].tolist()
    answer = [label for label in labels if label >= 0]
    assert labels[-len(answer) :] == answer  # nothing unlabelled inside
    ft, end = golden.config["ft_token_id"], len(ids) - len(answer) - len(golden.config.get("right_template", [0]))
    question = ids[ids.index(ft) + 1 : end]
    _, vectors = golden.prompt("ft", words(question))
    close(mean_loss(golden, vectors, answer), golden.io["train_loss"][0])
    if "pretrain_ae_loss" in golden.io:
        _, vectors = golden.prompt("ae")
        answer = [*golden.io["context_ids"][0].tolist(), golden.config["eos_id"]]
        close(mean_loss(golden, vectors, answer), golden.io["pretrain_ae_loss"][0])


def test_golden_memory_does_not_depend_on_its_batch(golden: Golden) -> None:
    compressor = golden.load("ft")
    texts = [golden.text(key) for key in golden.io if "context" in key] + [
        words([5]),
        words(list(range(3, golden.config["vocab_size_base"] // 3))),
    ]
    for together, text in zip(compressor.compress(texts), texts, strict=True):
        (alone,) = compressor.compress([text])
        assert together.vectors is not None and alone.vectors is not None
        close(together.vectors, alone.vectors)


# ---------------------------------------------------------------- published files, at toy size

MEMORY = 16
TEXTS = ["Rain.", "", "Zoë said “grüß Gott” 日本語 🌧️ <|eot_id|>.", "One two three four five. " * 60, "Rain fell. " * 9]


def published(decoder: Decoder, rank: int = 8, seed: int = 0) -> dict[str, torch.Tensor]:
    """The key set of `mistral_7b_ft_icae.safetensors`: LoRA of q and v of every layer, and the memory tokens."""
    generator = torch.Generator().manual_seed(seed)
    state = {TABLE: torch.randn(MEMORY + 3, decoder.hidden_size, generator=generator)}
    for name, module in decoder.model.named_modules():
        if name.endswith(("q_proj", "v_proj")):
            outer, inner = module.weight.shape  # type: ignore[union-attr]
            key = f"{PREFIX}{name}.lora_{{}}.default.weight"
            state[key.format("A")] = torch.randn(rank, inner, generator=generator) * 0.2
            state[key.format("B")] = torch.randn(outer, rank, generator=generator) * 0.2  # type: ignore[call-overload]
    return {key: value.bfloat16() for key, value in state.items()}


def with_placeholders(state: dict[str, torch.Tensor], decoder: Decoder, zero: Any) -> dict[str, Any]:
    """The nesting of the version-1 `.pt`: one flat dictionary, base weights as scalars."""
    layers = {f"{PREFIX}model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(2)}
    return {**state, **dict.fromkeys({*(PREFIX + key for key in decoder.model.state_dict()), *layers}, zero)}


@pytest.fixture(scope="module")
def mistral(models: Path) -> Decoder:
    return init.open_decoder(str(models / "mistral"))


@pytest.fixture(scope="module")
def llama(models: Path) -> Decoder:
    return init.open_decoder(str(models / "llama"))


@pytest.fixture(scope="module")
def hub(mistral: Decoder, llama: Decoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the three published files."""
    folder = tmp_path_factory.mktemp("icae")
    save_file(published(mistral), folder / "mistral_7b_ft_icae.safetensors")
    save_file(published(mistral, seed=1), folder / "mistral_7b_pretrained_icae.safetensors")
    state = with_placeholders(published(llama, rank=4), llama, torch.tensor(0.0))
    torch.save(state, folder / "llama-2-7b-chat-finetuned-icae_zeroweight_llama2.pt")
    return folder


FT, V1 = "mistral_7b_ft_icae.safetensors", "llama-2-7b-chat-finetuned-icae_zeroweight_llama2.pt"


def vectors(compressor: IcaeCompressor, texts: list[str] = TEXTS) -> torch.Tensor:
    return torch.cat([memory.vectors for memory in compressor.compress(texts) if memory.vectors is not None])


def sharded(state: dict[str, torch.Tensor], folder: Path) -> Path:
    folder.mkdir(parents=True)
    keys = sorted(state)
    parts = {"a-00001-of-00002.safetensors": keys[::2], "a-00002-of-00002.safetensors": keys[1::2]}
    for name, part in parts.items():
        save_file({key: state[key] for key in part}, folder / name)
    places = {key: name for name, part in parts.items() for key in part}
    (folder / "a.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def test_the_published_files_load_each_for_its_base(hub: Path, mistral: Decoder, llama: Decoder) -> None:
    second = IcaeCompressor.load(str(hub), mistral, file=FT)
    first = IcaeCompressor.load(str(hub), llama, file=V1)
    assert (second.version, first.version) == (2, 1)
    assert (second.encoder.max_spans, first.encoder.max_spans) == (10, 1)
    assert second.weights_fingerprint() != first.weights_fingerprint()
    assert first.layout.frame.closing.shape == (1, 64)  # type: ignore[union-attr]


def test_shards_and_placeholders_change_nothing(hub: Path, mistral: Decoder, tmp_path: Path) -> None:
    state = published(mistral)
    expected = IcaeCompressor.load(str(hub / FT), mistral)
    shards = IcaeCompressor.load(str(sharded(state, tmp_path / "shards")), mistral)
    assert torch.equal(vectors(shards), vectors(expected))
    assert shards.fingerprint() == expected.fingerprint()
    for number, zero in enumerate((torch.tensor(0.0), 0.0)):
        torch.save(with_placeholders(state, mistral, zero), tmp_path / f"{number}.pt")
        loaded = IcaeCompressor.load(str(tmp_path / f"{number}.pt"), mistral, version=2)
        assert torch.equal(vectors(loaded), vectors(expected))


def test_lora_is_scaled_by_alpha_over_rank_and_only_compresses(hub: Path, mistral: Decoder, tmp_path: Path) -> None:
    state = published(mistral)
    strong = IcaeCompressor.load(str(hub / FT), mistral)
    none = {key: value * 0 if ".lora_B." in key else value for key, value in state.items()}
    save_file(none, tmp_path / "none.safetensors")
    assert not torch.allclose(
        vectors(IcaeCompressor.load(str(tmp_path / "none.safetensors"), mistral)), vectors(strong)
    )
    double = {key: value * 2 if ".lora_B." in key else value for key, value in state.items()}
    save_file(double, tmp_path / "double.safetensors")
    half = IcaeCompressor.load(str(tmp_path / "double.safetensors"), mistral, lora_alpha=16)
    close(vectors(half), vectors(strong))


def test_the_decoder_stays_bit_for_bit_what_it_was(hub: Path, models: Path) -> None:
    decoder = init.open_decoder(str(models / "mistral"))
    ids = torch.arange(5, 60)[None]
    names, before = list(decoder.model.state_dict()), decoder.model(ids).logits
    compressor = IcaeCompressor.load(str(hub / FT), decoder)
    compressor.compress(TEXTS)
    assert list(decoder.model.state_dict()) == names
    assert torch.equal(decoder.model(ids).logits, before)
    own = {id(parameter) for parameter in decoder.model.parameters()}
    extra = [name for name, parameter in compressor.encoder.body.named_parameters() if id(parameter) not in own]
    assert extra and all(".lora_" in name for name in extra)  # base weights are held once


# ---------------------------------------------------------------- the contract


@pytest.fixture(scope="module", params=[FT, V1])
def compressor(request: pytest.FixtureRequest, hub: Path, mistral: Decoder, llama: Decoder) -> IcaeCompressor:
    return IcaeCompressor.load(str(hub), mistral if request.param == FT else llama, file=request.param)


def test_a_memory_does_not_depend_on_its_batch_and_comes_again(compressor: IcaeCompressor) -> None:
    together, again = compressor.compress(TEXTS), compressor.compress(TEXTS)
    for text, one, other in zip(TEXTS, together, again, strict=True):
        (alone,) = compressor.compress([text])
        assert one.vectors is not None and alone.vectors is not None and other.vectors is not None
        close(one.vectors, alone.vectors)
        assert torch.equal(one.vectors, other.vectors)
    assert compressor.compress([]) == []


def test_what_was_read_and_what_was_left_out_add_up(compressor: IcaeCompressor) -> None:
    limit = compressor.encoder.max_spans * compressor.encoder.capacity
    for text, memory in zip(TEXTS, compressor.compress(TEXTS), strict=True):
        assert memory.source_bytes + memory.truncated_bytes == len(text.encode())
        read = len(spans(range(memory.compressor_tokens), compressor.encoder.capacity))
        assert (memory.slots, memory.boundary) == (read * MEMORY, 1)
        whole = len(compressor.decoder.tokenizer.encode(text, split_special_tokens=True))
        assert memory.compressor_tokens == min(whole, limit)
        assert memory.source_tokens == memory.compressor_tokens - 1  # BOS
        assert bool(memory.truncated_bytes) == (whole > limit)
    assert any(memory.truncated_bytes for memory in compressor.compress(TEXTS))


def test_beyond_the_last_span_more_text_changes_nothing_and_is_counted(hub: Path, mistral: Decoder) -> None:
    compressor = IcaeCompressor.load(str(hub), mistral, file=FT, max_spans=2)
    short, long = "One two three. " * 60, "One two three. " * 90
    first, second = compressor.compress([short, long])
    assert first.vectors is not None and second.vectors is not None
    assert torch.equal(first.vectors, second.vectors)
    assert second.truncated_bytes - first.truncated_bytes == len(long) - len(short)


def test_a_chat_template_is_not_framed_again(hub: Path, mistral: Decoder, llama: Decoder) -> None:
    (bos,) = mistral.bos
    opening, closing = (mistral.tokenizer.encode(text, add_special_tokens=False) for text in ("[INST]", "[/INST]"))
    compressor = IcaeCompressor.load(str(hub), mistral, file=FT)
    encoder, memory = PromptEncoder(compressor), compressor.compress(["Rain."])
    plan = encoder.encode(Prompt.parse(mark("Rain.") + "Why?"), memory)
    why = mistral.tokenizer.encode("Why?", add_special_tokens=False)
    assert list(plan.pieces) == [[bos, *opening], memory[0], why, closing]
    chat = Prompt.parse("<|begin_of_text|><|user|>" + mark("Rain.") + "Why?")
    assert list(encoder.encode(chat, memory).pieces)[2:] == [why]
    paired, ids = encoder.encode_pair(Prompt.parse(mark("Rain.") + "Why?"), memory, " So")
    assert list(paired.pieces) == list(plan.pieces)
    assert ids == mistral.tokenizer.encode(" So", add_special_tokens=False)
    old = IcaeCompressor.load(str(hub), llama, file=V1)
    for prompt in (chat, Prompt.parse(mark("Rain.") + "Why?")):
        last = PromptEncoder(old).encode(prompt, old.compress(["Rain."])).pieces[-1]
        assert torch.equal(last, old.behind)  # type: ignore[arg-type]


def test_bfloat16_runs(hub: Path, models: Path) -> None:
    kind = lm_models.icae  # type: ignore[attr-defined]
    model = kind(pretrained=str(hub), file=FT, decoder=str(models / "mistral"), device="cpu", dtype="bfloat16")
    assert model.compressor.compress(["Rain."])[0].vectors.dtype == torch.bfloat16


# ---------------------------------------------------------------- mistakes, one sentence each


def refuse(path: Path, decoder: Decoder, says: str, **options: Any) -> None:
    with pytest.raises(UsageError, match=says):
        IcaeCompressor.load(str(path), decoder, **options)


def test_missing_and_unexpected_tensors_are_named(mistral: Decoder, tmp_path: Path) -> None:
    state, path = published(mistral), tmp_path / "x.safetensors"
    lost = f"{PREFIX}model.layers.1.self_attn.v_proj.lora_B.default.weight"
    save_file({key: value for key, value in state.items() if key != lost}, path)
    refuse(path, mistral, f"lacks 1 tensors .{lost} first")
    save_file({key: value for key, value in state.items() if key != TABLE}, path)
    refuse(path, mistral, "lacks 1 tensors .memory_token_embed.weight first")
    for extra in (f"{PREFIX}model.layers.0.self_attn.k_proj.lora_A.default.weight", "memory_head.0.weight"):
        save_file({**state, extra: torch.zeros(4, 4)}, path)
        refuse(path, mistral, f"has 1 tensors that do not belong there .{extra} first")


def test_broken_shards_are_named(mistral: Decoder, tmp_path: Path) -> None:
    folder = sharded(published(mistral), tmp_path / "shards")
    index = folder / "a.safetensors.index.json"
    whole = json.loads(index.read_text())
    places = {**whole["weight_map"], "more.weight": "a-00001-of-00002.safetensors"}
    index.write_text(json.dumps({"weight_map": places}))
    refuse(folder, mistral, "lacks 1 tensors .more.weight first")
    index.write_text(json.dumps({"weight_map": {TABLE: "../other.safetensors"}}))
    refuse(folder, mistral, "not beside it: it was not opened")
    index.write_text("[]")
    refuse(folder, mistral, "no index of shards")
    index.write_text(json.dumps(whole))
    (folder / "a-00002-of-00002.safetensors").unlink()
    refuse(folder, mistral, "a-00002-of-00002.safetensors is missing")


class Bomb:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def test_a_pt_file_with_code_in_it_is_refused_and_not_run(llama: Decoder, tmp_path: Path) -> None:
    torch.save({**published(llama), "x": Bomb(tmp_path / "ran")}, tmp_path / "x.pt")
    refuse(tmp_path / "x.pt", llama, "holds more than tensors and was not opened")
    assert not (tmp_path / "ran").exists()


def test_another_base_model_is_refused(hub: Path, models: Path, mistral: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    state = published(mistral)
    save_file({**state, TABLE: torch.zeros(MEMORY + 3, 48)}, path)
    refuse(
        path, mistral, r"another base model than .*mistral.* .memory_token_embed.weight is \[\d+, 48\], the decoder's"
    )
    wide = {key: value.repeat(2, 1) if "v_proj.lora_B" in key else value for key, value in state.items()}
    save_file({key: value.contiguous() for key, value in wide.items()}, path)
    refuse(path, mistral, r"another base model .*v_proj is \[64, 64\], the decoder's is \[32, 64\].: pass decoder=")
    embedding = f"{PREFIX}model.embed_tokens.weight"
    save_file({**state, embedding: torch.zeros(999, 64)}, path)
    refuse(path, mistral, "another base model .*embed_tokens.weight is .999, 64., the decoder's is .1024, 64.")
    save_file({**state, embedding: torch.zeros(1024, 64)}, path)
    refuse(path, mistral, "another base model .*other values in model.embed_tokens.weight")
    refuse(hub / FT, init.open_decoder(str(models / "gpt2")), "do not belong there")


def test_ranks_that_disagree_are_refused(hub: Path, mistral: Decoder, tmp_path: Path) -> None:
    other = {key: value for key, value in published(mistral, rank=4).items() if "layers.1.self_attn.q_proj" in key}
    save_file({**published(mistral), **other}, tmp_path / "x.safetensors")
    refuse(tmp_path / "x.safetensors", mistral, "has rank 4, its first layer has rank=8: they do not go together")
    refuse(hub / FT, mistral, "has rank 8, lora_rank=512: they do not go together", lora_rank=512)


def test_options_without_sense_are_refused(hub: Path, mistral: Decoder, tmp_path: Path) -> None:
    refuse(hub, mistral, r"several weight files .*: pass file=")
    refuse(hub, mistral, "no such file", file="absent.safetensors")
    refuse(tmp_path, mistral, "has no weight file")
    refuse(hub / "mistral_7b_pretrained_icae.safetensors", mistral, "can't answer questions: pass use=ae")
    for rate in (0, 2.5, "many"):
        refuse(hub / FT, mistral, "icae: rate: Input should be", rate=rate)
    refuse(hub / FT, mistral, r"takes \d+ positions, the model has 4096: pass a lower rate", rate=256)
    refuse(hub / FT, mistral, "icae: version: Input should be 1 or 2", version=3)
    refuse(hub / FT, mistral, "icae: use: Input should be 'ft', 'ae', 'lm' or 'none'", use="qa")
    with pytest.raises(UsageError, match="icae needs its base model: pass decoder="):
        IcaeCompressor.decoder_path(str(hub), None)


# ---------------------------------------------------------------- lm-eval's command line


def test_the_plain_command_compresses_each_context_once(hub: Path, models: Path, tmp_path: Path) -> None:
    given = f"pretrained={hub},file={FT},decoder={models / 'mistral'},dtype=float32,max_spans=2"
    fixed = ("--model", "icae", "--model_args", given, "--tasks", "pcc_squad", "--batch_size", 4)
    results = lm_eval_run(tmp_path / "out", *fixed)
    samples, ours = results["samples"], results["config"]["pcc_bench"]
    assert (ours["method"], ours["requested_rate"], ours["options"]["version"]) == ("icae", 4, 2)
    assert ours["compressions"] == len({row["doc"]["context"] for row in samples})
    records = [row["compression"] for row in samples]
    assert all((record["slots"], record["boundary"]) == (2 * MEMORY, 1) for record in records)
    assert ours["counts"]["truncated"] == len(samples)  # the contexts are longer than two spans
    for row, record in zip(samples, records, strict=True):
        assert record["source_bytes"] + record["truncated_bytes"] == len(row["doc"]["context"].encode())
    achieved = sum(r["source_tokens"] for r in records) / sum(r["slots"] + r["boundary"] for r in records)
    assert results["results"]["pcc_squad"]["compression,none"] == pytest.approx(achieved)
