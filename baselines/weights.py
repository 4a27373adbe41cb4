"""Weights and settings of the soft baselines in the layouts that they are published in."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel

from pcc_bench.core.checkpoint_files import read_safetensors, read_weights, resolve
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.documents import checked, is_file, read_json
from pcc_bench.core.errors import UsageError

STANDARD = ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin")
PATTERNS = ("*.safetensors", "*.pt", "*.pth", "*.bin")
Config = TypeVar("Config", bound=BaseModel)


def find(pretrained: str, file: str | None = None) -> Path:
    """The weights of a checkpoint, or the index of their shards.

    Args:
        pretrained: A folder, a hub id or the file itself.
        file: Its name, where a folder holds several.

    Raises:
        UsageError: There is none, or it is not clear which.
    """
    if is_file(pretrained):
        return Path(pretrained)
    folder = resolve(pretrained)
    if file is not None:
        if not (folder / file).is_file():
            raise UsageError(f"file={file}: no such file in {folder}")
        return folder / file
    if standard := [folder / name for name in STANDARD if (folder / name).is_file()]:
        return standard[0]
    found = sorted(path for pattern in ("*.index.json", *PATTERNS) for path in folder.glob(pattern))
    indexes = [path for path in found if path.suffix == ".json"]
    if len(indexes or found) != 1:
        names = ", ".join(path.name for path in indexes or found)
        says = f"has several weight files ({names}): pass file=<one of them>" if found else "has no weight file"
        raise UsageError(f"{folder} {says}")
    return (indexes or found)[0]


def read(path: Path) -> dict[str, Any]:
    """All tensors of a file or of the shards an index names; nothing in them is executed.

    Raises:
        UsageError: A file is missing, damaged, holds more than tensors, or disagrees with its index.
    """
    if path.suffix == ".json":
        return _read_shards(path)
    return dict(read_safetensors(path)) if path.suffix == ".safetensors" else read_weights(path)


def read_config(kind: type[Config], path: Path, otherwise: str = "can't be used") -> Config:
    """A JSON file with a method's settings.

    Args:
        kind: What stands in it.
        path: The file.
        otherwise: What is said of a file in which something else stands.

    Raises:
        UsageError: It is not there, or something in it is not what it should be.
    """
    return checked(kind, read_json(path), f"{path} {otherwise}")


class ShardIndex(BaseModel):
    """Which file holds which tensor, as transformers writes it."""

    weight_map: dict[str, str]


def _read_shards(index: Path) -> dict[str, Any]:
    places = checked(ShardIndex, read_json(index), f"{index} is no index of shards").weight_map
    state: dict[str, Any] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name:
            raise UsageError(f"{index} names '{name}', which is not beside it: it was not opened")
        if not (index.parent / name).is_file():
            raise UsageError(f"{index.parent / name} is missing: the checkpoint is incomplete")
        state |= read(index.parent / name)
    check_names(state.keys(), places.keys(), index)
    return state


def check_matrices(state: Mapping[str, torch.Tensor], names: Iterable[str], path: Path) -> None:
    """See that tensors have two dimensions.

    Args:
        state: Name -> tensor.
        names: Those that are there and should be matrices.
        path: The file, for the message.

    Raises:
        UsageError: One has not; it is named.
    """
    for name in names:
        shape = list(getattr(state[name], "shape", []))  # a number stands for weights left out
        if len(shape) != 2:
            raise UsageError(f"{path}: {name} has shape {shape}, not [rows, columns]: copy it again")


def check_names(found: Collection[str], wanted: Collection[str], path: Path) -> None:
    """See that a file has the tensors it should have, and no others.

    Raises:
        UsageError: It does not; the first name is given.
    """
    if missing := sorted(set(wanted) - set(found)):
        raise UsageError(f"{path} lacks {len(missing)} tensors ({missing[0]} first): it is incomplete")
    if extra := sorted(set(found) - set(wanted)):
        raise UsageError(f"{path} has {len(extra)} tensors that do not belong there ({extra[0]} first)")


def digest(state: Mapping[str, torch.Tensor], decoder: Decoder) -> str:
    """A short hash of a method's weights and of the decoder it runs on."""
    whole = hashlib.sha256(decoder.weights_fingerprint.encode())
    for key, value in sorted(state.items()):
        whole.update(key.encode())
        whole.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()[:16]
