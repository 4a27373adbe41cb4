"""Configurations of models, which may come from anyone: sizes within reason, shapes before memory.

A configuration is a dictionary for transformers, which builds what it says: a million layers, a width of -1. Here it is
looked at first, then built without memory, on the `meta` device, for its shapes to be compared with a file's.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    """See that a configuration asks for no absurd sizes.

    Raises:
        UsageError: It does, or is no configuration.
    """
    checked(Sizes, state, where)


def check_folder(name: str | Path) -> None:
    """As `check_state`, of a folder's `config.json`; what is no folder with one is left to its reader."""
    path = Path(name) / "config.json"
    if is_file(path):
        check_state(read_json(path), str(path))


def from_state(state: Mapping[str, Any], where: str) -> PreTrainedConfig:
    """The configuration that plain data describe.

    Raises:
        UsageError: Of no known type, or with values that its type can't take.
    """
    check_state(state, where)
    with foreign(f"{where} describes no model"):
        config: PreTrainedConfig = AutoConfig.for_model(**state)
    return config


def from_folder(name: str) -> PreTrainedConfig:
    """The configuration of a local folder or a hub id.

    Raises:
        UsageError: There is none that can be read.
    """
    check_folder(name)
    with foreign(f"'{name}' has no readable model configuration"):
        config: PreTrainedConfig = AutoConfig.from_pretrained(name)
    return config


def check_complete(name: str | Path) -> None:
    """See that the safetensors of a causal LM's folder have every tensor that its configuration asks for.

    transformers draws random ones for those that are lost, and only logs it. Where a file names tensors otherwise than
    the model does (those of old versions, converted as they are read), nothing can be said.

    Raises:
        UsageError: One is missing; it is named.
    """
    files = sorted(Path(name).glob("*.safetensors")) if is_folder(name) else []
    if not files or not is_file(Path(name) / "config.json"):
        return
    model = without_weights(from_folder(str(name)), f"'{name}'", AutoModelForCausalLM)
    model.tie_weights()
    names: dict[int, set[str]] = {}
    for key, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(key)
    found: set[str] = set()
    for file in files:
        with foreign(f"{file} is damaged or not safetensors"), safe_open(file, framework="pt") as opened:
            found.update(opened.keys())
    if not found <= set(model.state_dict()):
        return
    if lost := sorted(min(tied) for tied in names.values() if not tied & found):
        raise UsageError(
            f"the model in {name} lacks {len(lost)} tensors of its configuration ({lost[0]} first), and random ones "
            "would be read in their place: copy it again"
        )


def without_weights(config: PreTrainedConfig, where: str, kind: Any = AutoModel) -> Any:
    """The model of a configuration on the `meta` device: shapes, no memory.

    Raises:
        UsageError: It can't be built.
    """
    with foreign(f"{where} describes no model that can be built"), torch.device("meta"):
        return kind.from_config(config)
