"""From one checkpoint format to the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pcc_bench.core.checkpoint_files import resolve
from pcc_bench.core.decoder import Decoder
from pcc_bench.model import checkpoint, published
from pcc_bench.model.config import PccConfig
from pcc_bench.model.init import name_beside, open_decoder
from pcc_bench.model.pcc import PCC


def convert(source: str, decoder: str, out: Path, to: str, dtype: torch.dtype | None = None, **options: Any) -> PCC:
    """Read a checkpoint of either format and write it in one.

    Args:
        source: Folder or hub id.
        decoder: The decoder it was trained against, folder or hub id; recorded in our format.
        out: Folder to write.
        to: `own` or `published`.
        dtype: Of the weights in our own format; None: as they are.
        **options: As in `checkpoint.load`.

    Raises:
        UsageError: The source can't be read, or does not fit the decoder.
    """
    made_for = open_decoder(decoder)
    pcc = checkpoint.load(source, made_for, **options)
    if to == "published":
        published.export(pcc, out)
    else:
        pcc.config = _beside(pcc.config, made_for, resolve(source), out)
        checkpoint.save(pcc, out, dtype)
    return pcc


def _beside(config: PccConfig, decoder: Decoder, source: Path, out: Path) -> PccConfig:
    """The configuration with local models named relative to their new neighbour, and the decoder's fingerprint."""
    named = {"name": name_beside(decoder.name, out), "fingerprint": decoder.fingerprint}
    made_for = config.decoder.model_copy(update=named)
    encoder = config.encoder
    if encoder.base:
        near = source if checkpoint.is_own(source) else source.parent
        base = near / encoder.base
        encoder = encoder.model_copy(update={"base": name_beside(str(base) if base.is_dir() else encoder.base, out)})
    return config.model_copy(update={"decoder": made_for, "encoder": encoder})
