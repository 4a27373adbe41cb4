"""AutoCompressor's files: a whole model, or a peft adapter over its base model.

A whole model is a plain one and `embed_summary.weight`. An adapter is what peft's `save_pretrained` writes of one that
was trained as the Llama checkpoints were: `adapter_config.json`, and in `adapter_model.safetensors` (or `.bin`) the
tensors `base_model.model.<layer>.lora_A.weight`, `.lora_B.weight` and `base_model.model.embed_summary.weight`. Beside
either, `config.json` may say `accumulate_summary` and `segment_length`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from pydantic import BaseModel, ConfigDict, PositiveInt

from pcc_bench.baselines import weights
from pcc_bench.baselines.weights import Lora
from pcc_bench.core import shipped
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.documents import checked, filled, read_json
from pcc_bench.core.errors import UsageError

TABLE = "embed_summary.weight"  # [summary tokens, width]
WRAPPED = "base_model.model."  # before the names of an adapter's tensors
FORM = WRAPPED + "{}.lora_{}.weight"
ADAPTER_CONFIG, ADAPTERS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")


class AutoCompressorConfig(BaseModel):
    """What we read of a checkpoint's `config.json`.

    Attributes:
        accumulate_summary: False in RMT checkpoints.
        segment_length: Tokens a segment, where a checkpoint asks for its own.
        summary_length: Summary tokens.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    accumulate_summary: bool = True
    segment_length: PositiveInt | None = None
    summary_length: PositiveInt | None = None

    @classmethod
    def read(cls, folder: Path) -> AutoCompressorConfig:
        """Read it; the defaults where there is none."""
        path = folder / "config.json"
        return checked(cls, read_json(path), f"{path} can't be used") if path.is_file() else cls()


