"""ICAE's files: published ones stand alone; a `config.json` beside them may name the base model and the training."""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import PositiveFloat, PositiveInt

from pcc_bench.baselines import weights
from pcc_bench.baselines.weights import Lora
from pcc_bench.core.checkpoint_files import WEIGHTS, check_names
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.documents import Strict, checked, read_json
from pcc_bench.core.errors import UsageError

TARGETS = ("q_proj", "v_proj")  # peft's default for Llama and Mistral; the original says nothing else
PREFIX = "icae.base_model.model."  # of every key but the memory tokens'
FORM = PREFIX + "{}.lora_{}.default.weight"
TABLE = "memory_token_embed.weight"  # [memory tokens + 3, width]: the memory tokens, then AE, LM, FT

Use = Literal["ft", "ae", "lm", "none"]
MAX_SPANS = {1: 1, 2: 10}  # 512 and 5,120 tokens with the published 128 memory tokens


class IcaeConfig(Strict):
    """The `config.json` of a checkpoint; the defaults are the published ones'."""

    model_type: Literal["icae"] = "icae"
    base_model_name_or_path: str | None = None  # a hub id, or a folder, absolute or relative to the checkpoint's
    version: Literal[1, 2] | None = None  # Llama-2-chat with one span, or Mistral-Instruct; None: as the file tells
    use: Use | None = None  # task token behind the slots: answering, reconstruction (`ae`), continuation or none
    rate: PositiveInt = 4  # tokens of a full span for each memory token
    max_spans: PositiveInt | None = None  # of a context that are read; the rest is left out and counted
    lora_alpha: PositiveFloat = 32  # LoRA is scaled by alpha / rank; published files record no alpha
    opening: str = "[INST]"  # before the memory (version 2, `ft`), where no chat template stands around the prompt
    closing: str = "[/INST]"  # between prompt and answer (the same)

    @classmethod
    def read(cls, folder: Path) -> "IcaeConfig":
        path = folder / "config.json"
        state = read_json(path) if path.is_file() else {}
        if isinstance(state, dict) and state.get("model_type") != "icae":
            return cls()  # another model's
        return checked(cls, state, f"{path} can't be used")

    def settings(self, options: Mapping[str, Any], path: Path, state: Mapping[str, Any]) -> "IcaeSettings":
        """What holds for a file: the options that are not None, else the configuration, else what its tensors tell."""
        merged = self.model_dump() | {name: value for name, value in options.items() if value is not None}
        if merged["use"] is None and "pretrained" in path.name:
            raise UsageError(
                f"{path} was pretrained only and can't answer questions: pass use=ae (reconstruction) or use=lm "
                "(continuation), or use=ft to try anyway"
            )
        # The first version's peft put LoRA beside `q_proj.weight`, without a `base_layer`.
        is_first = path.suffix in (".pt", ".pth") or any(key.endswith("q_proj.weight") for key in state)
        merged["version"] = merged["version"] or (1 if is_first else 2)
        merged["use"] = merged["use"] or "ft"
        merged["max_spans"] = merged["max_spans"] or MAX_SPANS.get(merged["version"])
        return checked(IcaeSettings, merged, "icae")


class IcaeSettings(IcaeConfig):
    version: Literal[1, 2]
    use: Use
    max_spans: PositiveInt


def own_weights(state: dict[str, Any], path: Path, decoder: Decoder, rank: int | None) -> dict[str, torch.Tensor]:
    """The LoRA and memory tokens of a file."""
    # A version-1 file has numbers where the base model's weights would be; the original code's own states have those
    # weights. Neither is used, but what is there must be the decoder's.
    own = {key: value for key, value in state.items() if ".lora_" in key or key == TABLE}
    layers = weights.linear_layers(decoder, TARGETS)
    names = weights.lora_names(FORM, layers)
    check_names(own, {TABLE, *chain(*names.values())}, path)
    weights.check_matrices(own, own, path)
    rows, width = own[TABLE].shape
    weights.check_shape(path, decoder, TABLE, (rows, width), (rows, decoder.hidden_size))
    recorded = "lora_rank" if rank else "its first layer has rank"
    weights.check_lora(own, names, layers, decoder, path, rank or len(own[next(iter(names.values()))[0]]), recorded)

    base = decoder.model.state_dict()
    rest = {key: key.removeprefix(PREFIX).replace(".base_layer.", ".") for key in state if key not in own}
    known = {key for key, name in rest.items() if key != name and (name in base or name.endswith("inv_freq"))}
    check_names(rest, known, path)
    for key, name in rest.items():
        value, mine = state[key], base.get(name)
        if mine is None or not isinstance(value, torch.Tensor) or not value.dim():
            continue
        # The original adds rows to the vocabulary (padding and the memory tokens) which nothing reads.
        more = rows + 1 if name.endswith(("embed_tokens.weight", "lm_head.weight")) and len(value) > len(mine) else 0
        weights.check_shape(path, decoder, name, value.shape, (len(mine) + more, *mine.shape[1:]))
        weights.check_values(path, decoder, name, value.flatten()[:64], mine.flatten()[:64])
    return own


def export_icae(
    folder: Path, lora: Lora, table: torch.Tensor, config: IcaeConfig, dtype: torch.dtype = torch.float16
) -> None:
    """Write a checkpoint without its base model: LoRA of `q_proj` and `v_proj` of every layer, and `TABLE`."""
    state = {TABLE: table} | weights.lora_state(FORM, lora)
    weights.write(folder, WEIGHTS, state, dtype, config.model_dump(exclude_none=True))
