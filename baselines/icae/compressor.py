"""ICAE, the In-context Autoencoder (Ge et al., ICLR 2024; getao/icae, code/icae_v1 and code/icae_v2).

One language model is used twice. With LoRA it reads a span of text followed by learned memory tokens, whose last hidden
states (after the final norm) are the slots; without LoRA, and unchanged, it reads the slots in place of the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pcc_bench.baselines import weights
from pcc_bench.baselines.icae.encoder import IcaeEncoder
from pcc_bench.baselines.icae.files import (
    TABLE,
    IcaeConfig,
    IcaeSettings,
    Use,
    adapted_body,
    check,
    check_options,
    version_of,
)
from pcc_bench.baselines.soft import SoftCompressor
from pcc_bench.core import shipped
from pcc_bench.core.checkpoint_files import resolve
from pcc_bench.core.compressor import Frame, Layout
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError


class IcaeCompressor(SoftCompressor):
    """In-context Autoencoder: a language model with LoRA compresses for itself without LoRA.

    The original reads one context a prompt; of several, each gets its own slots and task token here.

    Args:
        encoder: Reads the contexts.
        settings: Layout, rate and scale of the LoRA; nothing in them is left to be worked out.
        digest: A hash of LoRA, memory tokens and base model.
    """

    name = "icae"
    default = "icae-lab-4x"
    label = "ICAE"
    summary = "a language model with LoRA writes slots for itself without LoRA (ICLR 2024)"
    encoder: IcaeEncoder

    def __init__(self, encoder: IcaeEncoder, settings: IcaeSettings, digest: str) -> None:
        behind = None if settings.use == "none" else encoder.task_vector(settings.use)
        super().__init__(encoder, digest, behind)
        self.rate = float(settings.rate)
        self.version, self.use, self._settings = settings.version, settings.use, settings
        template = (settings.opening, settings.closing)
        self._template = [self.decoder.tokenizer.encode(text, add_special_tokens=False) for text in template]

    @classmethod
    def decoder_path(cls, pretrained: str, decoder: str | None) -> str:
        """The base model: ICAE's published files do not name it, a `config.json` beside ours does.

        Raises:
            UsageError: None is given.
        """
        if decoder:
            return decoder
        path = Path(shipped.located(pretrained))
        folder = path.parent if path.is_file() else path
        if name := IcaeConfig.read(folder).base_model_name_or_path:
            return shipped.beside(name, folder)
        raise UsageError(
            "icae needs its base model: pass decoder=<folder or hub id> (mistralai/Mistral-7B-Instruct-v0.2 for the "
            "published version 2, meta-llama/Llama-2-7b-chat-hf for version 1)"
        )

    @classmethod
    def recorded_rate(cls, pretrained: str, options: Mapping[str, Any]) -> float:
        """The option, or the configuration's."""
        given = super().recorded_rate(pretrained, options)
        return given if given is not None else float(IcaeConfig.read(resolve(pretrained)).rate)

    @classmethod
    def load(
        cls,
        pretrained: str,
        decoder: Decoder,
        *,
        file: str | None = None,
        version: int | None = None,
        use: Use | None = None,
        rate: int | None = None,
        max_spans: int | None = None,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        opening: str | None = None,
        closing: str | None = None,
    ) -> Self:
        """Load a published file (or a folder that has it), or the whole state the original code saves.

        What is not given is as the checkpoint's `config.json` says, where it has one.

        Args:
            pretrained: File, folder or hub id.
            decoder: The base model it was trained with.
            file: Its name, where a folder holds several (`sggetao/icae` does).
            version: See `IcaeSettings`; by default as the names of its tensors tell.
            use: See `IcaeSettings`; by default `ft`, which the pretrained-only file does not offer.
            rate: See `IcaeSettings`; 4 by default.
            max_spans: See `IcaeSettings`; by default 1 in version 1 and 10 in version 2.
            lora_rank: Refuse a file of another rank.
            lora_alpha: See `IcaeSettings`; 32 by default.
            opening: See `IcaeSettings`; `[INST]` by default.
            closing: See `IcaeSettings`; `[/INST]` by default.

        Raises:
            UsageError: An option without sense, or a file that is unreadable or belongs to another base model.
        """
        given: dict[str, Any] = {"version": version, "use": use, "rate": rate, "max_spans": max_spans}
        given |= {"lora_alpha": lora_alpha, "opening": opening, "closing": closing}
        check_options(given)
        path = weights.find(pretrained, file)
        state = weights.read(path)
        settings = IcaeConfig.read(path.parent).settings(given, path, version_of(path, state))
        own = check(state, path, decoder, lora_rank)
        body, table = adapted_body(decoder, own, settings.lora_alpha), own[TABLE].to(decoder.device, decoder.dtype)
        encoder = IcaeEncoder(decoder, body, table, settings.rate, settings.max_spans)
        return cls(encoder, settings, weights.digest(own, decoder))

    @cached_property
    def layout(self) -> Layout:
        """Fine-tuned use has `[INST]` and `[/INST]` around the prompt in version 2, FT behind it in version 1.

        BOS comes first only where `[INST]` does. A memory that ends with the AE token already (`use=ae`) is
        reconstructed without more. Version 1 was trained to end on id 1, Llama's BOS, or any id beyond the vocabulary;
        version 2 never chooses one beyond it.
        """
        first, tuned = self.version == 1, self.use == "ft"
        behind = Frame(closing=self.behind) if first and tuned else Frame()
        beyond = tuple(range(len(self.decoder.tokenizer), self.decoder.embedding.weight.shape[0]))
        return Layout(
            starts_with_bos=tuned and not first,
            frame=Frame(*self._template) if tuned and not first else behind,
            templated=behind,
            reconstruction=Frame() if self.use == "ae" else None,
            stop_token_ids=(*self.decoder.bos, *beyond) if first else (),
            suppressed_token_ids=() if first else beyond,
        )

    def options(self) -> dict[str, Any]:
        """Layout, rate and scale of the LoRA."""
        return asdict(self._settings)
