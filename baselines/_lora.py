"""LoRA of a file and the layers of a decoder: what goes together, and how the one is merged into the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pcc_bench.decoder import Decoder
from pcc_bench.errors import UsageError

Names = Mapping[str, tuple[str, str]]  # of each layer, the names of its A [rank, in] and B [out, rank]


def linear_layers(decoder: Decoder, targets: Iterable[str] | None = None) -> dict[str, nn.Linear]:
    """Linear layers of a decoder by name.

    Args:
        decoder: The decoder.
        targets: Last parts of their names; by default all but the vocabulary head (peft's `all-linear`).
    """
    head = decoder.model.get_output_embeddings()
    modules = decoder.model.named_modules()
    found = {name: module for name, module in modules if isinstance(module, nn.Linear) and module is not head}
    kept = None if targets is None else set(targets)
    return {name: module for name, module in found.items() if kept is None or name.rpartition(".")[2] in kept}


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
    for layer, (a, b) in names.items():
        found, shape = {state[a].shape[0], state[b].shape[1]}, (state[b].shape[0], state[a].shape[1])
        if found != {rank}:
            ranks = " and ".join(map(str, sorted(found)))
            raise UsageError(f"{path}: {a} has rank {ranks}, {recorded}={rank}: they do not go together")
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
