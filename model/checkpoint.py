"""Checkpoints: `load` reads either format (see `pcc_bench.model.published`), `save` writes our own.

Our format is a folder whose `config.json` has a `pcc_bench` key: `model.safetensors` holds `encoder.*` (all weights of
a full encoder) or `adapter.*` and `memory_tokens` (a LoRA encoder), `converter.*`, and `special` (vectors of `<mem>`,
`</mem>`, `<ae>`); the tokenizer of the encoder lies beside it. The decoder is never in it. A matrix in 8 bits has its
scales beside it (`core.int8`).
"""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModel

from pcc_bench.core import checkpoint_files as files
from pcc_bench.core.checkpoint_files import check_finite, from_state, without_weights
from pcc_bench.core.decoder import Decoder, weights_digest
from pcc_bench.core.documents import filled, read_json, replaced, write_text
from pcc_bench.core.errors import UsageError, foreign
from pcc_bench.core.int8 import quantise
from pcc_bench.core.shipped import variants
from pcc_bench.model import published
from pcc_bench.model.config import MEMORY_TOKENS, PccConfig
from pcc_bench.model.converter import Converter
from pcc_bench.model.encoder import Encoder, first_layers, memory_token_ids
from pcc_bench.model.pcc import PCC, SPECIAL_TOKENS


def is_own(folder: Path) -> bool:
    path = folder / "config.json"
    state = read_json(path) if path.is_file() else {}
    if not isinstance(state, dict):
        raise UsageError(f"{path} is no model's configuration: it holds no keys")
    return "pcc_bench" in state


def load(
    name: str,
    decoder: Decoder,
    *,
    encoder: str | None = None,  # base model of a LoRA encoder, folder or hub id, where it is not the one recorded
    special_tokens: str | None = None,  # a `special_token_patch.pt`, for a decoder that lacks the three tokens
    any_decoder: bool = False,  # accept a decoder other than the one the checkpoint was made for
    adapt: bool = False,  # it is to be trained for this decoder: `init.adapted` replaces what does not fit
    encoder_dtype: torch.dtype | None = None,  # of encoder and converter; the decoder's by default
    **policies: Any,  # fields of `PccConfig` to set (rate, segment_length, slots, boundaries, padding, ...)
) -> PCC:
    """Load a checkpoint of either format (folder or hub id), in evaluation mode on the decoder's device."""
    folder = files.resolve(name)
    policies = {key: value for key, value in policies.items() if value is not None}
    dtype = encoder_dtype or decoder.dtype
    if is_own(folder):
        config = PccConfig.read(folder).with_options(**policies)
        if not adapt or config.encoder.layers is not None:
            check_decoder(config, decoder, name, any_decoder or adapt)
        pcc = _load_own(folder, config, decoder, encoder, dtype, adapt)
    else:
        if rate := published.rate_in_name(name):  # of the name: a hub id's folder is called by a hash
            policies = {"rate": rate, **policies}
        pcc = published.load(folder, decoder, encoder, special_tokens, dtype, policies, adapt)
    check_finite([*pcc.named_parameters(), ("special", pcc.special)], f"checkpoint '{name}' in {dtype}")
    if not adapt and pcc.special.shape != (3, decoder.hidden_size):
        raise UsageError(f"checkpoint '{name}': its special vectors do not have width {decoder.hidden_size}")
    pcc = pcc.eval().to(decoder.device)
    with foreign(f"the encoder of checkpoint '{name}' does not run"), torch.inference_mode():
        pcc.encode([[0]])  # what is wrong with a configuration may show in the first forward only
    return pcc


