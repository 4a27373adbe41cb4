"""Token ids of text in which data may spell special tokens and the prompt's template has some of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]

LEADS = ("\n", "\x00", ">", "|", "0")  # single characters, of which one joins with no text that follows


def encode_text(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    data: Sequence[Span],
    special: re.Pattern[str] | None,
    adds_special: bool,
) -> list[int]:
    """Token ids of a text where data can spell no special token.

    They are those of tokenizing in one go, with special tokens off where all that look like one are data's. Else the
    stretches between the template's own special tokens, which no token crosses, are tokenized apart.

    Args:
        tokenizer: The decoder's.
        text: The text.
        data: Ranges of it that come from data.
        special: Matches the special tokens; None lets data spell them.
        adds_special: Whether the tokenizer adds those it adds to any text (BOS).
    """
    forged, own = _special_spans(text, data, special)
    if not forged:
        return list(tokenizer.encode(text, add_special_tokens=adds_special))
    ids: list[int] = []
    start = 0  # of the text whose ids are not there yet
    for (_, begin), (end, _) in pairwise([(0, 0), *own, (len(text), 0)]):
        if not any(begin <= first < end for first, _ in forged):
            continue
        if start < begin:  # up to a special token, and with it
            ids += tokenizer.encode(text[start:begin], add_special_tokens=adds_special and not start)
        ids += _plain(tokenizer, text, (begin, end), own, adds_special)
        start = end
    return ids + (tokenizer.encode(text[start:], add_special_tokens=False) if start < len(text) else [])


def _plain(
    tokenizer: PreTrainedTokenizerBase, text: str, stretch: Span, own: Sequence[Span], adds_special: bool
) -> list[int]:
    """Ids of a stretch with special tokens off, as they are behind the special token that ends where it begins."""
    before = next((text[a:b] for a, b in own if b == stretch[0]), "")
    behind = next((text[a:b] for a, b in own if a == stretch[1]), "")
    tokens = {str(token.content): token for token in tokenizer.added_tokens_decoder.values()}
    words = text[slice(*stretch)]
    words = words.lstrip() if before in tokens and tokens[before].rstrip else words
    words = words.rstrip() if behind in tokens and tokens[behind].lstrip else words
    if not before:
        return _spelled(tokenizer, words, adds_special)
    after_it = list(tokenizer.encode(f"{before}a", add_special_tokens=False))[1:]
    if after_it != _spelled(tokenizer, "a"):  # a text begins with a blank, but not behind a special token
        for lead in LEADS:
            ids, alone = _spelled(tokenizer, lead + words), _spelled(tokenizer, lead)
            if ids[: len(alone)] == alone:
                return ids[len(alone) :]
    return _spelled(tokenizer, words)


def _spelled(tokenizer: PreTrainedTokenizerBase, words: str, adds_special: bool = False) -> list[int]:
    return list(tokenizer.encode(words, add_special_tokens=adds_special, split_special_tokens=True))


def _special_spans(text: str, data: Sequence[Span], special: re.Pattern[str] | None) -> tuple[list[Span], list[Span]]:
    """Where a text spells special tokens: those that data touches, and the template's own."""
    forged: list[Span] = []
    own: list[Span] = []
    if special is not None and data:
        for match in special.finditer(text):
            touched = any(start < match.end() and match.start() < end for start, end in data)
            (forged if touched else own).append(match.span())
    return forged, own


def special_token_pattern(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str] | None:
    """Matches any special token of a tokenizer, longest first."""
    added = {str(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special}
    names = sorted({*added, *tokenizer.all_special_tokens}, key=len, reverse=True)
    return re.compile("|".join(re.escape(name) for name in names)) if names else None
