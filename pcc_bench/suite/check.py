"""What can be known of a suite before anything runs and without loading a model: what is wrong, what it will take."""

import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pcc_bench.core import registry, shipped
from pcc_bench.core.context import Kind, as_prompt
from pcc_bench.core.documents import parse_json
from pcc_bench.core.errors import UsageError
from pcc_bench.core.texttable import TextTable
from pcc_bench.host import evaluate
from pcc_bench.host.arguments import default_checkpoint, parse_arguments
from pcc_bench.host.settings import task_names
from pcc_bench.suite.engines import results
from pcc_bench.suite.spec import Cell

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
SHARE = 0.5  # of a matrix product's speed that a forward reaches
LOOKED_AT = 40  # rows of a task whose prompts are built and counted; the others are taken to be like them


def check(cells: Iterable[Cell]) -> None:
    """See that methods and tasks exist and decoders here have a tokenizer. Raises UsageError naming the wrong cell."""
    cells = list(cells)
    for cell in cells:
        evaluate.check_all(cell.command, f"cell '{cell.label}': ")
    ours = task_names()
    others = {task: cell.label for cell in cells for task in cell.command.tasks.split(",") if task not in ours}
    if others:
        from lm_eval.tasks import TaskManager  # reads thousands of files

        manager = TaskManager()
        for task, label in others.items():
            if not manager.match_tasks([task]):
                raise UsageError(f"cell '{label}': unknown task '{task}'{registry.suggest(task, ours)}")
    for cell in cells:
        # A decoder on the hub is looked at when its cell runs; a cell without a checkpoint will fail and say so.
        if (reader := _reader(cell)) is None or "tokenizer" in parse_arguments(cell.command.model_args):
            continue
        folder = Path(reader)
        if (folder / "config.json").is_file() and not any((folder / file).is_file() for file in TOKENIZER_FILES):
            raise UsageError(
                f"cell '{cell.label}': the decoder {folder} lacks a tokenizer ({TOKENIZER_FILES[0]}): put it there, or "
                "pass model_args tokenizer=<folder or hub id>"
            )


def decoder(cell: Cell) -> str | None:
    """Of a cell, folder or hub id; None where only the run will tell. Raises UsageError: no checkpoint or decoder."""
    given = parse_arguments(cell.command.model_args)
    if cell.command.model not in registry.names():
        return str(given["pretrained"]) if "pretrained" in given else None
    kind = registry.get(cell.command.model)
    named = str(given["decoder"]) if "decoder" in given else None
    pretrained = str(given.get("pretrained") or default_checkpoint(kind, given) or named or "")
    if not pretrained:
        return None
    return shipped.located(kind.decoder_path(pretrained, named), given.get("gguf_file"))


class Cost(NamedTuple):
    rows: int = 0
    contexts: int = 0  # different ones, extrapolated from the rows looked at; 0 where none is marked
    context_tokens: float = 0  # decoder tokens of all contexts, each counted once a row
    text_tokens: float = 0  # decoder tokens of everything else in the prompts
    new_tokens: float = 0  # most tokens of all answers
    unknown: str = ""  # why there is no estimate; "" where there is


