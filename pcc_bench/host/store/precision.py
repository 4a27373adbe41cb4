"""How exactly a store keeps slots: as they are, in fewer bits, or as integers with a scale."""

from __future__ import annotations

import torch
from torch.nn import functional

EXACT = "exact"  # the memory as the decoder reads it
FLOATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
INT8 = "int8"
PRECISIONS = (EXACT, *FLOATS, INT8)
BLOCK = 64  # channels that share a scale: one that is far larger than the rest costs only its block precision


def pack(slots: torch.Tensor, precision: str) -> dict[str, torch.Tensor]:
    """Slots as tensors to write.

    Args:
        slots: [slots, width], any float dtype.
        precision: One of `PRECISIONS` but `exact`.

    Returns:
        `slots` in that precision; for int8 also `scales` [slots, blocks of `BLOCK` channels] in float32.
    """
    if precision != INT8:
        return {"slots": slots.to(FLOATS[precision])}
    blocks = _blocks(slots.float())
    scales = blocks.abs().amax(-1) / 127
    whole = (blocks / scales.clamp_min(torch.finfo(torch.float32).tiny)[..., None]).round().to(torch.int8)
    return {"slots": whole.flatten(1)[:, : slots.shape[1]].contiguous(), "scales": scales}


def unpack(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """The slots of `pack`: [slots, width] in float32."""
    slots = tensors["slots"].float()
    if "scales" not in tensors:
        return slots
    return (_blocks(slots) * tensors["scales"][..., None]).flatten(1)[:, : slots.shape[1]].contiguous()


def _blocks(slots: torch.Tensor) -> torch.Tensor:
    """[slots, width] -> [slots, blocks, BLOCK], the last block filled up with zeros."""
    padded = functional.pad(slots, (0, -slots.shape[1] % BLOCK))
    blocks: torch.Tensor = padded.unflatten(1, (padded.shape[1] // BLOCK, BLOCK))
    return blocks
