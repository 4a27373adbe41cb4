"""Questions per second of each baseline through our runner against the way of its original code.

The original way is one call a sample, batch 1: the context is compressed anew for each question, span by span, segment
by segment or a sample's documents at once, with the vocabulary logits that the original models compute on the way
(LLMLingua-2: the package's `PromptCompressor`), and the answer is decoded alone.
Ours compresses each distinct context once, in shared forwards, and decodes in batches. Same weights, same rows, same
process; how many answers are the same is printed. Weights are random: speed does not depend on them.

    python benchmarks/baseline_speed.py --data <folder with squad/>

Seconds are those that the processor worked for this process, so that other programs on the machine count little; run
it with one thread. Only ratios within one run mean anything.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from original_ways import METHODS, Compress
from speed import forget, questions, requests

import pcc_bench
from pcc_bench.core.context import Prompt
from pcc_bench.core.generation import end_token_ids
from pcc_bench.host import startup
from pcc_bench.host.lm import CompressedLM
from pcc_bench.tasks.rows import real_folder

NEW_TOKENS = 30


def main() -> None:
    """Measure and print."""
    arguments = parse()
    startup.install()
    prompts = questions(["pcc_squad"], arguments.data, arguments.questions)
    contexts = {context for prompt in prompts for context in prompt.contexts}
    print(f"pcc_bench {pcc_bench.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads, CPU")
    print(
        f"{len(prompts)} questions on {len(contexts)} contexts, models {arguments.model}, batch {arguments.batch_size}"
    )
    print("| method | ours, questions/s | original way | ratio | same answers |\n|---|---|---|---|---|")
    for name in arguments.methods:
        print(measure(name, prompts, arguments), flush=True)


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=sorted(METHODS), default=list(METHODS))
    parser.add_argument("--data", default=os.environ.get("PCC_DATA", str(real_folder())), help="default: shipped rows")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--model", default="256x4", help="width x layers")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--original-every", type=int, default=3, help="the original way answers every n-th question")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    return arguments


def measure(name: str, prompts: Sequence[Prompt], arguments: argparse.Namespace) -> str:
    """A row of the table."""
    torch.manual_seed(0)
    texts = [context for prompt in prompts for context in prompt.contexts]
    width, layers = map(int, arguments.model.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        model, compress = METHODS[name](Path(folder), texts, width, layers, arguments.vocabulary, arguments.batch_size)
        ours, seconds = run_ours(model, prompts)
        slow = prompts[:: arguments.original_every]
        answer_alone(model, slow[0], compress)  # warm-up
        start = time.process_time()
        theirs = [answer_alone(model, prompt, compress) for prompt in slow]
        slow_seconds = time.process_time() - start
    same = sum(a == b for a, b in zip(ours[:: arguments.original_every], theirs, strict=True))
    fast, alone = len(prompts) / seconds, len(slow) / slow_seconds
    return f"| {name} | {fast:.2f} | {alone:.2f} | {fast / alone:.1f}x | {same} of {len(theirs)} |"


def run_ours(model: CompressedLM, prompts: Sequence[Prompt]) -> tuple[list[str], float]:
    """All questions through the lm-eval model: answers and seconds."""
    model.generate_until(requests(prompts[:2], NEW_TOKENS), disable_tqdm=True)  # warm-up
    forget(model)
    start = time.process_time()
    answers = model.generate_until(requests(prompts, NEW_TOKENS), disable_tqdm=True)
    return [str(answer) for answer in answers], time.process_time() - start


@torch.inference_mode()
def answer_alone(model: CompressedLM, prompt: Prompt, compress: Compress) -> str:
    """One question in the original way: compress its contexts, then decode greedily, all in batches of one."""
    decoder, compressor = model.frozen, model.compressor
    plan = model.encoder.encode(prompt, [compress(context) for context in prompt.contexts])
    at = compressor.layout.memory_position
    where = {} if at is None else {"position_ids": torch.tensor([plan.positions(at)])}
    out = decoder.model(inputs_embeds=plan.vectors(decoder)[None], use_cache=True, **where)
    ends = end_token_ids(decoder, compressor.layout.stop_token_ids)
    tokens = [int(out.logits[0, -1].argmax())]
    while tokens[-1] not in ends and len(tokens) < NEW_TOKENS:
        if where:
            where["position_ids"] = where["position_ids"][:, -1:] + 1
        step = decoder.embed(tokens[-1:])[None]
        out = decoder.model(inputs_embeds=step, past_key_values=out.past_key_values, use_cache=True, **where)
        tokens.append(int(out.logits[0, -1].argmax()))
    return str(decoder.tokenizer.decode(tokens, skip_special_tokens=True))


if __name__ == "__main__":
    main()
