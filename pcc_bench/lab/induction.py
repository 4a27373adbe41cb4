"""Start a small decoder with the circuit that copies, instead of waiting for it.

A causal LM copies through two attention heads in a row (an induction head): one carries each token's predecessor along,
the next one looks for the place whose predecessor is the present token and copies what stands there. A small model
takes long to find this pair, and cannot read memories before it has. Here the pair is drawn into the
initial weights, roughly (`tests/test_lab.py` asks that over 30 % of a random string are then copied); all weights are
trained on from there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

EMBEDDING_STD = 0.04
POSITION_SHARPNESS = 30.0  # logit of the place that a positional head looks at, above the mean
MATCH = 2.0  # scale of the query and key that look for the same token
CARRIED = 2.0  # strength of the predecessor in the residual stream, in units of an embedding
COPIED = 8.0  # strength of the copied token, likewise
FAST_FREQUENCIES = 10  # rotary frequencies left out of the match: they turn too far within a passage


@dataclass(frozen=True)
class _Attention:
    """The four matrices of a layer, whatever the family calls them; writing to them writes to the model."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    out: torch.Tensor


def draw_induction_heads(model: Any, seed: int = 0) -> None:
    """Write the copying circuit into the first two layers of an untrained decoder, in place.

    Every embedding gets the same value in channel 0. The heads of the first layer read nothing else, with rotary phases
    such that head `h` looks `h + 1` tokens back; head 0 writes what it sees there into a subspace of its own. The first
    half of the heads of the second layer compare the present token with that subspace, by rotary frequencies slow
    enough to reach across a passage, and copy.

    Args:
        model: A causal LM with rotary positions (Llama, Mistral, Qwen2, Phi-3), as many key-value heads as heads, and
            tied embeddings.
        seed: Of the drawn subspaces.
    """
    embedding = model.get_input_embeddings().weight
    heads, width = model.config.num_attention_heads, model.config.hidden_size
    size = width // heads
    first, second = (_attention(layer.self_attn, width) for layer in model.model.layers[:2])
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        embedding.normal_(std=EMBEDDING_STD, generator=generator)
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.mul_(0.3)
            layer.mlp.down_proj.weight.mul_(0.3)
        embedding[:, 0] = 4 * EMBEDDING_STD
        constant = float((embedding[:, 0] / embedding.pow(2).mean(1).sqrt()).mean())  # as the first layer sees it
        for head in range(heads):
            query, key = _look_back(head + 1, size, model.model.rotary_emb.inv_freq, constant)
            rows = slice(head * size, (head + 1) * size)
            first.query[rows, 0], first.key[rows, 0] = query, key
        reads, carries, copies = (_orthonormal(width, generator) for _ in range(3))
        reads, carries = reads[:size], carries[:size]
        reads[:, 0] = carries[:, 0] = 0
        first.value[:size] = reads
        first.out[:, :size] = CARRIED * EMBEDDING_STD * carries.T
        slow = (torch.arange(size) % (size // 2) >= FAST_FREQUENCIES * size // 64).float()[:, None]
        for head in range(heads // 2):
            rows = slice(head * size, (head + 1) * size)
            second.query[rows], second.key[rows] = MATCH * slow * reads, MATCH * slow * carries
            second.value[rows] = copies[rows]
            second.out[:, rows] = COPIED * EMBEDDING_STD * copies[rows].T


def _look_back(offset: int, size: int, frequencies: torch.Tensor, constant: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Query and key of a head that looks `offset` tokens back, for inputs whose channel 0 is `constant`."""
    half = size // 2
    scale = math.sqrt(POSITION_SHARPNESS * math.sqrt(size) / half) / constant
    angles = frequencies[:half] * offset
    query = scale * torch.cat([angles.cos(), -angles.sin()])
    key = scale * torch.cat([torch.ones(half), torch.zeros(half)])
    return query, key


def _orthonormal(size: int, generator: torch.Generator) -> torch.Tensor:
    rows: torch.Tensor = torch.linalg.qr(torch.randn(size, size, generator=generator))[0]
    return rows


def _attention(module: nn.Module, width: int) -> _Attention:
    layer: Any = module
    if hasattr(layer, "qkv_proj"):  # Phi-3 keeps the three in one matrix
        query, key, value = layer.qkv_proj.weight.split(width)
    else:
        query, key, value = layer.q_proj.weight, layer.k_proj.weight, layer.v_proj.weight
    return _Attention(query, key, value, layer.o_proj.weight)
