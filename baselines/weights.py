"""Weights of the soft baselines: files in the layouts that they are published in, and the LoRA in them.

A LoRA is named by its layers in the causal LM (`model.layers.0.self_attn.q_proj`): A is [rank, in], B is [out, rank].
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from itertools import chain
from pathlib import Path
from typing import Any, Self

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from pydantic import BaseModel, ConfigDict
from safetensors.torch import save_file
from torch import nn

from pcc_bench.core.checkpoint_files import check_names, read_safetensors, read_weights, resolve
from pcc_bench.core.decoder import Decoder, weights_digest
from pcc_bench.core.documents import checked, is_file, read_json, replaced, write_text
from pcc_bench.core.errors import UsageError

STANDARD = ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin")
PATTERNS = ("*.index.json", "*.safetensors", "*.pt", "*.pth", "*.bin")
Names = Mapping[str, tuple[str, str]]  # of each layer, the names of its A and B
Lora = Mapping[str, tuple[torch.Tensor, torch.Tensor]]  # of each layer, A and B


class Recorded(BaseModel):
    """What we read of a checkpoint's `config.json`; the defaults where there is none."""

    model_config = ConfigDict(frozen=True)

    @classmethod
    def read(cls, folder: Path) -> Self:
        path = folder / "config.json"
        return checked(cls, read_json(path) if path.is_file() else {}, f"{path} can't be used")


def find(pretrained: str, file: str | None = None) -> Path:
    """The weights of a checkpoint (folder, hub id or the file itself), or the index of their shards."""
    if is_file(pretrained):
        return Path(pretrained)
    folder = resolve(pretrained)
    if file is not None:
        if not (folder / file).is_file():
            raise UsageError(f"file={file}: no such file in {folder}")
        return folder / file
    if standard := [folder / name for name in STANDARD if (folder / name).is_file()]:
        return standard[0]
    files = sorted(chain.from_iterable(map(folder.glob, PATTERNS)))
    candidates = [path for path in files if path.suffix == ".json"] or files
    if len(candidates) != 1:
        names = ", ".join(path.name for path in candidates)
        says = f"has several weight files ({names}): pass file=<one of them>" if files else "has no weight file"
        raise UsageError(f"{folder} {says}")
    return candidates[0]


class ShardIndex(BaseModel):
    weight_map: dict[str, str]


def read(path: Path) -> dict[str, Any]:
    """All tensors of a file or of the shards an index names; nothing in them is executed."""
    if path.suffix != ".json":
        return read_safetensors(path) if path.suffix == ".safetensors" else read_weights(path)
    places = checked(ShardIndex, read_json(path), f"{path} is no index of shards").weight_map
    state: dict[str, Any] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name:
            raise UsageError(f"{path} names '{name}', which is not beside it: it was not opened")
        if not (path.parent / name).is_file():
            raise UsageError(f"{path.parent / name} is missing: the checkpoint is incomplete")
        state |= read(path.parent / name)
    check_names(state, places, path)
    return state


def write(
    folder: Path, file: str, state: Mapping[str, torch.Tensor], dtype: torch.dtype, config: Mapping[str, Any]
) -> None:
    tensors = {key: value.detach().to("cpu", dtype).contiguous() for key, value in state.items()}
    with replaced(folder / file) as path:
        save_file(tensors, path, metadata={"format": "pt"})
    write_text(folder / "config.json", json.dumps(config, indent=1) + "\n")


def check_matrices(state: Mapping[str, torch.Tensor], names: Iterable[str], path: Path) -> None:
    for name in names:
        shape = list(getattr(state[name], "shape", []))  # a number stands for weights left out
        if len(shape) != 2:
            raise UsageError(f"{path}: {name} has shape {shape}, not [rows, columns]: copy it again")


def digest(state: Mapping[str, torch.Tensor], decoder: Decoder) -> str:
    """A short hash of a method's weights and of the decoder it runs on."""
    return weights_digest(sorted(state.items()), decoder.weights_fingerprint)


def wrong_base(path: Path, decoder: Decoder, why: str) -> UsageError:
    return UsageError(f"{path} was made for another base model than '{decoder.name}' ({why}): pass decoder=<its base>")


def check_shape(path: Path, decoder: Decoder, key: str, shape: Sequence[int], own: Sequence[int]) -> None:
    if list(shape) != list(own):
        raise wrong_base(path, decoder, f"{key} is {list(shape)}, the decoder's is {list(own)}")


def check_values(path: Path, decoder: Decoder, key: str, values: torch.Tensor, own: torch.Tensor) -> None:
    """See that weights of a base model in a file are the decoder's, up to the rounding of 16-bit floats."""
    if not torch.allclose(values.float().cpu(), own.float().cpu(), rtol=1e-2, atol=1e-3):
        raise wrong_base(path, decoder, f"other values in {key}")


