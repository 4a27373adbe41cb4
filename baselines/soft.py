"""What the soft baselines share: an encoder, which a compressor runs and the lab trains, and the memories it writes."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from pcc_bench.core.compressor import Compressor, Memory
from pcc_bench.core.decoder import Decoder, batches, plain_tokens
from pcc_bench.core.generation import autocast_for

Row = Sequence[Sequence[int] | torch.Tensor]  # of an encoder's input: token ids, and vectors [n, width] between them
Purpose = Literal["reconstruct", "continue", "answer"]


class SoftEncoder(nn.Module, ABC):
    """Reads contexts into vectors for the decoder; in training these are float32, and a forward runs under autocast."""

    adds_special_tokens: ClassVar[bool] = False

    def __init__(self, decoder: Decoder, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.decoder = decoder  # no module: states and gradients have the encoder's own weights only
        self.tokenizer = tokenizer

    @property
    def limit(self) -> int | None:
        """Tokens of a context that are read; None: all of them."""
        return None

    @abstractmethod
    def encode(self, contexts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Vectors of tokenized contexts: [n, width of the decoder] each ([0, width] for no token)."""

    def boundaries(self, tokens: int) -> int:
        """Of the vectors of a context of so many tokens, those that carry no content."""
        return 0

    def tokenize(self, contexts: Sequence[str]) -> list[list[int]]:
        return list(plain_tokens(self.tokenizer, contexts, add_special_tokens=self.adds_special_tokens)["input_ids"])

    def tokenize_within_limit(self, contexts: Sequence[str]) -> tuple[list[list[int]], list[str]]:
        """Token ids that are read of each context, and the text they cover."""
        limit = self.limit
        if limit is None:
            return self.tokenize(contexts), list(contexts)
        own = {"add_special_tokens": self.adds_special_tokens, "return_offsets_mapping": True}
        encoded = plain_tokens(self.tokenizer, contexts, **own)
        ids = encoded["input_ids"]
        ends = [places[limit][0] if len(places) > limit else None for places in encoded["offset_mapping"]]
        return [row[:limit] for row in ids], [context[:end] for context, end in zip(contexts, ends, strict=True)]


class CausalEncoder(SoftEncoder):
    """An encoder whose body is a causal language model of the decoder's width and tokenizer; the lab can train it."""

    def __init__(self, decoder: Decoder, body: nn.Module) -> None:
        super().__init__(decoder, decoder.tokenizer)
        self.body = body

    def read(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """Last hidden states, after the final norm, of rows of input: [length, width] each, in their input's dtype."""
        # Attention is causal: what fills shorter rows up on the right reaches nothing before it, and needs no mask.
        states: dict[int, torch.Tensor] = {}
        lengths = [sum(map(len, row)) for row in rows]
        embed = self.decoder.embed
        for batch in batches(lengths, self.decoder.device):
            parts = [[part if isinstance(part, torch.Tensor) else embed(part) for part in rows[i]] for i in batch]
            vectors = nn.utils.rnn.pad_sequence(list(map(torch.cat, parts)), batch_first=True)
            positions = self.position_ids([rows[i] for i in batch])
            inputs = {} if positions is None else {"position_ids": positions}
            with autocast_for(self.decoder, vectors):
                hidden = self.body(inputs_embeds=vectors, use_cache=False, **inputs).last_hidden_state
            hidden = hidden.to(vectors.dtype)
            states |= {i: hidden[row, : lengths[i]] for row, i in enumerate(batch)}
        return [states[i] for i in range(len(rows))]

    def position_ids(self, rows: Sequence[Row]) -> torch.Tensor | None:
        """Positions of rows filled up to the longest: [rows, longest]; None: they count from 0."""
        return None

    # Training

    @classmethod
    @abstractmethod
    def start(cls, decoder: Decoder, segment_length: int, rate: int, rank: int, seed: int) -> Self:
        """One that has learned nothing yet and reads `segment_length` tokens at once; it or the decoder has a LoRA."""

    @abstractmethod
    def resize(self, segment_length: int, rate: int) -> None:
        """Read other lengths from now on, at another rate."""

    @abstractmethod
    def prompt(self, vectors: torch.Tensor, purpose: Purpose) -> torch.Tensor:
        """What stands before a target in the decoder's input: [length, width], vectors of a context among it."""

    @abstractmethod
    def export(self, folder: Path, base: str) -> None:
        """Write a checkpoint that the compressor loads; `base` is a hub id, or a folder, also relative to this one."""


class SoftCompressor(Compressor):
    """Memories of a soft encoder, with their accounting; `behind`, [n, width], ends each and carries no content."""

    soft = True
    owns_decoder = True

    def __init__(self, encoder: SoftEncoder, digest: str, rate: float, behind: torch.Tensor | None = None) -> None:
        super().__init__(encoder.decoder)
        self.encoder, self.digest, self.rate = encoder, digest, float(rate)
        self.behind = torch.empty(0, self.decoder.hidden_size) if behind is None else behind.detach().cpu()

    def compress(self, contexts: Sequence[str]) -> list[Memory]:
        """Pieces of all contexts share few forwards; seconds are shared by tokens read."""
        start = time.perf_counter()
        ids, texts = self.encoder.tokenize_within_limit(contexts)
        with torch.inference_mode():
            vectors = [context.cpu() for context in self.encoder.encode(ids)]
        per_token = (time.perf_counter() - start) / max(1, sum(map(len, ids)))
        memories = []
        counts = self.decoder.count_tokens(texts)
        for context, text, read, content, tokens in zip(contexts, texts, ids, vectors, counts, strict=True):
            boundary, size = self.encoder.boundaries(len(read)) + len(self.behind), len(text.encode())
            memory = torch.cat([content, self.behind.to(content.dtype)])
            accounts = tokens, len(read), size, len(memory) - boundary, boundary
            seconds, left_out = len(read) * per_token, len(context.encode()) - size
            memories.append(Memory(*accounts, seconds=seconds, vectors=memory, truncated_bytes=left_out))
        return memories

    @property
    def tokenizers(self) -> tuple[PreTrainedTokenizerBase, ...]:
        return tuple(dict.fromkeys((self.decoder.tokenizer, self.encoder.tokenizer)))

    def weights_fingerprint(self) -> str:
        return self.digest


def drawn_vectors(decoder: Decoder, count: int, seed: int) -> torch.Tensor:
    """Vectors at the scale of the decoder's token vectors: [count, width]."""
    generator = torch.Generator().manual_seed(seed)
    table = decoder.embedding.weight.detach().float()
    return torch.randn(count, table.shape[1], generator=generator) * table.std()
