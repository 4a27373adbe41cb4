"""Floors and ceilings: the whole context, none of it, and as much of it as fits a compressor's budget."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal, Self

from pcc_bench.compressor import Compressor, Memory
from pcc_bench.decoder import Decoder
from pcc_bench.errors import UsageError


class HardCompressor(Compressor):
    """A method whose memory is shorter text: a subclass says which text is kept."""

    soft = False

    def shorten(self, context: str) -> str:
        """The text the decoder reads in place of `context`."""
        raise NotImplementedError

    def compress(self, contexts: Sequence[str]) -> list[Memory]:
        """Shorten each context; its tokens are counted in the decoder's tokenizer."""
        start = time.perf_counter()
        kept = [self.shorten(context) for context in contexts]
        seconds = (time.perf_counter() - start) / max(1, len(contexts))
        counts = self.decoder.count_tokens([*contexts, *kept])
        sources, slots = counts[: len(contexts)], counts[len(contexts) :]
        return [
            Memory(
                source_tokens=source,
                compressor_tokens=source,
                source_bytes=len(context.encode()),
                slots=size,
                seconds=seconds,
                text=text,
            )
            for context, text, source, size in zip(contexts, kept, sources, slots, strict=True)
        ]


class FullContext(HardCompressor):
    """The ceiling: the decoder reads everything, exactly as lm-eval's `hf` does."""

    name = "full-context"
    scores_whole_text = True
    rate = 1.0
    summary = "the decoder reads the whole context (ceiling)"

    def shorten(self, context: str) -> str:
        """All of it."""
        return context


class NoContext(HardCompressor):
    """The floor: the decoder answers from what it knows."""

    name = "no-context"
    summary = "the decoder reads no context (floor)"

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
    summary = "the first or last tokens, as many as a given rate leaves"

    def __init__(self, decoder: Decoder, rate: float = 4, keep: Literal["first", "last"] = "first") -> None:
        super().__init__(decoder)
        if rate < 1:
            raise UsageError(f"truncated-context: rate={rate} would lengthen the context: pass rate=4 (or 16 ...)")
        if keep not in ("first", "last"):
            raise UsageError(f"truncated-context: keep={keep} is unknown: pass keep=first or keep=last")
        self.rate = float(rate)
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
        encoded = self.decoder.tokenizer(
            context, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
        )
        spans = encoded["offset_mapping"]
        if not spans:
            return context
        assert self.rate is not None
        budget = max(1, int(len(spans) / self.rate))
        if budget >= len(spans):
            return context
        return context[: spans[budget][0]] if self.keep == "first" else context[spans[-budget - 1][1] :]