def check_whole(
    path: Path, decoder: Decoder, state: Mapping[str, torch.Tensor], names: Mapping[str, str], more: Iterable[str] = ()
) -> None:
    """See that a state has all of a decoder's weights (`names`: its for each of them), in their sizes, and `more`."""
    own = decoder.model.state_dict()
    ties = decoder.model.config.tie_word_embeddings
    tied = {key for name, key in names.items() if ties and name == "lm_head.weight"}
    check_names(tied | set(state), {*names.values(), *more}, path)
    for name, key in names.items():
        if key in state:
            check_shape(path, decoder, key, state[key].shape, own[name].shape)


def twin(model: Any) -> Any:
    """A second tree of modules over the same weights: what is put into it is not in the first."""
    return deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


def inject(
    model: nn.Module, targets: Sequence[str], rank: int, alpha: float, state: Mapping[str, torch.Tensor] | None = None
) -> nn.Module:
    """Put a LoRA without dropout into layers whose names end so; its tensors, whose names have been compared."""
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets), lora_dropout=0.0)  # type: ignore[arg-type]
    adapted = inject_adapter_in_model(config, model)
    adapted.load_state_dict(state or {}, strict=False)
    return adapted


def trainable(model: nn.Module, targets: Sequence[str], rank: int, alpha: float, seed: int) -> nn.Module:
    """As `inject`; the LoRA is drawn from a seed, in float32, and alone learns."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = inject(model, targets, rank, alpha)
    for name, parameter in adapted.named_parameters():
        parameter.requires_grad_(".lora_" in name)
        parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
    return adapted


def lora_of(model: nn.Module) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    layers: dict[str, Any] = {name: part for name, part in model.named_modules() if isinstance(part, LoraLayer)}
    return {name: (layer.lora_A["default"].weight, layer.lora_B["default"].weight) for name, layer in layers.items()}


def rank_of(lora: Lora) -> int:
    (rank,) = {len(a) for a, _ in lora.values()}
    return rank


def lora_names(form: str, layers: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Names of the A and B of layers in a file; `form` has a place for the layer and one for the letter."""
    return {layer: (form.format(layer, "A"), form.format(layer, "B")) for layer in layers}


def lora_state(form: str, lora: Lora) -> dict[str, torch.Tensor]:
    """A LoRA as a file has it; see `lora_names`."""
    return dict(zip(chain(*lora_names(form, lora).values()), chain(*lora.values()), strict=True))


def linear_layers(decoder: Decoder, targets: Iterable[str] | None = None) -> dict[str, nn.Linear]:
    """Linear layers of a decoder by name (only those whose last part is a target), never the vocabulary head."""
    head = decoder.model.get_output_embeddings()
    modules = decoder.model.named_modules()
    linear = {name: module for name, module in modules if isinstance(module, nn.Linear) and module is not head}
    return linear if targets is None else {name: linear[name] for name in linear if last_part(name) in set(targets)}


def last_part(layer: str) -> str:
    """`q_proj` of `model.layers.0.self_attn.q_proj`, as peft names targets."""
    return layer.rpartition(".")[2]


def check_lora(
    state: Mapping[str, torch.Tensor],
    names: Names,
    layers: Mapping[str, nn.Linear],
    decoder: Decoder,
    path: Path,
    rank: int,
    recorded: str,
) -> None:
    """See that a LoRA has the recorded rank and the sizes of the decoder's layers: a `UsageError` names a tensor."""
    check_matrices(state, chain(*names.values()), path)
    for layer, (a, b) in names.items():
        ranks = {state[a].shape[0], state[b].shape[1]}
        if ranks != {rank}:
            text = " and ".join(map(str, sorted(ranks)))
            raise UsageError(f"{path}: {a} has rank {text}, {recorded}={rank}: they do not go together")
        own = layers[layer].out_features, layers[layer].in_features
        check_shape(path, decoder, layer, (state[b].shape[0], state[a].shape[1]), own)


@torch.no_grad()
def merge_lora(decoder: Decoder, state: Mapping[str, torch.Tensor], names: Names, scale: float) -> None:
    """Add scale x B A to the weights of layers, in float32 whatever they are kept in."""
    for layer, (a, b) in names.items():
        weight = decoder.model.get_submodule(layer).weight
        assert isinstance(weight, torch.Tensor)
        change = state[b].to(weight.device).float() @ state[a].to(weight.device).float()
        weight.copy_(weight.float() + scale * change)
