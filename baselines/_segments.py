"""How an AutoCompressor reads: segment by segment, each behind the summary vectors of the ones before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pcc_bench.baselines import _weights
from pcc_bench.decoder import Decoder
from pcc_bench.errors import UsageError

UNPLACED = -1  # OPT's position table has its padding row at -1: all soft vectors stand there


class SegmentReader:
    """Reads texts with a decoder that was trained to summarize them.

    Args:
        decoder: The AutoCompressor itself.
        summary: [summary tokens, width], the embeddings of the summary tokens.
        segment_length: Tokens a segment.
        accumulate: All earlier vectors stand before the next segment (AutoCompressor), or only the newest (RMT).

    Raises:
        UsageError: A segment does not fit the decoder's positions.
    """

    def __init__(self, decoder: Decoder, summary: torch.Tensor, segment_length: int, accumulate: bool) -> None:
        self.decoder = decoder
        self.summary_tokens = summary.to(decoder.device, decoder.dtype)
        self.segment_length, self.accumulate = segment_length, accumulate
        self.window: int | None = getattr(decoder.model.config, "max_position_embeddings", None)
        self._check_window([segment_length])

    @property
    def memory_position(self) -> int | None:
        """On OPT, soft vectors take up no positions; on Llama they count as tokens."""
        return UNPLACED if self.decoder.model.config.model_type == "opt" else None

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
