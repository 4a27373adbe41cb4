"""AutoCompressor's files: a whole model with `embed_summary.weight`, or a peft adapter over its base model.

An adapter is what peft's `save_pretrained` writes of one that was trained as the Llama checkpoints were, with
`embed_summary` among the modules to save. Beside either, `config.json` may have the keys of `AutoCompressorConfig`.
"""

from itertools import chain
from pathlib import Path
from typing import Any, Self

import torch
from peft import LoraConfig
from pydantic import BaseModel, PositiveInt

from pcc_bench.baselines import weights
from pcc_bench.baselines.weights import Lora, Recorded
from pcc_bench.core.checkpoint_files import check_names
from pcc_bench.core.decoder import Decoder, weights_digest
from pcc_bench.core.documents import checked, filled, read_json
from pcc_bench.core.errors import UsageError

TABLE = "embed_summary.weight"  # [summary tokens, width]
WRAPPED = "base_model.model."  # before the names of an adapter's tensors
FORM = WRAPPED + "{}.lora_{}.weight"
ADAPTER_CONFIG, ADAPTERS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")


class AutoCompressorConfig(Recorded):
    accumulate_summary: bool = True  # False in RMT checkpoints
    segment_length: PositiveInt | None = None  # tokens a segment, where a checkpoint asks for its own
    summary_length: PositiveInt | None = None  # summary tokens


class AdapterConfig(BaseModel):
    """What we read of `adapter_config.json`: a plain LoRA, and nothing that would change what it means."""

    base_model_name_or_path: str | None = None  # a hub id, or a folder, absolute or relative to the adapter's
    r: PositiveInt  # rank
    lora_alpha: float  # the adapter is scaled by alpha / rank
    target_modules: list[str]  # last parts of the names of the layers that have it
    modules_to_save: list[str] | None = None  # `embed_summary` among them
    peft_type: str = "LORA"
    bias: str = "none"
    use_rslora: bool = False
    use_dora: bool = False
    rank_pattern: dict[str, Any] = {}
    alpha_pattern: dict[str, Any] = {}

    @classmethod
    def read(cls, folder: Path) -> Self:
        path = folder / ADAPTER_CONFIG
        config = checked(cls, read_json(path), f"{path} can't be used")
        for name in ("peft_type", "bias", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern"):
            if (value := getattr(config, name)) != cls.model_fields[name].default:
                raise UsageError(f"{path}: {name}={value} is not supported: merge the adapter into its base model")
        if "embed_summary" not in (config.modules_to_save or ()):
            raise UsageError(f"{path} does not save embed_summary: it is no AutoCompressor's adapter")
        return config


def is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER_CONFIG).is_file()


def load_adapter(decoder: Decoder, folder: Path, file: str | None) -> torch.Tensor:
    """Merge an adapter into the base model it was made for; the embeddings of its summary tokens, [n, width]."""
    if decoder.adapted:
        raise UsageError(f"{folder}: the decoder '{decoder.name}' has been changed by a method already: load it again")
    config = AdapterConfig.read(folder)
    path = weights.find(str(folder), file or next((name for name in ADAPTERS if (folder / name).is_file()), None))
    state = weights.read(path)
    layers = weights.linear_layers(decoder, config.target_modules)
    names = weights.lora_names(FORM, layers)
    check_names(state, {WRAPPED + TABLE, *chain(*names.values())}, path)
    weights.check_matrices(state, state, path)
    summary: torch.Tensor = state[WRAPPED + TABLE]
    weights.check_shape(path, decoder, TABLE, summary.shape, (len(summary), decoder.hidden_size))
    weights.check_lora(state, names, layers, decoder, path, config.r, f"{ADAPTER_CONFIG} says r")
    weights.merge_lora(decoder, state, names, config.lora_alpha / config.r)
    _adapt(decoder, {key.removeprefix(WRAPPED): value for key, value in state.items()})
    return summary


def load_whole(decoder: Decoder, path: Path, is_loaded: bool) -> torch.Tensor:
    """Put a whole checkpoint into a decoder of its sizes, unless it is loaded; the embeddings as in `load_adapter`."""
    # old files keep the buffer of the rotary embedding
    state = {key: value for key, value in weights.read(path).items() if not key.endswith("rotary_emb.inv_freq")}
    if TABLE not in state:
        raise UsageError(f"{path} lacks {TABLE}: it is no AutoCompressor (a plain model has no summary tokens)")
    tables = [key for key in state if key.endswith("embed_tokens.weight")]
    weights.check_matrices(state, [TABLE, *tables], path)
    summary: torch.Tensor = state.pop(TABLE)
    own = decoder.embedding.weight
    if tables and state[tables[0]].shape != own.shape:
        rows, width = state[tables[0]].shape
        raise UsageError(
            f"{path} has a vocabulary of {rows} and width {width}, the decoder '{decoder.name}' {len(own)} and "
            f"{decoder.hidden_size}: leave decoder= out, or pass its base model"
        )
    weights.check_whole(path, decoder, state, {name: name for name in decoder.model.state_dict()})
    if not is_loaded:
        decoder.model.load_state_dict(state, strict=False)  # the names have been compared
    _adapt(decoder, {name: state[name] for name, _ in decoder.model.named_parameters()} | {TABLE: summary})
    return summary


def _adapt(decoder: Decoder, state: dict[str, torch.Tensor]) -> None:
    decoder.adapt(weights_digest(sorted(state.items()), first=64))


def export_autocompressor(
    folder: Path,
    lora: Lora,  # of the layers that were adapted, originally `q_proj`, `k_proj`, `v_proj` and `o_proj` of each
    summary: torch.Tensor,  # [summary tokens, width]
    base: str,  # a hub id, or a folder, also relative to this one
    *,
    alpha: float,  # the LoRA is scaled by alpha / rank
    segment_length: int,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write an AutoCompressor as peft's `save_pretrained` does."""
    state = weights.lora_state(FORM, lora) | {WRAPPED + TABLE: summary}
    recorded = {"accumulate_summary": True, "segment_length": segment_length, "summary_length": len(summary)}
    weights.write(folder, ADAPTERS[0], state, dtype, recorded)
    named: dict[str, Any] = {"base_model_name_or_path": base, "task_type": "CAUSAL_LM", "inference_mode": True}
    named |= {"target_modules": sorted(set(map(weights.last_part, lora))), "modules_to_save": ["embed_summary"]}
    with filled(folder) as part:
        LoraConfig(r=weights.rank_of(lora), lora_alpha=alpha, **named).save_pretrained(str(part))  # type: ignore[arg-type]
