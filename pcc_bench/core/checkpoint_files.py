"""Reading and writing the files of a checkpoint: every failure is one sentence, nothing in a file is executed."""

from __future__ import annotations

import json
import pickle  # for the name of its error only
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from pcc_bench.core import shipped
from pcc_bench.core.architecture import check_folder, check_weights
from pcc_bench.core.documents import is_file, is_folder
from pcc_bench.core.errors import UsageError, first_line, foreign

WEIGHTS = "model.safetensors"
DAMAGED, COPY = "{} is damaged or not safetensors", "copy it again"
LONGEST_NAME = 1_000  # characters of a folder or a hub id


def resolve(name: str, what: str = "checkpoint", beside: Path | None = None) -> Path:
    """Folder of a path (relative to `beside` first), of what `shipped.located` knows, or of a hub id."""
    if beside:
        name = shipped.beside(name, beside)
    if is_folder(folder := Path(shipped.located(name))):
        return folder.resolve()
    if len(name) > LONGEST_NAME:
        raise UsageError(f"{what} '{name[:60]}...' is no name: it has {len(name):,} characters")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        raise UsageError(f"{what} '{name}' is neither a folder here nor a hub id (owner/name): check the path")
    from huggingface_hub import snapshot_download

    missing = f"{what} '{name}' is no folder here and could not be fetched from the hub"
    remedy = "check the name, the network and your access, or give a local folder"
    with foreign(missing, remedy):
        return Path(snapshot_download(name))


def load_tokenizer(folder: Path | str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder or hub id."""
    with foreign(f"{folder} has no readable tokenizer"):
        return AutoTokenizer.from_pretrained(folder)


def load_causal_lm(folder: Path, dtype: torch.dtype | str) -> Any:
    """The causal LM of a model folder (safetensors only); dtype `auto` is that of its files."""
    return pretrained(AutoModelForCausalLM, folder, dtype)


def pretrained(kind: Any, folder: Path, dtype: torch.dtype | str, **options: Any) -> Any:
    """`kind.from_pretrained`, safetensors only unless `options` say otherwise; no tensor is drawn at random."""
    check_folder(folder)
    options = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True, **options}
    with foreign(f"the model in {folder} can't be read"):
        model, info = kind.from_pretrained(folder, **options)
    if lost := sorted([*info["missing_keys"], *(str(wrong[0]) for wrong in info["mismatched_keys"])]):
        raise UsageError(
            f"the model in {folder} lacks {len(lost)} tensors of its configuration, or has them in another shape "
            f"({lost[0]} first), and random ones would be read in their place: copy it again"
        )
    return model


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file, finite floating-point numbers."""
    if not is_file(path):
        raise UsageError(f"{path} is missing: the checkpoint is incomplete")
    with foreign(DAMAGED.format(path), COPY):
        state = load_file(path)
    check_weights(state, str(path))
    return state


def safetensors_shapes(path: Path) -> dict[str, list[int]]:
    """Names and shapes of a file's tensors, without reading them."""
    with foreign(DAMAGED.format(path), COPY), safe_open(path, framework="pt") as file:
        return {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118  # not a mapping


def check_safetensors(path: Path, name: Callable[[str, list[int]], bool] = lambda name, shape: True) -> int:
    """See that tensors of a file (those that `name` picks) are finite; returns how many it looked at."""
    names = [key for key, shape in safetensors_shapes(path).items() if name(key, shape)]
    with foreign(DAMAGED.format(path), COPY), safe_open(path, framework="pt") as file:
        for key in names:
            check_weights({key: file.get_tensor(key)}, str(path))
    return len(names)


def read_torch(path: Path) -> dict[str, Any]:
    """A file of the original code; nothing in it is executed."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UsageError(f"{path} holds more than tensors and was not opened") from None
    except Exception as error:  # of a damaged pickle, almost any
        raise UsageError(f"{path} is damaged or no file of torch.save ({first_line(error)}): copy it again") from None
    if not isinstance(state, dict):
        raise UsageError(f"{path} does not hold named tensors")
    return state


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The named tensors of a file of the original code, finite floating-point numbers; nothing in it is executed."""
    state = read_torch(path)
    check_weights(state, str(path))
    return state


def load_strictly(module: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Load all tensors of a module; a missing, extra or wrongly shaped one is named."""
    check_fits(module, state, path)
    module.load_state_dict(state)


def check_fits(module: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """See that tensors are those of a module, on any device; a missing, extra or wrongly shaped one is named."""
    wanted = module.state_dict()
    if missing := sorted(wanted.keys() - state.keys()):
        raise UsageError(f"{path} lacks {len(missing)} tensors ({missing[0]} first)")
    if extra := sorted(state.keys() - wanted.keys()):
        raise UsageError(f"{path} has {len(extra)} tensors that do not belong there ({extra[0]} first)")
    for key, value in state.items():
        shape = list(getattr(value, "shape", []))
        if shape != list(wanted[key].shape):
            raise UsageError(f"{path}: {key} has shape {shape}, expected {list(wanted[key].shape)}")


def under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors whose names start with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def plain(value: Any) -> Any:
    """JSON-ready copy of a peft configuration (sets become sorted lists, enums their values)."""
    return json.loads(
        json.dumps(value, default=lambda x: sorted(x) if isinstance(x, set) else getattr(x, "value", str(x)))
    )
