"""ICAE equals the original code on its golden vectors, loads the published files, and keeps the contract."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from pcc_bench.baselines.icae import IcaeCompressor, spans
from pcc_bench.context import Prompt, literal, mark
from pcc_bench.decoder import Decoder
from pcc_bench.generation import cut_after, generate, score
from pcc_bench.prompts import PromptEncoder

ROOT = Path(os.environ.get("PCC_GOLDEN", Path(__file__).parent / "golden"))
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
        return 1 if "v1" in self.folder.parent.name else 2

    def load(self, use: str) -> IcaeCompressor:
        options: dict[str, Any] = {"rate": self.config.get("mean_compression_rate", 4), "use": use}
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
        assert first == self.decoder.bos_token_id
        return words(rest)

    def prompt(self, use: str, after: str = "") -> tuple[IcaeCompressor, torch.Tensor]:
        """Compress and lay out the golden context as a run does: input vectors of the decoder."""
        compressor = self.load(use)
        context = self.text("context_ids")
        prompt = Prompt.parse(mark(context) + (literal(after) if after else ""))
        plan = PromptEncoder(self.decoder, compressor).encode(prompt, compressor.compress([context]))
        return compressor, plan.vectors(self.decoder)

    def check_decoding(self, use: str, compressor: IcaeCompressor, vectors: torch.Tensor) -> None:
        """Logits at every step, and the ids that greedy decoding gives, as far as the original goes."""
        expected, ids = self.io[f"{use}_step_logits"], self.io[f"{use}_generated_ids"].tolist()
        whole = torch.cat([vectors, self.decoder.embed(ids[: len(expected) - 1])])
        logits = self.decoder.model(inputs_embeds=whole[None]).logits[0, len(vectors) - 1 :]
        close(logits[: len(expected), : expected.shape[1]], expected)
        stops, never = compressor.stop_token_ids, compressor.suppressed_token_ids
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
    assert {folder.parent.name.split("_")[1] for folder in FOLDERS} == {"v1", "v2"}, f"not all ICAE under {ROOT}"


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
            assert [len(span) for span in spans(golden.io[key][0].tolist(), compressor.capacity)] == lengths


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
    texts = [golden.text(key) for key in golden.io if "context" in key] + [words([5]), words(list(range(3, 90)))]
    for together, text in zip(compressor.compress(texts), texts, strict=True):
        (alone,) = compressor.compress([text])
        assert together.vectors is not None and alone.vectors is not None
        close(together.vectors, alone.vectors)
