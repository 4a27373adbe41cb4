"""What a suite will take, estimated from its rows without loading a model."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pcc_bench.core import registry
from pcc_bench.core.context import Kind, Prompt, as_prompt
from pcc_bench.core.documents import parse_json
from pcc_bench.core.errors import UsageError
from pcc_bench.core.texttable import TextTable
from pcc_bench.cost import probe
from pcc_bench.suite.cell import results
from pcc_bench.suite.check import arguments, decoder
from pcc_bench.suite.spec import Cell

SHARE = 0.5  # of a matrix product's speed that a forward reaches
LOOKED_AT = 40  # rows of a task whose prompts are built and counted; the others are taken to be like them


@dataclass(frozen=True)
class Cost:
    """An estimate for one cell.

    Attributes:
        rows: Rows asked.
        contexts: Different contexts among the rows looked at, for as many as there are rows; 0 where none is marked.
        context_tokens: Decoder tokens of all contexts, each counted once a row.
        text_tokens: Decoder tokens of everything else in the prompts.
        new_tokens: Most tokens of all answers.
        unknown: Why there is no estimate; "" where there is.
    """

    rows: int = 0
    contexts: int = 0
    context_tokens: float = 0
    text_tokens: float = 0
    new_tokens: float = 0
    unknown: str = ""


@dataclass(frozen=True)
class Work:
    """What a decoder has to do.

    Attributes:
        prefill: FLOPs.
        steps: Forwards of one token a row, for a batch of rows.
        weights: Bytes that each of them reads.
    """

    prefill: float
    steps: float
    weights: float

    def seconds(self, flops: float, bandwidth: float) -> float:
        """Time at a matrix product's FLOP/s and a copy's bytes/s."""
        return self.prefill / (SHARE * flops) + self.steps * self.weights / bandwidth


def plan(cells: Sequence[Cell]) -> TextTable:
    """What is done, what is missing and what that takes."""
    rows = []
    known: dict[str, Cost] = {}
    speed = functools.cache(lambda name: probe.speed(probe.find_device(name)))
    for cell in cells:
        done = results(cell.command) is not None
        reader = _reader(cell) or cell.command.model_args  # cells that read alike are looked at once
        key = json.dumps([cell.command.tasks, cell.command.metadata, cell.command.limit, reader])
        if key not in known:
            known[key] = estimate(cell)
        cost = known[key]
        work = _work(cell, cost)
        state = "done" if done else "to do"
        if cost.unknown:
            rows.append((cell.label, cell.command.tasks, state, "unknown", "", "", "", "", cost.unknown))
            continue
        counts = (f"{cost.rows:,}", f"{cost.contexts:,}", f"{cost.context_tokens:,.0f}", f"{cost.text_tokens:,.0f}")
        flops, minutes = "unknown", "unknown"
        if work is not None:
            flops = f"{work.prefill:.2g}"
            minutes = "0" if done else f"{work.seconds(*speed(cell.command.device)) / 60:.2g}"
        rows.append((cell.label, cell.command.tasks, state, minutes, *counts, flops))
    columns = (
        "cell",
        "tasks",
        "state",
        "minutes",
        "rows",
        "contexts",
        "context tokens",
        "other tokens",
        "decoder FLOPs",
    )
    notes = (
        f"Tokens are the decoder's, extrapolated from the first {LOOKED_AT} rows of each task.",
        "FLOPs: the decoder's prefill of other tokens and memory; neither compressing nor generated tokens.",
        f"minutes: a rough estimate for this machine, timed now: prefill at {SHARE:.0%} of a matrix product's speed, "
        "answers as long as they may be, the weights read once a token and batch; without compressing and start-up.",
    )
    return TextTable(columns, tuple(rows), notes)


def estimate(cell: Cell) -> Cost:
    """Rows, contexts and tokens of a cell; its tasks are loaded, its model is not."""
    from lm_eval.tasks import TaskManager

    from pcc_bench import tasks
    from pcc_bench.host import inventory

    names = cell.command.tasks.split(",")
    ours = set(names) <= set(inventory.task_names())
    metadata = {**arguments(cell), **parse_json(cell.command.metadata or "{}", f"metadata of cell '{cell.label}'")}
    try:
        manager = TaskManager(include_path=tasks.__path__[0], include_defaults=not ours, metadata=metadata)
        loaded = [task for name in names for task in manager.load([name])["tasks"].values()]
        parts = [_of_task(task, cell, metadata) for task in loaded]
    except (UsageError, OSError, ValueError, KeyError) as error:
        return Cost(unknown=(str(error).strip() or type(error).__name__).splitlines()[0])
    return Cost(
        rows=sum(part.rows for part in parts),
        contexts=sum(part.contexts for part in parts),
        context_tokens=sum(part.context_tokens for part in parts),
        text_tokens=sum(part.text_tokens for part in parts),
        new_tokens=sum(part.new_tokens for part in parts),
    )


def _of_task(task: Any, cell: Cell, metadata: Mapping[str, Any]) -> Cost:
    from pcc_bench.tasks.demonstrations import TokenCounter

    docs = list(task.eval_docs)
    limit = cell.command.limit
    rows = len(docs) if limit is None else min(len(docs), int(limit if limit >= 1 else limit * len(docs)))
    name = decoder(cell)
    counter = TokenCounter.open({"tokenizer": name, **metadata} if name else metadata, "the estimate counts tokens")
    looked_at = docs[: min(rows, LOOKED_AT)]
    context_tokens, text_tokens, contexts, asked = 0, 0, set(), 0
    for doc in looked_at:
        for prompt in _prompts(task, doc):
            asked += 1
            contexts |= set(prompt.contexts)
            for part in prompt.parts:
                tokens = counter.count(part.text)
                if part.kind is Kind.CONTEXT:
                    context_tokens += tokens
                else:
                    text_tokens += tokens
    scale = rows / len(looked_at) if looked_at else 0
    longest = task.config.generation_kwargs.get("max_gen_toks", 0) if task.OUTPUT_TYPE == "generate_until" else 0
    return Cost(rows, round(scale * len(contexts)), scale * context_tokens, scale * text_tokens, rows * longest)


def _prompts(task: Any, doc: Any) -> list[Prompt]:
    asked = task.fewshot_context(doc, num_fewshot=task.config.num_fewshot or 0)
    return [as_prompt(prompt) for prompt in (asked if isinstance(asked, list) else [asked])]


def _reader(cell: Cell) -> str | None:
    try:
        return decoder(cell)
    except UsageError:
        return None


def _work(cell: Cell, cost: Cost) -> Work | None:
    """What the decoder has to do; None where its size or the method's rate is unknown."""
    from pcc_bench.cost import sizes

    name, method, given = _reader(cell), cell.command.model, arguments(cell)
    try:
        # lm-eval's own models read everything.
        kind = registry.get(method) if method in registry.names() else None
        rate = kind.recorded_rate(str(given.get("pretrained", "")), given) if kind else 1.0
        if name is None or rate is None or not cost.rows:
            return None
        model = sizes.measure(sizes.config_of(name))
    except (UsageError, ValueError, AttributeError):
        return None
    positions = (cost.text_tokens + cost.context_tokens / rate) / cost.rows
    batch = int(cell.command.batch_size) if str(cell.command.batch_size).isdigit() else 1
    return Work(cost.rows * model.forward(positions, head=False), cost.new_tokens / batch, 4 * model.parameters)
