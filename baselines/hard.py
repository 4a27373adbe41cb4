"""What the hard methods share: shorter text with its accounting, and budgets counted in the decoder's tokens."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from pcc_bench.core import shipped
from pcc_bench.core.compressor import Compressor, Memory
from pcc_bench.core.errors import UsageError


class HardCompressor(Compressor):
    """A method whose memory is shorter text: a subclass says which text is kept."""

    soft = False
    default = shipped.DECODER

    def shorten(self, context: str) -> str:
        """The text the decoder reads in place of `context`."""
        raise NotImplementedError

    def budget(self, text: str) -> tuple[np.ndarray, int]:
        """Where the decoder's tokens lie in a text, and how many of them the rate leaves.

        Returns:
            Characters [start, end) of each, [tokens, 2]; a character of several bytes may be cut into several tokens,
            each of which spans the whole character. And a number, at least 1.
        """
        assert self.rate is not None
        encoded = self.decoder.tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
        )
        spans = np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
        return spans, budget(len(spans), self.rate)

    def compress(self, contexts: Sequence[str]) -> list[Memory]:
        """Shorten each context; its tokens are counted in the decoder's tokenizer."""
        start = time.perf_counter()
        kept = [self.shorten(context) for context in contexts]
        return self.account(contexts, kept, time.perf_counter() - start)

    def account(
        self, contexts: Sequence[str], kept: Sequence[str], seconds: float, read: Sequence[int] | None = None
    ) -> list[Memory]:
        """Memories of shortened texts, which took so many seconds together.

        `read` are a method's own tokens of each context; where it has no tokenizer, the decoder's count.
        """
        counts = self.decoder.count_tokens([*contexts, *kept])
        sources, slots = counts[: len(contexts)], counts[len(contexts) :]
        return [
            Memory(
                source_tokens=source,
                compressor_tokens=own,
                source_bytes=len(context.encode()),
                slots=size,
                seconds=seconds / len(contexts),
                text=text,
            )
            for context, text, source, size, own in zip(contexts, kept, sources, slots, read or sources, strict=True)
        ]


def check_rate(method: str, rate: float) -> float:
    """The rate, once it is a number of at least 1."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not rate > 0:
        raise UsageError(f"{method}: rate={rate} is not a rate (source tokens per kept token): pass rate=4 (or 16 ...)")
    if rate < 1:
        raise UsageError(f"{method}: rate={rate} would lengthen the context: pass rate=4 (or 16 ...)")
    return float(rate)


def budget(tokens: int, rate: float) -> int:
    """Tokens that a compressor of a rate would leave of so many; at least one."""
    return max(1, int(tokens / rate))
