"""What the decoder reads, in order: token ids, memories, a method's own vectors.

One plan serves evaluation, training, cost measurements, saved memories and servers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch

from pcc_bench.core.compressor import Memory
from pcc_bench.core.decoder import Decoder

Piece = list[int] | Memory | torch.Tensor


@dataclass(frozen=True)
class Plan:
    """Token ids, memories and a method's own vectors; input vectors are made when its batch is decoded."""

    pieces: tuple[Piece, ...]

    @property
    def length(self) -> int:  # positions in the decoder's input
        return sum(map(_length, self.pieces))

    @property
    def has_vectors(self) -> bool:
        return any(not isinstance(piece, list) for piece in self.pieces)

    def ids(self) -> list[int]:
        """The token ids, of a plan without vectors."""
        return [token for piece in self.pieces if isinstance(piece, list) for token in piece]

    @property
    def span(self) -> int:
        """Position ids from 0 to the greatest, where memories take up positions."""
        return sum(piece.span if isinstance(piece, Memory) else len(piece) for piece in self.pieces)

    def positions(self, of_memories: int | None = None) -> list[int]:
        """Position ids: memories have their own, or count as tokens.

        `of_memories`: position of every vector of a memory; the rest then counts on as if it were not there.
        """
        positions: list[int] = []
        start = 0
        for piece in self.pieces:
            if isinstance(piece, Memory) and of_memories is not None:
                positions += [of_memories] * piece.length
                continue
            own = piece.positions if isinstance(piece, Memory) else None
            positions += (start + place for place in (range(_length(piece)) if own is None else own))
            start += piece.span if isinstance(piece, Memory) else len(piece)
        return positions

    def vectors(self, decoder: Decoder) -> torch.Tensor:
        """Input vectors [length, hidden size]; a float32 memory keeps the whole prompt in float32."""
        parts = []
        for piece in self.pieces:
            vectors = piece.vectors if isinstance(piece, Memory) else piece
            assert vectors is not None
            parts.append(decoder.embed(vectors) if isinstance(vectors, list) else vectors.to(decoder.device))
        return torch.cat(parts)

    def dtype(self, decoder: Decoder) -> torch.dtype:  # of `vectors`
        tensors = [piece.vectors if isinstance(piece, Memory) else piece for piece in self.pieces]
        dtypes = [tensor.dtype for tensor in tensors if isinstance(tensor, torch.Tensor)]
        return reduce(torch.promote_types, dtypes, decoder.dtype)

    def split(self, length: int) -> tuple["Plan", "Plan"]:
        """The first `length` positions, and the rest; only token ids are cut in two."""
        head: list[Piece] = []
        tail: list[Piece] = []
        for piece in self.pieces:
            if isinstance(piece, list):
                head.append(piece[: max(0, length)])
                tail.append(piece[max(0, length) :])
                length -= len(piece)
            else:
                (head if length > 0 else tail).append(piece)
                length -= _length(piece)
        return Plan(tuple(head)), Plan(tuple(tail))


def positions(plans: Sequence[Plan], of_memories: int | None) -> list[list[int]] | None:
    """Position ids of a batch of plans (see `Plan.positions`); None where all of them count from 0."""
    memories = (piece for plan in plans for piece in plan.pieces if isinstance(piece, Memory))
    if of_memories is None and all(memory.positions is None for memory in memories):
        return None
    return [plan.positions(of_memories) for plan in plans]


def common_length(plans: Sequence[Plan]) -> int:
    """Positions at which plans begin alike, at least one short of each, and not within a memory.

    Memories are alike if they are one and the same object, as those of one source are.
    """
    first = plans[0]
    common = min(plan.length for plan in plans) - 1
    for other in plans[1:]:
        length = 0
        for a, b in zip(first.pieces, other.pieces, strict=False):
            if isinstance(a, list) and isinstance(b, list):
                same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
                length += same
                if same < max(len(a), len(b)):
                    break
            elif a is b and length + _length(a) <= common:
                length += _length(a)
            else:
                break
        common = min(common, length)
    return common


def realise(plans: Sequence[Plan], decoder: Decoder, dtype: torch.dtype | None) -> list[list[int]] | list[torch.Tensor]:
    """What a batch of plans gives the decoder: token ids, or input vectors of a dtype."""
    if dtype is None:
        return [plan.ids() for plan in plans]
    return [plan.vectors(decoder).to(dtype) for plan in plans]


def _length(piece: Piece) -> int:
    return piece.length if isinstance(piece, Memory) else len(piece)
