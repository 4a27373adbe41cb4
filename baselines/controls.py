"""Controls: the whole context, none of it, and parts of it as long as a compressor of a rate would leave.

A method that chooses its tokens must beat a random choice of as many. Retrieval (BM25) is the cheapest method that
knows the question, and at the same budget a stronger opponent than truncation.
"""

import hashlib
import math
import re
import time
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any, Literal, Self

import bm25s
import numpy as np

from pcc_bench.baselines.hard import HardCompressor, Rate
from pcc_bench.core.compressor import Memory
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError

# A sentence with the blanks behind it: up to a line break, or to a stop and quotes (blanks behind them, but for CJK).
_SENTENCE = re.compile(r"\S.*?(?:(?<![.!?])[.!?]+[\"'”’)\]]*\s+|[。！？]+[」』”’）]*\s*|\n\s*|\Z)", re.DOTALL)  # noqa: RUF001


class FullContext(HardCompressor):
    """The ceiling: the decoder reads everything, exactly as lm-eval's `hf` does."""

    name = "full-context"
    label = "full context"
    scores_whole_text = True
    rate = 1.0
    summary = "the decoder reads the whole context (ceiling)"

    @classmethod
    def recorded_rate(cls, pretrained: str, options: Mapping[str, Any]) -> float:
        return 1.0

    def shorten(self, context: str) -> str:
        return context


class NoContext(HardCompressor):
    name = "no-context"
    label = "no context"
    summary = "the decoder reads no context (floor)"

    @classmethod
    def recorded_rate(cls, pretrained: str, options: Mapping[str, Any]) -> float:
        return math.inf

    def shorten(self, context: str) -> str:
        return ""


class RatedContext(HardCompressor):
    """The decoder reads a part of the context: one token of `rate` source tokens, and at least one."""

    def __init__(self, decoder: Decoder, rate: float = 4, **own: Any) -> None:
        super().__init__(decoder)
        self.rate, self.own = float(rate), own  # `own`: what the method's `load` takes besides

    @classmethod
    def load(cls, pretrained: str, decoder: Decoder, *, rate: Rate = 4) -> Self:
        return cls(decoder, rate)

    def options(self) -> dict[str, Any]:
        return {"rate": self.rate, **self.own}


class TruncatedContext(RatedContext):
    name = "truncated-context"
    label = "truncated context"
    summary = "the first or last tokens, as many as a given rate leaves"

    @classmethod
    def load(
        cls, pretrained: str, decoder: Decoder, *, rate: Rate = 4, keep: Literal["first", "last"] = "first"
    ) -> Self:
        return cls(decoder, rate, keep=keep)

    def shorten(self, context: str) -> str:
        """Cut between two tokens; a cut inside a character's bytes moves to the character's start (first) or end."""
        spans, kept = self.budget(context)
        if kept >= len(spans):
            return context
        return context[: spans[kept][0]] if self.own["keep"] == "first" else context[spans[-kept - 1][1] :]


class RandomContext(RatedContext):
    """A random choice of the context's tokens, in their order, which depends on the context and the seed only."""

    # What is left is tokenized anew as text: the tokens counted can be a little more or fewer than chosen.

    name = "random-context"
    label = "random context"
    summary = "tokens chosen at random, as many as a given rate leaves (control)"

    @classmethod
    def load(cls, pretrained: str, decoder: Decoder, *, rate: Rate = 4, seed: int = 0) -> Self:
        return cls(decoder, rate, seed=seed)

    def shorten(self, context: str) -> str:
        """Keep whole characters: one whose bytes are cut into several tokens stays where any of them does."""
        spans, kept = self.budget(context)
        if kept >= len(spans):
            return context
        state = hashlib.sha256(f"{self.own['seed']}\n{context}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(state))
        chosen = spans[generator.choice(len(spans), kept, replace=False)]
        steps = np.zeros(len(context) + 1, dtype=np.int64)
        np.add.at(steps, chosen[:, 0], 1)
        np.add.at(steps, chosen[:, 1], -1)
        return "".join(compress(context, np.cumsum(steps[:-1]) > 0))


class Bm25Context(RatedContext):
    """The sentences that match the question best, in their order: by rank, the last one cut where the budget ends."""

    # BM25 is the `bm25s` package's (Lucene's variant, k1 1.5, b 0.75), over words of two letters and more in lower
    # case, without its 33 English stop words.
    name = "bm25-context"
    label = "BM25 context"
    query_aware = True
    summary = "the sentences that BM25 ranks highest for the question, as many as a given rate leaves (control)"

    def compress(self, contexts: Sequence[str]) -> list[Memory]:
        raise UsageError(f"{self.name} compresses for a question, and none is given here: use it in an evaluation")

    def compress_for(self, contexts: Sequence[str], queries: Sequence[str]) -> list[Memory]:
        start = time.perf_counter()
        kept = [self.select(context, query) for context, query in zip(contexts, queries, strict=True)]
        return self.account(contexts, kept, time.perf_counter() - start)

    def select(self, context: str, query: str) -> str:
        spans, room = self.budget(context)
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
    *corpus, asked = bm25s.tokenize([*sentences, query], stopwords="en", return_ids=False, show_progress=False)
    if not any(corpus) or not asked:
        return np.zeros(len(sentences))
    index = bm25s.BM25()
    index.index(corpus, show_progress=False)
    return np.asarray(index.get_scores(asked))
