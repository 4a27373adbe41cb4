"""Tensors out of files, which may come from anyone: weights and memories are finite floating-point numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from pcc_bench.core.errors import UsageError

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# Tables that old versions of transformers saved among the weights; the model makes them itself.
BUFFERS = ("attn.bias", "attn.masked_bias", "position_ids", "token_type_ids")


def is_finite(tensor: torch.Tensor) -> bool:
    """Has it neither NaN nor infinity? One pass over the values, without a copy of them; integers are finite."""
    if tensor.is_meta or not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    values = tensor.detach()
    if values.dtype not in FLOATS:  # 8-bit floats have no minimum of their own
        values = values.float()
    low, high = torch.aminmax(values)  # NaN anywhere makes both NaN
    return bool(torch.isfinite(low) & torch.isfinite(high))


def check_finite(tensors: Iterable[tuple[str, torch.Tensor]], where: str) -> None:
    """See that no tensor holds NaN or infinity.

    Args:
        tensors: Names and tensors.
        where: Names the file or model in the error.

    Raises:
        UsageError: One does; it is named.
    """
    for name, tensor in tensors:
        if not is_finite(tensor):
            raise UsageError(
                f"{where}: {name} has values that are not finite numbers (NaN or infinity): its training diverged, its "
                "dtype is too small or the file is damaged; use another checkpoint or dtype"
            )


def check_weights(state: Mapping[Any, Any], where: str) -> None:
    """See that what a file holds are floating-point tensors by name, all finite.

    Args:
        state: Name -> tensor, as read, or a plain number (ICAE's files have them in the place of weights left out).
        where: Names the file in the error.

    Raises:
        UsageError: Something else is among them; it is named.
    """
    for name, value in state.items():
        if isinstance(name, str) and isinstance(value, int | float):
            continue
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise UsageError(f"{where}: '{name!s:.100}' is {type(value).__name__}, no tensor: is it the right file?")
        if value.dtype not in FLOATS and not name.endswith(BUFFERS):
            kind = str(value.dtype).removeprefix("torch.")
            raise UsageError(f"{where}: {name} holds {kind}, not float32, float16 or bfloat16: convert the file")
        if value.layout is not torch.strided:
            raise UsageError(f"{where}: {name} is a sparse tensor: save it as an ordinary one")
    check_finite(((name, value) for name, value in state.items() if isinstance(value, torch.Tensor)), where)
