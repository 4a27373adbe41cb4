"""AutoCompressor (Chevalier et al., EMNLP 2023; princeton-nlp/AutoCompressors) and its relative RMT.

A language model reads a long text segment by segment. Each segment ends in learned summary tokens, whose last hidden
states (after the final norm) stand as a soft prompt before the next segment, and at the end before the question.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch

from pcc_bench.baselines import weights
from pcc_bench.baselines.autocompressor import files
from pcc_bench.baselines.autocompressor.encoder import SummaryEncoder
from pcc_bench.baselines.soft import SoftCompressor
from pcc_bench.core import shipped
from pcc_bench.core.checkpoint_files import resolve
from pcc_bench.core.compressor import Layout
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.documents import is_file
from pcc_bench.core.errors import UsageError

SEGMENT_LENGTH = 1536  # a quarter of the 6,144 tokens of a training sequence


class AutoCompressor(SoftCompressor):
    """Summary vectors accumulated over the segments of a context, read by the same model.

    Args:
        decoder: The AutoCompressor itself: Llama or OPT with its trained weights.
        summary: [summary tokens, width], the embeddings of the summary tokens.
        segment_length: Tokens a segment.
        accumulate: All earlier vectors stand before the next segment (AutoCompressor), or only the newest (RMT).
    """

    name = "autocompressor"
    default = "autocompressor-lab-4x"
    label = "AutoCompressor"
    summary = "summary vectors accumulated over segments, read by the same fine-tuned model (EMNLP 2023)"
    encoder: SummaryEncoder

    def __init__(
        self, decoder: Decoder, summary: torch.Tensor, segment_length: int = SEGMENT_LENGTH, accumulate: bool = True
    ) -> None:
        own = summary.to(decoder.device, decoder.dtype)
        encoder = SummaryEncoder(decoder, own, segment_length, accumulate)
        super().__init__(encoder, weights.digest({files.TABLE: summary}, decoder))
        self.rate = segment_length / len(summary)

    @classmethod
    def decoder_path(cls, pretrained: str, decoder: str | None) -> str:
        """The checkpoint itself, or the base model that an adapter in a folder here names."""
        folder = Path(shipped.located(pretrained))
        return decoder or (files.base_path(folder) if files.is_adapter(folder) else pretrained)

    @classmethod
    def load(
        cls,
        pretrained: str,
        decoder: Decoder,
        *,
        file: str | None = None,
        rate: int | None = None,
        segment_length: int | None = None,
        accumulate: bool | None = None,
    ) -> Self:
        """Load a published model folder (`.bin` or safetensors, in shards or not), or a peft adapter over its base.

        Args:
            pretrained: Folder or hub id of the whole fine-tuned model or of the adapter.
            decoder: The same model, or its base model (same sizes); the checkpoint's weights are put into it.
            file: The weights' name, where a folder holds several.
            rate: Tokens of a segment for each summary vector: another way to give `segment_length`.
            segment_length: Tokens a segment; by default as the folder's `config.json` says, or 1,536.
            accumulate: See the class; by default as the folder's `config.json` says.

        Raises:
            UsageError: An option without sense, or a file that is unreadable or does not fit the decoder.
        """
        folder = Path(pretrained).parent if is_file(pretrained) else resolve(pretrained)
        if files.is_adapter(folder):
            summary = files.load_adapter(decoder, folder, file)
        else:
            is_loaded = not file and Path(decoder.name).resolve() == Path(pretrained).resolve()
            summary = files.load_whole(decoder, weights.find(pretrained, file), is_loaded)
        recorded = files.Recorded.read(folder)
        if recorded.summary_length not in (None, len(summary)):
            raise UsageError(
                f"{folder} has {len(summary)} summary tokens, its config.json says summary_length="
                f"{recorded.summary_length}: copy it again"
            )
        length = _segment_length(rate, segment_length, len(summary), recorded.segment_length or SEGMENT_LENGTH)
        return cls(decoder, summary, length, recorded.accumulate_summary if accumulate is None else accumulate)

    def options(self) -> dict[str, Any]:
        """How contexts are cut and what travels from segment to segment."""
        return {"segment_length": self.encoder.segment_length, "accumulate": self.encoder.accumulate}

    @cached_property
    def layout(self) -> Layout:
        """The soft prompt first, the question without special tokens; on OPT soft vectors take up no positions."""
        return Layout(starts_with_bos=False, memory_position=self.encoder.memory_position)


def _segment_length(rate: int | None, length: int | None, summary_tokens: int, default: int) -> int:
    for name, value in (("rate", rate), ("segment_length", length)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise UsageError(f"autocompressor: {name}={value} is not supported: pass a whole number from 1 on")
    if rate and length and rate * summary_tokens != length:
        raise UsageError(
            f"autocompressor: rate={rate} with {summary_tokens} summary tokens means segment_length="
            f"{rate * summary_tokens}, not {length}: pass one of the two"
        )
    return length or (rate * summary_tokens if rate else default)
