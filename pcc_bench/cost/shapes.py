"""Sizes of what the user names: a geometry, a checkpoint, ours or in the published layout. No weights are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pcc_bench.core import shipped
from pcc_bench.core.checkpoint_files import resolve
from pcc_bench.core.errors import UsageError
from pcc_bench.cost import geometry
from pcc_bench.cost.sizes import config_of
from pcc_bench.cost.work import Shape
from pcc_bench.model import checkpoint
from pcc_bench.model.compressor import PccCompressor
from pcc_bench.model.config import MEMORY_TOKENS, DecoderConfig, EncoderConfig, PccConfig, validated
from pcc_bench.model.published import rate_in_name, read_adapter

DEFAULT_RATE = 4
WITHOUT_BOS = ("qwen2",)  # families whose tokenizers have no beginning of sequence


def of_geometry(name: str, rates: Sequence[int]) -> Shape:
    """The shape of `--random-weights`.

    Raises:
        UsageError: There is no such geometry, or a rate does not go with it.
    """
    pair = geometry.named(name)
    reads = geometry.config_of(pair.decoder)
    config = pair.config(rates or (DEFAULT_RATE,))
    return Shape(pair.encoder_name, pair.decoder, config, reads, reads.model_type not in WITHOUT_BOS)


def of_checkpoint(name: str, decoder: str | None, rates: Sequence[int]) -> Shape:
    """The shape of a checkpoint and its decoder.

    Args:
        name: Folder, hub id, or name of a shipped one.
        decoder: Folder or hub id, where it is not the one recorded.
        rates: That are asked for; none: the checkpoint's own.

    Raises:
        UsageError: It is no checkpoint, does not declare a rate, or its decoder is not known.
    """
    folder = resolve(shipped.located(name))
    path = PccCompressor.decoder_path(shipped.located(name), decoder)
    reads = config_of(path)
    if checkpoint.is_own(folder):
        config = PccConfig.read(folder)
        for rate in rates:
            config.with_options(rate=rate)
    else:
        config = _published(folder, name, reads.hidden_size, rates)
    known = decoder or config.decoder.name or path
    return Shape(name, known, config, reads, reads.model_type not in WITHOUT_BOS)


def _published(folder: Path, name: str, width: int, rates: Sequence[int]) -> PccConfig:
    """What `pcc_bench.model.published` makes of a folder, from its configuration files alone."""
    rate = rates[0] if rates else rate_in_name(name)
    if rate is None or len(rates) > 1:
        raise UsageError(f"{name} is in the published format, which has one rate and does not record it: pass --rate 4")
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        lora = read_adapter(folder)
        base = str(lora.base_model_name_or_path)
        state = config_of(base).to_dict()
        state["vocab_size"] += MEMORY_TOKENS
        kind = EncoderConfig(kind="lora", config=state, base=base, lora={"r": lora.r})
    else:
        kind = EncoderConfig(kind="full", config=config_of(str(folder)).to_dict())
    made_for = DecoderConfig(hidden_size=width)
    given = {"rate": rate, "encoder": kind.model_dump(), "decoder": made_for.model_dump()}
    return validated(given, f"{folder} with the options given")
