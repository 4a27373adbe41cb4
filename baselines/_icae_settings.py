"""ICAE's settings: those of the published files, of a checkpoint's `config.json`, of the user.

The published files stand alone. A `config.json` with `"model_type": "icae"` beside them may name the base model, and
say how the checkpoint was trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

from pcc_bench.baselines import _weights
from pcc_bench.decoder import Decoder
from pcc_bench.errors import UsageError

Use = Literal["ft", "ae", "lm", "none"]
MAX_SPANS = {1: 1, 2: 10}  # 512 and 5,120 tokens with the published 128 memory tokens


@dataclass(frozen=True)
class IcaeSettings:
    """How a checkpoint is used.

    Attributes:
        version: 1 (Llama-2-chat, one span) or 2 (Mistral-Instruct, many spans).
        use: The task token behind the slots: `ft` (answering), `ae` (reconstruction), `lm` (continuation) or `none`.
        rate: Tokens of a full span for each memory token.
        max_spans: Spans of a context that are read; what is beyond is left out and counted.
        lora_alpha: Not recorded in the published files; LoRA is scaled by alpha / rank.
        opening: Text before the memory (version 2, fine-tuned use), where no chat template stands around the prompt.
        closing: Text between prompt and answer (the same).
    """

    version: int
    use: Use
    rate: int
    max_spans: int
    lora_alpha: float
    opening: str
    closing: str


class IcaeConfig(BaseModel):
    """The `config.json` of a checkpoint; where there is none, what the published ones need.

    Attributes:
        model_type: A configuration of anything else is not read.
        base_model_name_or_path: A hub id, or a folder, absolute or relative to the checkpoint's.
        version: As `IcaeSettings` has it, and so are the following; None: as the file tells.
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
        """Read a folder's; the defaults where there is none.

        Raises:
            UsageError: Something in it is unknown or out of range.
        """
        path = folder / "config.json"
        if not path.is_file() or _weights.read_config(_Kind, path).model_type != "icae":
            return cls()
        return _weights.read_config(cls, path)

    def settings(self, given: Mapping[str, Any], path: Path, version: int) -> IcaeSettings:
        """What holds for a file.

        Args:
            given: What the user says; None leaves it to the configuration.
            path: The file.
            version: What its tensors tell.

        Raises:
            UsageError: The file can't do what it would have to.
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
        return IcaeSettings(**{name: merged[name] for name in IcaeSettings.__dataclass_fields__})


class _Kind(BaseModel):
    model_type: str | None = None


def check_options(given: Mapping[str, Any]) -> None:
    """See that what the user says has a meaning.

    Raises:
        UsageError: It has none.
    """
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


def check_window(decoder: Decoder, capacity: int, memory_tokens: int) -> None:
    """See that a full span and its memory tokens fit the decoder's positions.

    Raises:
        UsageError: They don't.
    """
    window = getattr(decoder.model.config, "max_position_embeddings", None)
    if window is not None and capacity + memory_tokens > window:
        raise UsageError(
            f"icae: spans of {capacity} tokens with {memory_tokens} memory tokens do not fit the {window} positions of "
            "the decoder: pass a lower rate"
        )
