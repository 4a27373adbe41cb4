"""ICAE's files: a checkpoint's weights, the `config.json` that may stand beside them, the body that reads with them.

The published files stand alone. A `config.json` with `"model_type": "icae"` beside them may name the base model, and
say how the checkpoint was trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt
from torch import nn

from pcc_bench.baselines import weights
from pcc_bench.baselines.weights import Lora
from pcc_bench.core.checkpoint_files import WEIGHTS, under
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.documents import checked, read_json
from pcc_bench.core.errors import UsageError

TARGETS = ("q_proj", "v_proj")  # what peft adapts by default in Llama and Mistral; the original says nothing else
PREFIX = "icae.base_model.model."  # of every key but the memory tokens'
FORM = PREFIX + "{}.lora_{}.default.weight"
TABLE = "memory_token_embed.weight"  # [memory tokens + 3, width]: the memory tokens, then AE, LM, FT

Use = Literal["ft", "ae", "lm", "none"]
MAX_SPANS = {1: 1, 2: 10}  # 512 and 5,120 tokens with the published 128 memory tokens


class _Kind(BaseModel):
    model_type: str | None = None


class IcaeConfig(BaseModel):
    """The `config.json` of a checkpoint; where there is none, what the published ones need.

    Attributes:
        model_type: A configuration of anything else is not read.
        base_model_name_or_path: A hub id, or a folder, absolute or relative to the checkpoint's.
        version: 1 (Llama-2-chat, one span) or 2 (Mistral-Instruct, many spans); None: as the file tells.
        use: The task token behind the slots: `ft` (answering; by default), `ae` (reconstruction), `lm` (continuation)
            or `none`.
        rate: Tokens of a full span for each memory token.
        max_spans: Spans of a context that are read; what is beyond is left out and counted. None: as many as published.
        lora_alpha: Not recorded in the published files; LoRA is scaled by alpha / rank.
        opening: Text before the memory (version 2, fine-tuned use), where no chat template stands around the prompt.
        closing: Text between prompt and answer (the same).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_type: Literal["icae"] = "icae"
    base_model_name_or_path: str | None = None
    version: Literal[1, 2] | None = None
    use: Use | None = None
    rate: PositiveInt = 4
    max_spans: PositiveInt | None = None
    lora_alpha: PositiveFloat = 32
    opening: str = "[INST]"
    closing: str = "[/INST]"

    @classmethod
    def read(cls, folder: Path) -> IcaeConfig:
        """Read a folder's; the defaults where there is none."""
        path = folder / "config.json"
        if not path.is_file():
            return cls()
        state, otherwise = read_json(path), f"{path} can't be used"
        return checked(cls, state, otherwise) if checked(_Kind, state, otherwise).model_type == "icae" else cls()

    def settings(self, given: Mapping[str, Any], path: Path, version: int) -> IcaeSettings:
        """What holds for a file: what the user says (None leaves it open), else the configuration, else the tensors.

        A file that was only pretrained can't answer: a `UsageError`.
        """
        merged = self.model_dump() | {name: value for name, value in given.items() if value is not None}
        if merged["use"] is None and "pretrained" in path.name:
            raise UsageError(
                f"{path} was pretrained only and can't answer questions: pass use=ae (reconstruction) or use=lm "
                "(continuation), or use=ft to try anyway"
            )
        merged["version"] = merged["version"] or version
        merged["use"] = merged["use"] or "ft"
        merged["max_spans"] = merged["max_spans"] or MAX_SPANS[merged["version"]]
        return IcaeSettings.model_construct(**merged)


class IcaeSettings(IcaeConfig):
    """A configuration in which nothing is left open."""

    version: Literal[1, 2]
    use: Use
    max_spans: PositiveInt


def check_options(given: Mapping[str, Any]) -> None:
    """Refuse what the user says without sense, before a file of gigabytes is read."""
    version, use = given["version"], given["use"]
    if version not in (None, 1, 2):
        raise UsageError(f"icae: version={version} is unknown: pass version=1 or version=2")
    if use is not None and use not in get_args(Use):
        raise UsageError(f"icae: use={use} is unknown: pass one of {', '.join(get_args(Use))}")
    for name in ("rate", "max_spans"):
        value = given[name]
        if value is not None and (not isinstance(value, int) or value < 1):
            raise UsageError(
                f"icae: {name}={value} is not supported: pass a whole number from 1 on (published: rate=4)"
            )


