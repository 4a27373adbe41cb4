"""Start small models with the attention heads that they need, instead of waiting for them.

A causal LM copies through two heads in a row (an induction head): one carries each token's predecessor along, the next
looks for the place whose predecessor is the present token and copies what stands there. A small model takes long to
find this pair, and cannot read memories before it has: here it is drawn into a decoder's initial weights, roughly.

A published PCC-Lite encoder begins as a pretrained GPT2-Large, whose heads can already find a place in the text. Here
tokens begin with the decoder's own embeddings, positions get codes that a rotation shifts, memory token `k` gets the
code of the place where its share of the segment starts, and each head looks at one place of that share and adds a part
of the token there, as it is, to the residual stream. All weights are trained on from there.
"""

import math
from typing import Any

import torch

EMBEDDING_STD = 0.04
SHARPNESS = 30.0  # logit of the place that a head looks at, above the mean
MATCH = 2.0  # scale of the query and key that look for the same token
CARRIED = 2.0  # strength of the predecessor in the residual stream, in units of an embedding
COPIED = 8.0  # strength of the copied token, likewise
FAST_FREQUENCIES = 10  # rotary frequencies left out of the match: they turn too far within a passage


def draw_induction_heads(model: Any, seed: int = 0) -> None:
    """Write the copying circuit into the first two layers of an untrained decoder, in place.

    It has rotary positions (Llama, Mistral, Qwen2, Phi-3), as many key-value heads as heads, and tied embeddings.

    Every embedding gets the same value in channel 0. The heads of the first layer read nothing else, with rotary phases
    such that head `h` looks `h + 1` tokens back; head 0 writes what it sees there into a subspace of its own. The first
    half of the heads of the second layer compare the present token with that subspace, by rotary frequencies slow
    enough to reach across a passage, and copy. `seed`: of the drawn subspaces.
    """
    embedding = model.get_input_embeddings().weight
    heads, width = model.config.num_attention_heads, model.config.hidden_size
    size = width // heads
    attention: list[Any] = []  # query, key, value and output matrices; writing to them writes to the model
    for layer in (layer.self_attn for layer in model.model.layers[:2]):
        if hasattr(layer, "qkv_proj"):  # Phi-3 keeps the three in one matrix
            inputs = layer.qkv_proj.weight.split(width)
        else:
            inputs = (layer.q_proj.weight, layer.k_proj.weight, layer.v_proj.weight)
        attention.append((*inputs, layer.o_proj.weight))
    (query, key, value, out), (next_query, next_key, next_value, next_out) = attention
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        embedding.normal_(std=EMBEDDING_STD, generator=generator)
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.mul_(0.3)
            layer.mlp.down_proj.weight.mul_(0.3)
        embedding[:, 0] = 4 * EMBEDDING_STD
        constant = float((embedding[:, 0] / embedding.pow(2).mean(1).sqrt()).mean())  # as the first layer sees it
        half = size // 2
        scale = math.sqrt(SHARPNESS * math.sqrt(size) / half) / constant
        for head in range(heads):
            angles = model.model.rotary_emb.inv_freq[:half] * (head + 1)
            rows = slice(head * size, (head + 1) * size)
            query[rows, 0] = scale * torch.cat([angles.cos(), -angles.sin()])
            key[rows, 0] = scale * torch.cat([torch.ones(half), torch.zeros(half)])
        reads, carries, copies = (torch.linalg.qr(torch.randn(width, width, generator=generator))[0] for _ in range(3))
        reads, carries = reads[:size], carries[:size]
        reads[:, 0] = carries[:, 0] = 0
        value[:size] = reads
        out[:, :size] = CARRIED * EMBEDDING_STD * carries.T
        slow = (torch.arange(size) % (size // 2) >= FAST_FREQUENCIES * size // 64).float()[:, None]
        for head in range(heads // 2):
            rows = slice(head * size, (head + 1) * size)
            next_query[rows], next_key[rows] = MATCH * slow * reads, MATCH * slow * carries
            next_value[rows] = copies[rows]
            next_out[:, rows] = COPIED * EMBEDDING_STD * copies[rows].T


CODE = 48  # channels of a code: half as many frequencies
STD = 0.1  # of token embeddings and, per channel, of codes


def places_for(rate: int, heads: int, layers: int) -> int:
    """How many heads should read for a rate: a layer's, or more where a memory token stands for more tokens."""
    return max(heads, min(rate, heads * layers))


def draw_reading_heads(model: Any, embeddings: torch.Tensor, places: int, seed: int = 0) -> None:
    """Write the reading heads into an untrained GPT-2, in place.

    Channels are divided: the first hold the token, then come those for the code of a position, and last those for the
    code of a memory token. The heads, those of the first layer first, share the channels of the token among them.
    `embeddings` are the decoder's, in the order of the encoder's vocabulary; see `places_for`.
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
    """Let the reading heads of `draw_reading_heads` look at the places of a rate; what they carry stays as it is.

    `rate` text tokens is what a memory token stands for from now on. Where it is smaller than `places`, several heads
    look at the same token, each for its own channels; where it is larger, they look at every so many tokens.
    """
    size = body.config.n_embd // body.config.n_head
    scale = math.sqrt(SHARPNESS * math.sqrt(size) / CODE) / 1.5  # a code's channels, normalised
    with torch.no_grad():
        body.wte.weight[memory_ids] = 0
        body.wte.weight[memory_ids, -CODE:] = _code(rate * torch.arange(len(memory_ids)))
        for place in range(places):
            attention = body.h[place // body.config.n_head].attn
            start = place % body.config.n_head * size
            head, codes = slice(start, start + size), slice(start, start + CODE)
            # Query: a memory token's code, turned; key: a position's code. Inputs are layer-normalised.
            weight, width = attention.c_attn.weight, len(attention.c_attn.weight)
            query, key = weight[:, :width], weight[:, width : 2 * width]
            query[:, head], key[:, head] = 0, 0
            # The matrix that takes a place's code (a row) to that of the place so much later.
            angles = place * rate // places * _frequencies()
            cos, sin = angles.cos().diag(), angles.sin().diag()
            turn = torch.cat([torch.cat([cos, sin], dim=1), torch.cat([-sin, cos], dim=1)])
            query[width - CODE :, codes] = scale * turn
            key[width - 2 * CODE : width - CODE, codes] = scale * torch.eye(CODE)


def _frequencies() -> torch.Tensor:
    """Drawn once for all: codes of different places are then hardly alike."""
    return torch.rand(CODE // 2, generator=torch.Generator().manual_seed(0)) * math.pi


def _code(places: torch.Tensor) -> torch.Tensor:
    """Codes of places: [places, CODE]."""
    angles = places[:, None] * _frequencies()
    return math.sqrt(2) * STD * torch.cat([angles.cos(), angles.sin()], dim=1)