class AdapterConfig(BaseModel):
    """What we read of `adapter_config.json`: a plain LoRA, and nothing that would change what it means.

    Attributes:
        base_model_name_or_path: A hub id, or a folder, absolute or relative to the adapter's.
        r: Rank.
        lora_alpha: The adapter is scaled by alpha / rank.
        target_modules: Last parts of the names of the layers that have it.
        modules_to_save: `embed_summary` among them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    base_model_name_or_path: str | None = None
    r: PositiveInt
    lora_alpha: float
    target_modules: list[str]
    modules_to_save: list[str] | None = None
    peft_type: str = "LORA"
    bias: str = "none"
    use_rslora: bool = False
    use_dora: bool = False
    rank_pattern: dict[str, Any] = {}
    alpha_pattern: dict[str, Any] = {}

    @classmethod
    def read(cls, folder: Path) -> AdapterConfig:
        """Read it; all but a plain LoRA with summary tokens is refused."""
        path = folder / ADAPTER_CONFIG
        config = checked(cls, read_json(path), f"{path} can't be used")
        odd = {"peft_type": config.peft_type != "LORA", "bias": config.bias != "none"}
        odd |= {name: bool(getattr(config, name)) for name in ("use_rslora", "use_dora", "rank_pattern")}
        odd["alpha_pattern"] = bool(config.alpha_pattern)
        if found := [name for name, is_odd in odd.items() if is_odd]:
            value = getattr(config, found[0])
            raise UsageError(f"{path}: {found[0]}={value} is not supported: merge the adapter into its base model")
        if "embed_summary" not in (config.modules_to_save or ()):
            raise UsageError(f"{path} does not save embed_summary: it is no AutoCompressor's adapter")
        return config


def is_adapter(folder: Path) -> bool:
    """Is this a folder with an adapter, not with a whole model?"""
    return (folder / ADAPTER_CONFIG).is_file()


def base_path(folder: Path) -> str:
    """The base model that an adapter names; a `UsageError` where it names none."""
    name = AdapterConfig.read(folder).base_model_name_or_path
    if not name:
        raise UsageError(f"{folder / ADAPTER_CONFIG} names no base model: pass decoder=<folder or hub id>")
    return shipped.beside(name, folder)


def load_adapter(decoder: Decoder, folder: Path, file: str | None) -> torch.Tensor:
    """Merge an adapter into its base model; the embeddings of the summary tokens, [summary tokens, width].

    Raises:
        UsageError: A tensor is missing, unexpected or made for another base model or rank.
    """
    if decoder.adapted:
        raise UsageError(f"{folder}: the decoder '{decoder.name}' has been changed by a method already: load it again")
    config = AdapterConfig.read(folder)
    present = [name for name in ADAPTERS if (folder / name).is_file()]
    path = weights.find(str(folder), file or (present[0] if present else None))
    state = weights.read(path)
    layers = weights.linear_layers(decoder, config.target_modules)
    names = weights.lora_names(FORM, layers)
    weights.check_names(state, {WRAPPED + TABLE, *chain(*names.values())}, path)
    weights.check_matrices(state, state, path)
    summary: torch.Tensor = state[WRAPPED + TABLE]
    if summary.shape[-1] != decoder.hidden_size:
        raise weights.wrong_base(path, decoder, TABLE, summary.shape, (len(summary), decoder.hidden_size))
    weights.check_lora(state, names, layers, decoder, path, config.r, f"{ADAPTER_CONFIG} says r")
    weights.merge_lora(decoder, state, names, config.lora_alpha / config.r)
    decoder.adapt(_sample({key.removeprefix(WRAPPED): value for key, value in state.items()}))
    return summary


def load_whole(decoder: Decoder, path: Path, is_loaded: bool) -> torch.Tensor:
    """Put a whole checkpoint into a decoder, which is the checkpoint as a plain model or its base model.

    Args:
        decoder: Of the same sizes.
        path: Its weights, or the index of their shards.
        is_loaded: The decoder has them already.

    Returns:
        [summary tokens, width], the embeddings of the summary tokens.

    Raises:
        UsageError: A tensor is missing, unexpected or of another size than the decoder's.
    """
    state = weights.read(path)
    if TABLE not in state:
        raise UsageError(f"{path} lacks {TABLE}: it is no AutoCompressor (a plain model has no summary tokens)")
    weights.check_matrices(state, [TABLE], path)
    summary: torch.Tensor = state.pop(TABLE)
    _check_model(state, path, decoder)
    if not is_loaded:
        decoder.model.load_state_dict(state, strict=False)  # the names have been compared
    own = {name: state[name] for name, _ in decoder.model.named_parameters()}
    decoder.adapt(_sample({**own, TABLE: summary}))
    return summary


def _check_model(state: Mapping[str, torch.Tensor], path: Path, decoder: Decoder) -> None:
    """See that the checkpoint is a whole model of the decoder's make."""
    wanted = decoder.model.state_dict()
    tables = [key for key in state if key.endswith("embed_tokens.weight")]
    weights.check_matrices(state, tables, path)
    table = state[tables[0]] if tables else None
    if table is not None and table.shape != decoder.embedding.weight.shape:
        raise UsageError(
            f"{path} has a vocabulary of {table.shape[0]} and width {table.shape[1]}, the decoder '{decoder.name}' "
            f"{decoder.embedding.weight.shape[0]} and {decoder.hidden_size}: leave decoder= out, or pass its base model"
        )
    tied = {"lm_head.weight"} if decoder.model.config.tie_word_embeddings else set()
    found = {key for key in state if not key.endswith("rotary_emb.inv_freq")}  # old files keep that buffer
    weights.check_names(found | tied, wanted.keys(), path)
    for key, value in wanted.items():
        if key in state and state[key].shape != value.shape:
            raise UsageError(
                f"{path}: {key} has shape {list(state[key].shape)}, in the decoder '{decoder.name}' {list(value.shape)}"
            )


def _sample(state: Mapping[str, torch.Tensor]) -> str:
    """A hash of the first values of every tensor: what sets the decoder apart from its base model."""
    whole = hashlib.sha256()
    for key, value in sorted(state.items()):
        whole.update(key.encode() + value.flatten()[:64].float().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()[:16]


def export_autocompressor(
    folder: Path,
    lora: Lora,
    summary: torch.Tensor,
    base: str,
    *,
    alpha: float,
    segment_length: int,
    accumulate: bool = True,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write an AutoCompressor as peft's `save_pretrained` does.

    Args:
        folder: Where to.
        lora: Of the layers that were adapted (`q_proj`, `k_proj`, `v_proj` and `o_proj` of every layer originally).
        summary: [summary tokens, width].
        base: The base model: a hub id, or a folder, absolute or relative to this one.
        alpha: The LoRA is scaled by alpha / rank.
        segment_length: Tokens a segment.
        accumulate: False for RMT.
        dtype: Of the file.
    """
    state = weights.lora_state(FORM, lora) | {WRAPPED + TABLE: summary}
    recorded = {"accumulate_summary": accumulate, "segment_length": segment_length, "summary_length": len(summary)}
    weights.write(folder, ADAPTERS[0], state, dtype, recorded)
    config = LoraConfig(
        base_model_name_or_path=base,
        task_type="CAUSAL_LM",
        inference_mode=True,
        r=weights.rank_of(lora),
        lora_alpha=alpha,  # type: ignore[arg-type]
        target_modules=sorted(set(map(weights.last_part, lora))),
        modules_to_save=["embed_summary"],
    )
    with filled(folder) as part:
        config.save_pretrained(str(part))
