"""Arguments of `--model_args`: which are the method's, which are lm-eval's, and what is wrong with them."""

from __future__ import annotations

import inspect
import pickle  # for the name of its error only
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import simple_parse_args_string

from pcc_bench import documents, registry, shipped
from pcc_bench.compressor import Compressor
from pcc_bench.errors import UsageError, foreign
from pcc_bench.generation import memory_errors
from pcc_bench.model.architecture import check_folder
from pcc_bench.planning import OVERFLOW

CONTROLS = ("wrong_memory",)
SPEED_ONLY = ("batch_size", "max_batch_size", "device")  # arguments that change no answer
TASK_SETTINGS = ("data", "protocol", "population")  # lm-eval hands --model_args to the tasks too, as metadata


def parse_arguments(text: str) -> dict[str, Any]:
    """Model arguments as lm-eval reads them: `key=value,key=value`, or a JSON object.

    Raises:
        UsageError: They are neither.
    """
    return _parse(text, "model args")


def parse_metadata(text: str) -> dict[str, Any]:
    """Settings of tasks as lm-eval reads them: a JSON object, or `key=value,key=value`.

    Raises:
        UsageError: They are neither.
    """
    return _parse(text, "metadata")


def _parse(text: str, what: str) -> dict[str, Any]:
    shown = f"{what} '{text[:200]}'"
    if text.lstrip().startswith("{"):
        values = documents.parse_json(text, shown)
    else:
        try:
            values = simple_parse_args_string(text)
        except ValueError:
            raise UsageError(f"{shown} are neither key=value,key=value nor JSON") from None
    assert isinstance(values, dict)
    return values


def split_options(kind: type[Compressor], arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separate a method's options from those of lm-eval's `hf`.

    Returns:
        The options of `kind.load`, and the rest.

    Raises:
        UsageError: An argument that looks like a misspelt option.
    """
    own = [name for name in inspect.signature(kind.load).parameters if name not in ("pretrained", "decoder")]
    hf = list(inspect.signature(HFLM.__init__).parameters)
    options = {name: value for name, value in arguments.items() if name in own}
    rest = {name: value for name, value in arguments.items() if name not in (*own, *TASK_SETTINGS)}
    ours = ["control", "control_seed", "overflow", "allow_special_tokens_in_text", "memory_gb", "decoder"]
    ours += ["reuse_prefix", "memory_store", "memory_store_dtype", "memory_store_gib"]
    for name in rest:
        if name not in hf and (near := registry.nearest(name, [*own, *ours])):
            raise UsageError(f"model_args: {kind.name} has no option '{name}': did you mean '{near}'?")
    return options, rest


def check_choices(kind: type[Compressor], pretrained: str | None, control: str | None, overflow: str) -> None:
    """See that what was chosen exists and goes together.

    Raises:
        UsageError: It does not.
    """
    if not pretrained:
        raise UsageError(f"--model {kind.name} needs model_args pretrained=<folder or hub id>")
    if overflow not in OVERFLOW:
        raise UsageError(f"overflow={overflow} is unknown: pass one of {', '.join(OVERFLOW)}")
    if control is not None and control not in CONTROLS:
        raise UsageError(f"control={control} is unknown: pass {' or '.join(CONTROLS)}")
    if control and not kind.soft:
        raise UsageError(f"control={control} exchanges soft memories; {kind.name} has none")


def load_decoder(load: Callable[..., None], name: str, device: str | None, arguments: Mapping[str, Any]) -> None:
    """Load the decoder as lm-eval does, its failures in one sentence.

    Args:
        load: lm-eval's constructor.
        name: What `shipped.located` knows, or a hub id.
        device: As the user gave it; CPU where a GPU is asked for (lm-eval's default) and none is there.
        arguments: The rest of lm-eval's arguments.

    Raises:
        UsageError: It can't be found, read or held.
    """
    if device is None or (device.startswith("cuda") and not torch.cuda.is_available()):
        device = "cuda" if torch.cuda.is_available() else "cpu"
    own = {key: value for key, value in arguments.items() if key != "gguf_file"}
    if isinstance(own.get("tokenizer"), str):
        own["tokenizer"] = shipped.located(own["tokenizer"])
    path = shipped.located(name, arguments.get("gguf_file"))
    check_folder(path)
    memory = memory_errors(f"loading the decoder '{name}'", "use a smaller dtype or a larger machine")
    try:
        with foreign(f"the decoder '{name}' can't be loaded"), memory:
            load(pretrained=path, device=device, **own)
    except pickle.UnpicklingError:
        raise UsageError(f"the decoder '{name}' holds more than tensors and was not opened") from None
