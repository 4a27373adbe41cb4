"""Sizes of what the user names, a geometry or a checkpoint (no weights are read), and random models of a geometry."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedConfig

from pcc_bench.core import registry, shipped, tiny
from pcc_bench.core.checkpoint_files import plain, resolve
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.documents import checked
from pcc_bench.core.errors import UsageError
from pcc_bench.cost.sizes import KNOWN, LARGE, LITE, config_of, from_state, llama
from pcc_bench.cost.work import Shape
from pcc_bench.model import checkpoint
from pcc_bench.model.compressor import PccCompressor
from pcc_bench.model.config import MEMORY_TOKENS, PccConfig
from pcc_bench.model.converter import Converter
from pcc_bench.model.encoder import MEMORY_TOKEN_NAMES, Encoder
from pcc_bench.model.init import lora_config
from pcc_bench.model.pcc import PCC, SPECIAL_TOKENS
from pcc_bench.model.published import rate_in_name, read_adapter

LORA_RANK = 64  # the paper's Large
SEGMENT_LENGTH = 256
WITHOUT_BOS = ("qwen2",)  # families whose tokenizers have no beginning of sequence
LORA = "lora-"  # before the name of an encoder: frozen, with an adapter

MODELS: dict[str, dict[str, Any]] = {
    "gpt2-large": KNOWN[LITE],
    "llama-3-8b": KNOWN[LARGE],
    "mistral-7b": KNOWN["mistralai/Mistral-7B-Instruct-v0.3"],
    "qwen2.5-7b": KNOWN["Qwen/Qwen2.5-7B-Instruct"],
    "phi-3.5-mini": KNOWN["microsoft/Phi-3.5-mini-instruct"],
    "small-llama": llama(512, 1408, 8, 8, 4, 8192, 32768),
    # about a tenth of small-llama
    "small-gpt2": {"model_type": "gpt2", "n_embd": 192, "n_layer": 4, "n_head": 4, "vocab_size": 8192},
    "tiny-llama": llama(64, 128, 2, 8, 4, 1024, 32768),
    "tiny-gpt2": {"model_type": "gpt2", "n_embd": 48, "n_layer": 2, "n_head": 4, "vocab_size": 1024},
}
PAIRS = {"lite": "gpt2-large+llama-3-8b", "large": "lora-llama-3-8b+llama-3-8b"}
PAIRS |= {"small": "small-gpt2+small-llama", "tiny": "tiny-gpt2+tiny-llama"}


class Pair(NamedTuple):
    encoder: str
    lora: bool  # the encoder is frozen and has an adapter
    decoder: str

    @property
    def encoder_name(self) -> str:
        return (LORA if self.lora else "") + self.encoder

    def config(self, rates: Sequence[int]) -> PccConfig:
        """A checkpoint's configuration of these sizes. Raises UsageError: a rate does not divide segments."""
        state = model_config(self.encoder).to_dict()
        state["vocab_size"] += MEMORY_TOKENS
        lora = plain(lora_config(LORA_RANK).to_dict()) if self.lora else None
        encoder = {"kind": "lora" if self.lora else "full", "config": state, "lora": lora}
        decoder = {"hidden_size": model_config(self.decoder).hidden_size}
        sizes = {"rate": rates[0], "rates": list(rates), "segment_length": SEGMENT_LENGTH, "memory_dtype": "decoder"}
        return checked(PccConfig, {**sizes, "encoder": encoder, "decoder": decoder}, "--rate (4, 8, 16 ...)")


def named(name: str) -> Pair:
    """The pair of a name: one of `PAIRS`, or ENCODER+DECODER. Raises UsageError: there is no such geometry."""
    spelled, _, decoder = PAIRS.get(name, name).partition("+")
    encoder, lora = spelled.removeprefix(LORA), spelled.startswith(LORA)
    for part in (encoder, decoder):
        if part not in MODELS:
            raise UsageError(
                f"--random-weights {name}: there is no geometry '{part or name}'"
                f"{registry.suggest(part, [*PAIRS, *MODELS])}; give one of {', '.join(PAIRS)}, or ENCODER+DECODER of "
                f"{', '.join(MODELS)} ({LORA} before an encoder: frozen, with an adapter)"
            )
    if lora and MODELS[encoder]["model_type"] == "gpt2":
        raise UsageError(f"--random-weights {name}: the adapter is for Llama's layers, not GPT-2's: leave out {LORA}")
    return Pair(encoder, lora, decoder)