def plan(cells: Sequence[Cell]) -> TextTable:
    """What is done, what is missing and what that takes."""
    from pcc_bench.cost import measure

    rows, known = [], dict[str, Cost]()
    speed = functools.cache(lambda name: measure.speed(measure.find_device(name)))
    for cell in cells:
        reader = _reader(cell) or cell.command.model_args  # cells that read alike are looked at once
        key = json.dumps([cell.command.tasks, cell.command.task_metadata, cell.command.limit, reader])
        cost = known[key] if key in known else known.setdefault(key, estimate(cell))
        done = results(cell.command) is not None
        named = (cell.label, cell.command.tasks, "done" if done else "to do")
        if cost.unknown:
            rows.append((*named, "unknown", "", "", "", "", cost.unknown))
            continue
        flops, minutes = "unknown", "unknown"
        if (work := _work(cell, cost)) is not None:
            flops, minutes = f"{work[0]:.2g}", "0"
            if not done:
                flops_a_second, bytes_a_second = speed(cell.command.device)
                minutes = f"{(work[0] / (SHARE * flops_a_second) + work[1] / bytes_a_second) / 60:.2g}"
        counts = (f"{cost.rows:,}", f"{cost.contexts:,}", f"{cost.context_tokens:,.0f}", f"{cost.text_tokens:,.0f}")
        rows.append((*named, minutes, *counts, flops))
    counted = ("rows", "contexts", "context tokens", "other tokens", "decoder FLOPs")
    notes = (
        f"Tokens are the decoder's, extrapolated from the first {LOOKED_AT} rows of each task.",
        "FLOPs: the decoder's prefill of other tokens and memory; neither compressing nor generated tokens.",
        f"minutes: a rough estimate for this machine, timed now: prefill at {SHARE:.0%} of a matrix product's speed, "
        "answers as long as they may be, the weights read once a token and batch; without compressing and start-up.",
    )
    return TextTable(("cell", "tasks", "state", "minutes", *counted), tuple(rows), notes)


def estimate(cell: Cell) -> Cost:
    """Rows, contexts and tokens of a cell; its tasks are loaded, its model is not."""
    from lm_eval.tasks import TaskManager

    from pcc_bench import tasks
    from pcc_bench.tasks.metadata import TokenCounter

    names, ours = cell.command.tasks.split(","), evaluate.asks_ours_only(cell.command)
    given = parse_json(cell.command.task_metadata or "{}", f"metadata of cell '{cell.label}'")
    metadata = {**parse_arguments(cell.command.model_args), **given}
    try:
        manager = TaskManager(include_path=tasks.__path__[0], include_defaults=not ours, metadata=metadata)
        loaded = [task for name in names for task in manager.load([name])["tasks"].values()]
        name = decoder(cell)
        counter = TokenCounter.open({"tokenizer": name, **metadata} if name else metadata, "the estimate counts tokens")
        parts: list[tuple[Any, ...]] = []
        for task in loaded:
            docs, limit = list(task.eval_docs), cell.command.limit
            rows = len(docs) if limit is None else min(len(docs), int(limit if limit >= 1 else limit * len(docs)))
            looked_at = docs[: min(rows, LOOKED_AT)]
            tokens, contexts = {True: 0, False: 0}, set()  # tokens by "is it of a context?"
            for doc in looked_at:
                asked = task.fewshot_context(doc, num_fewshot=task.config.num_fewshot or 0)
                for prompt in map(as_prompt, asked if isinstance(asked, list) else [asked]):
                    contexts |= set(prompt.contexts)
                    for part in prompt.parts:
                        tokens[part.kind is Kind.CONTEXT] += counter.count(part.text)
            scale = rows / len(looked_at) if looked_at else 0
            generates = task.OUTPUT_TYPE == "generate_until"
            longest = task.config.generation_kwargs.get("max_gen_toks", 0) if generates else 0
            counts = (rows, round(scale * len(contexts)), scale * tokens[True], scale * tokens[False])
            parts.append((*counts, rows * longest))
    except (UsageError, OSError, ValueError, KeyError) as error:
        return Cost(unknown=(str(error).strip() or type(error).__name__).splitlines()[0])
    totals: list[Any] = [sum(column) for column in zip(*parts, strict=True)]
    return Cost(*totals)


def _reader(cell: Cell) -> str | None:
    try:
        return decoder(cell)
    except UsageError:
        return None


def _work(cell: Cell, cost: Cost) -> tuple[float, float] | None:
    """FLOPs of the decoder's prefill, and bytes of weights read to decode, a token of a batch at a time; or None."""
    from pcc_bench.cost import sizes

    name, method, given = _reader(cell), cell.command.model, parse_arguments(cell.command.model_args)
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
    return cost.rows * model.read(positions), cost.new_tokens / batch * 4 * model.parameters
