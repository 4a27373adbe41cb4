"""What a smaller memory store costs in quality: size, slot error, log-likelihoods and scores, for each precision.

Each precision answers the same questions from a store of its own, filled on the way. Columns: KiB of a memory's file
and the part of it that is not header; against `exact`, the relative error of the vectors that the decoder reads, the
difference of the log-likelihood of the first reference answer (mean with its 95 % interval, contexts being what is
drawn, and the largest), the part of the generated answers that are the same, and the difference of F1 in points with
its interval.

    python benchmarks/store_loss.py --checkpoint pcc-lab-4x --data lab --tasks pcc_squad --limit 200
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import numpy.typing as npt
import torch
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager
from safetensors.torch import load_file

from pcc_bench import stats
from pcc_bench.core.context import Prompt
from pcc_bench.core.texttable import TextTable
from pcc_bench.host import models as lm_models
from pcc_bench.host import startup
from pcc_bench.host.compressing import quiet
from pcc_bench.host.lm import CompressedLM
from pcc_bench.host.memories import Source
from pcc_bench.host.store.entry import PRECISIONS
from pcc_bench.tasks.metrics.squad_answers.squad_answers import score_qa


@dataclass(frozen=True)
class Outcome:
    """What one precision gave.

    Attributes:
        size: Bytes of the store's files.
        tensors: Bytes of them that are tensors.
        vectors: Of each memory, as the decoder reads them.
        logprobs: Of the first reference answer of each row.
        answers: Generated.
        f1: Of each row.
    """

    size: int
    tensors: int
    vectors: list[torch.Tensor]
    logprobs: npt.NDArray[np.float64]
    answers: list[str]
    f1: npt.NDArray[np.float64]


COLUMNS = (
    "precision",
    "KiB",
    "of it tensors",
    "slot error",
    "log-likelihood",
    "largest",
    "same",
    "F1",
    "F1 difference",
)


def main() -> None:
    """Measure and print."""
    arguments = parse()
    startup.install()
    rows = questions(arguments)
    labels = [tuple(prompt.contexts) for prompt, _ in rows]
    contexts = sorted({context for label in labels for context in label})
    print(f"{len(rows)} questions on {len(contexts)} contexts; {arguments.checkpoint}, {arguments.dtype}")
    outcomes: dict[str, Outcome] = {}
    for precision in PRECISIONS:
        with tempfile.TemporaryDirectory() as folder, quiet():
            outcomes[precision] = run(arguments, precision, Path(folder), rows, contexts)
    exact = next(iter(outcomes.values()))
    lines = [line(precision, outcome, exact, labels) for precision, outcome in outcomes.items()]
    print("\n" + TextTable(COLUMNS, tuple(lines)).markdown())


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
    files = list(folder.glob("??/*"))
    return Outcome(
        size=sum(path.stat().st_size for path in files),
        tensors=sum(tensor.nbytes for path in files for tensor in load_file(path).values()),
        vectors=[memory for memory in vectors if memory is not None],
        logprobs=np.array([score[0] for score in scores]),
        answers=answers,
        f1=np.array([score_qa(doc, [answer])["f1"] for (_, doc), answer in zip(rows, answers, strict=True)]),
    )


def instances(kind: str, arguments: list[tuple[Any, Any]]) -> list[Instance]:
    """Requests to the model."""
    return [Instance(kind, {}, pair, i, metadata=("t", i, 1)) for i, pair in enumerate(arguments)]


def line(precision: str, outcome: Outcome, exact: Outcome, labels: list[tuple[str, ...]]) -> tuple[str, ...]:
    """A row of the table."""
    errors = [
        float((ours - theirs).float().norm() / theirs.float().norm())
        for ours, theirs in zip(outcome.vectors, exact.vectors, strict=True)
    ]
    far = outcome.logprobs - exact.logprobs
    same = np.mean([a == b for a, b in zip(outcome.answers, exact.answers, strict=True)])
    sizes = [f"{size / len(outcome.vectors) / 1024:.1f}" for size in (outcome.size, outcome.tensors)]
    lost = difference(100 * (outcome.f1 - exact.f1), labels, ".2f", scale=100)
    return (
        *(precision, *sizes, f"{np.mean(errors):.1e}", difference(far, labels, ".4f"), f"{np.abs(far).max():.4f}"),
        *(f"{same:.1%}", f"{100 * outcome.f1.mean():.1f}", lost),
    )


def difference(values: npt.NDArray[np.float64], labels: list[tuple[str, ...]], shown: str, scale: float = 0.0) -> str:
    """A mean with its 95 % interval."""
    found = stats.estimate(stats.clustered(values, labels), scale)
    low, high = found.interval()
    return f"{float(found.difference):+{shown}} [{float(low):+{shown}}, {float(high):+{shown}}]"


if __name__ == "__main__":
    main()
