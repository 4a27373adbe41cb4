"""Models that may come from anyone: configurations of sizes within reason, shapes before memory, finite weights.

A configuration is a dictionary for transformers, which builds what it says: a million layers, a width of -1. Here it is
looked at first, then built without memory, on the `meta` device, for its shapes to be compared with a file's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedConfig

from pcc_bench.core.documents import checked, is_file, is_folder, read_json
from pcc_bench.core.errors import UsageError, foreign

# Ten times the largest models there are.
Layers = Annotated[int, Field(gt=0, le=2_000)]
Width = Annotated[int, Field(gt=0, le=1_000_000)]
Rows = Annotated[int, Field(gt=0, le=10_000_000)]
Positions = Annotated[int, Field(gt=0, le=100_000_000)]
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# Tables that old versions of transformers saved among the weights; the model makes them itself.
BUFFERS = ("attn.bias", "attn.masked_bias", "position_ids", "token_type_ids")


class Sizes(BaseModel):
    """What decides the memory a model takes, under the names that families give it."""

    model_config = ConfigDict(strict=True, protected_namespaces=())

    model_type: str | None = None
    architectures: list[str] | None = None
    num_hidden_layers: Layers | None = None
    n_layer: Layers | None = None
    hidden_size: Width | None = None
    n_embd: Width | None = None
    intermediate_size: Rows | list[Rows] | None = None  # a list where layers differ
    n_inner: Rows | None = None
    num_attention_heads: Width | list[Width] | None = None
    n_head: Width | None = None
    head_dim: Width | None = None
    vocab_size: Rows | None = None
    max_position_embeddings: Positions | None = None
    n_positions: Positions | None = None


def check_state(state: Any, where: str) -> None:
    """See that a configuration asks for no absurd sizes."""
    checked(Sizes, state, where)


def check_folder(name: str | Path) -> None:
    """As `check_state`, of a folder's `config.json`; what is no folder with one is left to its reader."""
    path = Path(name) / "config.json"
    if is_file(path):
        check_state(read_json(path), str(path))


def from_state(state: Mapping[str, Any], where: str) -> PreTrainedConfig:
    """The configuration that plain data describe."""
    check_state(state, where)
    with foreign(f"{where} describes no model"):
        config: PreTrainedConfig = AutoConfig.for_model(**state)
    return config


def from_folder(name: str) -> PreTrainedConfig:
    """The configuration of a local folder or a hub id."""
    check_folder(name)
    with foreign(f"'{name}' has no readable model configuration"):
        config: PreTrainedConfig = AutoConfig.from_pretrained(name)
    return config


def check_complete(name: str | Path) -> None:
    """See that the safetensors of a causal LM's folder have every tensor that its configuration asks for.

    transformers draws random ones for those that are lost, and only logs it. Where a file names tensors otherwise than
    the model does (those of old versions, converted as they are read), nothing can be said.
    """
    files = sorted(Path(name).glob("*.safetensors")) if is_folder(name) else []
    if not files or not is_file(Path(name) / "config.json"):
        return
    model = without_weights(from_folder(str(name)), f"'{name}'", AutoModelForCausalLM)
    model.tie_weights()
    names: dict[int, set[str]] = {}
    for key, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(key)
    stored: set[str] = set()
    for file in files:
        with foreign(f"{file} is damaged or not safetensors"), safe_open(file, framework="pt") as opened:
            stored.update(opened.keys())
    if not stored <= set(model.state_dict()):
        return
    if lost := sorted(min(tied) for tied in names.values() if not tied & stored):
        raise UsageError(
            f"the model in {name} lacks {len(lost)} tensors of its configuration ({lost[0]} first), and random ones "
            "would be read in their place: copy it again"
        )


def without_weights(config: PreTrainedConfig, where: str, kind: Any = AutoModel) -> Any:
    """The model of a configuration on the `meta` device: shapes, no memory."""
    with foreign(f"{where} describes no model that can be built"), torch.device("meta"):
        return kind.from_config(config)


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
    """See that no tensor of (name, tensor) holds NaN or infinity."""
    for name, tensor in tensors:
        if not is_finite(tensor):
            raise UsageError(
                f"{where}: {name} has values that are not finite numbers (NaN or infinity): its training diverged, its "
                "dtype is too small or the file is damaged; use another checkpoint or dtype"
            )


def check_weights(state: Mapping[Any, Any], where: str) -> None:
    """See that a file holds floating-point tensors by name, all finite.

    A plain number passes: ICAE's files have them in the place of weights left out.
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
