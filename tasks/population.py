"""Which rows are scored: the paper keeps contexts by their length in the decoder's tokens."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pcc_bench.core import shipped
from pcc_bench.core.documents import read_json
from pcc_bench.core.errors import UsageError, first_line
from pcc_bench.tasks.example import Example
from pcc_bench.tasks.shipped_rows import REAL, real_folder

FILTER = "the paper's population is chosen by decoder tokens"  # what a tokenizer is needed for, unless said otherwise
FILTER_OFF = ', or \'{"population": "all"}\' to score every row'
BASE_MODEL = ("decoder_model_name", "base_model_name_or_path")  # in COCOM's configuration, in ICAE's and an adapter's
MODEL_NAMES = ("decoder", "model", "model_id", "engine", "path", "base_url")  # how lm-eval's models say it, too
BATCH = 1000  # contexts a tokenizer call: enough for its threads, small in memory


def choice(metadata: Mapping[str, Any], key: str, allowed: Sequence[str]) -> str:
    """A setting with a few possible values; the first is the default.

    Raises:
        UsageError: Another value.
    """
    value = metadata.get(key, allowed[0])
    if value not in allowed:
        raise UsageError(f"{key}={value!r}: {key} is one of {', '.join(allowed)}")
    return str(value)


def paper_population(
    examples: Sequence[Example], metadata: Mapping[str, Any], place: str
) -> tuple[list[Example], Counter[str], dict[str, Any]]:
    """Keep the examples that the paper's code would score.

    Args:
        examples: All examples.
        metadata: `population_filter` is the rule (None: no rule): `more_than` and `at_most` bound the decoder tokens
            of the context, BOS counted; `kind` limits it to the rows of one kind. `population: all` switches it off.
        place: Where the rows are from, for messages.

    Returns:
        The examples kept; the others counted by reason; what the results say about the filter.
    """
    population = choice(metadata, "population", ("paper", "all"))
    rule: Mapping[str, Any] | None = metadata["population_filter"] if population == "paper" else None
    subject = [example for example in examples if _applies(rule, example)]
    if rule is None or not subject:
        return list(examples), Counter(), {"population": population, "filter": None, "tokenizer": None}
    name = tokenizer_name(metadata)
    lengths = count_tokens({example.context for example in subject}, load_tokenizer(name, metadata))
    reasons = [_reason(rule, lengths[e.context]) if _applies(rule, e) else None for e in examples]
    kept = [example for example, reason in zip(examples, reasons, strict=True) if reason is None]
    dropped = Counter(reason for reason in reasons if reason is not None)
    if not kept:
        counts = ", ".join(f"{count} with {reason}" for reason, count in dropped.items())
        raise UsageError(
            f"the paper's filter {dict(rule)} leaves no row of {place} ({counts}; decoder tokens with BOS, "
            f'tokenizer {name}): pass --metadata \'{{"population": "all"}}\' to score every row'
        )
    return kept, dropped, {"population": population, "filter": dict(rule), "tokenizer": name}


def tokenizer_name(metadata: Mapping[str, Any], why: str = FILTER, otherwise: str = FILTER_OFF) -> str:
    """Folder or hub id of the decoder's tokenizer, from what the user said about the model.

    `tokenizer`, else that of the decoder (`decoder_name`).

    Args:
        metadata: What the user said.
        why: What needs a tokenizer, for messages.
        otherwise: How to do without, for messages.

    Raises:
        UsageError: Nothing says which decoder it is.
    """
    tokenizer = metadata.get("tokenizer")
    if isinstance(tokenizer, str):
        return shipped.located(tokenizer)
    name = decoder_name(metadata)
    if name is None:
        raise UsageError(
            f"{why}, and nothing says which decoder to count with: pass --metadata "
            f'\'{{"tokenizer": "<folder or hub id>"}}\'{otherwise}'
        )
    return shipped.located(name, metadata.get("gguf_file"))


def decoder_name(metadata: Mapping[str, Any]) -> str | None:
    """What the decoder is called, for `shipped.located`.

    `decoder`, else what the checkpoint `pretrained` names, else `pretrained` itself: lm-eval hands the model's
    arguments to the tasks too, in their metadata.

    Returns:
        None where nothing says it.
    """
    given = metadata.get("decoder")
    if isinstance(given, str):
        return given
    pretrained = _pretrained(metadata)
    return None if pretrained is None else _checkpoint_decoder(pretrained)


def data_source(metadata: Mapping[str, Any]) -> str:
    """Where rows come from: `hub`, `lab`, or a folder; `real` is the folder of the rows that ship.

    What the user says (`data`, or PCC_DATA); else `lab` where the model or its decoder is one of the lab's, which know
    nothing of real data; else `hub`.
    """
    said = metadata.get("data") or os.environ.get("PCC_DATA")
    if said:
        return str(real_folder() if said == REAL else said)
    models = (_pretrained(metadata), metadata.get("decoder"), decoder_name(metadata))
    if not any(isinstance(model, str) and shipped.is_part(model) for model in models):
        return "hub"
    if not any(isinstance(metadata.get(key), str) for key in ("pretrained", "decoder")):
        _note(f"no model is named: rows are the lab's, as for {shipped.DEFAULT} (pretrained=..., or data=hub)")
    return "lab"


@cache
def _note(text: str) -> None:
    logging.getLogger("pcc_bench").warning(text)


def _pretrained(metadata: Mapping[str, Any]) -> str | None:
    """The checkpoint; the default one of `--model pcc` where the user names neither a model nor a decoder."""
    if isinstance(given := metadata.get("pretrained"), str) and given:
        return given
    unnamed = not any(metadata.get(key) for key in MODEL_NAMES)
    return shipped.DEFAULT if unnamed and shipped.find(shipped.DEFAULT) else None


def count_tokens(texts: set[str], tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Tokens of each distinct text, with BOS where the tokenizer has one; special-token look-alikes are characters."""
    bos = int(tokenizer.bos_token_id is not None)
    ordered = sorted(texts)
    lengths: dict[str, int] = {}
    for start in range(0, len(ordered), BATCH):
        batch = ordered[start : start + BATCH]
        ids = tokenizer(batch, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        lengths.update((text, len(tokens) + bos) for text, tokens in zip(batch, ids, strict=True))
    return lengths


def _applies(rule: Mapping[str, Any] | None, example: Example) -> bool:
    return rule is not None and rule.get("kind", example.kind) == example.kind


def _reason(rule: Mapping[str, Any], length: int) -> str | None:
    """Why a context of this length is left out; None if it is kept."""
    if "more_than" in rule and length <= rule["more_than"]:
        return f"context of {rule['more_than']} tokens or fewer"
    if "at_most" in rule and length > rule["at_most"]:
        return f"context of more than {rule['at_most']} tokens"
    return None


def _checkpoint_decoder(pretrained: str) -> str | None:
    """The decoder a checkpoint names (None if it should and does not); what names none is a decoder itself."""
    folder = Path(shipped.located(pretrained)).expanduser()
    if (folder / "memory_converter.bin").exists():  # a published PCC checkpoint: the files do not say
        return None
    config = _read_config(pretrained, folder)
    if "pcc_bench" in config:
        name = config["decoder"].get("name")
    else:
        name = next((config[key] for key in BASE_MODEL if config.get(key)), None)
        if name is None:
            return pretrained
    return None if name is None else shipped.beside(str(name), folder)


def _read_config(pretrained: str, folder: Path) -> dict[str, Any]:
    """A checkpoint's config.json; {} where there is none to read (loading the tokenizer will tell)."""
    adapter = folder / "adapter_config.json"
    own = adapter if adapter.is_file() else folder / "config.json"
    try:
        path = own if folder.is_dir() else hf_hub_download(pretrained, "config.json")
        config = read_json(Path(path))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def load_tokenizer(name: str, metadata: Mapping[str, Any], otherwise: str = FILTER_OFF) -> PreTrainedTokenizerBase:
    """The tokenizer that `tokenizer_name` names.

    Raises:
        UsageError: There is none.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            name,
            subfolder=str(metadata.get("subfolder") or ""),  # the model's argument, which lm-eval loads its own by
            trust_remote_code=bool(metadata.get("trust_remote_code", False)),
        )
    except Exception as error:  # of a file from anyone, any
        raise UsageError(
            f"can't load the tokenizer {name} to count decoder tokens with ({first_line(error)}): pass --metadata "
            f'\'{{"tokenizer": "<folder or hub id>"}}\'{otherwise}'
        ) from error
    return tokenizer
