"""Arguments of `--model_args`: which are the method's, which are lm-eval's, and what is wrong with them."""

import inspect
import pickle  # for the name of its error only
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import simple_parse_args_string
from pydantic import BeforeValidator, ConfigDict, Field, PositiveInt, create_model, model_validator

from pcc_bench.core import documents, registry, shipped
from pcc_bench.core.checkpoint_files import check_complete, check_folder
from pcc_bench.core.compressor import Compressor
from pcc_bench.core.documents import Strict
from pcc_bench.core.errors import UsageError, foreign, memory_errors
from pcc_bench.host.planning import OVERFLOW
from pcc_bench.host.store.entry import EXACT, PRECISIONS

# Arguments of transformers' `from_pretrained`, which lm-eval passes on. Others may be a configuration's own.
FROM_PRETRAINED: tuple[str, ...] = ("attn_implementation", "torch_dtype", "use_safetensors", "load_in_4bit")
FROM_PRETRAINED += ("load_in_8bit", "variant", "token", "cache_dir", "force_download", "local_files_only")
FROM_PRETRAINED += ("quantization_config", "max_memory", "gguf_file")
SPEED_ONLY = ("batch_size", "max_batch_size", "device")  # arguments that change no answer
FOREIGN = ("self", "kwargs", "config", "state_dict", "device_map")  # lm-eval or transformers fill these in themselves
DEFAULTS = {"batch_size": "1", "device": "cuda:0"}  # of lm-eval's command line, which passes them on unasked
TASK_SETTINGS = ("data", "protocol", "population")  # lm-eval hands --model_args to the tasks too, as metadata
AUTO = re.compile(r"auto(:\d+(\.\d+)?)?")  # lm-eval's way to say: as large as fits


def _batch_size(value: Any) -> int | str:
    if isinstance(value, str) and AUTO.fullmatch(value):
        return value
    if isinstance(value, bool) or not str(value).isascii() or not str(value).isdigit() or not 0 < int(value) < 10**6:
        raise ValueError("a batch size is a number of 1 or more, or auto")
    return int(value)


def _dtype(value: Any) -> str | torch.dtype:
    named = getattr(torch, value, None) if isinstance(value, str) else value
    if value != "auto" and not (isinstance(named, torch.dtype) and named.is_floating_point):
        raise ValueError("a dtype is auto, float32, bfloat16 or float16")
    return value  # type: ignore[no-any-return]


def _device(value: Any) -> str:
    try:
        device = torch.device(value)
    except (RuntimeError, TypeError):
        raise ValueError("a device is cpu, cuda, cuda:1 ... or mps") from None
    here = torch.cuda.device_count()
    if device.type == "cuda" and here and (device.index or 0) >= here:
        raise ValueError(f"the GPUs here are 0 to {here - 1}")
    return str(value)


Place = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value)]
Dtype = Annotated[str | torch.dtype, BeforeValidator(_dtype)]


class RunnerOptions(Strict, coerce_numbers_to_str=True):
    """Our own arguments of `--model_args`, of any method; see `pcc_bench.host.lm.CompressedLM`."""

    pretrained: Place = ""
    decoder: Place | None = Field(default=None, min_length=1)
    control: Literal["wrong_memory"] | None = None
    control_seed: int = 0
    overflow: Literal[OVERFLOW] = OVERFLOW[0]  # type: ignore[valid-type]
    allow_special_tokens_in_text: bool = False
    memory_gb: float = Field(default=4.0, ge=0, allow_inf_nan=False)
    reuse_prefix: bool = True
    memory_store: str | None = Field(default=None, min_length=1)
    memory_store_dtype: Literal[PRECISIONS] = EXACT  # type: ignore[valid-type]
    memory_store_gib: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    backend: Annotated[str, Field(pattern=r"^(vllm|https?://\S+)$")] | None = None
    backend_memory: float = Field(default=0.5, gt=0, le=1)

    @model_validator(mode="after")
    def _store_options_have_a_store(self) -> Self:
        if self.memory_store is None and (self.memory_store_dtype != EXACT or self.memory_store_gib is not None):
            raise ValueError("memory_store_dtype and memory_store_gib are about a memory_store: name one or omit them")
        return self


# Of the arguments of lm-eval's `hf`, which checks none itself; unknown ones go on to `from_pretrained`.
_TYPES: list[tuple[Any, tuple[str, ...]]] = [
    (Annotated[int | str, BeforeValidator(_batch_size)], ("batch_size",)),
    (PositiveInt | None, ("max_batch_size", "max_length")),
    (Annotated[int, Field(ge=0)] | None, ("prefix_token_id",)),
    (Dtype, ("dtype",)),
    (Dtype | None, ("softmax_dtype", "mixed_precision_dtype")),
    (Annotated[str, BeforeValidator(_device)] | None, ("device",)),
    (Literal["default", "causal"], ("backend",)),
    (str, ("subfolder",)),
    (str | None, ("revision", "offload_folder", "peft", "delta", "gguf_file")),
    (bool | None, ("truncation", "logits_cache", "trust_remote_code", "use_fast_tokenizer", "add_bos_token")),
    (bool | None, ("parallelize", "gptqmodel", "enable_thinking")),
    (str | int | None, ("think_end_token",)),
    (dict[str, Any] | None, ("chat_template_args",)),
]
_FIELDS: Any = {name: (kind, None) for kind, names in _TYPES for name in names}
_CONFIG = ConfigDict(arbitrary_types_allowed=True, coerce_numbers_to_str=True)
HfOptions = create_model("HfOptions", __config__=_CONFIG, **_FIELDS)


