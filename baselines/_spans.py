"""How an ICAE reads: a context in spans of nearly one length, each on its own, followed by the memory tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pcc_bench.baselines import _weights
from pcc_bench.decoder import Decoder


class SpanReader:
    """Reads contexts into slots.

    Args:
        decoder: Its tokenizer and token vectors.
        body: The transformer with LoRA.
        memory_tokens: [memory tokens, width].
        capacity: Tokens of a full span.
        max_spans: Spans of a context that are read.
    """

    def __init__(
        self, decoder: Decoder, body: nn.Module, memory_tokens: torch.Tensor, capacity: int, max_spans: int
    ) -> None:
        self.decoder, self.body, self.memory_tokens = decoder, body, memory_tokens
        self.capacity, self.max_spans = capacity, max_spans

    def tokenize(self, contexts: Sequence[str]) -> tuple[list[list[int]], list[str]]:
        """Ids with special tokens, as many as are read, and the text they cover."""
        if not contexts:
            return [], []
        limit = self.max_spans * self.capacity
        encoded = self.decoder.tokenizer(
            list(contexts), split_special_tokens=True, return_offsets_mapping=True, verbose=False
        )
        cuts = [places[limit][0] if len(places) > limit else None for places in encoded["offset_mapping"]]
        texts = [context[:cut] for context, cut in zip(contexts, cuts, strict=True)]
        return [list(ids[:limit]) for ids in encoded["input_ids"]], texts

    @torch.inference_mode()
    def slots(self, contexts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Slots of tokenized contexts: [spans * memory tokens, width] each, in the dtype of the decoder."""
        pieces = [(i, span) for i, ids in enumerate(contexts) for span in spans(ids, self.capacity)]
        made: dict[int, torch.Tensor] = {}
        for batch in _weights.batches([len(span) + len(self.memory_tokens) for _, span in pieces], self.decoder.device):
            rows = [torch.cat([self.decoder.embed(pieces[i][1]), self.memory_tokens]) for i in batch]
            hidden = self.body(inputs_embeds=_weights.stack(rows), use_cache=False).last_hidden_state
            for row, i in enumerate(batch):
                first = len(pieces[i][1])
                made[i] = hidden[row, first : first + len(self.memory_tokens)]
        own: list[list[torch.Tensor]] = [[self.memory_tokens[:0]] for _ in contexts]
        for i, (context, _) in enumerate(pieces):
            own[context].append(made[i])
        return [torch.cat(parts) for parts in own]


def spans(ids: Sequence[int], capacity: int) -> list[list[int]]:
    """Cut a context into as few spans as hold it, all of one length but the last: 70 for 32 gives 24, 24, 22."""
    if not ids:
        return []
    count = -(-len(ids) // capacity)
    length = -(-len(ids) // count)
    return [list(ids[start : start + length]) for start in range(0, len(ids), length)]