def check(state: dict[str, Any], path: Path, decoder: Decoder, rank: int | None = None) -> dict[str, torch.Tensor]:
    """The LoRA and memory tokens of a file, after a look at everything in it.

    A version-1 file has scalar placeholders where the base model's weights would be; the original code's own states
    have those weights. Neither is used, but what is there must be the decoder's.

    Raises:
        UsageError: Tensors are missing, unexpected, or made for another base model or rank.
    """
    own = {key: value for key, value in state.items() if ".lora_" in key or key == TABLE}
    modules = decoder.model.base_model.named_modules()
    layers = {name: module for name, module in modules if weights.last_part(name) in TARGETS}
    names = weights.lora_names(FORM.replace("{}", f"{decoder.model.base_model_prefix}.{{}}", 1), layers)
    width = [*getattr(own.get(TABLE), "shape", ())][1:2]
    if width not in ([], [decoder.hidden_size]):
        raise _wrong_base(path, decoder, f"width {width[0]}, the decoder has {decoder.hidden_size}")
    weights.check_names(own.keys(), {TABLE, *chain(*names.values())}, path)
    weights.check_matrices(own, own, path)
    ranks = {n for a, b in names.values() for n in (own[a].shape[0], own[b].shape[1])}
    if len(ranks) > 1 or rank not in (None, *ranks):
        asked = f", but lora_rank={rank} was asked for" if rank else " at once"
        raise UsageError(f"{path} has adapters of rank {' and '.join(map(str, sorted(ranks)))}{asked}")
    for layer, (a, b) in names.items():
        shape = (own[b].shape[0], own[a].shape[1])
        if shape != (layers[layer].out_features, layers[layer].in_features):
            raise _wrong_base(path, decoder, f"{layer} of {shape[0]} x {shape[1]}, the decoder has another size")
    _check_base({key: value for key, value in state.items() if key not in own}, path, decoder, len(own[TABLE]))
    return own


def version_of(path: Path, state: dict[str, Any]) -> int:
    """1 where names are those of the old peft, which put LoRA beside `q_proj.weight` without a `base_layer`."""
    return 1 if path.suffix in (".pt", ".pth") or any(key.endswith("q_proj.weight") for key in state) else 2


def adapted_body(decoder: Decoder, state: dict[str, torch.Tensor], alpha: float) -> nn.Module:
    """The decoder's body with LoRA: a second tree of modules over the same weights, so that the decoder has none."""
    rank = next(len(value) for key, value in state.items() if ".lora_A." in key)
    adapted = weights.inject(weights.twin(decoder.model.base_model), TARGETS, rank, alpha)
    values = under(f"{PREFIX}{decoder.model.base_model_prefix}.", state)
    adapted.load_state_dict(values, strict=False)  # `check` has compared the names
    return adapted.eval().requires_grad_(False)


def _check_base(state: dict[str, Any], path: Path, decoder: Decoder, added: int) -> None:
    """Weights of the base model that stand in the file: placeholders, or the decoder's own."""
    base = decoder.model.state_dict()
    names = {key: key.removeprefix(PREFIX).replace(".base_layer.", ".") for key in state}
    known = {key for key, name in names.items() if key != name and (name in base or name.endswith("inv_freq"))}
    weights.check_names(state.keys(), known, path)
    for key, value in state.items():
        mine = base.get(names[key])
        if mine is None or not isinstance(value, torch.Tensor) or not value.dim():
            continue
        # The original adds rows to the vocabulary (padding and the memory tokens) which nothing reads.
        rows = {len(mine), len(mine) + added + 1} if "embed_tokens" in key or "lm_head" in key else {len(mine)}
        if value.shape[1:] != mine.shape[1:] or len(value) not in rows:
            raise _wrong_base(path, decoder, f"{names[key]} {list(value.shape)}, the decoder has {list(mine.shape)}")
        ours, theirs = (tensor.flatten()[:64].float().cpu() for tensor in (mine, value))
        if not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-3):
            raise _wrong_base(path, decoder, f"other values in {names[key]}")


def _wrong_base(path: Path, decoder: Decoder, what: str) -> UsageError:
    return UsageError(f"{path} was made for another base model than '{decoder.name}' ({what}): pass decoder=<its base>")


def export_icae(
    folder: Path, lora: Lora, memory_tokens: torch.Tensor, config: IcaeConfig, dtype: torch.dtype = torch.float16
) -> None:
    """Write a checkpoint without its base model.

    Args:
        folder: Where to.
        lora: Of `q_proj` and `v_proj` of every layer.
        memory_tokens: [memory tokens + 3, width]: the memory tokens, then AE, LM and FT.
        config: Names the base model (a folder relative to this one will do), and how it was trained.
        dtype: Of the file.
    """
    state = {TABLE: memory_tokens} | weights.lora_state(FORM, lora)
    weights.write(folder, WEIGHTS, state, dtype, config.model_dump(exclude_none=True))
