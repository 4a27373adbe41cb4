"""What a task's metadata say, the user's settings among them: where rows come from, whose tokens are counted."""

import logging
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self

from huggingface_hub import hf_hub_download
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pcc_bench.core import shipped
from pcc_bench.core.decoder import plain_tokens
from pcc_bench.core.documents import read_json
from pcc_bench.core.errors import UsageError, first_line
from pcc_bench.tasks.rows import REAL, real_folder

FILTER = "the paper's population is chosen by decoder tokens"  # what a tokenizer is needed for, unless said otherwise
FILTER_OFF = ', or \'{"population": "all"}\' to score every row'
BASE_MODEL = ("decoder_model_name", "base_model_name_or_path")  # in COCOM's configuration, in ICAE's and an adapter's
MODEL_NAMES = ("decoder", "model", "model_id", "engine", "path", "base_url")  # how lm-eval's models say it, too


def choice(metadata: Mapping[str, Any], key: str, allowed: Sequence[str]) -> str:
    """A setting with a few possible values; the first is the default."""
    value = metadata.get(key, allowed[0])
    if value not in allowed:
        raise UsageError(f"{key}={value!r}: {key} is one of {', '.join(allowed)}")
    return str(value)


def whole(metadata: Mapping[str, Any], key: str, default: int, least: int = 1, most: int | None = None) -> int:
    value = metadata.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UsageError(f"{key}={value!r}: {key} is a whole number of {least} or more")
    if most is not None and value > most:
        raise UsageError(f"{key}={value}: {key} is at most {most:,}")
    return value


def numbers(
    metadata: Mapping[str, Any], key: str, default: Sequence[float], least: float, most: float | None
) -> list[float]:
    """A list of numbers among the settings, each from `least` to `most`, and at least one."""
    values = metadata.get(key, default)
    bounds = f"{least:g} or more" if most is None else f"from {least:g} to {most:g}"
    if not isinstance(values, list | tuple) or not values:
        raise UsageError(f"{key}={values!r}: {key} is a list of numbers, {bounds}")
    for value in values:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not value >= least or (most is not None and value > most):  # NaN is neither
            raise UsageError(f"{key}={values!r}: {value!r} is no number {bounds}")
    return list(values)


def wholes(metadata: Mapping[str, Any], key: str, default: Sequence[int], least: int, most: int | None) -> list[int]:
    """As `numbers`; 512.0 is a whole one."""
    values = numbers(metadata, key, default, least, most)
    if odd := [value for value in values if value % 1]:  # of infinity that is NaN
        raise UsageError(f"{key}={values!r}: {odd[0]!r} is no whole number")
    return list(map(int, values))


def model_name(metadata: Mapping[str, Any], key: str) -> str | None:
    """A name or path (or number) among the settings, or the model's arguments, which lm-eval hands to the tasks too.

    None where it is not there, or an object that lm-eval was given in Python (a model, a tokenizer).
    """
    value = metadata.get(key)
    if value == "" or isinstance(value, bool | list | tuple | dict):
        raise UsageError(f"{key}={value!r}: {key} is a name or a path")
    return str(value) if isinstance(value, str | int | float) else None


def data_source(metadata: Mapping[str, Any]) -> str:
    """Where rows come from: `hub`, `lab`, or a folder; `real` is the folder of the rows that ship.

    What the user says (`data`, or PCC_DATA); else `lab` where the model or its decoder is one of the lab's, which know
    nothing of real data; else `hub`.
    """
    if said := metadata.get("data") or os.environ.get("PCC_DATA"):
        return str(real_folder() if said == REAL else said)
    models = (_pretrained(metadata), model_name(metadata, "decoder"), decoder_name(metadata))
    if not any(model is not None and shipped.is_part(model) for model in models):
        return "hub"
    if not any(model_name(metadata, key) for key in ("pretrained", "decoder")):
        _warn_once(f"no model is named: rows are the lab's, as for {shipped.DEFAULT} (pretrained=..., or data=hub)")
    return "lab"


@cache
def _warn_once(text: str) -> None:
    logging.getLogger("pcc_bench").warning(text)


def decoder_name(metadata: Mapping[str, Any]) -> str | None:
    """What the decoder is called: `decoder`, else what the checkpoint `pretrained` names, else `pretrained` itself.

    None where nothing says it, as a published PCC checkpoint does not.
    """
    if (given := model_name(metadata, "decoder")) is not None:
        return given
    pretrained = _pretrained(metadata)
    if pretrained is None:
        return None
    folder, config = _configuration(pretrained)
    if config is None:
        return None
    if "pcc_bench" in config:
        decoder = config["decoder"].get("name")
        return None if decoder is None else shipped.beside(str(decoder), folder)
    decoder = next((config[key] for key in BASE_MODEL if config.get(key)), None)
    return pretrained if decoder is None else shipped.beside(str(decoder), folder)  # no name: itself one


