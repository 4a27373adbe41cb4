"""RULER's tasks on generated text: any length, in the decoder's tokens, without a download."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from random import Random
from typing import Any, Self

import datasets
from transformers import PreTrainedTokenizerBase

from pcc_bench.core.errors import UsageError
from pcc_bench.tasks.data import fingerprint
from pcc_bench.tasks.documents import whole
from pcc_bench.tasks.lab.draws import seeded
from pcc_bench.tasks.lab.narrative import draw_document
from pcc_bench.tasks.lab.world import VERSION
from pcc_bench.tasks.needle.task import numbers
from pcc_bench.tasks.population import load_tokenizer, tokenizer_name
from pcc_bench.tasks.ruler.needles import Draw, Hidden
from pcc_bench.tasks.task import QuestionTask

LENGTHS, DEPTHS = (1024, 2048, 4096), (0.0, 0.25, 0.5, 0.75, 1.0)
PER_CELL = 5
LONGEST = 10_000_000  # decoder tokens: no window is longer, and a text of them takes minutes to generate
SHORTEST = 6  # decoder tokens of a sentence of the narrative, on average: more in fact, for every tokenizer
_SENTENCES = re.compile(r"(?<=[.?!])\s+")


class RulerTask(QuestionTask):
    """Something hidden in a narrative of the lab's, and a question about it, in RULER's words.

    Besides lm-eval's own, the YAML has the keys `draw` (what is hidden: a function of `needles`) and `by_depth` (the
    first sentence of it stands at each of `depths`, the others anywhere; else all of them stand anywhere). Settings:
    `lengths` (decoder tokens of the context, never more and at most a sentence fewer), `depths`, `per_cell`, `seed`.
    """

    def __init__(self, config: Mapping[str, Any], **kwargs: Any) -> None:
        own = dict(config)
        self._draw: Draw = own.pop("draw")
        self._by_depth: bool = own.pop("by_depth")
        super().__init__(own, **kwargs)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Make the rows and record what they are made of."""
        metadata = self.config.metadata
        lengths = [int(length) for length in numbers(metadata, "lengths", LENGTHS, 64, LONGEST)]
        name = tokenizer_name(metadata, f"{self.config.task} counts decoder tokens", "")
        seed = whole(metadata, "seed", 0, least=0)
        docs, dropped = self._rows(lengths, load_tokenizer(name, metadata, ""), seed)
        if not docs:
            raise UsageError(f"nothing of {self.config.task} fits into lengths={lengths}: pass longer ones")
        account = {
            "source": "generated",
            "place": "generated narratives",
            "dataset": "ruler",
            "split": "test",
            "hub": None,
            "world_version": VERSION,
            "protocol": "strict",
            "population": "all",
            "rows_read": len(docs) + dropped.total(),
            "kept": len(docs),
            "dropped": dict(dropped),
            "lengths": {"tokens": lengths},
            "tokenizer": name,
            "seed": seed,
            "fingerprint": fingerprint(docs),
        }
        self.config.metadata = {**metadata, "population": account}
        self.dataset = {"test": datasets.Dataset.from_list(docs)}

    def _rows(
        self, lengths: Sequence[int], tokenizer: PreTrainedTokenizerBase, seed: int
    ) -> tuple[list[dict[str, Any]], Counter[str]]:
        """The rows, and how many could not be made, by reason."""
        metadata = self.config.metadata
        depths = numbers(metadata, "depths", DEPTHS, 0, 1)
        per_cell = whole(metadata, "per_cell", PER_CELL, most=10_000)
        # As many rows of a length with depths as without; a row's text and needles are the same at all depths.
        count, places = (per_cell, depths) if self._by_depth else (per_cell * len(depths), [None])
        docs, dropped = [], Counter[str]()
        for length, number in product(lengths, range(count)):
            random = seeded("ruler", self.config.task, seed, length, number)
            hidden = self._draw(random)
            narrative = Narrative.drawn(random, length, tokenizer)
            elsewhere = [random.random() for _ in hidden.sentences]
            for depth in places:
                hay = narrative.hide(hidden, sorted(elsewhere) if depth is None else [depth, *elsewhere[1:]], length)
                if hay is None:
                    dropped[f"what is hidden is longer than {length} tokens"] += 1
                    continue
                docs.append(
                    {
                        "id": "-".join([str(length), *([] if depth is None else [f"{depth:g}"]), str(number)]),
                        "context": hay.text,
                        "question": hidden.question,
                        "opening": hidden.opening,
                        "answers": list(hidden.answers),
                        "every": hidden.every,
                        "length": length,
                        "depth": depth,
                        "tokens": hay.tokens,
                        "found_depth": hay.depth,
                    }
                )
        return docs, dropped


@dataclass(frozen=True)
class Hay:
    """A text with what is hidden in it.

    Attributes:
        text: The text.
        tokens: Its decoder tokens.
        depth: Where the first of the hidden sentences begins: decoder tokens before it over those of all but it.
    """

    text: str
    tokens: int
    depth: float


@dataclass(frozen=True)
class Narrative:
    """Sentences of the lab's about its people, with the decoder tokens of each."""

    sentences: Sequence[str]
    sizes: Sequence[int]
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def drawn(cls, random: Random, tokens: int, tokenizer: PreTrainedTokenizerBase) -> Self:
        """One of more than so many decoder tokens."""
        sentences = _SENTENCES.split(draw_document(random, tokens // SHORTEST + 1, split="test"))
        return cls(sentences, _counts(sentences, tokenizer), tokenizer)

    def hide(self, hidden: Hidden, places: Sequence[float], length: int) -> Hay | None:
        """As much of it as fits, with the hidden sentences between its own.

        Args:
            hidden: What is hidden; sentences at the same place keep their order.
            places: Of the hidden sentences, from 0 (the beginning) to 1.
            length: Decoder tokens of the whole, at most.

        Returns:
            The text; None where the hidden sentences alone are longer.
        """
        sizes = _counts(hidden.sentences, self.tokenizer)
        count = sum(size <= length - sum(sizes) for size in accumulate(self.sizes))
        while count >= 0:
            before, sentences = _inserted(self.sentences[:count], hidden.sentences, places)
            text = " ".join(sentences)
            (tokens,) = _counts([text], self.tokenizer, "")
            if tokens <= length:
                return Hay(text, tokens, sum(_counts([before], self.tokenizer, "")) / max(tokens - sizes[0], 1))
            count -= 1  # where sentences meet, a tokenizer may need a token more
        return None


def _inserted(narrative: Sequence[str], sentences: Sequence[str], places: Sequence[float]) -> tuple[str, list[str]]:
    """What stands before the first hidden sentence, and all sentences in their order."""
    where = [round(place * len(narrative)) for place in places]
    order = sorted(range(len(sentences)), key=lambda n: where[n])  # stable: a chain keeps its order
    joined: list[str] = []
    before, last = "", 0
    for n in order:
        joined += narrative[last : where[n]]
        last = where[n]
        if n == 0:
            before = " ".join(joined)
        joined.append(sentences[n])
    return before, [*joined, *narrative[last:]]


def _counts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, blank: str = " ") -> list[int]:
    """Decoder tokens of texts, each behind a blank as in the middle of a text."""
    encoded = tokenizer(
        [blank + text for text in texts], add_special_tokens=False, split_special_tokens=True, verbose=False
    )
    return [len(ids) for ids in encoded["input_ids"]]
