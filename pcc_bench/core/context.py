"""Marked context: which part of a prompt may be compressed.

A task marks the compressible part (`mark`) and every other piece of data (`literal`). The marks are text, so they pass
through Jinja templates, few-shot assembly and chat templates untouched. When the prompt is assembled, `Prompt.parse`
turns it into a `Prompt`: a plain string (which any lm-eval model can read, marks gone) that also knows its parts
(which our models read).

Data can't forge a mark: the six control characters of the grammar are escaped inside marked text, and the characters
of an assembled prompt that stand outside a mark come from the task's template alone.

    STX context EOT separator ETX      a compressible context, and the text that follows it where it is shown as text
    SO  literal ETX                    data that stays text; special-token look-alikes in it stay ordinary characters
    DC1 instruction ETX                asks for the context again; a soft method is asked as it was trained to be
    DLE letter                         an escaped control character
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pcc_bench.core.errors import UsageError, foreign

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]

_STX, _ETX, _EOT, _SO, _DLE, _DC1 = "\x02", "\x03", "\x04", "\x0e", "\x10", "\x11"
_ESCAPES = {_STX: "s", _ETX: "e", _EOT: "t", _SO: "o", _DLE: "d", _DC1: "a"}
_ORIGINALS = {letter: char for char, letter in _ESCAPES.items()}

_CONTROL = re.compile(r"[\x02\x03\x04\x0e\x10\x11]")
_ESCAPED = re.compile(r"\x10(.?)", re.DOTALL)
_PART = re.compile(
    r"\x02(?P<context>[^\x02\x03\x04\x0e\x11]*)\x04(?P<after>[^\x02\x03\x04\x0e\x11]*)\x03"
    r"|\x0e(?P<literal>[^\x02\x03\x04\x0e\x11]*)\x03"
    r"|\x11(?P<again>[^\x02\x03\x04\x0e\x11]*)\x03"
    r"|(?P<text>[^\x02\x03\x04\x0e\x11]+)"
)

LEADS = ("\n", "\x00", ">", "|", "0")  # single characters, of which one joins with no text that follows


class Kind(StrEnum):  # where a part of a prompt comes from
    TEXT = "text"  # the task's template, a chat template: special tokens in it are special
    LITERAL = "literal"  # data that stays text: special tokens in it are ordinary characters
    CONTEXT = "context"  # data that may be compressed
    AGAIN = "again"  # the task's instruction to say the context again


@dataclass(frozen=True)
class Part:  # one stretch of a prompt
    text: str  # the characters, escapes undone
    kind: Kind = Kind.TEXT  # where they come from
    after: str = ""  # of a context: separates it from the rest where it is shown as text; soft memories need none


class Prompt(str):
    """An assembled prompt: as a string what a reader without compression sees, and the parts it is made of."""

    parts: tuple[Part, ...]

    def __new__(cls, parts: Iterable[Part]) -> "Prompt":
        parts = tuple(parts)
        prompt = super().__new__(cls, "".join(part.text + part.after for part in parts))
        prompt.parts = parts
        return prompt

    def __reduce__(self) -> tuple[type["Prompt"], tuple[tuple[Part, ...]]]:
        return Prompt, (self.parts,)  # lm-eval's request cache pickles prompts; the parts must survive

    @property
    def contexts(self) -> list[str]:
        return [part.text for part in self.parts if part.kind is Kind.CONTEXT]

    def with_contexts(self, texts: Iterable[str]) -> "Prompt":
        """The prompt with other contexts in the place of its own."""
        rest = iter(texts)
        return Prompt(replace(part, text=next(rest)) if part.kind is Kind.CONTEXT else part for part in self.parts)

    @property
    def query(self) -> str:
        """What is asked of the contexts: the data that stays text behind the last of them ("" for none).

        Where that is nothing (a question before its context), all data that stays text; no answer option is in it.
        """
        last = max((i for i, part in enumerate(self.parts) if part.kind is Kind.CONTEXT), default=-1)
        behind = [part.text for part in self.parts[last + 1 :] if part.kind is Kind.LITERAL]
        return "\n".join(behind or [part.text for part in self.parts if part.kind is Kind.LITERAL])

    @classmethod
    def parse(cls, marked: str) -> "Prompt":
        """Split an assembled, marked string; UsageError where a mark is left open, not opened or nested."""
        parts: list[Part] = []
        end = 0
        for match in _PART.finditer(marked):
            if match.start() != end:
                break
            kind = next(kind for kind in Kind if match[kind] is not None)
            text, after = match[kind], match["after"] or ""
            parts.append(Part(text) if kind is Kind.TEXT else Part(_unescape(text), kind, _unescape(after)))
            end = match.end()
        if end != len(marked):
            near = repr(marked[max(0, end - 20) : end + 20])
            problem = f"unmatched context mark at character {end} of the prompt, near {near}"
            remedy = "mark data with pcc_bench.core.context.mark() or literal()"
            raise UsageError(f"{problem}: {remedy}, which escape the control characters in it")
        return cls(parts)


def chat_text(turns: Sequence[Mapping[str, str]], template: Callable[[], object], decoder: str) -> str:
    """Turns under a chat template that leaves what is marked in them as it is: nothing lost, changed or said twice."""

    def marked(texts: Iterable[str]) -> list[Part]:
        return [part for text in texts for part in Prompt.parse(text).parts if part.kind is not Kind.TEXT]

    where = f"the chat template of '{decoder}'"
    with foreign(f"{where} can't be applied"):
        text = str(template())
    expected = marked(turn["content"] for turn in turns)
    with suppress(UsageError):  # marks that the template broke
        if marked([text]) == expected:
            return text
    raise UsageError(f"{where} drops, changes or repeats what is said in a turn: use another template, or none")


def as_prompt(prompt: str) -> Prompt:
    """A plain string is a prompt with nothing to compress; marks are read in parsed prompts only."""
    return prompt if isinstance(prompt, Prompt) else Prompt([Part(str(prompt))] if prompt else [])


def mark(context: str, after: str = "") -> str:
    """Mark `context` as compressible; `after` follows it wherever it is shown as text."""
    return f"{_STX}{_escape(context)}{_EOT}{_escape(after)}{_ETX}"


def literal(data: str) -> str:
    """Mark `data` as text that stays text and can forge neither marks nor special tokens."""
    return f"{_SO}{_escape(data)}{_ETX}"


def again(instruction: str) -> str:
    """Ask for the context again: in these words where it is text, as the method was trained to be asked where not."""
    return f"{_DC1}{_escape(instruction)}{_ETX}"


def mark_row(row: Mapping[str, Any], compress: Mapping[str, str]) -> dict[str, Any]:
    """Mark the strings of a row: columns in `compress` (with the separator of each) as contexts, others as literals."""
    return {
        column: mark(value, compress[column]) if column in compress else _literals(value)
        for column, value in row.items()
    }


def _literals(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_literals(item) for item in value]
    if isinstance(value, dict):
        return {key: _literals(item) for key, item in value.items()}
    return literal(value) if isinstance(value, str) else value


def _escape(text: str) -> str:
    return _CONTROL.sub(lambda match: _DLE + _ESCAPES[match[0]], text)


def _unescape(text: str) -> str:
    try:
        return _ESCAPED.sub(lambda match: _ORIGINALS[match[1]], text)
    except KeyError:
        where = f"in a context mark, near {text[:40]!r}"
        raise UsageError(f"unknown escape {where}: mark data with mark() or literal()") from None


def encode_text(
    tokenizer: "PreTrainedTokenizerBase",
    text: str,
    data: Sequence[Span],
    special: re.Pattern[str] | None,
    adds_special: bool,
) -> list[int]:
    """Token ids of a text in whose `data` ranges no special token can be spelled (`special` matches them).

    They are those of tokenizing in one go, but for stretches between the template's own special tokens with data that
    looks like one. `special` None lets data spell them; `adds_special` adds what the tokenizer adds to any text (BOS).
    """
    forged: list[Span] = []  # what spells a special token and data touches
    own: list[Span] = []  # the template's special tokens
    for match in special.finditer(text) if special is not None and data else ():
        touched = any(start < match.end() and match.start() < end for start, end in data)
        (forged if touched else own).append(match.span())
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
    tokenizer: "PreTrainedTokenizerBase", text: str, stretch: Span, own: Sequence[Span], adds_special: bool
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


def _spelled(tokenizer: "PreTrainedTokenizerBase", words: str, adds_special: bool = False) -> list[int]:
    return list(tokenizer.encode(words, add_special_tokens=adds_special, split_special_tokens=True))


def special_token_pattern(tokenizer: "PreTrainedTokenizerBase") -> re.Pattern[str] | None:
    added = {str(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special}
    names = sorted({*added, *tokenizer.all_special_tokens}, key=len, reverse=True)
    return re.compile("|".join(re.escape(name) for name in names)) if names else None