def model_config(name: str) -> PreTrainedConfig:
    return from_state(MODELS[name])


def build(
    pair: Pair,
    rates: Sequence[int],
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
    *,
    texts: Sequence[str] = ("some text",),
    vocabulary: int = 512,
    encoder_dtype: torch.dtype | None = None,
) -> tuple[PCC, Decoder]:
    """A compressor and its decoder with random weights, in evaluation mode on a device; the first rate is in use.

    Both tokenizers are trained on `texts` and have `vocabulary` tokens, while embeddings keep the geometry's rows.
    `encoder_dtype`: of encoder and converter, where it is another (training).
    """
    torch.manual_seed(seed)
    config, own = pair.config(rates), encoder_dtype or dtype
    with device:
        reader: Any = AutoModelForCausalLM.from_config(model_config(pair.decoder), dtype=dtype)
        model: Any = AutoModelForCausalLM.from_config(from_state(config.encoder.config), dtype=own)
    decoder = Decoder(reader, tiny.make_tokenizer(texts, vocabulary), pair.decoder)
    tokenizer = tiny.make_tokenizer(texts, vocabulary, adds_bos=False, special=MEMORY_TOKEN_NAMES)
    body = get_peft_model(model, lora_config(LORA_RANK)) if pair.lora else model.base_model
    encoder = Encoder(body, tokenizer, config).to(own)  # peft keeps an adapter in float32
    converter = Converter(encoder.hidden_size, decoder.hidden_size).to(own)
    special = torch.randn(len(SPECIAL_TOKENS), decoder.hidden_size) * 0.02
    return PCC(config, encoder, converter, special).eval().requires_grad_(False).to(device), decoder


def at_rate(pcc: PCC, rate: int) -> PCC:
    """The same weights at another of the checkpoint's rates. Raises UsageError: the checkpoint does not declare it."""
    config = pcc.config.with_options(rate=rate)
    encoder = Encoder(pcc.encoder.model, pcc.encoder.tokenizer, config, pcc.encoder.batch_tokens)
    return PCC(config, encoder, pcc.converter, pcc.special).eval()


def of_geometry(name: str, rates: Sequence[int]) -> Shape:
    """The shape of `--random-weights`. Raises UsageError: there is no such geometry, or a rate does not go with it."""
    pair = named(name)
    reads, config = model_config(pair.decoder), pair.config(rates or (4,))
    return Shape(pair.encoder_name, pair.decoder, config, reads, reads.model_type not in WITHOUT_BOS)


def of_checkpoint(name: str, decoder: str | None, rates: Sequence[int]) -> Shape:
    """The shape of a checkpoint (folder, hub id or shipped name; by default at its own rates) and its decoder.

    Raises UsageError: it is no checkpoint, does not declare a rate, or its decoder is not known.
    """
    folder, path = resolve(shipped.located(name)), PccCompressor.decoder_path(shipped.located(name), decoder)
    reads = config_of(path)
    if checkpoint.is_own(folder):
        config = PccConfig.read(folder)
        for rate in rates:
            config.with_options(rate=rate)
    else:
        config = _published(folder, name, reads.hidden_size, rates)
    known = decoder or config.decoder.name or path
    return Shape(name, known, config, reads, reads.model_type not in WITHOUT_BOS)


def _published(folder: Path, name: str, width: int, rates: Sequence[int]) -> PccConfig:
    rate = rates[0] if rates else rate_in_name(name)
    if rate is None or len(rates) > 1:
        raise UsageError(f"{name} is in the published format, which has one rate and does not record it: pass --rate 4")
    if (folder / "adapter_config.json").is_file():
        lora = read_adapter(folder)
        base = str(lora.base_model_name_or_path)
        state = config_of(base).to_dict()
        state["vocab_size"] += MEMORY_TOKENS
        encoder = {"kind": "lora", "config": state, "base": base, "lora": {"r": lora.r}}
    else:
        encoder = {"kind": "full", "config": config_of(str(folder)).to_dict()}
    given = {"rate": rate, "encoder": encoder, "decoder": {"hidden_size": width}}
    return checked(PccConfig, given, f"{folder} with the options given")
