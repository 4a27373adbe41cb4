"""Demonstrations: in which order they are drawn, and how many of them fit a budget of decoder tokens.

The order is stable: k demonstrations are the first k of k + 1, whatever k, for a given seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from transformers import PreTrainedTokenizerBase

from pcc_bench.core.errors import UsageError
from pcc_bench.tasks.population import load_tokenizer, tokenizer_name

SEPARATOR = "\n\n"  # after each demonstration
FORMS = ("none", "text", "memory")
FEW = 21  # up to so many rows Python's `random.sample` draws from a list, beyond it redraws what it had


@dataclass(frozen=True)
class Wanted:
    """How demonstrations are shown, and how many.

    Attributes:
        form: `none`, `text` (they stay text) or `memory` (they are what is compressed).
        count: So many demonstrations; None where a budget says.
        tokens: As many as fit this budget of decoder tokens; None where a count says.
    """

    form: str
    count: int | None = None
    tokens: int | None = None

    @classmethod
    def read(cls, shipped: Mapping[str, Any], changed: Any) -> Wanted:
        """A task's own wish, changed by what the user says (`demonstrations` in the metadata).

        Raises:
            UsageError: Not a count or a budget of 1 or more, or a task without demonstrations is asked for some.
        """
        if not changed:
            return cls(**shipped)
        what = f"demonstrations={changed!r}"
        if not isinstance(changed, Mapping) or len(changed) != 1 or not set(changed) <= {"count", "tokens"}:
            raise UsageError(f'{what}: pass {{"count": 30}} or {{"tokens": 750}}, one of them')
        if shipped["form"] == "none":
            raise UsageError(f"{what}: this task has no demonstrations, its _text and _memory forms have")
        if any(not isinstance(value, int) or isinstance(value, bool) or value < 1 for value in changed.values()):
            raise UsageError(f"{what}: a count or budget is a whole number of 1 or more")
        return cls(shipped["form"], **changed)


@dataclass(frozen=True)
class Block:
    """Demonstrations as they stand before a test item.

    Attributes:
        text: Their text, separators between them but not after the last.
        count: How many.
        tokens: Decoder tokens of the text and a last separator; None where nobody counted.
    """

    text: str = ""
    count: int = 0
    tokens: int | None = None


class TokenCounter:
    """Counts tokens of a decoder, special-token look-alikes as characters, BOS not counted.

    Args:
        tokenizer: The decoder's.
        name: Where it is from, for messages and results.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
        self.name = name
        self._tokenizer = tokenizer
        self._known: dict[str, int] = {}

    @classmethod
    def open(cls, metadata: Mapping[str, Any], why: str) -> TokenCounter:
        """The decoder's, from what the user said about the model.

        Raises:
            UsageError: Nothing says which decoder it is, or it has no tokenizer.
        """
        name = tokenizer_name(metadata, why, "")
        return cls(load_tokenizer(name, metadata, ""), name)

    def count(self, text: str) -> int:
        """Tokens of one text."""
        return len(self._ids([text])[0])

    def count_all(self, texts: Sequence[str]) -> list[int]:
        """Tokens of many short texts; those seen before are remembered."""
        if new := sorted({text for text in texts if text not in self._known}):
            self._known.update(zip(new, map(len, self._ids(new)), strict=True))
        return [self._known[text] for text in texts]

    def continuation(self, prompt: str, continuation: str) -> int:
        """Tokens of a continuation, blanks at the prompt's end counted with it (as lm-eval splits the two)."""
        kept = prompt.rstrip()
        before, whole = self._ids([kept, prompt + continuation])
        return len(whole) - len(before)

    def _ids(self, texts: list[str]) -> list[list[int]]:
        encoded = self._tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)
        ids: list[list[int]] = encoded["input_ids"]
        return ids


