"""Files of models that may come from anyone: sizes within reason, shapes before memory, finite weights, no code run.

A configuration is a dictionary for transformers, which builds what it says: a million layers, a width of -1. Here it is
looked at first, then built without memory, on the `meta` device, for its shapes to be compared with a file's.
"""

import json
import pickle  # for the name of its error only
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
from pydantic import ConfigDict, Field, create_model
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedConfig

from pcc_bench.core import shipped
from pcc_bench.core.documents import checked, is_file, is_folder, read_json
from pcc_bench.core.errors import UsageError, first_line, foreign
from pcc_bench.core.int8 import dequantise, fits

WEIGHTS = "model.safetensors"
DAMAGED, COPY = "{} is damaged or not safetensors", "copy it again"
RANDOM = "and random ones would be read in their place"
SCALES = ".int8_scales"  # ends the name of the scales of a matrix in 8 bits, see `core.int8`
LONGEST_NAME = 1_000  # characters of a folder or a hub id
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# Tables that old versions of transformers saved among the weights; the model makes them itself.
BUFFERS = ("attn.bias", "attn.masked_bias", "position_ids", "token_type_ids")
# What decides the memory a model takes, under the names that families give it: at most ten times the largest there are.
Layers = Annotated[int, Field(gt=0, le=2_000)]
Width = Annotated[int, Field(gt=0, le=1_000_000)]
Rows = Annotated[int, Field(gt=0, le=10_000_000)]
Positions = Annotated[int, Field(gt=0, le=100_000_000)]
_TYPES: list[tuple[Any, tuple[str, ...]]] = [
    (Layers, ("num_hidden_layers", "n_layer")),
    (Width, ("hidden_size", "n_embd", "n_head", "head_dim")),
    (Width | list[Width], ("num_attention_heads",)),  # a list where layers differ
    (Rows, ("n_inner", "vocab_size")),
    (Rows | list[Rows], ("intermediate_size",)),
    (Positions, ("max_position_embeddings", "n_positions")),
    (str, ("model_type",)),
    (list[str], ("architectures",)),
]
_FIELDS: Any = {name: (kind | None, None) for kind, names in _TYPES for name in names}
Sizes = create_model("Sizes", __config__=ConfigDict(strict=True, protected_namespaces=()), **_FIELDS)


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
    with foreign(missing, "check the name, the network and your access, or give a local folder"):
        return Path(snapshot_download(name))


def check_folder(name: str | Path) -> None:
    """See that a folder's `config.json` asks for no absurd sizes; what is no folder with one is left to its reader."""
    path = Path(name) / "config.json"
    if is_file(path):
        checked(Sizes, read_json(path), str(path))


def from_state(state: Mapping[str, Any], where: str) -> PreTrainedConfig:
    checked(Sizes, state, where)
    with foreign(f"{where} describes no model"):
        return transformers.AutoConfig.for_model(**state)


def from_folder(name: str) -> PreTrainedConfig:
    check_folder(name)
    with foreign(f"'{name}' has no readable model configuration"):
        config: PreTrainedConfig = transformers.AutoConfig.from_pretrained(name)
    return config


def without_weights(config: PreTrainedConfig, where: str, kind: Any = transformers.AutoModel) -> Any:
    """The model of a configuration on the `meta` device: shapes, no memory."""
    with foreign(f"{where} describes no model that can be built"), torch.device("meta"):
        return kind.from_config(config)


def check_complete(name: str | Path) -> None:
    """See that a causal LM's safetensors have every tensor of its configuration: transformers draws lost ones."""
    files = sorted(Path(name).glob("*.safetensors")) if is_folder(name) else []
    if not files or not is_file(Path(name) / "config.json"):
        return
    model = without_weights(from_folder(str(name)), f"'{name}'", AutoModelForCausalLM)
    model.tie_weights()
    names: dict[int, set[str]] = {}
    for key, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(key)
    stored = {key for file in files for key in safetensors_shapes(file)}
    if not stored <= set(model.state_dict()):  # names of old versions, converted as they are read
        return
    if lost := sorted(min(tied) for tied in names.values() if not tied & stored):
        problem = f"the model in {name} lacks {len(lost)} tensors of its configuration"
        raise UsageError(f"{problem} ({lost[0]} first), {RANDOM}: {COPY}")


def load_tokenizer(folder: Path | str) -> transformers.PreTrainedTokenizerBase:
    with foreign(f"{folder} has no readable tokenizer"):
        return transformers.AutoTokenizer.from_pretrained(folder)


