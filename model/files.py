"""Reading and writing the files of a checkpoint: every failure is one sentence, nothing in a file is executed."""

from __future__ import annotations

import json
import pickle  # for the name of its error only
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from pcc_bench import shipped
from pcc_bench.errors import UsageError

WEIGHTS = "model.safetensors"


def resolve(name: str, what: str = "checkpoint", beside: Path | None = None) -> Path:
    """Folder of a local path or hub id.

    Args:
        name: What `shipped.located` knows, relative to `beside` or to the working directory, or a hub id.
        what: Named in the error.
        beside: The folder that mentions `name`.

    Raises:
        UsageError: Neither a folder nor a hub id that can be fetched.
    """
    if beside:
        name = shipped.beside(name, beside)
    if (folder := Path(shipped.located(name))).is_dir():
        return folder.resolve()
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        raise UsageError(f"{what} '{name}' is neither a folder here nor a hub id (owner/name): check the path")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise UsageError(
            f"{what} '{name}' is no folder here and could not be fetched from the hub ({first}): check the name, "
            "the network and your access, or give a local folder"
        ) from None


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder."""
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{folder} has no readable tokenizer ({first_line(error)})") from None


def load_causal_lm(folder: Path, dtype: torch.dtype) -> Any:
    """The causal LM of a model folder (safetensors only)."""
    return pretrained(AutoModelForCausalLM, folder, dtype)


def pretrained(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    """`kind.from_pretrained`, safetensors only."""
    try:
        return kind.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UsageError(f"the model in {folder} can't be read ({first_line(error)})") from None


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file."""
    if not path.is_file():
        raise UsageError(f"{path} is missing: the checkpoint is incomplete")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UsageError(f"{path} is damaged or not safetensors ({first_line(error)}): copy it again") from None


def safetensors_keys(path: Path) -> list[str]:
    """The names of a file's tensors, without reading them."""
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (SafetensorError, FileNotFoundError) as error:
        raise UsageError(f"{path} is damaged or not safetensors ({first_line(error)}): copy it again") from None


def read_torch(path: Path) -> dict[str, Any]:
    """A file of the original code; nothing in it is executed."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read ({first_line(error)})") from None
    except pickle.UnpicklingError:
        raise UsageError(f"{path} holds more than tensors and was not opened") from None
    if not isinstance(state, dict):
        raise UsageError(f"{path} does not hold named tensors")
    return state


def load_strictly(module: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Load all tensors of a module; a missing, extra or wrongly shaped one is named."""
    wanted = module.state_dict()
    if missing := sorted(wanted.keys() - state.keys()):
        raise UsageError(f"{path} lacks {len(missing)} tensors ({missing[0]} first)")
    if extra := sorted(state.keys() - wanted.keys()):
        raise UsageError(f"{path} has {len(extra)} tensors that do not belong there ({extra[0]} first)")
    for key, value in state.items():
        if value.shape != wanted[key].shape:
            raise UsageError(f"{path}: {key} has shape {list(value.shape)}, expected {list(wanted[key].shape)}")
    module.load_state_dict(state)


def under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors whose names start with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def plain(value: Any) -> Any:
    """JSON-ready copy of a peft configuration (sets become sorted lists, enums their values)."""
    return json.loads(
        json.dumps(value, default=lambda x: sorted(x) if isinstance(x, set) else getattr(x, "value", str(x)))
    )


def first_line(error: BaseException) -> str:
    """What a library's error says, short enough to stand in a sentence of ours."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
