"""What the benchmarks of speed have in common: random models of a size, prompts, requests, profiles."""

from __future__ import annotations

import cProfile
import pstats
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from pcc_bench import tasks
from pcc_bench.core import tiny
from pcc_bench.core.context import Prompt
from pcc_bench.host.lm import CompressedLM
from pcc_bench.model import checkpoint, init


def random_pair(
    folder: Path, texts: Sequence[str], encoder: str, decoder: str, rates: Sequence[int], vocabulary: int, **sizes: int
) -> None:
    """A random Llama (`decoder`), a random GPT-2 (`encoder`) and a random checkpoint of both (`pcc`).

    Args:
        folder: Where they go.
        texts: What the tokenizers are trained on.
        encoder: Width x layers.
        decoder: Width x layers.
        rates: Of the checkpoint.
        vocabulary: Of the tokenizers.
        **sizes: Others of the decoder, as of `tiny.make_model`.
    """
    for name, family, size in (("decoder", "llama", decoder), ("encoder", "gpt2", encoder)):
        width, layers = map(int, size.split("x"))
        own = {"window": 16384, **sizes} if name == "decoder" else {"window": 512}
        tokenizer = tiny.make_tokenizer(texts, vocabulary, adds_bos=name == "decoder")
        tiny.make_model(family, tokenizer, folder / name, width=width, layers=layers, **own)
    model = init.open_decoder(str(folder / "decoder"))
    checkpoint.save(init.fresh(str(folder / "encoder"), model, rates, folder / "pcc"), folder / "pcc")


def questions(names: Sequence[str], data: str, count: int) -> list[Prompt]:
    """The first prompts of each task, population filter off (a benchmark's tokenizer is nobody's)."""
    metadata = {"data": data, "population": "all"}
    manager = TaskManager(include_path=tasks.__path__[0], include_defaults=False, metadata=metadata)
    loaded = manager.load(list(names))["tasks"]
    return [
        loaded[name].fewshot_context(doc, num_fewshot=0)
        for name in names
        for doc in list(loaded[name].eval_docs)[:count]
    ]


def requests(prompts: Iterable[Any], new_tokens: int, **options: Any) -> list[Instance]:
    """Greedy generations of so many tokens, as lm-eval asks for them."""
    greedy = {"until": [], "do_sample": False, "max_gen_toks": new_tokens, **options}
    return [
        Instance("generate_until", {}, (prompt, dict(greedy)), i, metadata=("benchmark", i, 1))
        for i, prompt in enumerate(prompts)
    ]


def forget(model: CompressedLM) -> None:
    """Let a model forget its memories and the plans with them."""
    model.book = type(model.book)(model.compressor)
    model.planner = type(model.planner)(model.encoder, model.book, "error")


@contextmanager
def profiled(wanted: bool, title: str = "", lines: int = 14) -> Iterator[None]:
    """Print where the time went inside the block, where it is wanted."""
    profiler = cProfile.Profile()
    if wanted:
        profiler.enable()
    yield
    profiler.disable()
    if wanted:
        print(f"\n{title}" if title else "")
        pstats.Stats(profiler, stream=sys.stdout).sort_stats("tottime").print_stats(lines)
