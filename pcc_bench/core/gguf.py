"""Reading a GGUF file with transformers, and writing it as a plain model folder (see `pcc_bench.core.converted`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from pcc_bench.core.errors import UsageError, first_line

NARROW = (torch.bfloat16, torch.float16)


def read(file: Path, name: str, remedy: str) -> tuple[Any, Any, Any]:
    """Configuration, causal LM (float32) and tokenizer of a file.

    Args:
        file: The GGUF file.
        name: What the user calls it, for messages.
        remedy: How to get the file again.

    Raises:
        UsageError: It is damaged, or transformers does not read its architecture from GGUF.
    """
    from gguf import GGUFReader

    try:  # the reader and numpy raise whatever a damaged file leads to, an IndexError as well as a MemoryError
        fields = GGUFReader(file).fields
        architecture = fields["general.architecture"].contents()
        pre_tokenizer = fields["tokenizer.ggml.pre"].contents() if "tokenizer.ggml.pre" in fields else None
    except Exception as error:
        raise UsageError(f"'{name}': {file.name} is damaged or not GGUF ({first_line(error)}): {remedy}") from None
    where: dict[str, Any] = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    reader: Any = AutoModelForCausalLM
    try:
        config = AutoConfig.from_pretrained(**where)
        model, loading = reader.from_pretrained(**where, dtype=torch.float32, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(**where)
    except Exception as error:
        raise UsageError(
            f"'{name}': transformers {transformers.__version__} does not read this GGUF file, architecture "
            f"'{architecture}' ({first_line(error)}): use the model's safetensors, or another model"
        ) from None
    if missing := sorted(loading["missing_keys"]):
        raise UsageError(f"'{name}': {file.name} lacks {len(missing)} tensors ({missing[0]} first): {remedy}")
    if pre_tokenizer == "smollm":
        _split_digits(tokenizer)
    return config, model, tokenizer


def save(config: Any, model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model that was read from GGUF, in the smallest dtype that loses nothing, with its tokenizer.

    transformers refuses to save the model itself, whose configuration says "quantized".
    """
    state = model.state_dict()
    dtype = exact_dtype(state)
    with torch.device("meta"):
        plain: Any = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict({key: value.to(dtype) for key, value in state.items()}, assign=True)
    plain.tie_weights()
    plain.config.dtype = dtype
    plain.generation_config = model.generation_config
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def exact_dtype(state: dict[str, torch.Tensor]) -> torch.dtype:
    """The smallest dtype that holds every value of a state exactly."""
    for dtype in NARROW:
        if all(bool((value.to(dtype).float() == value.float()).all()) for value in state.values()):
            return dtype
    return torch.float32


def _split_digits(tokenizer: Any) -> None:
    """SmolLM's pre-tokenizer, which transformers' GGUF reader has no entry for: each digit is a piece of its own.

    Without it several spaces or line ends before a digit are cut into other tokens than the model was trained on.
    """
    digits, rest = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, rest])
