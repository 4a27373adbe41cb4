"""What the hard methods share: shorter text with its accounting, and budgets in the decoder's tokens."""

import time
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from pcc_bench.core import shipped
from pcc_bench.core.compressor import Compressor, Memory
from pcc_bench.core.decoder import plain_tokens

Rate = Annotated[float, Field(ge=1)]  # source tokens per kept token; less would lengthen a context


class HardCompressor(Compressor):
    """A method whose memory is shorter text: a subclass says which text is kept."""

    soft = False
    default = shipped.DECODER

    def shorten(self, context: str) -> str:
        """The text the decoder reads in place of `context`."""
        raise NotImplementedError

    def budget(self, text: str) -> tuple[np.ndarray, int]:
        """Where the decoder's tokens lie in a text, characters [start, end) of each, and how many the rate leaves."""
        # Of a character whose bytes are cut into several tokens, each spans the whole character.
        assert self.rate is not None
        encoded = plain_tokens(self.decoder.tokenizer, [text], return_offsets_mapping=True)
        spans = np.array(encoded["offset_mapping"][0], dtype=np.int64).reshape(-1, 2)
        return spans, budget(len(spans), self.rate)

    def compress(self, contexts: Sequence[str]) -> list[Memory]:
        start = time.perf_counter()
        kept = [self.shorten(context) for context in contexts]
        return self.account(contexts, kept, time.perf_counter() - start)

    def account(
        self, contexts: Sequence[str], kept: Sequence[str], seconds: float, read: Sequence[int] | None = None
    ) -> list[Memory]:
        """Memories of shortened texts; `read`: tokens of each context in the method's tokenizer, if it has its own."""
        sources, slots = self.decoder.count_tokens(contexts), self.decoder.count_tokens(kept)
        return [
            Memory(source, own, len(context.encode()), size, seconds=seconds / len(contexts), text=text)
            for context, text, source, size, own in zip(contexts, kept, sources, slots, read or sources, strict=True)
        ]


def budget(tokens: int, rate: float) -> int:
    """Tokens that a compressor of a rate would leave of so many; at least one."""
    return max(1, int(tokens / rate))