def save(pcc: PCC, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write a checkpoint in our own format, its weights in a dtype (None: as they are) but for the special vectors.

    int8 is of the encoder's matrices (`core.int8`); the rest is float16 then.
    """
    layers = pcc.config.encoder.layers
    state = {f"converter.{key}": value for key, value in pcc.converter.state_dict().items()} | _own_weights(pcc)
    if pcc.config.encoder.kind == "full":
        body = pcc.encoder.body.state_dict()
        state |= {f"encoder.{key}": body[key] for key in body if layers is None or not _is_embedding(key)}
    else:
        if layers is None:
            embedding: Any = pcc.encoder.body.get_input_embeddings()
            weight = getattr(embedding, "base_layer", embedding).weight
            state["memory_tokens"] = weight[pcc.encoder.memory_ids]
        adapter = get_peft_model_state_dict(pcc.encoder.model, save_embedding_layers=False)
        state |= {f"adapter.{key}": value for key, value in adapter.items()}
    whole = torch.float16 if dtype == torch.int8 else dtype
    state = {key: value.to(whole or value.dtype) for key, value in state.items()} | {"special": pcc.special}
    state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    if dtype == torch.int8:
        for key in [key for key in state if state[key].ndim == 2 and key.startswith(("encoder.", "adapter."))]:
            state[key], state[key + files.SCALES] = quantise(state[key])
    if layers is None:  # else it is the decoder's
        with filled(folder) as part:
            pcc.encoder.tokenizer.save_pretrained(part)
    with replaced(folder / files.WEIGHTS) as path:
        save_file(state, path, metadata={"format": "pt"})
    write_text(folder / "README.md", _card(pcc))
    write_text(folder / "config.json", pcc.config.model_dump_json(indent=1) + "\n")


def weights_fingerprint(pcc: PCC) -> str:
    """A short hash of the weights that make memories, a LoRA's base included."""
    state = {**pcc.encoder.body.state_dict(), **pcc.converter.state_dict(), "special": pcc.special, **_own_weights(pcc)}
    return weights_digest(sorted(state.items()))


def _load_own(
    folder: Path, config: PccConfig, decoder: Decoder, base: str | None, dtype: torch.dtype, adapt: bool
) -> PCC:
    path = folder / (config.weights or "") / files.WEIGHTS
    state = files.read_safetensors(path)
    layers, lora, name = config.encoder.layers, config.encoder.kind == "lora", base or config.encoder.base
    tokenizer = files.load_tokenizer(folder) if layers is None else decoder.tokenizer
    model: Any
    if layers is not None:
        model, name = first_layers(decoder, layers, dtype, share=lora), decoder.name
        if not lora:
            own = {key: value for key, value in model.state_dict().items() if _is_embedding(key)}
            files.load_strictly(model, own | files.under("encoder.", state), path)
    elif not lora:
        where = f"encoder.config in {folder / 'config.json'}"
        described, weights = from_state(config.encoder.config, where), files.under("encoder.", state)
        files.check_fits(without_weights(described, where), weights, path)  # before it takes memory
        model = AutoModel.from_config(described, dtype=dtype)
        files.load_strictly(model, weights, path)
    else:
        model = files.pretrained(base_folder(folder, name), dtype)
        vocabulary, width = model.get_input_embeddings().weight.shape
        memory_tokens = tensor(state, "memory_tokens", (MEMORY_TOKENS, width), folder)
        if len(tokenizer) > vocabulary:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        with torch.no_grad():
            model.get_input_embeddings().weight[memory_token_ids(tokenizer)] = memory_tokens.to(dtype)
    if lora:
        with foreign(f"the adapter that {path.with_name('config.json')} describes can't be put on the model '{name}'"):
            model = get_peft_model(model, LoraConfig(**(config.encoder.lora or {})))
        adapter = files.under("adapter.", state)
        files.check_names(adapter, get_peft_model_state_dict(model, save_embedding_layers=False), path)
        with foreign(f"{path} does not fit the encoder base '{name}'"):
            set_peft_model_state_dict(model, adapter)
    encoder = Encoder(model, tokenizer, config)
    for key, weight in (("memory_tokens", encoder.memory_rows), ("gate", encoder.gate)):
        if weight is not None and (key in state or key != "gate" or not adapt):
            weight.data = tensor(state, key, tuple(weight.shape), path).to(dtype)
    sizes = (encoder.hidden_size, config.decoder.hidden_size, config.residual)
    weights = files.under("converter.", state)
    with torch.device("meta"):
        files.check_fits(Converter(*sizes), weights, path)  # before it takes memory
    converter = Converter(*sizes).to(dtype)
    converter.load_state_dict(weights)
    special = tensor(state, "special", (len(SPECIAL_TOKENS), config.decoder.hidden_size), path)
    return PCC(config, encoder, converter, special)


def base_folder(folder: Path, name: str | None) -> Path:
    """The base model of a LoRA encoder; a `UsageError` where neither the checkpoint nor the user names it."""
    if name is None:
        raise UsageError(f"{folder} does not name its encoder's base model: pass encoder=<folder or hub id>")
    return files.resolve(name, "encoder base", folder)


def tensor(state: dict[str, torch.Tensor], name: str, shape: tuple[int, ...], path: Path) -> torch.Tensor:
    if name not in state:
        raise UsageError(f"{path} lacks '{name}': the checkpoint is incomplete")
    if state[name].shape != shape:
        raise UsageError(f"{path}: {name} has shape {list(state[name].shape)}, expected {list(shape)}")
    return state[name]


def _is_embedding(key: str) -> bool:
    return "embed_tokens" in key or "wte" in key


def _own_weights(pcc: PCC) -> dict[str, torch.Tensor]:
    """Weights of an encoder that are none of its transformer's."""
    weights = {"memory_tokens": pcc.encoder.memory_rows, "gate": pcc.encoder.gate}
    return {name: weight for name, weight in weights.items() if weight is not None}


def _card(pcc: PCC) -> str:
    config = pcc.config
    return f"""---
library_name: pcc-bench
tags: [context-compression, pcc]
---

# PCC {config.rate}x

A context compressor in the format of pcc_bench: segments of {config.segment_length} tokens become
{config.slots_per_segment} memory slots for the decoder `{config.decoder.name or "(not recorded)"}`.

| | |
|---|---|
| encoder | {config.encoder.config.get("model_type")} ({config.encoder.kind}), width {pcc.encoder.hidden_size} |
| rates | {", ".join(f"{rate}x" for rate in config.declared_rates)} |
| converter | {sum(p.numel() for p in pcc.converter.parameters()):,} parameters |
| boundaries | {config.boundaries} |
| slot positions | {config.slot_positions} |
| slots of a short segment | {config.slots} |
| decoder fingerprint | {config.decoder.fingerprint or "(not recorded)"} |

{config.notes}

```
lm_eval --model pcc --model_args pretrained=<this folder> --tasks pcc_rag
```
"""


def check_decoder(config: PccConfig, decoder: Decoder, name: str, any_decoder: bool) -> None:
    """See that a checkpoint was made for a decoder, whose fingerprint is unknown where its weights are not loaded."""
    made_for = config.decoder
    if made_for.hidden_size != decoder.hidden_size:
        raise UsageError(
            f"checkpoint '{name}' makes memories of width {made_for.hidden_size} for '{made_for.name}', "
            f"the decoder '{decoder.name}' has width {decoder.hidden_size}: it was made for another decoder"
        )
    if made_for.fingerprint is None or any_decoder or decoder.embedding.weight.is_meta:
        return
    if made_for.fingerprint != decoder.fingerprint:
        raise UsageError(
            f"checkpoint '{name}' was made for the decoder '{made_for.name}' (fingerprint {made_for.fingerprint}), "
            f"not for '{decoder.name}' ({decoder.fingerprint}){variants(made_for.name, decoder.name)}: use that "
            "decoder, or pass any_decoder=True to try it"
        )
