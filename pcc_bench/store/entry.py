"""One memory as a safetensors file that proves whose it is and that it is whole.

Never a pickle. The header says which key the file was made for, and a checksum covers header and tensors; a file that
says anything else is damaged, whatever damaged it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save

from pcc_bench.compressor import Memory, RawMemory
from pcc_bench.store.precision import pack, unpack

HEADER = "pcc_bench_stored_memory"  # in a file's metadata: checksum, blank, JSON
TENSORS = {Memory: ("text", "vectors"), RawMemory: ("slots",)}  # fields that the header does not hold


class DamagedError(Exception):
    """A file is not what its key promises."""


def write(key: str, maker: str, memory: Memory | RawMemory, precision: str) -> bytes:
    """The file of a memory.

    Args:
        key: What the memory was made from, hashed.
        maker: The part of it that is the same for all texts, hashed.
        memory: The memory as the decoder reads it, or before its converter.
        precision: Of the slots of the latter, one of `PRECISIONS` but `exact`.
    """
    tensors = {name: value.cpu().contiguous() for name, value in _tensors(memory, precision).items()}
    held = TENSORS[type(memory)]
    counts = {field.name: getattr(memory, field.name) for field in fields(memory) if field.name not in held}
    header = json.dumps({"key": key, "maker": maker, "counts": counts}, sort_keys=True)
    return save(tensors, {HEADER: f"{_checksum(header, tensors)} {header}"})


def read(data: bytes, key: str) -> Memory | RawMemory:
    """The memory in a file.

    Raises:
        DamagedError: The file is cut, changed, foreign, or made for another key.
    """
    try:
        tensors = load(data)
        length = int.from_bytes(data[:8], "little")
        checksum, header = json.loads(data[8 : 8 + length])["__metadata__"][HEADER].split(" ", 1)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedError(str(error)) from None
    if checksum != _checksum(header, tensors):
        raise DamagedError("its checksum does not hold")
    said = json.loads(header)
    if said["key"] != key:
        raise DamagedError("it was made for another key")
    if "slots" in tensors:
        segments = tuple(said["counts"].pop("segments"))
        return RawMemory(**said["counts"], segments=segments, slots=unpack(tensors))
    if "vectors" in tensors:
        return Memory(**said["counts"], vectors=tensors["vectors"])
    return Memory(**said["counts"], text=tensors["text"].numpy().tobytes().decode())


def maker(path: Path) -> str:
    """What made the memory of a file, as far as the file says so; "" where it does not."""
    try:
        with safe_open(path, framework="np") as file:
            _, _, header = (file.metadata() or {})[HEADER].partition(" ")
        return str(json.loads(header).get("maker", ""))
    except (OSError, SafetensorError, ValueError, KeyError):
        return ""


def _tensors(memory: Memory | RawMemory, precision: str) -> dict[str, torch.Tensor]:
    if isinstance(memory, RawMemory):
        return pack(memory.slots, precision)
    if memory.vectors is not None:
        return {"vectors": memory.vectors}
    return {"text": torch.from_numpy(np.frombuffer((memory.text or "").encode(), dtype=np.uint8).copy())}


def _checksum(header: str, tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(header.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
