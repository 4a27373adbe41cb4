"""Any token classifier as a compressor, as LLMLingua-2 does it.

The classifier reads each context in chunks and gives every token a probability of being kept; the most probable words
stay, as many as the budget holds in the decoder's own tokens. What is left is cut out of the context as it stands, line
breaks and punctuation between neighbours included.
"""

import re
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import PositiveInt

from pcc_bench.baselines.hard import Rate, budget
from pcc_bench.baselines.token_classifier import classifier as classifiers
from pcc_bench.baselines.token_classifier.classifier import Classifier, ClassifierCompressor, words_of
from pcc_bench.core.compressor import Memory
from pcc_bench.core.decoder import Decoder, weights_digest

ALWAYS = 2.0  # in the place of a probability: is never dropped


@dataclass(frozen=True)
class Unit:
    start: int  # its first character
    end: int  # behind its last one
    keep: float  # probability that it is worth keeping; `ALWAYS` for what is never dropped


class TokenClassifier(ClassifierCompressor):
    """The words stay that a token classifier of the user's finds worth keeping; `words` says which, as in `load`."""

    name = classifiers.METHOD
    label = "token classifier"
    summary = "the words that any token classification model finds worth keeping"

    def __init__(
        self,
        decoder: Decoder,
        classifier: Classifier,
        rate: float | None,
        target_tokens: int | None,
        words: Mapping[str, Any],
    ) -> None:
        family = str(classifier.model.config.model_type)
        digest = weights_digest(classifier.model.named_parameters(), family, first=64)
        super().__init__(decoder, classifier.tokenizer, digest, rate, target_tokens)
        self.classifier, self.words = classifier, words
        longest_first = sorted(words["force_tokens"], key=len, reverse=True)
        patterns = [  # that match no part of a word
            rf"(?<!\w){re.escape(text)}(?!\w)" if text.isalnum() else re.escape(text) for text in longest_first
        ]
        self._forced = re.compile("|".join(patterns)) if patterns else None

    @classmethod
    def load(
        cls,
        pretrained: str,
        decoder: Decoder,
        *,
        rate: Rate | None = None,  # source tokens per kept token; 2 where there is no target
        target_tokens: PositiveInt | None = None,  # to leave of each context, whatever its length; in place of a rate
        force_tokens: Sequence[str] | str = (),  # texts that are never dropped, wherever they stand; see `words_of`
        force_digits: bool = False,  # never drop words with digits in them
        word_score: Literal["mean", "first"] = "mean",  # probability of a word, by those of its tokens
        unit: Literal["word", "token"] = "word",  # stays or goes as a whole
        keep: str | None = None,  # labels worth keeping, blanks between them; the second of two, or all but `O`
        chunk: int | None = None,  # tokens the classifier reads at once; 512, or as many as it can
        overlap: int = 64,  # tokens that neighbouring chunks share
        chunk_batch: int = 32,  # chunks a forward; changes no result
    ) -> Self:
        """Open any model with a token classification head and a fast tokenizer, folder or hub id."""
        classifier = classifiers.open_classifier(pretrained, decoder, keep, chunk, overlap, chunk_batch)
        words = {"force_tokens": words_of(force_tokens), "force_digits": force_digits, "word_score": word_score}
        return cls(decoder, classifier, rate, target_tokens, {**words, "unit": unit})

    def options(self) -> dict[str, Any]:
        reads = self.classifier
        own = {"keep": list(reads.labels), "chunk": reads.chunk, "overlap": reads.overlap}
        return {"rate": self.rate, "target_tokens": self.target_tokens, **self.words, **own}

    def compress(self, contexts: Sequence[str]) -> list[Memory]:
        if not contexts:
            return []
        start = time.perf_counter()
        encoded = self.classifier.tokens(contexts)
        values = self.classifier.probabilities(encoded["input_ids"])
        texts = []
        for index, context in enumerate(contexts):
            words = encoded.word_ids(index) if self.words["unit"] == "word" else range(len(values[index]))
            units = self._units(context, words, encoded["offset_mapping"][index], values[index])
            texts.append(self._within_budget(context, units))
        return self.account(contexts, texts, time.perf_counter() - start, list(map(len, values)))

    def _units(
        self, text: str, words: Sequence[int | None], spans: Sequence[tuple[int, int]], values: Sequence[float]
    ) -> list[Unit]:
        """The stretches of a text, in order; forced ones are cut out of the words around them."""
        stretches: list[tuple[int, int, list[float]]] = []
        last: int | None = None
        for word, (start, end), value in zip(words, spans, values, strict=True):
            start += len(text[start:end]) - len(text[start:end].lstrip())
            if start >= end:
                continue
            before = stretches[-1] if stretches else (0, 0, [])
            # of one word, or of one character
            if stretches and ((word is not None and word == last) or start < before[1]):
                stretches[-1] = (before[0], max(before[1], end), [*before[2], value])
            else:
                stretches.append((start, end, [value]))
            last = word
        forced = [match.span() for match in self._forced.finditer(text)] if self._forced else []
        units = [Unit(start, end, ALWAYS) for start, end in forced]
        for start, end, scores in stretches:
            keep = scores[0] if self.words["word_score"] == "first" else sum(scores) / len(scores)
            for first, behind in [*forced[bisect_right(forced, start, key=lambda span: span[1]) :], (end, end)]:
                if start < min(first, end):
                    word_text = text[start : min(first, end)]
                    digits = self.words["force_digits"] and any(map(str.isdigit, word_text))
                    units.append(Unit(start, start + len(word_text), ALWAYS if digits else keep))
                if first >= end:
                    break
                start = behind
        return sorted(units, key=lambda unit: unit.start)

    def _within_budget(self, text: str, units: Sequence[Unit]) -> str:
        """The most probable units, as many as the budget holds: one at least, and all that are forced."""
        (size,) = self.decoder.count_tokens([text])
        room = self.target_tokens or budget(size, self.rate or 1)
        if not units or size <= room:
            return text if units else ""
        order = sorted(range(len(units)), key=lambda index: (-units[index].keep, index))
        least = max(1, sum(unit.keep == ALWAYS for unit in units))

        def tokens(count: int) -> int:
            return self.decoder.count_tokens([_joined(text, units, sorted(order[:count]))])[0]

        count = bisect_right(range(least, len(units) + 1), room, key=tokens) - 1 + least
        return _joined(text, units, sorted(order[: max(least, count)]))


def _joined(text: str, units: Sequence[Unit], kept: Sequence[int]) -> str:
    """Units in order: neighbours with what stands between them, others with a blank where the text has white space."""
    pieces = [text[: units[0].start]] if kept and kept[0] == 0 else []
    for place, index in enumerate(kept):
        unit = units[index]
        if place:
            before = units[kept[place - 1]]
            between = text[before.end : unit.start]
            if index != kept[place - 1] + 1:
                spaced = text[before.end - 1].isspace() or text[unit.start].isspace()
                between = " " if not spaced and any(map(str.isspace, between)) else ""
            pieces.append(between)
        pieces.append(text[unit.start : unit.end])
    if kept and kept[-1] == len(units) - 1:
        pieces.append(text[units[-1].end :])
    return "".join(pieces)
