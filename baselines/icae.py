"""ICAE, the In-context Autoencoder (Ge et al., ICLR 2024; getao/icae, code/icae_v1 and code/icae_v2).

One language model is used twice. With LoRA it reads a span of text followed by learned memory tokens, whose last hidden
states (after the final norm) are the slots; without LoRA, and unchanged, it reads the slots in place of the text.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import torch

from pcc_bench import shipped
from pcc_bench.baselines import _weights
from pcc_bench.baselines._icae_settings import IcaeConfig, IcaeSettings, Use, check_options, check_window
from pcc_bench.baselines._icae_weights import TABLE, adapted_body, check, version_of
from pcc_bench.baselines._spans import SpanReader
from pcc_bench.compressor import Compressor, Frame, Memory
from pcc_bench.decoder import Decoder
from pcc_bench.errors import UsageError

TASK_TOKENS = {"ae": 0, "lm": 1, "ft": 2}


class IcaeCompressor(Compressor):
    """In-context Autoencoder: a language model with LoRA compresses for itself without LoRA.

    The original reads one context a prompt; of several, each gets its own slots and task token here.

    Args:
        decoder: The base model; stays as it is.
        state: The checkpoint's LoRA and memory tokens, checked.
        settings: Layout, rate and scale of the LoRA; nothing in them is left to be found out.
    """

    name = "icae"
    soft = True
    owns_decoder = True
    summary = "a language model with LoRA writes slots for itself without LoRA (ICLR 2024)"

    def __init__(self, decoder: Decoder, state: dict[str, torch.Tensor], settings: IcaeSettings) -> None:
        super().__init__(decoder)
        table = state[TABLE].to(decoder.device, decoder.dtype)
        memory_tokens, self._tasks = table[:-3], table[-3:]
        capacity = len(memory_tokens) * settings.rate
        self.rate = float(settings.rate)
        self.version, self.use, self._settings = settings.version, settings.use, settings
        check_window(decoder, capacity, len(memory_tokens))
        template = (settings.opening, settings.closing)
        self._template = [decoder.tokenizer.encode(text, add_special_tokens=False) for text in template]
        body = adapted_body(decoder, state, settings.lora_alpha)
        self.reader = SpanReader(decoder, body, memory_tokens, capacity, settings.max_spans)
        self._weights = _weights.digest(state, decoder)

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
        path = _weights.find(pretrained, file)
        state = _weights.read(path)
        settings = IcaeConfig.read(path.parent).settings(given, path, version_of(path, state))
        return cls(decoder, check(state, path, decoder, lora_rank), settings)

    def compress(self, contexts: Sequence[str]) -> list[Memory]:
        """Compress contexts; spans of all of them share few forwards, seconds are shared by tokens read."""
        start = time.perf_counter()
        read, texts = self.reader.tokenize(contexts)
        slots = self.reader.slots(read)
        vectors = [torch.cat([context, self.task_vector]).cpu() for context in slots]
        per_token = (time.perf_counter() - start) / max(1, sum(map(len, read)))
        return [
            Memory(
                source_tokens=tokens,
                compressor_tokens=len(ids),
                source_bytes=len(text.encode()),
                slots=len(own),
                boundary=len(self.task_vector),
                seconds=len(ids) * per_token,
                vectors=memory,
                truncated_bytes=len(context.encode()) - len(text.encode()),
            )
            for context, text, ids, own, memory, tokens in zip(
                contexts, texts, read, slots, vectors, self.decoder.count_tokens(texts), strict=True
            )
        ]

    @property
    def task_vector(self) -> torch.Tensor:
        """What follows the slots: [1, width], or [0, width] for `use=none`."""
        if self.use == "none":
            return self._tasks[:0]
        return self._tasks[TASK_TOKENS[self.use]][None]

    def frame(self, templated: bool) -> Frame:
        """Fine-tuned use: `[INST]` and `[/INST]` around the prompt in version 2, FT behind it in version 1."""
        if self.use != "ft":
            return Frame()
        if self.version == 1:
            return Frame(closing=self.task_vector)
        return Frame() if templated else Frame(*self._template)

    def reconstruction_frame(self) -> Frame | None:
        """Nothing more where the memory ends with the AE token already (`use=ae`)."""
        return Frame() if self.use == "ae" else None

    def options(self) -> dict[str, Any]:
        """Layout, rate and scale of the LoRA."""
        return asdict(self._settings)

    def weights_fingerprint(self) -> str:
        """Hash of LoRA, memory tokens and base model."""
        return self._weights

    @property
    def starts_with_bos(self) -> bool:
        """BOS comes first only where `[INST]` does."""
        return self.version == 2 and self.use == "ft"

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """Version 1 was trained to end on id 1, Llama's BOS, or any id beyond the vocabulary."""
        bos = self.decoder.bos_token_id
        return () if self.version == 2 else (*([] if bos is None else [bos]), *self._beyond)

    @property
    def suppressed_token_ids(self) -> tuple[int, ...]:
        """Version 2 never chooses an id beyond the vocabulary."""
        return self._beyond if self.version == 2 else ()

    @property
    def _beyond(self) -> tuple[int, ...]:
        return tuple(range(len(self.decoder.tokenizer), self.decoder.embedding.weight.shape[0]))