def pretrained(folder: Path, dtype: torch.dtype | str, kind: Any = AutoModelForCausalLM, **options: Any) -> Any:
    """`kind.from_pretrained`, safetensors only unless `options` say otherwise; no tensor is drawn at random."""
    check_folder(folder)
    options = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True, **options}
    with foreign(f"the model in {folder} can't be read"):
        model, info = kind.from_pretrained(folder, **options)
    if lost := sorted([*info["missing_keys"], *(str(wrong[0]) for wrong in info["mismatched_keys"])]):
        problem = f"the model in {folder} lacks {len(lost)} tensors of its configuration, or has them in another shape"
        raise UsageError(f"{problem} ({lost[0]} first), {RANDOM}: {COPY}")
    return model


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file, finite floating-point numbers; 8-bit ones as float16."""
    if not is_file(path):
        raise UsageError(f"{path} is missing: the checkpoint is incomplete")
    with foreign(DAMAGED.format(path), COPY):
        state = _in_half(load_file(path), path)
    check_weights(state, str(path))
    return state


def _in_half(state: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    tensors = {key: value for key, value in state.items() if not key.endswith(SCALES)}
    for key in state.keys() - tensors.keys():
        name = key.removesuffix(SCALES)
        if name not in tensors or not fits(tensors[name], state[key]):
            raise UsageError(f"{path}: {key} does not fit '{name}', no matrix in 8 bits of its size: {COPY}")
        tensors[name] = dequantise(tensors[name], state[key]).half()
    return tensors


def safetensors_shapes(path: Path) -> dict[str, list[int]]:
    """Names and shapes of a file's tensors, without reading them; scales of 8-bit ones left out."""
    with foreign(DAMAGED.format(path), COPY), safe_open(path, framework="pt") as file:
        keys = [key for key in file.keys() if not key.endswith(SCALES)]  # noqa: SIM118  # not a mapping
        return {key: list(file.get_slice(key).get_shape()) for key in keys}


def check_safetensors(path: Path, name: Callable[[str, list[int]], bool] = lambda name, shape: True) -> int:
    """See that tensors of a file (those that `name` picks) are finite; returns how many it looked at."""
    names = [key for key, shape in safetensors_shapes(path).items() if name(key, shape)]
    with foreign(DAMAGED.format(path), COPY), safe_open(path, framework="pt") as file:
        present = set(file.keys())
        for key in names:
            state = {part: file.get_tensor(part) for part in (key, key + SCALES) if part in present}
            check_weights(_in_half(state, path), str(path))
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
    """As `read_torch`, named tensors only, finite floating-point numbers."""
    state = read_torch(path)
    check_weights(state, str(path))
    return state


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
    for name, tensor in tensors:
        if not is_finite(tensor):
            why = "its training diverged, its dtype is too small or the file is damaged"
            problem = f"{where}: {name} has values that are not finite numbers (NaN or infinity): {why}"
            raise UsageError(f"{problem}; use another checkpoint or dtype")


def check_weights(state: Mapping[Any, Any], where: str) -> None:
    """See that a file holds finite floating-point tensors by name; plain numbers (ICAE's left-out weights) pass."""
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


def check_names(present: Collection[str], expected: Collection[str], path: Path) -> None:
    """See that a file has the tensors it should have, and no others: a `UsageError` names the first one."""
    if missing := sorted(set(expected) - set(present)):
        raise UsageError(f"{path} lacks {len(missing)} tensors ({missing[0]} first): it is incomplete")
    if extra := sorted(set(present) - set(expected)):
        raise UsageError(f"{path} has {len(extra)} tensors that do not belong there ({extra[0]} first)")


def check_fits(module: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """See that tensors are those of a module, on any device; a missing, extra or wrongly shaped one is named."""
    wanted = module.state_dict()
    check_names(state, wanted, path)
    for key, value in state.items():
        shape = list(getattr(value, "shape", []))
        if shape != list(wanted[key].shape):
            raise UsageError(f"{path}: {key} has shape {shape}, expected {list(wanted[key].shape)}")


def load_strictly(module: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    check_fits(module, state, path)
    module.load_state_dict(state)


def under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def plain(value: Any) -> Any:
    """JSON-ready copy of a peft configuration (sets become sorted lists, enums their values)."""
    text = json.dumps(value, default=lambda x: sorted(x) if isinstance(x, set) else getattr(x, "value", str(x)))
    return json.loads(text)
