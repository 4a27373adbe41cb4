"""Questions per second on long contexts: `pcc` against the whole context, and against the official way.

Same decoder, same rows, same process: lm-eval's own `hf`, our `full-context`, and `pcc` at each rate, cold (each
context is compressed once, and asked `--per-context` questions) and warm (its memory is there). The official way
(benchmarks/throughput.py) compresses anew for each question, segment by segment, and decodes one prompt at a time; it
answers fewer of the rows. The PCC-Lite encoder has about a tenth of the decoder's weights. Weights are random: speed
does not depend on them.

    python benchmarks/cost_questions.py --threads 2
    python benchmarks/cost_questions.py --threads 2 --context 2048 --questions 16 --per-context 8 --rounds 1

Rounds of all ways are interleaved and the median counts. Only ratios within one run mean anything; absolute figures
depend on the machine and its load. On a busy machine `--cpu-time` counts the seconds that this process computed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from lm_eval.models.huggingface import HFLM
from speed import profiled, random_pair, requests
from throughput import run_official
from transformers import PreTrainedTokenizerBase

import pcc_bench
from pcc_bench.core.context import Kind, Part, Prompt
from pcc_bench.core.texttable import TextTable
from pcc_bench.host import models as lm_models
from pcc_bench.host.compressing import quiet
from pcc_bench.host.lm import CompressedLM
from pcc_bench.model import checkpoint, init
from pcc_bench.tasks.rows import real_folder

PHASES = ("compress", "prefill", "decode")


@dataclass
class Way:
    """How one way did: seconds of each round, and of our ways the seconds of each phase in the last one."""

    questions: int
    seconds: list[float] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)

    @property
    def speed(self) -> float:
        """Questions per second, of the median round."""
        return self.questions / statistics.median(self.seconds)


def main() -> None:
    """Measure and print."""
    arguments = parse()
    if arguments.cpu_time:
        with patch.object(time, "perf_counter", time.process_time):  # also in what is measured
            run(arguments)
    else:
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """All contexts and ways, and the table."""
    torch.manual_seed(0)
    texts = paragraphs()
    with tempfile.TemporaryDirectory() as name, quiet():
        folder = Path(name)
        sizes = (arguments.encoder, arguments.decoder, arguments.rate, arguments.vocabulary)
        random_pair(folder, texts, *sizes, heads=8)
        print(heading(folder, arguments))
        rows = []
        tokenizer = init.open_decoder(str(folder / "decoder")).tokenizer
        for length in arguments.context:
            prompts = questions(tokenizer, texts, length, arguments.questions, arguments.per_context)
            ways = measure(folder, prompts, arguments)
            rows += [line(length, label, way, ways) for label, way in ways.items()]
    columns = ("context", "way", "questions/s", "x hf", "x full-context", "x official", "s/question", *PHASES, "other")
    print("\n" + TextTable(columns, tuple(rows)).markdown())


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, nargs="+", default=[1024, 2048, 4096], help="decoder tokens")
    parser.add_argument("--rate", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--per-context", type=int, default=1, help="questions on each context")
    parser.add_argument("--official", type=int, default=2, help="of these, the ones that the official way answers")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=30, help="of each answer; none stops early")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--encoder", default="192x4", help="width x layers of the GPT-2 encoder")
    parser.add_argument("--decoder", default="512x8", help="width x layers of the Llama decoder")
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="seconds of CPU, not of the clock; one thread")
    parser.add_argument("--profile", action="store_true", help="print where each cold run spends its time")
    arguments = parser.parse_args()
    if arguments.cpu_time and arguments.threads != 1:
        parser.error("--cpu-time adds up the seconds of all threads: pass --threads 1")
    torch.set_num_threads(arguments.threads)
    return arguments


def paragraphs() -> list[str]:
    """Real text: the contexts of the rows that ship."""
    return [json.loads(line)["context"] for line in (real_folder() / "squad" / "validation.jsonl").open("r")]


def questions(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int, count: int, per_context: int = 1
) -> list[Prompt]:
    """Questions on different contexts of `length` decoder tokens, made of real paragraphs in random order."""
    chance = random.Random(length)
    prompts: list[Prompt] = []
    for number in range(count):
        if number % per_context == 0:
            ids: list[int] = []
            while len(ids) < length:
                ids += tokenizer.encode(chance.choice(texts) + "\n", add_special_tokens=False)
            context = tokenizer.decode(ids[:length])
        asked = Part(f"Question {number}: What was it called, and who had it built?\n\nAnswer: ", Kind.TEXT)
        prompts.append(Prompt([Part(context, Kind.CONTEXT, "\n\n"), asked]))
    return prompts


def measure(folder: Path, prompts: Sequence[Prompt], arguments: argparse.Namespace) -> dict[str, Way]:
    """All ways, round by round; each round of `pcc` starts with a fresh model, which remembers nothing."""
    ways: dict[str, Way] = defaultdict(lambda: Way(len(prompts)))
    options = {"new_tokens": arguments.new_tokens, "min_new_tokens": arguments.new_tokens}
    settings = {"dtype": "float32", "batch_size": arguments.batch_size, "device": "cpu"}
    whole = {
        "hf": HFLM(pretrained=str(folder / "decoder"), **settings),
        "full-context": lm_models.full_context(pretrained=str(folder / "decoder"), **settings),
    }
    for last in (number == arguments.rounds - 1 for number in range(arguments.rounds)):
        for label, model in whole.items():
            ask(model, prompts, options, ways[label])
        for rate in arguments.rate:
            model = lm_models.pcc(pretrained=str(folder / "pcc"), rate=rate, **settings)
            with profiled(arguments.profile and last, f"pcc {rate}x cold"):
                ask(model, prompts, options, ways[f"pcc {rate}x cold"])
            ask(model, prompts, options, ways[f"pcc {rate}x warm"])
            ways[f"official {rate}x"].questions = arguments.official
            official(model, prompts[: arguments.official], ways[f"official {rate}x"])
    return dict(ways)


def ask(model: HFLM, prompts: Sequence[Prompt], options: dict[str, Any], way: Way) -> None:
    """All prompts through an lm-eval model; ours says how long the phases took."""
    ours = isinstance(model, CompressedLM)
    before = model.book.seconds if ours else 0.0
    asked = requests([prompt if ours else str(prompt) for prompt in prompts], **options)
    start = time.perf_counter()
    answers: list[Any] = model.generate_until(asked, disable_tqdm=True)
    way.seconds.append(time.perf_counter() - start)
    if ours:
        way.phases = {"compress": model.book.seconds - before}
        way.phases |= {key: sum(a.record[f"{key}_seconds"] for a in answers) for key in ("prefill", "decode")}


def official(model: CompressedLM, prompts: Sequence[Prompt], way: Way) -> None:
    """The published loop on a few prompts."""
    _, seconds = run_official(model, prompts)
    way.seconds.append(seconds["total"])
    way.phases = {key: seconds[key] for key in PHASES}


def line(length: int, label: str, way: Way, ways: dict[str, Way]) -> tuple[str, ...]:
    """A line of the table; phases are seconds a question."""
    rate = next((word for word in label.split() if word.endswith("x")), "")
    beside = ("hf", "full-context", f"official {rate}")
    gains = [f"{way.speed / ways[name].speed:.2f}" if name in ways else "" for name in beside]
    phases = [way.phases.get(key) for key in PHASES]
    rest = way.seconds[-1] - sum(value or 0 for value in phases) if way.phases else None
    cells = ["" if value is None else f"{value / way.questions:.3f}" for value in (*phases, rest)]
    return (f"{length:,}", label, f"{way.speed:.2f}", *gains, f"{1 / way.speed:.3f}", *cells)


def heading(folder: Path, arguments: argparse.Namespace) -> str:
    """What is measured, on what."""
    decoder = init.open_decoder(str(folder / "decoder"))
    pcc = checkpoint.load(str(folder / "pcc"), decoder)
    parts = {"encoder": pcc.encoder, "converter": pcc.converter, "decoder": decoder.model}
    sizes = ", ".join(f"{name} {sum(p.numel() for p in part.parameters()) / 1e6:.1f}M" for name, part in parts.items())
    return (
        f"pcc_bench {pcc_bench.__version__}, torch {torch.__version__}, CPU, {torch.get_num_threads()} threads\n"
        f"parameters: {sizes}\n"
        f"{arguments.questions} questions, {arguments.per_context} on each context, {arguments.new_tokens} new tokens, "
        f"batch {arguments.batch_size}, median of {arguments.rounds} rounds, "
        f"seconds of {'CPU' if arguments.cpu_time else 'the clock'}"
    )


if __name__ == "__main__":
    main()
