"""Questions per second with and without reading once what prompts share (`reuse_prefix`), in one process.

Documents of random words with several questions each; random weights, since speed does not depend on them. `questions`
are generations; `choices` are log-likelihoods of several continuations a question. Answers of both ways are compared.

    python benchmarks/prefix_reuse.py
    python benchmarks/prefix_reuse.py --tokens 2000 --questions 8 --profile

Only ratios within one run mean anything; absolute figures depend on the machine and its load.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from lm_eval.api.instance import Instance
from speed import profiled, random_pair, requests

from pcc_bench.core.context import Prompt, mark
from pcc_bench.host import models as lm_models
from pcc_bench.host.lm import CompressedLM

WORDS = ("rain", "river", "stone", "paper", "light", "music", "garden", "winter", "engine", "market", "doctor")
CHOICES = (" rain", " a stone in the river", " nobody knows")


def main() -> None:
    """Measure and print."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        prompts = documents(arguments)
        texts, sizes = [str(prompt) for prompt in prompts], ("64x2", arguments.decoder, [arguments.rate], 512)
        random_pair(Path(folder), texts, *sizes, window=4 * arguments.tokens)
        print(f"{arguments.documents} documents of {arguments.tokens} words, {arguments.questions} questions each")
        print(f"{'method':14}{'requests':12}{'batch':>6}{'whole /s':>10}{'reused /s':>10}{'ratio':>8}  same")
        for method, name in (("full-context", "decoder"), ("pcc", "pcc")):
            for kind in ("questions", "choices"):
                for batch_size in (1, 8):
                    compare(method, Path(folder) / name, kind, batch_size, prompts, arguments.profile)


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=3)
    parser.add_argument("--questions", type=int, default=5, help="a document")
    parser.add_argument("--tokens", type=int, default=1000, help="words a document, about a token each")
    parser.add_argument("--rate", type=int, default=4)
    parser.add_argument("--decoder", default="128x4", help="width x layers of the Llama decoder")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--profile", action="store_true", help="print where the time goes with reuse")
    return parser.parse_args()


def documents(arguments: argparse.Namespace) -> list[Prompt]:
    """Prompts, questions of one document apart from each other."""
    chance = random.Random(0)
    texts = [" ".join(chance.choices(WORDS, k=arguments.tokens)) + "." for _ in range(arguments.documents)]
    asked = [" ".join(chance.choices(WORDS, k=12)) for _ in range(arguments.questions)]
    return [Prompt.parse(f"{mark(text)}Question: {words}?\n\nAnswer:") for words in asked for text in texts]


def compare(method: str, folder: Path, kind: str, batch_size: int, prompts: Sequence[Prompt], profile: bool) -> None:
    """One line of the table. Memories are made before the clock starts."""
    load = getattr(lm_models, method.replace("-", "_"))
    rates, answers = [], []
    for reuse in (False, True):
        arguments = {"device": "cpu", "dtype": "float32", "batch_size": batch_size, "reuse_prefix": reuse}
        model: CompressedLM = load(pretrained=str(folder), **arguments)
        ask(model, kind, prompts)  # memories, and warm-up
        with profiled(profile and reuse):
            start = time.perf_counter()
            answers.append(ask(model, kind, prompts))
            seconds = time.perf_counter() - start
        rates.append(len(prompts) / seconds)
    same = sum(map(alike, *answers))
    line = f"{method:14}{kind:12}{batch_size:6}{rates[0]:10.1f}{rates[1]:10.1f}{rates[1] / rates[0]:7.1f}x"
    print(f"{line}  {same} of {len(answers[0])}")


def ask(model: CompressedLM, kind: str, prompts: Sequence[Prompt]) -> list[Any]:
    """Answers to all prompts."""
    if kind == "questions":
        return list(model.generate_until(requests(prompts, 8), True))
    pairs = [(prompt, choice) for prompt in prompts for choice in CHOICES]
    rows = [Instance("loglikelihood", {}, pair, i, metadata=("b", i, 1)) for i, pair in enumerate(pairs)]
    return list(model.loglikelihood(rows, True))


def alike(one: Any, other: Any) -> bool:
    """The same text, or log-likelihoods within 1e-4."""
    return bool(one == other) if isinstance(one, str) else abs(one[0] - other[0]) < 1e-4


if __name__ == "__main__":
    main()
