"""Floors and ceilings: the whole context, none of it, and as much of it as fits a compressor's budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

from pcc_bench.baselines.hard import HardCompressor, budget, check_rate, token_spans
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError


class FullContext(HardCompressor):
    """The ceiling: the decoder reads everything, exactly as lm-eval's `hf` does."""

    name = "full-context"
    label = "full context"
    scores_whole_text = True
    rate = 1.0
    summary = "the decoder reads the whole context (ceiling)"

    @classmethod
    def recorded_rate(cls, pretrained: str, options: Mapping[str, Any]) -> float:
        """A position for each token."""
        return 1.0

    def shorten(self, context: str) -> str:
        """All of it."""
        return context


class NoContext(HardCompressor):
    """The floor: the decoder answers from what it knows."""

    name = "no-context"
    label = "no context"
    summary = "the decoder reads no context (floor)"

    @classmethod
    def recorded_rate(cls, pretrained: str, options: Mapping[str, Any]) -> float:
        """No position for any token."""
        return math.inf

    def shorten(self, context: str) -> str:
        """Nothing."""
        return ""


class TruncatedContext(HardCompressor):
    """The decoder reads only as many tokens of the context as a compressor of the same rate would leave.

    Args:
        decoder: The decoder, whose tokens are counted.
        rate: Source tokens per kept token; at least one token is kept.
        keep: Which end of the context is kept.
    """

    name = "truncated-context"
    label = "truncated context"
    summary = "the first or last tokens, as many as a given rate leaves"

    def __init__(self, decoder: Decoder, rate: float = 4, keep: Literal["first", "last"] = "first") -> None:
        super().__init__(decoder)
        if keep not in ("first", "last"):
            raise UsageError(f"truncated-context: keep={keep} is unknown: pass keep=first or keep=last")
        self.rate = check_rate(self.name, rate)
        self.keep = keep

    @classmethod
    def load(
        cls, pretrained: str, decoder: Decoder, *, rate: float = 4, keep: Literal["first", "last"] = "first"
    ) -> Self:
        """Build it for a loaded decoder, which is all it needs."""
        return cls(decoder, rate, keep)

    def options(self) -> dict[str, Any]:
        """Rate and end."""
        return {"rate": self.rate, "keep": self.keep}

    def shorten(self, context: str) -> str:
        """Cut between two tokens; a cut inside a character's bytes moves to the character's start (first) or end."""
        spans = token_spans(self.decoder, context)
        assert self.rate is not None
        kept = budget(len(spans), self.rate)
        if kept >= len(spans):
            return context
        return context[: spans[kept][0]] if self.keep == "first" else context[spans[-kept - 1][1] :]
