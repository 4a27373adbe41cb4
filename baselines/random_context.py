"""Control: tokens dropped at random. What a method that chooses its tokens must beat at the same rate."""

from __future__ import annotations

import hashlib
from itertools import compress
from typing import Any, Self

import numpy as np

from pcc_bench.baselines.hard import HardCompressor, budget, check_rate, token_spans
from pcc_bench.core.decoder import Decoder


class RandomContext(HardCompressor):
    """The decoder reads a random choice of the context's tokens, in their order, as many as a given rate leaves.

    The choice depends on the context and the seed only. What is left is tokenized anew as text, so the tokens that are
    counted can be a little more or fewer than were chosen.

    Args:
        decoder: The decoder, whose tokens are dropped.
        rate: Source tokens per kept token; at least one token is kept.
        seed: Another seed is another choice.
    """

    name = "random-context"
    label = "random context"
    summary = "tokens chosen at random, as many as a given rate leaves (control)"

    def __init__(self, decoder: Decoder, rate: float = 4, seed: int = 0) -> None:
        super().__init__(decoder)
        self.rate = check_rate(self.name, rate)
        self.seed = int(seed)

    @classmethod
    def load(cls, pretrained: str, decoder: Decoder, *, rate: float = 4, seed: int = 0) -> Self:
        """Build it for a loaded decoder, which is all it needs."""
        return cls(decoder, rate, seed)

    def options(self) -> dict[str, Any]:
        """Rate and seed."""
        return {"rate": self.rate, "seed": self.seed}

    def shorten(self, context: str) -> str:
        """Keep whole characters: one whose bytes are cut into several tokens stays where any of them does."""
        spans = token_spans(self.decoder, context)
        assert self.rate is not None
        kept = budget(len(spans), self.rate)
        if kept >= len(spans):
            return context
        state = hashlib.sha256(f"{self.seed}\n{context}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(state))
        chosen = spans[generator.choice(len(spans), kept, replace=False)]
        steps = np.zeros(len(context) + 1, dtype=np.int64)
        np.add.at(steps, chosen[:, 0], 1)
        np.add.at(steps, chosen[:, 1], -1)
        return "".join(compress(context, np.cumsum(steps[:-1]) > 0))
