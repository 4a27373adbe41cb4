"""Control: the sentences of the context that BM25 ranks highest for the question, as many as a budget holds.

Retrieval is the cheapest method that knows the question. A compressor that does not know it answers any question from
one memory, which retrieval can't; at the same budget this is the stronger opponent than truncation. BM25 is the
`bm25s` package's (Lucene's variant, k1 1.5, b 0.75), over words of two letters and more in lower case, without
the package's 33 English stop words.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any, Self

import bm25s
import numpy as np

from pcc_bench.baselines.hard import HardCompressor, budget, check_rate, token_spans
from pcc_bench.core.compressor import Memory
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError

# A sentence with the blanks behind it: up to a line break, or to a stop and quotes (blanks behind them, but for CJK).
_SENTENCE = re.compile(r"\S.*?(?:(?<![.!?])[.!?]+[\"'”’)\]]*\s+|[。！？]+[」』”’）]*\s*|\n\s*|\Z)", re.DOTALL)  # noqa: RUF001


class Bm25Context(HardCompressor):
    """The decoder reads the sentences that match the question best, in their order.

    Sentences are taken by rank, the earlier one first among equals; the last one is cut where the budget ends.

    Args:
        decoder: The decoder, whose tokens are counted.
        rate: Source tokens per kept token; at least one token is kept.
    """

    name = "bm25-context"
    label = "BM25 context"
    query_aware = True
    summary = "the sentences that BM25 ranks highest for the question, as many as a given rate leaves (control)"

    def __init__(self, decoder: Decoder, rate: float = 4) -> None:
        super().__init__(decoder)
        self.rate = check_rate(self.name, rate)

    @classmethod
    def load(cls, pretrained: str, decoder: Decoder, *, rate: float = 4) -> Self:
        """Build it for a loaded decoder, which is all it needs."""
        return cls(decoder, rate)

    def options(self) -> dict[str, Any]:
        """The rate."""
        return {"rate": self.rate}

    def compress(self, contexts: Sequence[str]) -> list[Memory]:
        """Refused: without a question there is nothing to rank by.

        Raises:
            UsageError: Always.
        """
        raise UsageError(f"{self.name} compresses for a question, and none is given here: use it in an evaluation")

    def compress_for(self, contexts: Sequence[str], queries: Sequence[str]) -> list[Memory]:
        """Choose sentences of each context for its question."""
        start = time.perf_counter()
        kept = [self.select(context, query) for context, query in zip(contexts, queries, strict=True)]
        return self.account(contexts, kept, time.perf_counter() - start)

    def select(self, context: str, query: str) -> str:
        """The part of a context that is kept for a question."""
        spans = token_spans(self.decoder, context)
        assert self.rate is not None
        room = budget(len(spans), self.rate)
        if room >= len(spans):
            return context
        starts = np.array([match.start() for match in _SENTENCE.finditer(context)] or [0])
        starts[0] = 0  # blanks before the first sentence are its own
        ends = np.append(starts[1:], len(context))
        # A sentence's first token is the first that ends in it: the blank before a word may be part of its token.
        first = np.append(np.searchsorted(spans[:, 1], starts, side="right"), len(spans))
        sentences = [context[a:b] for a, b in zip(starts, ends, strict=True)]
        order = np.argsort(-scores(sentences, query), kind="stable")
        sizes = np.diff(first)[order]
        before = np.cumsum(sizes) - sizes  # tokens taken before each, by rank
        chosen = order[before < room]
        last = chosen[-1]
        cut = first[last] + room - before[len(chosen) - 1]
        if cut < first[last + 1]:
            sentences[last] = context[starts[last] : spans[cut][0]] + (" " if last < chosen.max() else "")
        return "".join(sentences[i] for i in sorted(chosen))


def scores(sentences: Sequence[str], query: str) -> np.ndarray:
    """BM25 of each sentence for a query; zeros where they share no word."""
    words = bm25s.tokenize([*sentences, query], stopwords="en", return_ids=False, show_progress=False)
    *corpus, asked = words
    if not any(corpus) or not asked:
        return np.zeros(len(sentences))
    index = bm25s.BM25()
    index.index(corpus, show_progress=False)
    return np.asarray(index.get_scores(asked))
