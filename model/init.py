"""Checkpoints that are made: fresh ones, where training starts; taken to another decoder; in the other format."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model

from pcc_bench.core.checkpoint_files import load_tokenizer, plain, pretrained, resolve
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.documents import checked
from pcc_bench.core.errors import UsageError, foreign
from pcc_bench.model import checkpoint, published
from pcc_bench.model.config import DecoderConfig, PccConfig, Pooling
from pcc_bench.model.converter import Converter
from pcc_bench.model.encoder import MEMORY_TOKEN_NAMES, Encoder, first_layers, memory_token_ids
from pcc_bench.model.pcc import PCC, SPECIAL_TOKENS

# The published Large encoder (paper appendix; adapter_config.json): also lm_head, which never influences a slot.
LORA_TARGETS = ["embed_tokens", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def fresh(
    encoder: str,  # folder or hub id of a causal LM: GPT-2 for Lite, Llama for Large
    decoder: Decoder,
    rates: Sequence[int],  # the first is the default
    folder: Path,  # where it will be saved; local models are named relative to it
    *,
    segment_length: int = 256,  # encoder tokens
    lora_rank: int = 0,  # 0 trains the whole encoder (Lite); 64 in the paper's Large, with alpha half the rank
    seed: int = 0,
    notes: str = "",  # for the model card
) -> PCC:
    source = resolve(encoder, "encoder")
    model, tokenizer = pretrained(source, torch.float32), load_tokenizer(source)
    added = tokenizer.add_special_tokens({"additional_special_tokens": list(MEMORY_TOKEN_NAMES)}, False)
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if added:  # new rows are drawn from N(0, 0.02) (official quirk Q10)
        generator = torch.Generator().manual_seed(seed)
        rows = model.get_input_embeddings().weight
        noise = torch.randn(len(MEMORY_TOKEN_NAMES), rows.shape[1], generator=generator) * 0.02
        with torch.no_grad():
            rows[memory_token_ids(tokenizer)] = noise.to(rows)
    lora = lora_config(lora_rank) if lora_rank else None
    described = {"kind": "lora" if lora else "full", "config": (model if lora else model.base_model).config.to_dict()}
    if lora:
        described |= {"lora": plain(lora.to_dict()), "base": name_beside(encoder, folder)}
    state: dict[str, Any] = {"rate": rates[0], "rates": rates, "segment_length": segment_length, "notes": notes}
    state |= {"encoder": described, "decoder": _made_for(decoder, folder)}
    config = checked(PccConfig, state, "the options given")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        with foreign(f"--lora-rank {lora_rank} puts a LoRA on a Llama's layers, and '{encoder}' has others"):
            body = get_peft_model(model, lora) if lora else model.base_model
        converter = Converter(model.config.hidden_size, decoder.hidden_size)
        special = _special_rows(decoder)
    return PCC(config, Encoder(body, tokenizer, config), converter, special).eval()


def from_decoder(
    decoder: Decoder,
    layers: int,
    rates: Sequence[int],
    folder: Path,
    *,
    segment_length: int = 256,
    pooling: Pooling = "mean",
    identity: bool = True,  # start with slots that are the scaled means of the decoder's input vectors
    special_from: Sequence[str] = (),  # tokens as whose rows `<mem>`, `</mem>` and `<ae>` start; else as in `fresh`
    gate: bool = False,  # weight the tokens of a pooled group by a learned score, zero at first
    lora: LoraConfig | None = None,  # None trains the layers whole
    seed: int = 0,
    notes: str = "",
) -> PCC:
    """Make an untrained PCC whose encoder is the first layers of its decoder; see `fresh`."""
    body = first_layers(decoder, layers, decoder.dtype if lora else torch.float32, share=lora is not None)
    described = {"kind": "full", "config": body.config.to_dict(), "layers": layers}
    if lora:
        described |= {"kind": "lora", "lora": plain(lora.to_dict())}
    state: dict[str, Any] = {"rate": rates[0], "rates": rates, "segment_length": segment_length, "notes": notes}
    state |= {"encoder": described, "decoder": _made_for(decoder, folder)}
    state |= {"pooling": pooling, "slots": "proportional", "residual": identity, "gate": gate, "encoder_bos": False}
    config = checked(PccConfig, state, "the options given")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = get_peft_model(body, lora) if lora else body
        encoder = Encoder(model, decoder.tokenizer, config)
        converter = Converter(encoder.hidden_size, decoder.hidden_size, identity)
        special = _special_rows(decoder, special_from)
    return PCC(config, encoder, converter, special).eval()


def adapted(pcc: PCC, decoder: Decoder, folder: Path, seed: int = 0) -> PCC:
    """Take a compressor of `checkpoint.load(..., adapt=True)` to another decoder; it will be saved in `folder`."""
    # The converter stays where the width is the same, else it is a fresh one. The special vectors stay where the
    # decoder is the recorded one, or none is recorded and it has them (published checkpoints); else they are fresh.
    if pcc.config.encoder.layers is not None and pcc.config.decoder.fingerprint != decoder.fingerprint:
        raise UsageError(
            f"the encoder is made of the layers of '{pcc.config.decoder.name}' and can't be taken to '{decoder.name}': "
            "start from a checkpoint with an encoder of its own"
        )
    known = pcc.config.decoder.fingerprint in (None, decoder.fingerprint)
    same = known and pcc.special.shape == (len(SPECIAL_TOKENS), decoder.hidden_size)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fits = pcc.converter.decoder_size == decoder.hidden_size
        converter = pcc.converter if fits else Converter(pcc.converter.encoder_size, decoder.hidden_size)
        special = pcc.special if same else _special_rows(decoder)
    return PCC(pcc.config.model_copy(update={"decoder": _made_for(decoder, folder)}), pcc.encoder, converter, special)


def convert(source: str, decoder: str, out: Path, to: str, dtype: torch.dtype | None = None, **options: Any) -> PCC:
    """Write a checkpoint of either format, made for `decoder`, as `own` (in a dtype, or as it is) or `published`."""
    made_for = open_decoder(decoder)
    pcc = checkpoint.load(source, made_for, **options)
    if to == "published":
        published.export(pcc, out)
    else:
        # local models are named relative to their new neighbour
        named = {"name": name_beside(made_for.name, out), "fingerprint": made_for.fingerprint}
        update: dict[str, Any] = {"decoder": pcc.config.decoder.model_copy(update=named)}
        if base := pcc.config.encoder.base:
            folder = resolve(source)
            local = (folder if checkpoint.is_own(folder) else folder.parent) / base
            base = name_beside(str(local) if local.is_dir() else base, out)
            update["encoder"] = pcc.config.encoder.model_copy(update={"base": base})
        pcc.config = pcc.config.model_copy(update=update)
        checkpoint.save(pcc, out, dtype)
    return pcc


def lora_config(rank: int) -> LoraConfig:
    """The paper's LoRA: alpha half the rank (0 would leave it without effect), dropout 0.1, embeddings included."""
    alpha, kind = max(1, rank // 2), TaskType.CAUSAL_LM
    return LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.1, target_modules=LORA_TARGETS, task_type=kind)


