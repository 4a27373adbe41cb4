"""PISCO's files: two adapters (`adapters.pth`) and the vocabulary tables (`decoder_first_last_layers.pth`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from pcc_bench.baselines import _lora, _weights
from pcc_bench.baselines._cocom_config import CocomConfig
from pcc_bench.baselines._cocom_weights import ALPHA_PER_RANK, add_special_tokens, copy_into, lora_names, table_name
from pcc_bench.decoder import Decoder
from pcc_bench.errors import UsageError
from pcc_bench.model.files import read_torch

ADAPTERS, ENDS = "adapters.pth", "decoder_first_last_layers.pth"
ROLES = ("decoder_adapter", "encoder_adapter")


def load_separate(decoder: Decoder, folder: Path, config: CocomConfig) -> tuple[list[int], nn.Module, dict[str, Any]]:
    """Give the decoder PISCO's answering adapter, and make a second tree over its weights with the compressing one.

    Returns:
        Ids of the special tokens, the compressing body, and the tensors of all files by name.

    Raises:
        UsageError: A tensor is missing, unexpected or of a shape or value that belongs to another base model or rank.
    """
    path, table, head = folder / ADAPTERS, table_name(decoder), "lm_head.weight"
    ends, adapters = (_read_present(folder / name) for name in (ENDS, ADAPTERS))
    _weights.check_names(ends, {table, head}, folder / ENDS)
    _weights.check_names(adapters, ROLES, path)
    for role in ROLES:
        if not isinstance(adapters[role], dict):
            raise UsageError(f"{role} in {path} holds no tensors by name: copy the file again")
    _check_first_rows(decoder, ends[table], folder / ENDS)
    ids = add_special_tokens(decoder, config, ends[table], folder / ENDS)
    layers = _lora.linear_layers(decoder)
    state = {f"{role}/{key}": value for role in ROLES for key, value in adapters[role].items()}
    pairs = {f"{role}/{layer}": lora_names(f"{role}/{layer}.", "") for role in ROLES for layer in layers}
    # Some versions of peft save the resized embeddings with each adapter: the same values once more.
    state = {key: value for key, value in state.items() if key.rpartition("/")[2] not in (table, head)}
    _weights.check_names(state, {name for pair in pairs.values() for name in pair}, path)
    for role in ROLES:
        loras = {layer: pairs[f"{role}/{layer}"] for layer in layers}
        _lora.check(state, loras, layers, decoder, path, config.lora_r, "config.json says lora_r")
    copy_into(decoder.model.state_dict(), ends)
    body = decoder.model.base_model
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*body.parameters(), *body.buffers())}
    reader = deepcopy(body, shared)
    prefix = f"{decoder.model.base_model_prefix}."
    _attach(reader, _of_role(state, "encoder_adapter", prefix), config.lora_r, layers)
    _attach(decoder.model, _of_role(state, "decoder_adapter", ""), config.lora_r, layers)
    return ids, reader.eval().requires_grad_(False), {**state, **ends}


def _read_present(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f"{path} is missing: the checkpoint is incomplete, and the decoder would run without it")
    return read_torch(path)


def _attach(model: nn.Module, values: dict[str, torch.Tensor], rank: int, layers: Iterable[str]) -> None:
    targets = sorted({layer.rpartition(".")[2] for layer in layers})
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=ALPHA_PER_RANK * rank, target_modules=targets), model)
    unexpected = model.load_state_dict(values, strict=False).unexpected_keys
    assert not unexpected, unexpected  # the names have been compared with the layers


def _of_role(state: Mapping[str, torch.Tensor], role: str, prefix: str) -> dict[str, torch.Tensor]:
    """One adapter's tensors by their names in a module tree, adapter name `default`."""
    own = {key.removeprefix(f"{role}/"): value for key, value in state.items() if key.startswith(f"{role}/")}
    return {key.removeprefix(prefix).replace(".weight", ".default.weight"): value for key, value in own.items()}


def _check_first_rows(decoder: Decoder, table: torch.Tensor, path: Path) -> None:
    """PISCO trains the vectors of its special tokens only: the others are the base decoder's."""
    ours = decoder.embedding.weight[:256].float().cpu()
    theirs = table[: len(ours)].float()
    if theirs.shape == ours.shape and not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-3):
        raise UsageError(
            f"{path} was made for another base model than '{decoder.name}' (its token vectors are others): pass "
            "decoder=<its base>"
        )
