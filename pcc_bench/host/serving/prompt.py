"""`pcc-bench prompt` and `serve-check`: a memory and a question for a server, and whether it answers as we do."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pcc_bench.core.documents import replaced, write_text
from pcc_bench.core.errors import UsageError
from pcc_bench.core.plan import Plan, positions
from pcc_bench.core.questions import question_prompt
from pcc_bench.host.compressing import ContextMemory, check_window, continued_ids
from pcc_bench.host.serving.engines import Sampling, Server, chat, completion, saved

SUFFIXES = (".pt", ".json")


@dataclass(frozen=True)
class Written:
    vectors: torch.Tensor  # the input vectors, [length, hidden size]
    endpoint: str  # that takes them
    sampling: Sampling  # what to ask for beside them


def plan_of(memory: ContextMemory, question: str, prompt: str) -> Plan:
    """What the decoder reads of a memory and a question; UsageError where a server would number positions otherwise."""
    if not question.strip():
        raise UsageError("--question is empty: ask something")
    plan = memory.plan(question, prompt)
    if positions([plan], memory.compressor.layout.memory_position) is not None:
        raise UsageError(f"{memory.compressor.name} numbers positions in its own way, which no server can be told")
    return plan


def write(memory: ContextMemory, question: str, prompt: str, max_new_tokens: int, path: Path, as_chat: bool) -> Written:
    """Write a prompt for vLLM: a saved tensor (`.pt`), or the whole body of a request (`.json`).

    `as_chat`: the memory alone, for a part of a chat. That is another protocol, since the server's template stands
    around it.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: name a file .pt (the input vectors) or .json (the body of a request)")
    words = question_prompt(prompt)
    sampling = Sampling.of(memory.compressor, max_new_tokens, words.until)
    plan = plan_of(memory, question, prompt)
    if as_chat:
        if memory.memory.vectors is None:
            raise UsageError(f"{memory.compressor.name} leaves text, which is a text part of a chat: no --chat for it")
        vectors = memory.memory.vectors
        body = chat(vectors, words.asking(question), sampling)
    else:
        check_window(memory.compressor.decoder, plan, max_new_tokens)
        vectors = plan.vectors(memory.compressor.decoder)
        body = completion([vectors], sampling)
    if path.suffix == ".json":
        write_text(path, json.dumps(body) + "\n")
    else:
        with replaced(path) as part:
            part.write_bytes(saved(vectors))
    return Written(vectors, "/v1/chat/completions" if as_chat else "/v1/completions", sampling)


@dataclass(frozen=True)
class Compared:
    """An answer of the server beside ours."""

    question: str
    ours: str  # our decoder's greedy answer
    theirs: str  # the server's
    same: int  # new tokens that are equal from the start
    tokens: int  # new tokens of ours
    equal: bool  # are all new tokens equal?


def compare(
    server: Server, memory: ContextMemory, questions: Sequence[str], prompt: str, max_new_tokens: int
) -> list[Compared]:
    """Ask a server and our own decoder the same questions of a memory, greedily."""
    compressor = memory.compressor
    words = question_prompt(prompt)
    sampling = Sampling.of(compressor, max_new_tokens, words.until)
    results = []
    for question in questions:
        plan = plan_of(memory, question, prompt)
        own = continued_ids(compressor, plan, max_new_tokens, words.until, {})
        (ids,) = server.generate([plan.vectors(compressor.decoder)], sampling)
        same = next((i for i, (a, b) in enumerate(zip(own, ids, strict=False)) if a != b), min(len(own), len(ids)))
        ours, theirs = (str(compressor.decoder.tokenizer.decode(row, skip_special_tokens=True)) for row in (own, ids))
        results.append(Compared(question, ours, theirs, same, len(own), own == ids))
    return results
