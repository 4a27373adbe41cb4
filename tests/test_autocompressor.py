"""AutoCompressor equals the original code on its golden vectors, loads published folders, and keeps the contract."""

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

from pcc_bench.baselines.autocompressor import AutoCompressor, segments
from pcc_bench.context import Prompt, literal, mark
from pcc_bench.decoder import Decoder
from pcc_bench.generation import generate, score
from pcc_bench.prompts import PromptEncoder

ROOT = Path(os.environ.get("PCC_GOLDEN", Path(__file__).parent / "golden"))
FOLDERS = sorted(path.parent for path in ROOT.glob("autocompressor*/**/io.safetensors"))


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=3e-4, rtol=0)


# ---------------------------------------------------------------- golden vectors


def words(ids: torch.Tensor | list[int]) -> str:
    """Ids as text of the golden tokenizer, which has one word for each id."""
    flat = ids.flatten().tolist() if isinstance(ids, torch.Tensor) else ids
    return " ".join(f"t{token:05}" for token in flat)


def word_tokenizer(size: int, config: dict[str, Any]) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({words([i]): i for i in range(size)}, unk_token=words([0])))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {name: words([config[f"{name}_id"]]) for name in ("bos_token", "eos_token")}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


@dataclass
class Golden:
    folder: Path
    config: dict[str, Any]
    io: dict[str, torch.Tensor]
    decoder: Decoder

    def load(self, segment_length: int = 12, accumulate: bool | None = None) -> AutoCompressor:
        """The golden weights, put into a fresh model of their sizes."""
        file = str(self.folder / "weights.safetensors")
        accumulate = self.config["accumulate_summary"] if accumulate is None else accumulate
        return AutoCompressor.load(file, self.decoder, segment_length=segment_length, accumulate=accumulate)

    @property
    def context(self) -> list[int]:
        ids: list[int] = self.io["context_ids"][0].tolist()
        return ids

    @property
    def question(self) -> list[int]:
        ids: list[int] = self.io["prompt_ids"][0].tolist()
        return ids

    @property
    def lengths(self) -> list[int]:
        return [*self.config["segment_lengths"], self.config["prompt_length"]]


@pytest.fixture(params=FOLDERS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def golden(request: pytest.FixtureRequest) -> Golden:
    folder = request.param
    config = json.loads((folder / "config.json").read_text())
    base = config["base_config"]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**base), dtype=torch.float32)
    decoder = Decoder(model, word_tokenizer(base["vocab_size"], base), "a base model")
    return Golden(folder, config, load_file(folder / "io.safetensors"), decoder)


def test_golden_folders_are_there() -> None:
    assert {folder.parent.name for folder in FOLDERS} >= {"autocompressor_llama", "autocompressor_opt"}, ROOT


def test_golden_explicit_segments_one_call_each(golden: Golden) -> None:
    compressor = golden.load()
    soft = compressor.summary_tokens[:0]
    head = golden.decoder.model.get_output_embeddings()
    pieces = segments(golden.context, golden.config["segment_lengths"])
    for step, piece in enumerate(pieces):
        ((hidden, soft),) = compressor.read([piece], [soft])
        close(head(hidden)[None], golden.io[f"explicit_logits_seg{step}"])
        close(soft[None], golden.io[f"explicit_softprompt_after_seg{step}"])
    logits, _ = compressor.read_through(golden.question, [len(golden.question)], soft)
    close(logits[None], golden.io["prompt_logits"])
    logits, _ = compressor.read_through(golden.question, [len(golden.question)])
    close(logits[None], golden.io["prompt_logits_no_context"])


def test_golden_implicit_segments_in_one_call(golden: Golden) -> None:
    compressor = golden.load(segment_length=10)
    whole = golden.context + golden.question
    logits, soft = compressor.read_through(whole, golden.lengths)
    close(logits[None], golden.io["implicit_logits"])
    close(soft[None], golden.io["implicit_softprompt"])
    loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(whole[1:]))
    close(loss, golden.io["loss"][0])
    logits, _ = compressor.read_through(whole, 10)
    close(logits[None], golden.io["int10_logits"])
    (soft,) = compressor.summarize([whole])
    close(soft[None], golden.io["int10_softprompt"])


def test_golden_without_accumulation_only_the_newest_summary_is_read(golden: Golden) -> None:
    compressor = golden.load(accumulate=False)
    logits, soft = compressor.read_through(golden.context + golden.question, golden.lengths)
    close(logits[None], golden.io["noacc_logits"])
    close(soft[None], golden.io["noacc_softprompt"])


@pytest.mark.parametrize("side", ["left", "right"])
def test_golden_masked_padding_counts_for_nothing(golden: Golden, side: str) -> None:
    compressor = golden.load()
    ids, mask = golden.io[f"pad_{side}_ids"], golden.io[f"pad_{side}_mask"].bool()
    summaries = compressor.summarize([row[real].tolist() for row, real in zip(ids, mask, strict=True)])
    close(torch.stack(summaries), golden.io[f"pad_{side}_softprompt"])
    close(summaries[1][None], golden.io["pad_solo_softprompt"])


def test_golden_a_run_gives_the_logits_and_greedy_ids(golden: Golden) -> None:
    """By way of memories, plans and positions, as `lm_eval --model autocompressor` goes; batch against single."""
    compressor = golden.load()
    explicit = golden.io[f"explicit_softprompt_after_seg{len(golden.config['segment_lengths']) - 1}"][0]
    (memory,) = compressor.compress([words(golden.context)])
    memory = type(memory)(**{**memory.__dict__, "vectors": explicit, "slots": len(explicit)})  # its own segments
    plan = PromptEncoder(golden.decoder, compressor).encode(
        Prompt.parse(mark("context") + literal(words(golden.question))), [memory]
    )
    vectors, at = plan.vectors(golden.decoder), compressor.memory_position
    positions = None if at is None else [plan.positions(at)]
    wanted = golden.io["generated_ids"][0].tolist()[len(golden.question) :]
    ids = generate(golden.decoder, [vectors], len(wanted), positions=positions).ids[0]
    stop = golden.decoder.tokenizer.eos_token_id  # the original was told never to stop
    assert ids == (wanted[: wanted.index(stop) + 1] if stop in wanted else wanted)

    first = golden.io["prompt_logits"][0, -1].log_softmax(-1)[wanted[0]]
    out = score(golden.decoder, [vectors], [wanted], positions=positions)
    alone = score(golden.decoder, [vectors], [wanted[:1]], positions=positions)
    assert alone.logprobs[0] == pytest.approx(float(first), abs=3e-4)
    assert stop in wanted or out.greedy == [True]

    shorter = vectors[len(explicit) :]
    both = None if positions is None else [*positions, list(range(len(shorter)))]
    together = generate(golden.decoder, [vectors, shorter], len(wanted), positions=both)
    assert together.ids[0] == ids
    out = score(golden.decoder, [shorter, vectors], [wanted[:1], wanted[:1]], positions=both and both[::-1])
    assert out.logprobs[1] == pytest.approx(float(first), abs=3e-4)
    nothing = golden.io["prompt_logits_no_context"][0, -1].log_softmax(-1)[wanted[0]]
    assert out.logprobs[0] == pytest.approx(float(nothing), abs=3e-4)
