"""From a request to a job the decoder can do: plans fitted to its window, with their accounting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pcc_bench.core.compressor import Memory
from pcc_bench.core.context import Kind, Prompt
from pcc_bench.core.errors import UsageError
from pcc_bench.core.plan import Plan
from pcc_bench.core.provenance import SampleRecord
from pcc_bench.host.memories import MemoryBook, Source
from pcc_bench.host.prompts import PromptEncoder

OVERFLOW = ("error", "skip", "truncate")


@dataclass(frozen=True)
class Request:
    """One question to the decoder.

    Attributes:
        prompt: The prompt.
        argument: Generation arguments, or the continuation to score.
        read: The contexts whose memories are read: the prompt's own, or others under a control.
        task: Its task.
        row: Its row in the task.
        key: Its key in the cache of answers ("" where there is none).
        query: The question its contexts are compressed for; "" for methods that don't see it.
    """

    prompt: Prompt
    argument: Any
    read: tuple[str, ...]
    task: str
    row: int
    key: str = ""
    query: str = ""

    @property
    def sources(self) -> tuple[Source, ...]:
        """What the memories it reads are made from."""
        return tuple(Source(context, self.query) for context in self.read)

    @property
    def where(self) -> str:
        """The row, for messages."""
        return f"row {self.row} of {self.task}"

    @property
    def reading(self) -> Prompt:
        """The prompt with the contexts that are read in place of its own."""
        rest = iter(self.read)
        return Prompt(
            replace(part, text=next(rest)) if part.kind is Kind.CONTEXT else part for part in self.prompt.parts
        )


@dataclass(frozen=True)
class Job:
    """A request ready for the decoder.

    Attributes:
        index: Its place among the requests.
        plan: What the decoder reads.
        continuation: Ids to score (log-likelihoods only).
        record: Its accounting so far.
        head: The beginning of `plan` that it shares with the jobs beside it.
    """

    index: int
    plan: Plan
    continuation: list[int]
    record: SampleRecord
    head: Plan | None = None

    @property
    def length(self) -> int:
        """Positions of prompt and continuation."""
        return self.plan.length + len(self.continuation)


@dataclass(frozen=True)
class Planner:
    """Plans requests against the memories of a run.

    Attributes:
        encoder: Tokenizes prompts around memories.
        book: Has the memories of every context that is asked for.
        overflow: What to do with a prompt longer than the window: one of `OVERFLOW`.
    """

    encoder: PromptEncoder
    book: MemoryBook
    overflow: str

    def job(self, request: Request, index: int, room: int, window: int) -> Job | None:
        """Plan a request.

        Args:
            request: The request.
            index: Its place among the requests.
            room: Positions that prompt and continuation may take.
            window: The decoder's window, for messages.

        Returns:
            The job, or None where the request is too long and to be skipped.

        Raises:
            UsageError: Too long, and not to be skipped or beyond truncation.
        """
        prompt = request.reading
        plan, continuation, memories = self._plan(request, prompt)
        while (over := plan.span + len(continuation) - room) > 0:
            if self.overflow == "skip":
                return None
            held = sum(memory.span for memory in memories)
            if self.overflow == "error" or held <= over:
                raise UsageError(self._too_long(request, room + over, room, window))
            prompt = shortened(prompt, max(0.0, 1 - 1.05 * over / held))
            self.book.fill_alone([Source(context, request.query) for context in prompt.contexts])
            plan, continuation, memories = self._plan(request, prompt)
        cut = sum(map(_size, request.read)) - sum(map(_size, prompt.contexts))
        return Job(index, plan, continuation, accounting(memories, plan, cut))

    def _plan(self, request: Request, prompt: Prompt) -> tuple[Plan, list[int], list[Memory]]:
        memories = [self.book[Source(context, request.query)] for context in prompt.contexts]
        if isinstance(request.argument, str):
            plan, continuation = self.encoder.encode_pair(prompt, memories, request.argument)
            return plan, continuation, memories
        return self.encoder.encode(prompt, memories), [], memories

    def _too_long(self, request: Request, length: int, room: int, window: int) -> str:
        remedy = (
            "its text alone is too long for truncation to help"
            if self.overflow == "truncate"
            else "pass overflow=skip or overflow=truncate (both are counted), a higher rate or a larger max_length"
        )
        return f"{request.where} takes {length} positions, the decoder has room for {room} of {window}: {remedy}"


def accounting(memories: Sequence[Memory], plan: Plan, truncated_bytes: int) -> SampleRecord:
    """What one answer costs before it is decoded, over all contexts of its prompt."""
    tokens = sum(memory.source_tokens for memory in memories)
    slots = sum(memory.slots for memory in memories)
    boundary = sum(memory.boundary for memory in memories)
    size = sum(memory.source_bytes for memory in memories)
    return {
        "contexts": len(memories),
        "source_tokens": tokens,
        "compressor_tokens": sum(memory.compressor_tokens for memory in memories),
        "source_bytes": size,
        "slots": slots,
        "boundary": boundary,
        "ratio_slots": tokens / slots if slots else None,
        "ratio": tokens / (slots + boundary) if slots + boundary else None,
        "bytes_per_position": size / (slots + boundary) if slots + boundary else None,
        "prompt_positions": plan.length,
        "truncated_bytes": truncated_bytes + sum(memory.truncated_bytes for memory in memories),
        "compress_seconds": sum(memory.seconds for memory in memories),
    }


def _size(text: str) -> int:
    return len(text.encode())


def shortened(prompt: Prompt, fraction: float) -> Prompt:
    """The prompt with each of its contexts cut to a fraction of its characters, at the end."""
    return Prompt(
        replace(part, text=part.text[: int(len(part.text) * fraction)]) if part.kind is Kind.CONTEXT else part
        for part in prompt.parts
    )
