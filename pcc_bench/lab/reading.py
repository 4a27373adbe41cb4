"""Start a small GPT-2 encoder with heads that read, instead of waiting for them.

A published PCC-Lite encoder begins as a pretrained GPT2-Large, whose heads can already find a place in the text. One
that begins with random weights must first learn where its memory tokens should look. Here tokens begin with the
decoder's own embeddings, positions get codes that a rotation shifts, memory token `k` gets the code of the place where
its share of the segment starts, and each head looks at one place of that share and adds a part of the token there, as
it is, to the residual stream. All weights are trained on from there.
"""

from __future__ import annotations

import math
from typing import Any

import torch

CODE = 48  # channels of a code: half as many frequencies
STD = 0.1  # of token embeddings and, per channel, of codes
SHARPNESS = 30.0  # logit of the place a head looks at, above the mean


def width_for(decoder_width: int) -> int:
    """Width of an encoder that holds the decoder's embeddings and two codes."""
    return decoder_width + 2 * CODE


def places_for(rate: int, heads: int, layers: int) -> int:
    """How many heads should read for a rate: a layer's, or more where a memory token stands for more tokens."""
    return max(heads, min(rate, heads * layers))


def draw_reading_heads(model: Any, embeddings: torch.Tensor, places: int, seed: int = 0) -> None:
    """Write the reading heads into an untrained GPT-2, in place.

    Channels are divided: the first hold the token, then come those for the code of a position, and last those for the
    code of a memory token. The heads, those of the first layer first, share the channels of the token among them.

    Args:
        model: A causal GPT-2 of `width_for` the decoder's width.
        embeddings: The decoder's, in the order of the encoder's vocabulary: [tokens, decoder width].
        places: How many heads read; as many places of the text a memory token can be made of. See `places_for`.
        seed: Of what is drawn.
    """
    heads, text = model.config.n_head, embeddings.shape[1]
    size = model.config.n_embd // heads
    body = model.transformer
    share = text // places  # channels that a head carries
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        body.wte.weight.zero_()
        body.wte.weight[: len(embeddings), :text] = embeddings * (STD / embeddings.std())
        body.wpe.weight.zero_()
        body.wpe.weight[:, text:-CODE] = _code(torch.arange(model.config.n_positions))
        for layer in body.h:
            layer.attn.c_proj.weight.mul_(0.3)
            layer.mlp.c_proj.weight.mul_(0.3)
        parts = torch.linalg.qr(torch.randn(text, text, generator=generator))[0]
        for place in range(places):
            attention = body.h[place // heads].attn
            start = place % heads * size
            head = slice(start, start + size)
            part = parts[:, place * share : (place + 1) * share]
            values = attention.c_attn.weight[:, 2 * model.config.n_embd :]
            values[:, head] = 0
            values[:text, start : start + share] = part
            attention.c_proj.weight[head] = 0
            attention.c_proj.weight[start : start + share, :text] = STD * part.T


def point_memory_tokens(body: Any, memory_ids: list[int], rate: int, places: int) -> None:
    """Let the reading heads look at the places of a rate; what they carry stays as it is.

    Args:
        body: A GPT-2 without its head, drawn by `draw_reading_heads`, trained or not.
        memory_ids: Rows of the memory tokens.
        rate: Text tokens a memory token stands for from now on. Where it is smaller than `places`, several heads look
            at the same token, each for its own channels; where it is larger, they look at every so many tokens.
        places: As given to `draw_reading_heads`.
    """
    size = body.config.n_embd // body.config.n_head
    with torch.no_grad():
        body.wte.weight[memory_ids] = 0
        body.wte.weight[memory_ids, -CODE:] = _code(rate * torch.arange(len(memory_ids)))
        for place in range(places):
            attention = body.h[place // body.config.n_head].attn
            start = place % body.config.n_head * size
            _look_at(attention.c_attn.weight, slice(start, start + size), place * rate // places)


def _look_at(weight: torch.Tensor, head: slice, offset: int) -> None:
    """Query: a memory token's code, turned by `offset`; key: a position's code. Inputs are layer-normalised."""
    scale = math.sqrt(SHARPNESS * math.sqrt(head.stop - head.start) / CODE) / 1.5  # a code's channels, normalised
    width = len(weight)
    query, key = weight[:, :width], weight[:, width : 2 * width]
    query[:, head], key[:, head] = 0, 0
    query[width - CODE :, head.start : head.start + CODE] = scale * _turn(offset)
    key[width - 2 * CODE : width - CODE, head.start : head.start + CODE] = scale * torch.eye(CODE)


def _frequencies() -> torch.Tensor:
    """Drawn once for all: codes of different places are then hardly alike."""
    return torch.rand(CODE // 2, generator=torch.Generator().manual_seed(0)) * math.pi


def _code(places: torch.Tensor) -> torch.Tensor:
    """Codes of places: [places, CODE]."""
    angles = places[:, None] * _frequencies()
    return math.sqrt(2) * STD * torch.cat([angles.cos(), angles.sin()], dim=1)


def _turn(offset: int) -> torch.Tensor:
    """The matrix that takes a place's code (a row) to that of the place `offset` later."""
    angles = offset * _frequencies()
    cos, sin = angles.cos().diag(), angles.sin().diag()
    return torch.cat([torch.cat([cos, sin], dim=1), torch.cat([-sin, cos], dim=1)])
