"""Encoders of COCOM and PISCO: a context in documents of a fixed size, each on its own a few vectors.

Section 3 of the COCOM paper; `COCOM.compr_decoder` of the original modeling_cocom.py. The
published helper `generate_from_text` puts the memory tokens before the document, where a causal decoder sees nothing of
it; training puts them behind it, and so do we.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from pcc_bench.baselines import _weights
from pcc_bench.decoder import Decoder
from pcc_bench.errors import UsageError

Overlong = Literal["split", "truncate"]
Slots = Literal["proportional", "fixed"]


@dataclass(frozen=True)
class Document:
    """A piece of a context.

    Attributes:
        ids: As the encoder reads it, special tokens included.
        tokens: Of the context among them.
        slots: Vectors it becomes.
    """

    ids: list[int]
    tokens: int
    slots: int


class DocumentEncoder(ABC):
    """Reads documents.

    Args:
        tokenizer: Of the encoder.
        rate: Tokens for each vector.
        length: Tokens of a full document.
        slots: Vectors of a document shorter than that: `proportional` to its length, or as many as a full one's.

    Attributes:
        room: Tokens of a context that a document holds.
        reach: Tokens of a longer context that are read where it is not split.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rate: int, length: int, slots: Slots) -> None:
        self.tokenizer = tokenizer
        self.rate, self.length, self.slots = rate, length, slots
        self.room = self.reach = length

    @abstractmethod
    def document(self, ids: list[int]) -> Document:
        """A document of one piece of a context."""

    @abstractmethod
    def encode(self, documents: Sequence[Document]) -> list[torch.Tensor]:
        """Vectors of each document: [slots, width of the decoder]."""

    def tokenize(self, contexts: Sequence[str], overlong: Overlong) -> tuple[list[list[int]], list[str]]:
        """Tokens that are read of each context, no special ones among them, and the text they cover."""
        if not contexts:
            return [], []
        encoded = self.tokenizer(
            list(contexts),
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
            verbose=False,
        )
        if overlong == "split":
            return [list(ids) for ids in encoded["input_ids"]], list(contexts)
        reach = self.reach
        ends = [places[reach][0] if len(places) > reach else None for places in encoded["offset_mapping"]]
        texts = [context[:end] for context, end in zip(contexts, ends, strict=True)]
        return [list(ids[:reach]) for ids in encoded["input_ids"]], texts

    def documents(self, ids: Sequence[int], overlong: Overlong) -> list[Document]:
        """Cut a tokenized context."""
        size = self.room if overlong == "split" else self.reach
        return [self.document(list(ids[start : start + size])) for start in range(0, len(ids), size)]

    def _count(self, tokens: int) -> int:
        return -(-(self.length if self.slots == "fixed" else min(tokens, self.length)) // self.rate)

    def _check_positions(self, needed: int, config: Any) -> None:
        window = getattr(config, "max_position_embeddings", None)
        if window is not None and needed > window:
            raise UsageError(
                f"documents of {self.length} tokens take {needed} positions of the encoder, which has {window}: pass a "
                "smaller document_length"
            )


class CausalEncoder(DocumentEncoder):
    """The decoder itself: `<ENC> <s> document </s>`, then memory tokens, whose last hidden states are the vectors.

    Args:
        body: The transformer with its adapter, without a vocabulary head.
        decoder: Its tokenizer and token vectors.
        memory_ids: Of the memory tokens; the last one is repeated where more are needed.
        encode_id: Of `<ENC>`.
        **sizes: See `DocumentEncoder`.
    """

    def __init__(self, body: nn.Module, decoder: Decoder, memory_ids: list[int], encode_id: int, **sizes: Any) -> None:
        super().__init__(decoder.tokenizer, **sizes)
        self.body, self.decoder, self.memory_ids = body, decoder, memory_ids
        tokenizer = decoder.tokenizer
        self._before = [encode_id, *(i for i in [tokenizer.bos_token_id] if i is not None)]
        self._behind = [i for i in [tokenizer.eos_token_id] if i is not None]
        # The original cuts at the length of a document with its three special tokens, so that one token of text more
        # takes the place of `</s>`.
        self.reach = self.length + len(self._behind)
        self._check_positions(len(self.document([0] * self.room).ids) + self._count(self.room), decoder.model.config)

    def document(self, ids: list[int]) -> Document:
        """Framed by special tokens, as many vectors as the document's length is worth."""
        framed = [*self._before, *ids, *self._behind][: len(self._before) + self.reach]
        return Document(framed, len(ids), self._count(len(ids)))

    @torch.inference_mode()
    def encode(self, documents: Sequence[Document]) -> list[torch.Tensor]:
        """Longest documents first, few forwards for all; attention is causal, so that filling needs no mask."""
        made: dict[int, torch.Tensor] = {}
        lengths = [len(document.ids) + document.slots for document in documents]
        for batch in _weights.batches(lengths, self.decoder.device):
            rows = [self.decoder.embed([*documents[i].ids, *self.memory(documents[i].slots)]) for i in batch]
            hidden = self.body(inputs_embeds=_weights.stack(rows), use_cache=False).last_hidden_state
            for row, i in enumerate(batch):
                made[i] = hidden[row, lengths[i] - documents[i].slots : lengths[i]]
        return [made[i] for i in range(len(documents))]

    def memory(self, slots: int) -> list[int]:
        """Ids of the memory tokens behind a document."""
        return [*self.memory_ids, *[self.memory_ids[-1]] * (slots - len(self.memory_ids))][:slots]
