"""LoRA and the layers of a decoder: put into a model to be trained, taken out of it, merged from a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from pcc_bench.baselines import weights
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError

Names = Mapping[str, tuple[str, str]]  # of each layer, the names of its A [rank, in] and B [out, rank]
Lora = Mapping[str, tuple[torch.Tensor, torch.Tensor]]  # of each layer, A and B


def twin(model: Any) -> Any:
    """A second tree of modules over the same weights and buffers: what is put into it is not in the first."""
    return deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


def inject(model: nn.Module, targets: Sequence[str], rank: int, alpha: float) -> nn.Module:
    """Put a LoRA without dropout into layers whose names end so."""
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets), lora_dropout=0.0)  # type: ignore[arg-type]
    return inject_adapter_in_model(config, model)


def trainable(model: nn.Module, targets: Sequence[str], rank: int, alpha: float, seed: int) -> nn.Module:
    """Put a LoRA into a model, drawn from a seed, in float32, the only part of it that learns."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = inject(model, targets, rank, alpha)
    for name, parameter in adapted.named_parameters():
        parameter.requires_grad_(".lora_" in name)
        parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
    return adapted


def lora_of(model: nn.Module, adapter: str = "default") -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The adapters that peft has injected into a model, by layer."""
    layers: dict[str, Any] = {name: part for name, part in model.named_modules() if isinstance(part, LoraLayer)}
    return {name: (layer.lora_A[adapter].weight, layer.lora_B[adapter].weight) for name, layer in layers.items()}


def rank_of(lora: Lora) -> int:
    """The one rank of all layers."""
    (rank,) = {len(a) for a, _ in lora.values()}
    return rank


def linear_layers(decoder: Decoder, targets: Iterable[str] | None = None) -> dict[str, nn.Linear]:
    """Linear layers of a decoder by name.

    Args:
        decoder: The decoder.
        targets: Last parts of their names; by default all but the vocabulary head (peft's `all-linear`).
    """
    head = decoder.model.get_output_embeddings()
    modules = decoder.model.named_modules()
    linear = {name: module for name, module in modules if isinstance(module, nn.Linear) and module is not head}
    return linear if targets is None else {name: linear[name] for name in linear if last_part(name) in set(targets)}


def last_part(layer: str) -> str:
    """`q_proj` of `model.layers.0.self_attn.q_proj`, as peft names targets."""
    return layer.rpartition(".")[2]


def check(
    state: Mapping[str, torch.Tensor],
    names: Names,
    layers: Mapping[str, nn.Linear],
    decoder: Decoder,
    path: Path,
    rank: int,
    recorded: str,
) -> None:
    """See that adapters have the rank that is recorded, and the sizes of the decoder's layers.

    Raises:
        UsageError: They have not; the first such tensor is named.
    """
    weights.check_matrices(state, (name for pair in names.values() for name in pair), path)
    for layer, (a, b) in names.items():
        ranks, shape = {state[a].shape[0], state[b].shape[1]}, (state[b].shape[0], state[a].shape[1])
        if ranks != {rank}:
            text = " and ".join(map(str, sorted(ranks)))
            raise UsageError(f"{path}: {a} has rank {text}, {recorded}={rank}: they do not go together")
        expected = (layers[layer].out_features, layers[layer].in_features)
        if shape != expected:
            raise wrong_base(path, decoder, layer, shape, expected)


@torch.no_grad()
def merge(decoder: Decoder, state: Mapping[str, torch.Tensor], names: Names, scale: float) -> None:
    """Add scale x B A to the weights of layers, in float32 whatever they are kept in."""
    for layer, (a, b) in names.items():
        weight = decoder.model.get_submodule(layer).weight
        assert isinstance(weight, torch.Tensor)
        change = state[b].to(weight.device).float() @ state[a].to(weight.device).float()
        weight.copy_(weight.float() + scale * change)


def wrong_base(path: Path, decoder: Decoder, key: str, shape: Any, expected: Any) -> UsageError:
    """The error about a tensor whose size is not the decoder's."""
    return UsageError(
        f"{path} was made for another base model than '{decoder.name}' ({key} is {list(shape)}, the decoder's is "
        f"{list(expected)}): pass decoder=<its base>"
    )
