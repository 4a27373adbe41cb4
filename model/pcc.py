"""PCC: encoder, converter and the vectors that frame a memory in the decoder's input."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby

import torch
from torch import nn

from pcc_bench.core.compressor import Memory
from pcc_bench.model.config import PccConfig
from pcc_bench.model.converter import Converter
from pcc_bench.model.encoder import Encoder

OPEN, CLOSE, AE = "<mem>", "</mem>", "<ae>"
SPECIAL_TOKENS = (OPEN, CLOSE, AE)
PART_SLOTS = 1_024  # converted together: 4 MiB of SmolLM2's, 32 MiB of Llama-3-8B's hidden states in bfloat16


@dataclass
class Encoded:
    tokens: int  # encoder tokens read (padding included where it is attended to)
    slots: list[torch.Tensor]  # of each segment: [slots, hidden size of the decoder], float32; see `PCC.encode`


class PCC(nn.Module):
    """A context compressor without its decoder: the encoder gives slots, the converter takes them to its space."""

    # Rows of `<mem>`, `</mem>` and `<ae>` for the decoder's input: [3, hidden size of the decoder]. In the paper they
    # are random and frozen (published checkpoints were trained against exactly their rows); they are part of the
    # checkpoint, so that a decoder needs no surgery.
    special: torch.Tensor

    def __init__(self, config: PccConfig, encoder: Encoder, converter: Converter, special: torch.Tensor) -> None:
        super().__init__()
        self.config, self.encoder, self.converter = config, encoder, converter
        self.register_buffer("special", special)

    def special_vector(self, token: str) -> torch.Tensor:
        """Input vector of a boundary or task token: [hidden size of the decoder]."""
        return self.special[SPECIAL_TOKENS.index(token)]

    def encode(self, contexts: Sequence[Sequence[int]], *, convert: bool = True) -> list[Encoded]:
        """Compress contexts given in encoder tokens; all their segments share few forwards.

        Without gradients no more than `PART_SLOTS` slots and a batch are held before the converter. Without `convert`
        slots are left as the encoder gives them: [slots, slot size of the encoder].
        """
        segments = self.encoder.segments(contexts)
        has_gradients = torch.is_grad_enabled()
        slots = [torch.empty(0)] * len(segments)
        if not has_gradients:
            # Views of one tensor a context. Tensors that stay must not be made between the large ones of the forwards,
            # which go: they would leave holes in the allocator's heap, and a process that reads 32k tokens would hold
            # three times what its slots take.
            width = self.converter.decoder_size if convert else self.encoder.slot_size
            slots = []
            for _, group in groupby(segments, key=lambda segment: segment.context):
                counts = [segment.slots for segment in group]
                slots += torch.empty(sum(counts), width, device=self.special.device).split(counts)
        for part in self.encoder.parts(segments, None if has_gradients else PART_SLOTS):
            hidden = self.encoder([segments[i] for i in part])
            pieces = self.converter(torch.cat(hidden)).split(list(map(len, hidden))) if convert else hidden
            for i, piece in zip(part, pieces, strict=True):
                slots[i] = piece if has_gradients else slots[i].copy_(piece)
            del hidden, pieces
        encoded = [Encoded(0, []) for _ in contexts]
        for segment, piece in zip(segments, slots, strict=True):
            encoded[segment.context].slots.append(piece)
            encoded[segment.context].tokens += len(segment.ids)
        return encoded

    def frame(self, slots: Sequence[torch.Tensor]) -> torch.Tensor:
        """Boundary vectors around a context's converted slots: [slots + boundary vectors, hidden size], float32."""
        opening, closing = (self.special_vector(token).float()[None] for token in (OPEN, CLOSE))
        if not slots:
            return self.special.new_zeros(0, self.special.shape[1], dtype=torch.float32)
        if self.config.boundaries == "per_segment":
            return torch.cat([part for segment in slots for part in (opening, segment, closing)])
        if self.config.boundaries == "once":
            return torch.cat([opening, *slots, closing])
        return torch.cat(list(slots))

    def memory(self, context: Encoded, source_tokens: int = 0, source_bytes: int = 0) -> Memory:
        """A context from `encode` as the decoder reads it; its decoder tokens and bytes where an account is kept."""
        lengths, vectors = list(map(len, context.slots)), self.frame(context.slots)
        slots, positions = sum(lengths), self.positions(context.tokens, lengths)
        read = source_tokens, context.tokens, source_bytes
        return Memory(*read, slots, len(vectors) - slots, vectors=vectors, positions=positions)

    def positions(self, tokens: int, slots: Sequence[int]) -> tuple[int, ...] | None:
        """Position ids of the vectors of `frame`, counted from the memory's start; what follows counts on from them.

        A segment takes as many positions as it has encoder tokens (slots, where it has more of these), a boundary
        vector one. None where the vectors count as tokens.
        """
        config = self.encoder.config
        if config.slot_positions == "consecutive":
            return None
        around_each = int(self.config.boundaries == "per_segment")
        start = 1 - around_each  # behind the one `<mem>` before all segments
        ids = [0] * start
        for count in slots:
            length = min(tokens, config.segment_length)
            tokens -= length
            group = config.rate if config.pooling == "mean" else Fraction(length, count)
            ids += [start] * around_each
            start += around_each
            ids += [start + centre for centre in centres(length, count, group)]
            start += max(length, count)
            ids += [start] * around_each
            start += around_each
        return (*ids, *[start] * (1 - around_each)) if slots else ()


def centres(tokens: int, slots: int, group: int | Fraction) -> list[int]:
    """The token in the middle of the `group` of tokens that each slot of a segment stands for, rounded down."""
    # The last slot's are fewer where the tokens end before; as many slots as tokens, or more, count.
    if slots >= tokens:
        return list(range(slots))
    return [int((slot * group + min((slot + 1) * group, tokens) - 1) // 2) for slot in range(slots)]
