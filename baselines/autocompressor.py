"""AutoCompressor (Chevalier et al., EMNLP 2023; princeton-nlp/AutoCompressors) and its relative RMT.

A language model reads a long text segment by segment. Each segment ends in learned summary tokens, whose last hidden
states (after the final norm) stand as a soft prompt before the next segment, and at the end before the question.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch

from pcc_bench.baselines import _autocompressor_weights as files
from pcc_bench.baselines import _weights
from pcc_bench.baselines._autocompressor_weights import TABLE
from pcc_bench.compressor import Compressor, Memory
from pcc_bench.decoder import Decoder
from pcc_bench.errors import UsageError
from pcc_bench.model.files import resolve

SEGMENT_LENGTH = 1536  # a quarter of the 6,144 tokens of a training sequence
UNPLACED = -1  # OPT's position table has its padding row at -1: all soft vectors stand there


class AutoCompressor(Compressor):
    """Summary vectors accumulated over the segments of a context, read by the same model.

    Args:
        decoder: The AutoCompressor itself: Llama or OPT with its trained weights.
        summary: [summary tokens, width], the embeddings of the summary tokens.
        segment_length: Tokens a segment.
        accumulate: All earlier vectors stand before the next segment (AutoCompressor), or only the newest (RMT).
    """

    name = "autocompressor"
    soft = True
    owns_decoder = True
    summary = "summary vectors accumulated over segments, read by the same fine-tuned model (EMNLP 2023)"

    def __init__(
        self, decoder: Decoder, summary: torch.Tensor, segment_length: int = SEGMENT_LENGTH, accumulate: bool = True
    ) -> None:
        super().__init__(decoder)
        self.summary_tokens = summary.to(decoder.device, decoder.dtype)
        self.segment_length, self.accumulate = segment_length, accumulate
        self.rate = segment_length / len(summary)
        self.window: int | None = getattr(decoder.model.config, "max_position_embeddings", None)
        self._check_window([segment_length])
        self._weights = _weights.digest({TABLE: summary}, decoder)

    @classmethod
    def decoder_path(cls, pretrained: str, decoder: str | None) -> str:
        """The checkpoint itself, or the base model that an adapter in a folder here names."""
        folder = Path(pretrained)
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
        folder = Path(pretrained).parent if Path(pretrained).is_file() else resolve(pretrained)
        if files.is_adapter(folder):
            summary = files.load_adapter(decoder, folder, file)
        else:
            is_loaded = not file and Path(decoder.name).resolve() == Path(pretrained).resolve()
            summary = files.load_whole(decoder, _weights.find(pretrained, file), is_loaded)
        recorded = files.Recorded.read(folder)
        length = _segment_length(rate, segment_length, len(summary), recorded.segment_length or SEGMENT_LENGTH)
        return cls(decoder, summary, length, recorded.accumulate_summary if accumulate is None else accumulate)

    def compress(self, contexts: Sequence[str]) -> list[Memory]:
        """Compress contexts; their first segments share forwards, then their second ones, and so on."""
        start = time.perf_counter()
        ids = self._tokenize(contexts)
        vectors = [vector.cpu() for vector in self.summarize(ids)]
        per_token = (time.perf_counter() - start) / max(1, sum(map(len, ids)))
        return [
            Memory(
                source_tokens=len(read),
                compressor_tokens=len(read),
                source_bytes=len(context.encode()),
                slots=len(memory),
                seconds=len(read) * per_token,
                vectors=memory,
            )
            for context, read, memory in zip(contexts, ids, vectors, strict=True)
        ]

    def summarize(self, contexts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Summary vectors of tokenized contexts: [segments x summary tokens, width] each ([0, width] for no token)."""
        cut = [segments(ids, self.segment_length) for ids in contexts]
        for pieces in cut:
            self._check_window([len(piece) for piece in pieces])
        soft = [self.summary_tokens[:0] for _ in contexts]
        for step in range(max(map(len, cut), default=0)):
            live = [i for i, pieces in enumerate(cut) if len(pieces) > step]
            done = self.read([cut[i][step] for i in live], [soft[i] for i in live])
            for i, (_, after) in zip(live, done, strict=True):
                soft[i] = after
        return soft

    def read_through(
        self, ids: Sequence[int], segment_lengths: int | Sequence[int], soft: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Read one text segment by segment, the last one without summarizing it (what the model is trained on).

        Args:
            ids: The text.
            segment_lengths: Of each segment, or of all but a shorter last one.
            soft: What stands before the first segment.

        Returns:
            Logits [tokens, vocabulary], and the soft prompt of the last segment.
        """
        *before, last = segments(ids, segment_lengths)
        soft = self.summary_tokens[:0] if soft is None else soft
        hidden = []
        for piece in before:
            ((states, soft),) = self.read([piece], [soft])
            hidden.append(states)
        ((states, _),) = self.read([last], [soft], summarize=False)
        head = self.decoder.model.get_output_embeddings()
        with torch.inference_mode():
            return head(torch.cat([*hidden, states])), soft

    @torch.inference_mode()
    def read(
        self, pieces: Sequence[Sequence[int]], soft: Sequence[torch.Tensor], summarize: bool = True
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Read segments of different texts, few forwards for all.

        Args:
            pieces: Token ids of each.
            soft: The soft prompt before each: [n, width].
            summarize: Put the summary tokens behind.

        Returns:
            For each, the last hidden states of its tokens [tokens, width] and the soft prompt after it.
        """
        tail = self.summary_tokens if summarize else self.summary_tokens[:0]
        lengths = [len(before) + len(ids) + len(tail) for ids, before in zip(pieces, soft, strict=True)]
        done: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for batch in _weights.batches(lengths, self.decoder.device):
            rows = [torch.cat([soft[i], self.decoder.embed(pieces[i]), tail]) for i in batch]
            where = self._positions([(len(soft[i]), len(pieces[i])) for i in batch], max(map(len, rows)))
            hidden = self._body(inputs_embeds=_weights.stack(rows), use_cache=False, **where).last_hidden_state
            for row, i in enumerate(batch):
                first, last = len(soft[i]), len(soft[i]) + len(pieces[i])
                new = hidden[row, last : lengths[i]]
                kept = torch.cat([soft[i], new]) if self.accumulate or not summarize else new
                done[i] = hidden[row, first:last], kept
        return [done[i] for i in range(len(pieces))]

    def options(self) -> dict[str, Any]:
        """How contexts are cut and what travels from segment to segment."""
        return {"segment_length": self.segment_length, "accumulate": self.accumulate}

    def weights_fingerprint(self) -> str:
        """Hash of the summary tokens and the model."""
        return self._weights

    @property
    def starts_with_bos(self) -> bool:
        """The soft prompt comes first, and the question follows without special tokens."""
        return False

    @property
    def memory_position(self) -> int | None:
        """On OPT, soft vectors take up no positions; on Llama they count as tokens."""
        return UNPLACED if self.decoder.model.config.model_type == "opt" else None

    @property
    def _body(self) -> Any:
        return self.decoder.model.base_model

    def _positions(self, sizes: Sequence[tuple[int, int]], width: int) -> dict[str, torch.Tensor]:
        """Position ids of rows of soft vectors, tokens, and summary tokens or filling: on OPT only the tokens count."""
        if self.memory_position is None:
            return {}
        ids = torch.full((len(sizes), width), self.memory_position)
        for row, (soft, tokens) in enumerate(sizes):
            ids[row, soft : soft + tokens] = torch.arange(tokens)
        return {"position_ids": ids.to(self.decoder.device)}

    def _tokenize(self, contexts: Sequence[str]) -> list[list[int]]:
        if not contexts:
            return []
        encoded = self.decoder.tokenizer(
            list(contexts), add_special_tokens=False, split_special_tokens=True, verbose=False
        )
        return [list(ids) for ids in encoded["input_ids"]]

    def _check_window(self, lengths: Sequence[int]) -> None:
        """See that every segment of a context fits, behind what the ones before it leave."""
        free = self.memory_position is not None
        for index, length in enumerate(lengths):
            soft = index if self.accumulate else min(index, 1)
            needed = length + (0 if free else (soft + 1) * len(self.summary_tokens))
            if self.window is not None and needed > self.window:
                raise UsageError(
                    f"autocompressor: segment {index + 1} of a context (segment_length={self.segment_length}, "
                    f"{len(self.summary_tokens)} summary tokens each) takes {needed} positions, the model has "
                    f"{self.window}: pass {'another' if index else 'a shorter'} segment_length"
                )


def segments(ids: Sequence[int], lengths: int | Sequence[int]) -> list[list[int]]:
    """Cut ids into segments of given lengths, or of one length and a shorter last one.

    Raises:
        UsageError: The lengths do not add up to the text.
    """
    if isinstance(lengths, int):
        return [list(ids[start : start + lengths]) for start in range(0, len(ids), lengths)]
    if sum(lengths) != len(ids):
        raise UsageError(f"segments of {list(lengths)} tokens do not add up to a text of {len(ids)}")
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    return [list(ids[end - length : end]) for end, length in zip(ends, lengths, strict=True)]


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
