"""What a smaller memory store costs in quality: size, slot error, log-likelihoods and scores, for each precision.

Each precision answers the same questions from a store of its own, filled on the way. Columns: KiB of a memory's file;
against `exact`, the relative error of the vectors that the decoder reads, the difference of the log-likelihood of the
first reference answer (mean, mean absolute, largest) and the part of the generated answers that are the same; and F1.

    python benchmarks/store_loss.py --checkpoint CKPT --tasks pcc_squad --data FOLDER --limit 200
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from pcc_bench import _startup
from pcc_bench import models as lm_models
from pcc_bench.context import Prompt
from pcc_bench.lm import CompressedLM
from pcc_bench.memories import Source
from pcc_bench.store.precision import PRECISIONS
from pcc_bench.tasks.scores import score_qa


@dataclass(frozen=True)
class Outcome:
    """What one precision gave.

    Attributes:
        size: Bytes of the store's files.
        vectors: Of each memory, as the decoder reads them.
        logprobs: Of the first reference answer of each row.
        answers: Generated.
        f1: Mean over the rows.
    """

    size: int
    vectors: list[torch.Tensor]
    logprobs: torch.Tensor
    answers: list[str]
    f1: float


def main() -> None:
    """Measure and print."""
    arguments = parse()
    _startup.install()
    rows = questions(arguments)
    contexts = sorted({context for prompt, _ in rows for context in prompt.contexts})
    print(f"{len(rows)} questions on {len(contexts)} contexts; {arguments.checkpoint}, {arguments.dtype}")
    print(
        f"{'precision':10}{'KiB':>11}{'slot error':>12}{'dLL mean':>10}{'|dLL|':>9}{'largest':>9}{'same':>7}{'F1':>7}"
    )
    exact: Outcome | None = None
    for precision in PRECISIONS:
        with tempfile.TemporaryDirectory() as folder:
            outcome = run(arguments, precision, Path(folder), rows, contexts)
        exact = exact or outcome
        print(line(precision, outcome, exact))


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="folder, hub id, or the name of a shipped one")
    parser.add_argument("--decoder", help="where the checkpoint does not record it")
    parser.add_argument("--rate", type=int)
    parser.add_argument("--tasks", default="pcc_squad", help="tasks that generate short answers, comma-separated")
    parser.add_argument("--data", default=os.environ.get("PCC_DATA", "lab"), help="a folder, lab, or hub")
    parser.add_argument("--population", default="all")
    parser.add_argument("--limit", type=int, default=200, help="rows a task")
    parser.add_argument("--new-tokens", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def questions(arguments: argparse.Namespace) -> list[tuple[Prompt, dict[str, Any]]]:
    """Prompts with their rows, as the tasks make them."""
    names = arguments.tasks.split(",")
    tasks = TaskManager(metadata={"data": arguments.data, "population": arguments.population}).load(names)["tasks"]
    return [
        (tasks[name].fewshot_context(doc, num_fewshot=0), doc)
        for name in names
        for doc in list(tasks[name].eval_docs)[: arguments.limit]
    ]


def run(
    arguments: argparse.Namespace,
    precision: str,
    folder: Path,
    rows: list[tuple[Prompt, dict[str, Any]]],
    contexts: list[str],
) -> Outcome:
    """Answer all questions from a store of one precision."""
    given = {"decoder": arguments.decoder, "rate": arguments.rate}
    model: CompressedLM = lm_models.pcc(
        pretrained=arguments.checkpoint,
        dtype=arguments.dtype,
        device=arguments.device,
        batch_size=arguments.batch_size,
        memory_store=str(folder),
        memory_store_dtype=precision,
        **{name: value for name, value in given.items() if value is not None},
    )
    model.book.fill(map(Source, contexts))
    vectors = [model.book[Source(context)].vectors for context in contexts]
    greedy = {"until": ["\n"], "do_sample": False, "max_gen_toks": arguments.new_tokens}
    pairs = [(prompt, f" {doc['answers'][0]}") for prompt, doc in rows]
    answers = list(map(str, model.generate_until(instances("generate_until", [(p, greedy) for p, _ in rows]), True)))
    scores = model.loglikelihood(instances("loglikelihood", pairs), True)
    f1 = [score_qa(doc, [answer])["f1"] for (_, doc), answer in zip(rows, answers, strict=True)]
    return Outcome(
        size=sum(path.stat().st_size for path in folder.glob("??/*")),
        vectors=[memory for memory in vectors if memory is not None],
        logprobs=torch.tensor([score[0] for score in scores]),
        answers=answers,
        f1=sum(f1) / len(f1),
    )


def instances(kind: str, arguments: list[tuple[Any, Any]]) -> list[Instance]:
    """Requests to the model."""
    return [Instance(kind, {}, pair, i, metadata=("t", i, 1)) for i, pair in enumerate(arguments)]


def line(precision: str, outcome: Outcome, exact: Outcome) -> str:
    """A row of the table."""
    errors = [
        float((ours - theirs).float().norm() / theirs.float().norm())
        for ours, theirs in zip(outcome.vectors, exact.vectors, strict=True)
    ]
    difference = outcome.logprobs - exact.logprobs
    same = sum(a == b for a, b in zip(outcome.answers, exact.answers, strict=True)) / len(exact.answers)
    kib = outcome.size / len(outcome.vectors) / 1024
    far = float(difference.abs().max())
    return (
        f"{precision:10}{kib:11.1f}{sum(errors) / len(errors):12.2e}{float(difference.mean()):10.4f}"
        f"{float(difference.abs().mean()):9.4f}{far:9.4f}{same:7.1%}{outcome.f1:7.3f}"
    )


if __name__ == "__main__":
    main()