def warn_of_another_prompt(metadata: Mapping[str, Any], name: str) -> None:
    """Say so where the checkpoint was tuned to answer other words than `name`: its score is then that of the words."""
    if (pretrained := _pretrained(metadata)) is not None:
        tuned = (_configuration(pretrained)[1] or {}).get("prompt")
        if tuned not in (None, name):
            _warn_once(
                f"{pretrained} was tuned to answer the prompt '{tuned}', and the rows ask '{name}': "
                f'--metadata \'{{"prompt": "{tuned}"}}\' asks what it knows'
            )


def _configuration(pretrained: str) -> tuple[Path, dict[str, Any] | None]:
    """A checkpoint's folder and what it says of itself: {} where it can't be read (loading it will tell).

    None: a published PCC, which says nothing.
    """
    folder = Path(shipped.located(pretrained)).expanduser()
    if (folder / "memory_converter.bin").exists():
        return folder, None
    adapter = folder / "adapter_config.json"
    own = adapter if adapter.is_file() else folder / "config.json"
    try:
        config = read_json(Path(own if folder.is_dir() else hf_hub_download(pretrained, "config.json")))
    except (OSError, ValueError):
        config = {}
    return folder, config if isinstance(config, dict) else {}


def _pretrained(metadata: Mapping[str, Any]) -> str | None:
    """The checkpoint; the default one of `--model pcc` where the user names neither a model nor a decoder."""
    if (given := model_name(metadata, "pretrained")) is not None:
        return given
    unnamed = not any(metadata.get(key) for key in MODEL_NAMES)
    return shipped.DEFAULT if unnamed and shipped.find(shipped.DEFAULT) else None


def tokenizer_name(metadata: Mapping[str, Any], why: str = FILTER, otherwise: str = FILTER_OFF) -> str:
    """Folder or hub id of the decoder's tokenizer: `tokenizer`, else that of the decoder (`decoder_name`).

    Messages say why one is needed, and how to do otherwise.
    """
    if (tokenizer := model_name(metadata, "tokenizer")) is not None:
        return shipped.located(tokenizer)
    if (decoder := decoder_name(metadata)) is None:
        raise UsageError(
            f"{why}, and nothing says which decoder to count with: pass --metadata "
            f'\'{{"tokenizer": "<folder or hub id>"}}\'{otherwise}'
        )
    return shipped.located(decoder, metadata.get("gguf_file"))


class TokenCounter:
    """Counts tokens of a decoder (`name`), special-token look-alikes as characters, BOS not counted."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
        self.tokenizer, self.name = tokenizer, name
        self._known: dict[str, int] = {}

    @classmethod
    def open(cls, metadata: Mapping[str, Any], why: str, otherwise: str = "") -> Self:
        """The decoder's, from what the user said about the model; see `tokenizer_name`."""
        name = tokenizer_name(metadata, why, otherwise)
        try:
            # The model's arguments, which lm-eval loads its own by.
            folder, trust = str(metadata.get("subfolder") or ""), bool(metadata.get("trust_remote_code", False))
            return cls(AutoTokenizer.from_pretrained(name, subfolder=folder, trust_remote_code=trust), name)
        except Exception as error:  # of a file from anyone, any
            raise UsageError(
                f"can't load the tokenizer {name} to count decoder tokens with ({first_line(error)}): pass --metadata "
                f'\'{{"tokenizer": "<folder or hub id>"}}\'{otherwise}'
            ) from error

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        return list(plain_tokens(self.tokenizer, texts)["input_ids"])

    def spans(self, text: str) -> list[tuple[int, int]]:
        """The characters (first, behind the last) of each token of a text; the tokenizer is a fast one."""
        (spans,) = plain_tokens(self.tokenizer, [text], return_offsets_mapping=True)["offset_mapping"]
        return [(start, end) for start, end in spans]

    def count(self, text: str) -> int:
        return len(self.ids([text])[0])

    def count_all(self, texts: Sequence[str]) -> list[int]:
        """Tokens of many short texts; those seen before are remembered."""
        if new := sorted({text for text in texts if text not in self._known}):
            self._known.update(zip(new, map(len, self.ids(new)), strict=True))
        return [self._known[text] for text in texts]

    def continuation(self, prompt: str, continuation: str) -> int:
        """Tokens of a continuation, blanks at the prompt's end counted with it (as lm-eval splits the two)."""
        before, both = self.ids([prompt.rstrip(), prompt + continuation])
        return len(both) - len(before)
