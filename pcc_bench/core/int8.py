"""Matrices in 8 bits: whole numbers, and a scale for each block of a row."""

import torch
from torch.nn import functional

BLOCK = 64  # numbers that share a scale: one that is far larger than the rest costs only its block precision


def quantise(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[rows, width] -> int8 [rows, width], float32 scales [rows, blocks]; off by at most half a scale."""
    blocks = _blocks(matrix.float())
    scales = blocks.abs().amax(-1) / 127
    whole = (blocks / scales.clamp_min(torch.finfo(torch.float32).tiny)[..., None]).round().to(torch.int8)
    return whole.flatten(1)[:, : matrix.shape[1]].contiguous(), scales


def dequantise(whole: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:  # float32
    return (_blocks(whole.float()) * scales[..., None]).flatten(1)[:, : whole.shape[1]].contiguous()


def fits(whole: torch.Tensor, scales: torch.Tensor) -> bool:  # are these what `quantise` returns?
    if whole.dtype != torch.int8 or scales.dtype != torch.float32 or whole.ndim != 2:
        return False
    return scales.shape == (len(whole), -(-whole.shape[1] // BLOCK))


def _blocks(matrix: torch.Tensor) -> torch.Tensor:
    """[rows, width] -> [rows, blocks, BLOCK], the last block filled up with zeros."""
    padded = functional.pad(matrix, (0, -matrix.shape[1] % BLOCK))
    blocks: torch.Tensor = padded.unflatten(1, (padded.shape[1] // BLOCK, BLOCK))
    return blocks