def parse_arguments(text: str, what: str = "model args") -> dict[str, Any]:
    """Arguments as lm-eval reads them: `key=value,key=value`, or a JSON object; `what` names them in the error."""
    shown = f"{what} '{text[:200]}'"
    if text.lstrip().startswith("{"):
        values = documents.parse_json(text, shown)
    else:
        try:
            values = simple_parse_args_string(text)
        except ValueError:
            raise UsageError(f"{shown} are neither key=value,key=value nor JSON") from None
        names = Counter(pair.partition("=")[0] for pair in text.strip().split(",") if pair)
        if twice := [name for name, count in names.items() if count > 1]:
            raise UsageError(f"{shown} give {twice[0]} {names[twice[0]]} times: leave all but one out")
        if empty := [name for name, value in values.items() if value == ""]:
            raise UsageError(f"{shown} give {empty[0]} no value: write {empty[0]}=VALUE, or leave it out")
    assert isinstance(values, dict)
    return values


def joined(arguments: Mapping[str, Any], beside: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments of `--model_args`, with those of lm-eval's own options `beside` (`--device`); None is not given."""
    own = {name: value for name, value in (beside or {}).items() if value is not None}
    for name in own.keys() & arguments.keys():
        if str(own[name]) not in (str(arguments[name]), DEFAULTS.get(name)):
            ways = f"as --{name} {own[name]} and as {name}={arguments[name]} in model_args"
            raise UsageError(f"{name} is given twice, {ways}: leave one out")
    for name in arguments:
        if name in FOREIGN or not str(name).isidentifier():
            raise UsageError(f"model_args: '{name!s:.100}' is no argument of a model: leave it out")
    return {**own, **arguments}


def split_options(kind: type[Compressor], arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separate the options of `kind.load` from those of lm-eval's `hf`, typed; misspelt names are refused."""
    own = registry.options_of(kind).model_fields
    hf = [name for name in inspect.signature(HFLM.__init__).parameters if name not in ("self", "kwargs")]
    options = {name: value for name, value in arguments.items() if name in own}
    rest = {name: value for name, value in arguments.items() if name not in (*own, *TASK_SETTINGS)}
    known = [*own, *RunnerOptions.model_fields, "decoder", *TASK_SETTINGS, *hf, *FROM_PRETRAINED]
    for name in rest:
        if name not in known and (near := registry.nearest(name, known)):
            raise UsageError(f"model_args: {kind.name} has no option '{name}': did you mean '{near}'?")
    typed = documents.checked(HfOptions, rest, "model_args").model_dump(exclude_unset=True)
    return registry.typed(kind, options, "model_args"), {**rest, **typed}


def default_checkpoint(kind: type[Compressor], arguments: Mapping[str, Any]) -> str | None:
    """What `pretrained` means if not given: the decoder of a method without weights, what ships, or None."""
    if arguments.get("pretrained"):
        return None
    decoder = arguments.get("decoder")
    if decoder and not kind.soft and kind.default in ("", shipped.DECODER):
        return str(decoder)
    return kind.default if shipped.find(kind.default) else None


def check_choices(kind: type[Compressor], pretrained: str | None, control: str | None) -> None:
    if not pretrained:
        raise UsageError(f"--model {kind.name} ships no checkpoint: pass model_args pretrained=<folder or hub id>")
    if control and not kind.soft:
        raise UsageError(f"control={control} exchanges soft memories; {kind.name} has none")


def load_decoder(load: Callable[..., None], name: str, device: str | None, arguments: Mapping[str, Any]) -> None:
    """Load the decoder by lm-eval's constructor `load`, on a CPU where no GPU is; failures in one sentence."""
    if device is None or (device.startswith("cuda") and not torch.cuda.is_available()):
        device = "cuda" if torch.cuda.is_available() else "cpu"
    own = {key: value for key, value in arguments.items() if key != "gguf_file"}
    if isinstance(own.get("tokenizer"), str):
        own["tokenizer"] = shipped.located(own["tokenizer"])
    path = shipped.located(name, arguments.get("gguf_file"))
    check_folder(path)
    if not arguments.get("trust_remote_code"):
        check_complete(path)
    memory = memory_errors(f"loading the decoder '{name}'", "use a smaller dtype or a larger machine")
    try:
        with foreign(f"the decoder '{name}' can't be loaded"), memory:
            load(pretrained=path, device=device, **own)
    except pickle.UnpicklingError:
        raise UsageError(f"the decoder '{name}' holds more than tensors and was not opened") from None
