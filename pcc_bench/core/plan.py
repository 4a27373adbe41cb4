"""What the decoder reads, in order: token ids, memories, a method's own vectors; and how a marked prompt becomes that.

One plan serves evaluation, training, cost measurements, saved memories and servers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch

from pcc_bench.core.compressor import Frame, Memory
from pcc_bench.core.context import Kind, Prompt, Span, encode_text, special_token_pattern
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.documents import is_unicode
from pcc_bench.core.errors import UsageError
from pcc_bench.core.memory_file import Reader

Piece = list[int] | Memory | torch.Tensor


@dataclass(frozen=True)
class Plan:
    pieces: tuple[Piece, ...]  # input vectors are made of them when the plan's batch is decoded

    @property
    def length(self) -> int:  # positions in the decoder's input
        return sum(map(_length, self.pieces))

    def ids(self) -> list[int]:  # of a plan without vectors
        return [token for piece in self.pieces if isinstance(piece, list) for token in piece]

    @property
    def span(self) -> int:
        """Position ids from 0 to the greatest, where memories take up positions."""
        return sum(piece.span if isinstance(piece, Memory) else len(piece) for piece in self.pieces)

    def positions(self, of_memories: int | None = None) -> list[int]:
        """Position ids; memories have their own, count as tokens, or stand at `of_memories` and take up none."""
        positions: list[int] = []
        start = 0
        for piece in self.pieces:
            if isinstance(piece, Memory) and of_memories is not None:
                positions += [of_memories] * piece.length
                continue
            own = piece.positions if isinstance(piece, Memory) else None
            positions += (start + place for place in (range(_length(piece)) if own is None else own))
            start += piece.span if isinstance(piece, Memory) else len(piece)
        return positions

    def vectors(self, decoder: Decoder) -> torch.Tensor:
        """Input vectors [length, hidden size]; a float32 memory keeps the whole prompt in float32."""
        parts = []
        for piece in self.pieces:
            vectors = piece.vectors if isinstance(piece, Memory) else piece
            assert vectors is not None
            parts.append(decoder.embed(vectors) if isinstance(vectors, list) else vectors.to(decoder.device))
        return torch.cat(parts)

    def split(self, length: int) -> tuple["Plan", "Plan"]:
        """The first `length` positions, and the rest; only token ids are cut in two."""
        head: list[Piece] = []
        tail: list[Piece] = []
        for piece in self.pieces:
            if isinstance(piece, list):
                head.append(piece[: max(0, length)])
                tail.append(piece[max(0, length) :])
            else:
                (head if length > 0 else tail).append(piece)
            length -= _length(piece)
        return Plan(tuple(head)), Plan(tuple(tail))


def positions(plans: Sequence[Plan], of_memories: int | None) -> list[list[int]] | None:
    """Position ids of a batch of plans (see `Plan.positions`); None where all of them count from 0."""
    memories = (piece for plan in plans for piece in plan.pieces if isinstance(piece, Memory))
    if of_memories is None and all(memory.positions is None for memory in memories):
        return None
    return [plan.positions(of_memories) for plan in plans]


def common_length(plans: Sequence[Plan]) -> int:
    """Positions at which plans begin alike (with one and the same memory), short of each, not within a memory."""
    first = plans[0]
    common = min(plan.length for plan in plans) - 1
    for other in plans[1:]:
        length = 0
        for a, b in zip(first.pieces, other.pieces, strict=False):
            if isinstance(a, list) and isinstance(b, list):
                same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
                length += same
                if same < max(len(a), len(b)):
                    break
            elif a is b and length + _length(a) <= common:
                length += _length(a)
            else:
                break
        common = min(common, length)
    return common


def common_dtype(plans: Sequence[Plan], decoder: Decoder) -> torch.dtype | None:
    """That of the input vectors of a batch of plans; None where it is token ids."""
    pieces = (piece for plan in plans for piece in plan.pieces)
    tensors = (piece.vectors if isinstance(piece, Memory) else piece for piece in pieces)
    dtypes = [tensor.dtype for tensor in tensors if isinstance(tensor, torch.Tensor)]
    return reduce(torch.promote_types, dtypes, decoder.dtype) if dtypes else None


def realise(plans: Sequence[Plan], decoder: Decoder, dtype: torch.dtype | None) -> list[list[int]] | list[torch.Tensor]:
    """What a batch of plans gives the decoder: token ids, or input vectors of a dtype."""
    if dtype is None:
        return [plan.ids() for plan in plans]
    return [plan.vectors(decoder).to(dtype) for plan in plans]


def _length(piece: Piece) -> int:
    return piece.length if isinstance(piece, Memory) else len(piece)


@dataclass(frozen=True)
class Stretch:  # of text, tokenized in one go
    text: str = ""
    literals: tuple[Span, ...] = ()  # ranges of it that come from data, where special tokens may not arise

    def add(self, text: str, is_data: bool) -> "Stretch":
        whole = self.text + text
        return Stretch(whole, (*self.literals, (len(self.text), len(whole))) if is_data and text else self.literals)

    def behind(self, lead: str) -> "Stretch":
        """The run with text before it, but for what it begins with already (data at its beginning does not count)."""
        words = self.text[: min((start for start, _ in self.literals), default=len(self.text))]
        missing = next(lead[:n] for n in range(len(lead) + 1) if words.startswith(lead[n:]))
        shifted = tuple((start + len(missing), end + len(missing)) for start, end in self.literals)
        return Stretch(missing + self.text, shifted)


class PromptEncoder:
    """Tokenizes prompts around their memories.

    A hard memory is text and is tokenized together with its surroundings, as `hf` would tokenize the whole prompt. A
    soft memory stands between separately tokenized runs, with BOS at the very start (official PCC layout).

    Args:
        reader: Says how a prompt starts and ends.
        add_bos: lm-eval's `add_bos_token`: yes, no, or as the tokenizer does by itself.
        allow_special: Let data spell special tokens (`<|eot_id|>` in a question becomes the control token), as lm-eval
            does; off by default (official quirk Q9).
    """

    def __init__(self, reader: Reader, add_bos: bool | None = None, allow_special: bool = False) -> None:
        self.decoder = reader.decoder
        self.reader = reader
        self.starts_with_bos = reader.layout.starts_with_bos if add_bos is None else add_bos
        self.add_bos = add_bos
        self._special = None if allow_special else special_token_pattern(self.decoder.tokenizer)

    def encode(self, prompt: Prompt, memories: Sequence[Memory]) -> Plan:
        """What the decoder reads, with one memory for each of the prompt's contexts, in order."""
        if not self.reader.soft:
            return Plan((self._ids(self._text(prompt, memories), self._adds_special(prompt)),))
        return self._around(prompt, memories, self._runs(prompt))

    def encode_pair(self, prompt: Prompt, memories: Sequence[Memory], continuation: str) -> tuple[Plan, list[int]]:
        """What the decoder reads, and the ids of a continuation to score; blanks before it are its own (lm-eval)."""
        if self.reader.soft:
            *before, last = self._runs(prompt)
            if len(self._frame(prompt).closing):  # stands between, so that prompt and continuation share no token
                ids = self._ids(Stretch().add(continuation, is_data=True), adds_special=False)
            else:
                last, ids = self._split(last, continuation, adds_special=False)
            return self._around(prompt, memories, [*before, last]), ids
        run = self._text(prompt, memories)
        if not run.text:  # BOS, or the end of sequence where there is none, stands in for an empty prompt
            tokenizer = self.decoder.tokenizer
            prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
            ids = self._ids(Stretch().add(continuation, is_data=True), adds_special=False)
            return (Plan(([prefix],)), ids) if ids[:1] != [prefix] else (Plan((ids[:1],)), ids[1:])
        adds = self._adds_special(prompt)
        run, ids = self._split(run, continuation, adds)
        return Plan((self._ids(run, adds),)), ids

    def _split(self, run: Stretch, continuation: str, adds_special: bool) -> tuple[Stretch, list[int]]:
        length = len(run.text.rstrip())
        literals = tuple((start, min(end, length)) for start, end in run.literals if start < length)
        stripped = Stretch(run.text[:length], literals)
        whole = stripped.add(run.text[length:], is_data=False).add(continuation, is_data=True)
        return stripped, self._ids(whole, adds_special)[len(self._ids(stripped, adds_special)) :]

    def _text(self, prompt: Prompt, memories: Sequence[Memory]) -> Stretch:
        run, rest = Stretch(), iter(memories)
        for part in prompt.parts:
            if part.kind is Kind.CONTEXT:
                text = next(rest).text or ""
                run = run.add(text, is_data=True).add(part.after if text else "", is_data=False)
            else:
                run = run.add(part.text, part.kind is Kind.LITERAL)
        return run

    def _runs(self, prompt: Prompt) -> list[Stretch]:
        """The text before, between and after the contexts: always one run more than contexts."""
        runs = [Stretch()]
        for part in prompt.parts:
            if part.kind is Kind.CONTEXT:
                runs.append(Stretch())
            elif part.kind is not Kind.AGAIN:  # the frame asks instead
                runs[-1] = runs[-1].add(part.text, part.kind is Kind.LITERAL)
        runs[-1] = runs[-1].behind(self._frame(prompt).lead)
        return runs

    def _around(self, prompt: Prompt, memories: Sequence[Memory], runs: Sequence[Stretch]) -> Plan:
        frame = self._frame(prompt)
        bos = self.decoder.bos if self.starts_with_bos else []
        if not self._adds_special(prompt):
            bos = []  # the prompt's text (a chat template) brings its own
        elif self.starts_with_bos is None:
            bos = list(self.decoder.tokenizer.encode(""))
        pieces: list[Piece] = [[*bos, *frame.opening, *self._ids(runs[0], adds_special=False)]]
        for memory, run in zip(memories, runs[1:], strict=True):
            pieces += [memory, self._ids(run, adds_special=False)]
        if len(frame.closing):
            pieces.append(frame.closing if isinstance(frame.closing, torch.Tensor) else list(frame.closing))
        return Plan(tuple(pieces))

    def _frame(self, prompt: Prompt) -> Frame:
        if all(part.kind is not Kind.AGAIN for part in prompt.parts):
            return self.reader.layout.templated if self._brings_bos(prompt) else self.reader.layout.frame
        frame = self.reader.layout.reconstruction
        if frame is None:
            problem = f"{self.reader.name}, as it is loaded, was not trained to say a context again"
            raise UsageError(f"""{problem}: pass --metadata '{{"cue": "words"}}' to ask it in words""")
        return frame

    def _adds_special(self, prompt: Prompt) -> bool:
        return self.add_bos is not False and not self._brings_bos(prompt)

    def _brings_bos(self, prompt: Prompt) -> bool:
        bos = self.decoder.tokenizer.bos_token
        return bool(bos) and prompt.startswith(bos) and prompt.parts[0].kind is Kind.TEXT

    def _ids(self, run: Stretch, adds_special: bool) -> list[int]:
        if not is_unicode(run.text):
            raise UsageError("half of a surrogate pair is in the prompt: write it in UTF-8")
        return encode_text(self.decoder.tokenizer, run.text, run.literals, self._special, adds_special)
