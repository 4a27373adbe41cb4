"""ICAE's files: what stands in them, whether it is the decoder's, and the body that reads with it."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from pcc_bench.baselines import _weights
from pcc_bench.decoder import Decoder
from pcc_bench.errors import UsageError

TARGETS = ("q_proj", "v_proj")  # what peft adapts by default in Llama and Mistral; the original says nothing else
PREFIX = "icae.base_model.model."  # of every key but the memory tokens'
TABLE = "memory_token_embed.weight"  # [memory tokens + 3, width]: the memory tokens, then AE, LM, FT


def check(state: dict[str, Any], path: Path, decoder: Decoder, rank: int | None = None) -> dict[str, torch.Tensor]:
    """The LoRA and memory tokens of a file, after a look at everything in it.

    A version-1 file has scalar placeholders where the base model's weights would be; the original code's own states
    have those weights. Neither is used, but what is there must be the decoder's.

    Raises:
        UsageError: Tensors are missing, unexpected, or made for another base model or rank.
    """
    own = {key: value for key, value in state.items() if ".lora_" in key or key == TABLE}
    layers = _adapted_layers(decoder)
    names = {layer: [f"{_prefix(decoder)}{layer}.lora_{side}.default.weight" for side in "AB"] for layer in layers}
    if TABLE in own and own[TABLE].shape[-1] != decoder.hidden_size:
        raise _wrong_base(path, decoder, f"width {own[TABLE].shape[-1]}, the decoder has {decoder.hidden_size}")
    _weights.check_names(own.keys(), {TABLE, *(name for pair in names.values() for name in pair)}, path)
    ranks = {n for a, b in names.values() for n in (own[a].shape[0], own[b].shape[1])}
    if len(ranks) > 1 or rank not in (None, *ranks):
        asked = f", but lora_rank={rank} was asked for" if rank else " at once"
        raise UsageError(f"{path} has adapters of rank {' and '.join(map(str, sorted(ranks)))}{asked}")
    for layer, (a, b) in names.items():
        shape = (own[b].shape[0], own[a].shape[1])
        if shape != (layers[layer].out_features, layers[layer].in_features):
            raise _wrong_base(path, decoder, f"{layer} of {shape[0]} x {shape[1]}, the decoder has another size")
    _check_base({key: value for key, value in state.items() if key not in own}, path, decoder, len(own[TABLE]))
    return own


def _check_base(state: dict[str, Any], path: Path, decoder: Decoder, added: int) -> None:
    """Weights of the base model that stand in the file: placeholders, or the decoder's own."""
    weights = decoder.model.state_dict()
    names = {key: key.removeprefix(PREFIX).replace(".base_layer.", ".") for key in state}
    known = {key for key, name in names.items() if key != name and (name in weights or name.endswith("inv_freq"))}
    _weights.check_names(state.keys(), known, path)
    for key, value in state.items():
        mine = weights.get(names[key])
        if mine is None or not isinstance(value, torch.Tensor) or not value.dim():
            continue
        # The original adds rows to the vocabulary (padding and the memory tokens) which nothing reads.
        rows = {len(mine), len(mine) + added + 1} if "embed_tokens" in key or "lm_head" in key else {len(mine)}
        if value.shape[1:] != mine.shape[1:] or len(value) not in rows:
            raise _wrong_base(path, decoder, f"{names[key]} {list(value.shape)}, the decoder has {list(mine.shape)}")
        ours, theirs = (tensor.flatten()[:64].float().cpu() for tensor in (mine, value))
        if not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-3):
            raise _wrong_base(path, decoder, f"other values in {names[key]}")


def _wrong_base(path: Path, decoder: Decoder, what: str) -> UsageError:
    return UsageError(f"{path} was made for another base model than '{decoder.name}' ({what}): pass decoder=<its base>")


def version_of(path: Path, state: dict[str, Any]) -> int:
    """1 where names are those of the old peft, which put LoRA beside `q_proj.weight` without a `base_layer`."""
    return 1 if path.suffix in (".pt", ".pth") or any(key.endswith("q_proj.weight") for key in state) else 2


def adapted_body(decoder: Decoder, state: dict[str, torch.Tensor], alpha: float) -> nn.Module:
    """The decoder's body with LoRA: a second tree of modules over the same weights, so that the decoder has none."""
    body = decoder.model.base_model
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*body.parameters(), *body.buffers())}
    rank = next(len(value) for key, value in state.items() if ".lora_A." in key)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(TARGETS))  # type: ignore[arg-type]
    adapted: nn.Module = inject_adapter_in_model(config, deepcopy(body, shared))
    values = {key.removeprefix(_prefix(decoder)): value for key, value in state.items() if key != TABLE}
    adapted.load_state_dict(values, strict=False)  # `check` has compared the names
    return adapted.eval().requires_grad_(False)


def _adapted_layers(decoder: Decoder) -> dict[str, nn.Linear]:
    """The layers that have LoRA, by their names in the body."""
    modules = decoder.model.base_model.named_modules()
    return {name: module for name, module in modules if name.rsplit(".", 1)[-1] in TARGETS}


def _prefix(decoder: Decoder) -> str:
    return f"{PREFIX}{decoder.model.base_model_prefix}."
