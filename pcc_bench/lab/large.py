"""A PCC-Large of the lab: the frozen decoder itself, with a LoRA, reads the text.

A causal LM whose embeddings are tied ends each position near the embedding of the token that it would say next. The
converter therefore begins by passing its input on: slots are then vectors that the decoder knows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pcc_bench.core.decoder import Decoder
from pcc_bench.lab.lite import pass_through
from pcc_bench.model import checkpoint, init
from pcc_bench.model.config import Boundaries

FIRST_RATE = 4  # of pretraining


def start_large(
    decoder: Decoder,
    folder: Path,
    *,
    segment_length: int,
    rank: int,
    boundaries: Boundaries = Boundaries.PER_SEGMENT,
    seed: int = 0,
) -> Path:
    """Write a checkpoint at `FIRST_RATE`, from which a compressor of that rate or a higher one can be trained.

    Args:
        decoder: The decoder it is for, and whose weights its encoder has.
        folder: Where to.
        segment_length: Tokens a segment.
        rank: Of the LoRA.
        boundaries: Boundary vectors.
        seed: Of what is drawn.
    """
    sizes: dict[str, Any] = {"segment_length": segment_length, "lora_rank": rank, "seed": seed}
    pcc = init.fresh(decoder.name, decoder, [FIRST_RATE], folder, **sizes)
    pass_through(pcc.converter, float(decoder.embedding.weight.float().std()))
    # Of one pass over the text nothing is learned by heart; dropout would only blur what the slots carry.
    lora = {**(pcc.config.encoder.lora or {}), "lora_dropout": 0.0}
    encoder = pcc.config.encoder.model_copy(update={"lora": lora})
    pcc.config = pcc.config.model_copy(update={"encoder": encoder, "boundaries": boundaries, "encoder_bos": False})
    checkpoint.save(pcc, folder)
    return folder