def drawn(labels: Sequence[int], seed: int, *, balanced: bool) -> Iterator[int]:
    """Row numbers of a training set in the order in which they become demonstrations.

    The paper's generator and seed (`random` seeded 10^6 * seed + 10^3). At random, the order is that of `random.sample`
    for a few of many rows, or of a few rows. Balanced, the rows of each label are shuffled and taken in turn; the
    paper's code then cuts a window whose place depends on the number of demonstrations, which no stable order can do,
    and here the window starts at the first.

    Args:
        labels: The label of each row.
        seed: The demonstration seed.
        balanced: Labels in turn, in as many rounds as the rarest label has rows.
    """
    generator = random.Random(10**6 * seed + 10**3)
    if balanced:
        rows = {label: [n for n, other in enumerate(labels) if other == label] for label in sorted(set(labels))}
        for numbers in rows.values():
            generator.shuffle(numbers)
        yield from (number for turn in zip(*rows.values(), strict=False) for number in turn)
    elif len(labels) <= FEW:
        yield from generator.sample(range(len(labels)), len(labels))
    else:
        yield from without_repeats(generator, len(labels))


def without_repeats(generator: random.Random, size: int) -> Iterator[int]:
    """The numbers below `size`, each once, in an order that is drawn as it is read."""
    seen: set[int] = set()
    while len(seen) < size:
        number = generator.randrange(size)
        if number not in seen:
            seen.add(number)
            yield number


def block(pieces: Iterator[str], wanted: Wanted, counter: TokenCounter | None, place: str) -> Block:
    """The first pieces, as many as wanted.

    A budget is a promise: the block is never longer, and with one more demonstration it would be.

    Args:
        pieces: Demonstrations in their order.
        wanted: Count or budget.
        counter: Counts decoder tokens, where a budget is given.
        place: Where they are from, for messages.

    Raises:
        UsageError: The first demonstration alone is longer than the budget, or there are too few to fill it.
    """
    if wanted.form == "none":
        return Block()
    if wanted.tokens is None:
        assert wanted.count is not None
        taken = list(islice(pieces, wanted.count))
        if len(taken) < wanted.count:
            raise UsageError(f"{place} has {len(taken)} demonstrations, {wanted.count} are wanted: ask for fewer")
        return Block(SEPARATOR.join(taken), len(taken))
    assert counter is not None
    taken = list(islice(pieces, wanted.tokens + 1))  # each has a token at least
    sizes = counter.count_all([piece + SEPARATOR for piece in taken])
    count = fit(sizes, wanted.tokens, lambda count: counter.count(_shown(taken[:count])))
    if not count and taken:
        raise UsageError(
            f"the first demonstration of {place} has {sizes[0]} decoder tokens and can't fit the budget of "
            f"{wanted.tokens}: pass a larger budget or another seed"
        )
    if count == len(taken):
        raise UsageError(
            f"{place} has too few demonstrations ({count}) to fill a budget of {wanted.tokens} decoder tokens: "
            "provide more rows or pass a smaller budget"
        )
    return Block(SEPARATOR.join(taken[:count]), count, counter.count(_shown(taken[:count])))


def fit(sizes: Sequence[int], budget: int, count_first: Callable[[int], int]) -> int:
    """How many of the first pieces fit a budget.

    Args:
        sizes: Tokens of each piece alone: a first guess, for tokens may merge where pieces meet.
        budget: Most tokens.
        count_first: Tokens of the first k pieces together.

    Returns:
        k with `count_first(k) <= budget`, and `count_first(k + 1) > budget` unless k is all there are.
    """
    count, total = 0, 0
    while count < len(sizes) and total + sizes[count] <= budget:
        total += sizes[count]
        count += 1
    while count and count_first(count) > budget:
        count -= 1
    while count < len(sizes) and count_first(count + 1) <= budget:
        count += 1
    return count


def _shown(pieces: Sequence[str]) -> str:
    return "".join(piece + SEPARATOR for piece in pieces)