def layer_lora_config(rank: int, alpha: int, dropout: float) -> LoraConfig:
    """LoRA on all linear layers of a decoder's first layers; its embedding is the decoder's and stays."""
    targets = [name for name in LORA_TARGETS if name != "embed_tokens"]
    return LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets)


def open_decoder(name: str, dtype: torch.dtype | str = torch.float32) -> Decoder:
    folder = resolve(name, "decoder")
    decoder = Decoder(pretrained(folder, dtype), load_tokenizer(folder), name)
    decoder.check_runs()
    return decoder


def name_beside(model: str, folder: Path) -> str:
    """How a checkpoint in `folder` names another model: a local one relative to itself, a hub id as it is."""
    return os.path.relpath(model, folder) if Path(model).exists() else model


def _made_for(decoder: Decoder, folder: Path) -> DecoderConfig:
    name = name_beside(decoder.name, folder)
    return DecoderConfig(name=name, hidden_size=decoder.hidden_size, fingerprint=decoder.fingerprint)


def _special_rows(decoder: Decoder, tokens: Sequence[str] = ()) -> torch.Tensor:
    """Rows of `<mem>`, `</mem>` and `<ae>`: [3, hidden size], float32; those of `tokens` where they are given."""
    # Else the decoder's own where it has all three, as the official release does, whose checkpoints agree on them;
    # else random rows of the size of the decoder's.
    ids = []
    for token in tokens:
        ids += (pieces := decoder.tokenizer.encode(token, add_special_tokens=False))
        if len(pieces) != 1:
            raise UsageError(
                f"special_from: '{token}' is {len(pieces)} tokens of '{decoder.name}': choose one that is one"
            )
    if tokens:
        return decoder.embed(ids).detach().float().cpu().clone()
    vocabulary = decoder.tokenizer.get_vocab()
    rows = decoder.embed(range(len(decoder.embedding.weight))).detach()
    if all(vocabulary.get(token, len(rows)) < len(rows) for token in SPECIAL_TOKENS):
        return rows[[vocabulary[token] for token in SPECIAL_TOKENS]].float().cpu()
    return torch.randn(len(SPECIAL_TOKENS), decoder.hidden_size) * float(rows.float().std())
