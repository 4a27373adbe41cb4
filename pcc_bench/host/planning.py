"""From a request to a job the decoder can do: plans fitted to its window, with their accounting."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from lm_eval.api.instance import Instance
from lm_eval.models.utils import normalize_gen_kwargs

from pcc_bench.core.compressor import Compressor, Memory
from pcc_bench.core.context import Prompt, as_prompt
from pcc_bench.core.errors import UsageError
from pcc_bench.core.plan import Plan, PromptEncoder
from pcc_bench.core.processors import typed
from pcc_bench.core.provenance import SampleRecord
from pcc_bench.host.memories import MemoryBook, Source
from pcc_bench.host.responses import Answer, ResponseCache, Tally

OVERFLOW = ("error", "skip", "truncate")


class Request(NamedTuple):  # one question to the decoder
    prompt: Prompt
    argument: Any  # generation arguments, or the continuation to score
    sources: tuple[Source, ...]  # of the memories that are read: the prompt's own contexts, or others under a control
    task: str
    row: int  # its row in the task
    key: str = ""  # its key in the cache of answers ("" where there is none)

    def new_tokens(self, default: int) -> int:  # most of an answer; 0 where a continuation is scored
        if isinstance(self.argument, str):
            return 0
        return int(normalize_gen_kwargs(self.argument, default)["max_gen_toks"])

    @property
    def where(self) -> str:
        return f"row {self.row} of {self.task}"


def read_requests(
    kind: str,
    instances: Sequence[Instance],
    compressor: Compressor,
    partners: Mapping[str, str],
    cache: ResponseCache | None,
) -> list[Request]:
    """lm-eval's requests of a kind, with what they read (`partners`: context -> the one read in its place)."""
    arguments: dict[str, Any] = {}
    requests = []
    for instance in instances:
        prompt, argument = as_prompt(instance.args[0]), instance.args[1]
        if kind == "generate_until":
            name = json.dumps(argument, default=str)
            if name not in arguments:
                arguments[name] = typed(argument, f"generation_kwargs of {instance.task_name}")
            argument = arguments[name]
        contexts = prompt.contexts
        read = tuple(partners.get(context, context) for context in contexts)
        sampled = isinstance(argument, dict) and argument.get("do_sample", False)
        key = cache.key(kind, prompt, argument, read) if cache and not sampled else ""
        query = prompt.query if compressor.query_aware else ""
        sources = tuple(Source(context, query) for context in read)
        request = Request(prompt, argument, sources, str(instance.task_name), int(instance.doc_id or 0), key)
        if compressor.query_aware and read and not query.strip():
            problem = f"asks no question beside its context, and {compressor.name} compresses for a question"
            remedy = "use a task that has one, marked with pcc_bench.core.context.literal()"
            raise UsageError(f"{request.where} {problem}: {remedy}")
        if any(not context.strip() for context in contexts):
            raise UsageError(f"{request.where} has an empty context: there is nothing to compress; remove the row")
        requests.append(request)
    return requests


@dataclass(frozen=True)
class Job:  # a request ready for the decoder
    index: int  # its place among the requests
    plan: Plan  # what the decoder reads
    continuation: list[int]  # ids to score (log-likelihoods only)
    record: SampleRecord  # its accounting so far
    head: Plan | None = None  # the beginning of `plan` that it shares with the jobs beside it

    @property
    def length(self) -> int:
        return self.plan.length + len(self.continuation)

    def span(self, of_memories: int | None) -> int:
        """Position ids of what the decoder reads, from 0 to the greatest (`of_memories` as in `Plan.positions`)."""
        read = max(0, len(self.continuation) - 1)
        return read + (self.plan.span if of_memories is None else max(self.plan.positions(of_memories), default=-1) + 1)


class Planner(NamedTuple):
    encoder: PromptEncoder  # tokenizes prompts around memories
    book: MemoryBook  # has the memories of every context that is asked for
    overflow: str  # what to do with a prompt longer than the window: one of `OVERFLOW`

    def job(self, request: Request, index: int, window: int, max_new_tokens: int) -> Job | None:
        """Plan the `index`-th request; None where it is too long for the decoder's `window` and to be skipped."""
        room = window - request.new_tokens(max_new_tokens)
        room += isinstance(request.argument, str)  # the last token of a continuation is never read
        sources = request.sources
        while True:
            prompt = request.prompt.with_contexts(source.context for source in sources)
            memories = [self.book[source] for source in sources]
            if isinstance(request.argument, str):
                plan, continuation = self.encoder.encode_pair(prompt, memories, request.argument)
            else:
                plan, continuation = self.encoder.encode(prompt, memories), []
            over = plan.span + len(continuation) - room
            if over <= 0:
                break
            if self.overflow == "skip":
                return None
            held = sum(memory.span for memory in memories)
            if self.overflow == "error" or held <= over:
                remedy = "its text alone is too long for truncation to help"
                if self.overflow == "error":
                    remedy = "pass overflow=skip or overflow=truncate (both are counted), a higher rate or a larger "
                    remedy += "max_length"
                places = f"takes {room + over} positions, the decoder has room for {room} of {window}"
                raise UsageError(f"{request.where} {places}: {remedy}")
            fraction = max(0.0, 1 - 1.05 * over / held)
            sources = tuple(Source(context[: int(len(context) * fraction)], query) for context, query in sources)
            self.book.fill(sources, alone=True)
        whole, rest = (len("".join(context for context, _ in part).encode()) for part in (request.sources, sources))
        return Job(index, plan, continuation, accounting(memories, plan, whole - rest))


def accounting(memories: Sequence[Memory], plan: Plan, truncated_bytes: int) -> SampleRecord:
    """What one answer costs before it is decoded, over all contexts of its prompt."""
    names = ("source_tokens", "compressor_tokens", "source_bytes", "slots", "boundary", "truncated_bytes")
    counts: Any = {name: sum(getattr(memory, name) for memory in memories) for name in names}
    counts["truncated_bytes"] += truncated_bytes
    tokens, slots, length = counts["source_tokens"], counts["slots"], counts["slots"] + counts["boundary"]
    record = {
        "contexts": len(memories),
        **counts,
        "ratio_slots": tokens / slots if slots else None,
        "ratio": tokens / length if length else None,
        "bytes_per_position": counts["source_bytes"] / length if length else None,
        "prompt_positions": plan.length,
        "compress_seconds": sum(memory.seconds for memory in memories),
    }
    return cast(SampleRecord, record)


def tally(requests: Sequence[Request], answers: Sequence[Answer]) -> Tally:
    tally = Tally()
    seen: set[Source] = set()
    for request, answer in zip(requests, answers, strict=True):
        record = answer.record
        tally.asked.setdefault(request.task, set()).add(request.row)
        if record.get("skipped"):
            tally.skipped.setdefault(request.task, set()).add(request.row)
        tally.counts["requests"] += 1
        tally.counts["cached"] += bool(record.get("cached"))
        tally.counts["prefixes_reused"] += bool(record.get("reused_positions"))
        tally.counts["without_context"] += not request.sources
        tally.counts["truncated"] += bool(record.get("truncated_bytes"))
        tally.counts["contexts"] += len(request.sources)
        tally.counts["memories_reused"] += sum(source in seen for source in request.sources)
        seen.update(request.sources)
    return tally
