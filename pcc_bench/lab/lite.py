"""A PCC-Lite that begins by reading: slots are at first the embeddings of the text, one a token, then of more and more.

The first checkpoint compresses nothing: each slot is (almost) the decoder's embedding of one token, which the decoder
can read as it is. From there the rate doubles from stage to stage. A fresh compressor that is
asked for 4x at once gives the decoder nothing to read at first.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from pcc_bench.core import tiny
from pcc_bench.core.decoder import Decoder
from pcc_bench.lab.reading import draw_reading_heads, places_for, point_memory_tokens, width_for
from pcc_bench.model import checkpoint, init
from pcc_bench.model.config import Boundaries
from pcc_bench.model.converter import Converter
from pcc_bench.model.encoder import MEMORY_TOKEN_NAMES

HEADS = 4
INNER = 2  # width of a block's inner layer, in widths of the encoder: half of GPT-2's, for the size of what ships
LINEAR = 4.0  # where GELU is the identity


def start_lite(
    decoder: Decoder,
    folder: Path,
    *,
    rate: int,
    segment_length: int,
    layers: int = 4,
    boundaries: Boundaries = Boundaries.PER_SEGMENT,
    seed: int = 0,
) -> Path:
    """Write a checkpoint at 1x from which a compressor of some rate can be trained.

    Args:
        decoder: The decoder it is for, whose tokenizer and embeddings the encoder starts with.
        folder: Where to; the encoder alone goes to `folder/encoder`.
        rate: The rate it will have in the end.
        segment_length: Tokens a segment, at most as many as there are memory tokens (64).
        layers: Of the encoder.
        boundaries: Boundary vectors.
        seed: Of what is drawn.
    """
    tokenizer: Any = copy.deepcopy(decoder.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": list(MEMORY_TOKEN_NAMES)}, False)
    width = width_for(decoder.hidden_size)
    encoder = folder / "encoder"
    size: dict[str, Any] = {"width": width, "layers": layers, "heads": HEADS, "window": 512, "n_inner": INNER * width}
    # Of one pass over the text nothing is learned by heart; dropout would only blur what the slots carry.
    undisturbed: dict[str, Any] = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    tiny.make_model("gpt2", tokenizer, encoder, seed=seed, std=0.02, **size, **undisturbed)
    model = AutoModelForCausalLM.from_pretrained(encoder)
    embeddings = decoder.embedding.weight.detach().float()
    places = places_for(rate, HEADS, layers)
    draw_reading_heads(model, embeddings, places, seed)
    model.save_pretrained(encoder)
    pcc = init.fresh(str(encoder), decoder, [1], folder, segment_length=segment_length, seed=seed)
    point_memory_tokens(pcc.encoder.body, pcc.encoder.memory_ids, 1, places)
    pass_through(pcc.converter, float(embeddings.std()))
    pcc.config = pcc.config.model_copy(update={"boundaries": boundaries, "encoder_bos": False})
    checkpoint.save(pcc, folder)
    return folder


def at_rate(start: Path, folder: Path, decoder: Decoder, rate: int, final_rate: int) -> Path:
    """Write a copy of a checkpoint whose memory tokens stand for `rate` tokens each, to be trained on.

    Those of a Lite are pointed at the tokens they stand for; a Large's learn it.
    """
    pcc = checkpoint.load(str(start), decoder, adapt=True).float()
    if pcc.config.encoder.kind == "full":
        places = places_for(final_rate, HEADS, pcc.encoder.body.config.n_layer)
        point_memory_tokens(pcc.encoder.body, pcc.encoder.memory_ids, rate, places)
    pcc.config = pcc.config.model_copy(update={"rate": rate, "rates": (rate,)})
    checkpoint.save(init.adapted(pcc, decoder, folder), folder)
    return folder


def rates_up_to(rate: int) -> Sequence[int]:
    """1, 2, 4, ... up to a rate that is a power of 2."""
    return tuple(_doubling(rate))


def _doubling(rate: int) -> Iterator[int]:
    step = 1
    while step < rate:
        yield step
        step *= 2
    yield rate


def pass_through(converter: Converter, std: float) -> None:
    """Let a converter pass the token's channels on, at the scale of the decoder's embeddings."""
    size = converter.decoder_size
    with torch.no_grad():
        converter.dense_in.weight.zero_()
        converter.dense_in.weight[:, :size] = torch.eye(size)
        converter.dense_in.bias.fill_(LINEAR)
        converter.dense_out.weight.copy_(std * torch.eye(size))
        converter.dense_out.bias.fill_(-LINEAR * std)
