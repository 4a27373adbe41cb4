"""One memory as a safetensors file, with its key and a checksum: one that says anything else is damaged."""

import hashlib
import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save

from pcc_bench.core.checkpoint_files import FLOATS, is_finite
from pcc_bench.core.compressor import Memory, RawMemory
from pcc_bench.core.decoder import DTYPES
from pcc_bench.core.documents import Strict, checked, parse_json
from pcc_bench.core.int8 import dequantise, fits, quantise

HEADER = "pcc_bench_stored_memory"  # in a file's metadata: checksum, blank, JSON
EXACT = "exact"  # the memory as the decoder reads it
INT8 = "int8"
PRECISIONS = (EXACT, *DTYPES, INT8)
Count = Annotated[int, Field(ge=0)]


class DamagedError(Exception):
    """A file is not what its key promises."""


class Counts(Strict):  # of a `Memory`, or of a `RawMemory`
    source_tokens: Count
    compressor_tokens: Count
    source_bytes: Count
    seconds: float = Field(ge=0, allow_inf_nan=False)
    slots: Count | None = None
    boundary: Count | None = None
    truncated_bytes: Count | None = None
    positions: tuple[Count, ...] | None = None
    segments: tuple[Count, ...] | None = None


class EntryHeader(BaseModel):  # behind a file's checksum
    key: str
    maker: str
    counts: Counts


def write(key: str, maker: str, memory: Memory | RawMemory, precision: str) -> bytes:
    """The file of a memory; `key` hashes what it was made from, `maker` the part that is the same for all texts."""
    if isinstance(memory, RawMemory):
        whole = quantise(memory.slots) if precision == INT8 else (memory.slots.to(DTYPES[precision]),)
        tensors = dict(zip(("slots", "scales"), whole, strict=False))
    elif memory.vectors is not None:
        tensors = {"vectors": memory.vectors}
    else:
        tensors = {"text": torch.from_numpy(np.frombuffer((memory.text or "").encode(), dtype=np.uint8).copy())}
    tensors = {name: value.cpu().contiguous() for name, value in tensors.items()}
    counts = {name: value for name, value in vars(memory).items() if isinstance(value, int | float | tuple)}
    header = json.dumps({"key": key, "maker": maker, "counts": counts}, sort_keys=True)
    return save(tensors, {HEADER: f"{_checksum(header, tensors)} {header}"})


def read(data: bytes, key: str) -> Memory | RawMemory:
    """The memory in a file; DamagedError if it is cut, changed, foreign or made for another key."""
    try:
        tensors = load(data)  # so that what stands before them is JSON as safetensors writes it
        head = data[8 : 8 + int.from_bytes(data[:8], "little")].decode()
        metadata = parse_json(head, "the file").get("__metadata__") or {}
        checksum, _, text = metadata.get(HEADER, "").partition(" ")
        if checksum != _checksum(text, tensors):
            raise DamagedError("its checksum does not hold")
        header = checked(EntryHeader, parse_json(text, "its header"), "its header")
        if header.key != key:
            raise DamagedError("it was made for another key")
        if not all(map(is_finite, tensors.values())):
            raise DamagedError("it has values that are not finite numbers")
        state = header.counts.model_dump(exclude_none=True)
        if ("segments" in state) == ("slots" in state):
            raise DamagedError("its counts are neither a memory's nor those of slots before the converter")
        match sorted(tensors):
            case ["text"] if tensors["text"].dtype == torch.uint8 and "slots" in state:
                return Memory(**state, text=tensors["text"].numpy().tobytes().decode())
            case ["vectors"] if "slots" in state and tensors["vectors"].dim() == 2:
                if tensors["vectors"].dtype in FLOATS:
                    return Memory(**state, vectors=tensors["vectors"])
            case ["slots"] | ["scales", "slots"] if "segments" in state and _is_packed(tensors):
                if sum(state["segments"]) == len(slots := tensors["slots"]):
                    slots = dequantise(slots, tensors["scales"]) if "scales" in tensors else slots.float()
                    return RawMemory(**state, slots=slots)
        raise DamagedError(f"it holds {', '.join(tensors) or 'nothing'}, which its counts do not fit")
    except (SafetensorError, ValueError) as error:
        raise DamagedError(str(error)) from None


def _is_packed(tensors: dict[str, torch.Tensor]) -> bool:
    slots, scales = tensors["slots"], tensors.get("scales")
    return slots.dim() == 2 and slots.dtype in FLOATS if scales is None else fits(slots, scales)


def maker(path: Path) -> str:
    """What made the memory of a file, as far as the file says so; "" where it does not."""
    try:
        with safe_open(path, framework="np") as file:
            _, _, header = (file.metadata() or {}).get(HEADER, "").partition(" ")
        return checked(EntryHeader, parse_json(header, str(path)), str(path)).maker
    except (OSError, SafetensorError, ValueError):
        return ""


def _checksum(header: str, tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(header.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
