"""Questions per second of a baseline through our runner against the way of its original code.

The original way is one call a sample, batch 1: the context is compressed anew for each question, span by span or
segment by segment, with the vocabulary logits that the original models compute on the way, and the answer is decoded
alone.
Ours compresses each distinct context once, in shared forwards, and decodes in batches. Same weights, same rows, same
process; how many answers are the same is printed. Weights are random: speed does not depend on them.

    python benchmarks/baseline_speed.py --method icae --data <folder with squad/>

Only ratios within one run mean anything; absolute figures depend on the machine and its load.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager
from safetensors.torch import load_file, save_file

import pcc_bench
from pcc_bench import _startup, tasks
from pcc_bench import models as lm_models
from pcc_bench.baselines.autocompressor import segments
from pcc_bench.baselines.icae import spans
from pcc_bench.compressor import Memory
from pcc_bench.context import Prompt
from pcc_bench.generation import end_token_ids
from pcc_bench.lm import CompressedLM
from pcc_bench.model import tiny
from pcc_bench.tasks.data import sample_folder

NEW_TOKENS = 30


def main() -> None:
    """Measure and print."""
    arguments = parse()
    torch.manual_seed(0)
    _startup.install()
    build, compress_one = METHODS[arguments.method]
    prompts = questions(arguments)
    with tempfile.TemporaryDirectory() as folder:
        model = build(Path(folder), prompts, arguments)
        ours, seconds = run_ours(model, prompts)
        slow = prompts[:: arguments.original_every]
        start = time.perf_counter()
        theirs = [answer_alone(model, prompt, compress_one) for prompt in slow]
        slow_seconds = time.perf_counter() - start
    contexts = {context for prompt in prompts for context in prompt.contexts}
    same = sum(a == b for a, b in zip(ours[:: arguments.original_every], theirs, strict=True))
    fast, alone = len(prompts) / seconds, len(slow) / slow_seconds
    print(f"pcc_bench {pcc_bench.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{arguments.method}: {len(prompts)} questions on {len(contexts)} contexts, model {arguments.model}, CPU")
    print(f"same answers: {same} of {len(theirs)}")
    print(f"ours {fast:.2f} questions/s, original way {alone:.2f} questions/s, ratio {fast / alone:.1f}x")


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=sorted(METHODS), required=True)
    parser.add_argument(
        "--data", default=os.environ.get("PCC_DATA", str(sample_folder())), help="default: shipped rows"
    )
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--model", default="256x4", help="width x layers")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--original-every", type=int, default=3, help="the original way answers every n-th question")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    return arguments


def questions(arguments: argparse.Namespace) -> list[Prompt]:
    """SQuAD prompts as the task makes them, population filter off (its tokenizer does not exist yet)."""
    metadata = {"data": arguments.data, "population": "all"}
    manager = TaskManager(include_path=tasks.__path__[0], include_defaults=False, metadata=metadata)
    task = manager.load(["pcc_squad"])["tasks"]["pcc_squad"]
    docs = list(task.eval_docs)[: arguments.questions]
    return [task.fewshot_context(doc, num_fewshot=0) for doc in docs]


def run_ours(model: CompressedLM, prompts: Sequence[Prompt]) -> tuple[list[str], float]:
    """All questions through the lm-eval model: answers and seconds."""
    options = {"until": [], "do_sample": False, "max_gen_toks": NEW_TOKENS}
    requests = [
        Instance("generate_until", {}, (prompt, options), i, metadata=("benchmark", i, 1))
        for i, prompt in enumerate(prompts)
    ]
    model.generate_until(requests[:2], disable_tqdm=True)  # warm-up
    model.book = type(model.book)(model.compressor)
    model.planner = type(model.planner)(model.encoder, model.book, "error")
    start = time.perf_counter()
    answers = model.generate_until(requests, disable_tqdm=True)
    return [str(answer) for answer in answers], time.perf_counter() - start


@torch.inference_mode()
def answer_alone(model: CompressedLM, prompt: Prompt, compress_one: Callable[[CompressedLM, str], torch.Tensor]) -> str:
    """One question in the original way: compress its context, then decode greedily, all in batches of one."""
    decoder, compressor = model.frozen, model.compressor
    made = [compress_one(model, context) for context in prompt.contexts]
    memories = [Memory(0, 0, 0, slots=len(vectors), vectors=vectors) for vectors in made]
    plan = model.encoder.encode(prompt, memories)
    at = compressor.memory_position
    where = {} if at is None else {"position_ids": torch.tensor([plan.positions(at)])}
    out = decoder.model(inputs_embeds=plan.vectors(decoder)[None], use_cache=True, **where)
    ends = end_token_ids(decoder, compressor.stop_token_ids)
    tokens = [int(out.logits[0, -1].argmax())]
    while tokens[-1] not in ends and len(tokens) < NEW_TOKENS:
        if where:
            where["position_ids"] = where["position_ids"][:, -1:] + 1
        step = decoder.embed(tokens[-1:])[None]
        out = decoder.model(inputs_embeds=step, past_key_values=out.past_key_values, use_cache=True, **where)
        tokens.append(int(out.logits[0, -1].argmax()))
    return str(decoder.tokenizer.decode(tokens, skip_special_tokens=True))


def base(family: str, folder: Path, prompts: Sequence[Prompt], arguments: argparse.Namespace) -> Path:
    """A random model of the size asked for."""
    width, layers = map(int, arguments.model.split("x"))
    texts = [context for prompt in prompts for context in prompt.contexts]
    tokenizer = tiny.make_tokenizer(texts, arguments.vocabulary)
    return tiny.make_model(family, tokenizer, folder, width=width, layers=layers, window=8192)


# ICAE


def build_icae(folder: Path, prompts: Sequence[Prompt], arguments: argparse.Namespace) -> CompressedLM:
    """128 memory tokens and LoRA of rank 32 in the published layout (version 2), spans of 512."""
    weights = load_file(base("mistral", folder / "base", prompts, arguments) / "model.safetensors")
    state = {"memory_token_embed.weight": torch.randn(131, weights["model.norm.weight"].shape[0])}
    for key, value in weights.items():
        if key.endswith(("q_proj.weight", "v_proj.weight")):
            name = "icae.base_model.model." + key.removesuffix("weight") + "lora_{}.default.weight"
            state[name.format("A")] = torch.randn(32, value.shape[1]) * 0.1
            state[name.format("B")] = torch.randn(value.shape[0], 32) * 0.1
    save_file(state, folder / "icae.safetensors")
    model: CompressedLM = lm_models.icae(
        pretrained=str(folder / "icae.safetensors"),
        decoder=str(folder / "base"),
        dtype="float32",
        batch_size=arguments.batch_size,
    )
    return model


def compress_icae(model: CompressedLM, context: str) -> torch.Tensor:
    """Span by span."""
    icae, decoder = model.compressor, model.frozen
    slots = []
    for span in spans(decoder.tokenizer.encode(context), icae.capacity):
        row = torch.cat([decoder.embed(span), icae.memory_tokens])[None]
        hidden = icae.body(inputs_embeds=row, use_cache=False).last_hidden_state
        decoder.model.get_output_embeddings()(hidden)  # the original encoder is a whole language model
        slots.append(hidden[0, len(span) :])
    return torch.cat([*slots, icae.task_vector])


# AutoCompressor


def build_autocompressor(folder: Path, prompts: Sequence[Prompt], arguments: argparse.Namespace) -> CompressedLM:
    """50 summary tokens on a Llama, segments of 200 (so that rates are near four)."""
    path = base("llama", folder / "model", prompts, arguments) / "model.safetensors"
    weights = load_file(path)
    width = weights["model.norm.weight"].shape[0]
    save_file(weights | {"embed_summary.weight": torch.randn(50, width)}, path, metadata={"format": "pt"})
    model: CompressedLM = lm_models.autocompressor(
        pretrained=str(path.parent), segment_length=200, dtype="float32", batch_size=arguments.batch_size
    )
    return model


def compress_autocompressor(model: CompressedLM, context: str) -> torch.Tensor:
    """Segment by segment."""
    compressor, decoder = model.compressor, model.frozen
    soft = compressor.summary_tokens[:0]
    for piece in segments(decoder.tokenizer.encode(context, add_special_tokens=False), compressor.segment_length):
        row = torch.cat([soft, decoder.embed(piece), compressor.summary_tokens])[None]
        hidden = decoder.model.base_model(inputs_embeds=row, use_cache=False).last_hidden_state
        decoder.model.get_output_embeddings()(hidden[:, len(soft) : len(soft) + len(piece)])
        soft = torch.cat([soft, hidden[0, len(soft) + len(piece) :]])
    return soft


METHODS: dict[str, tuple[Callable[..., CompressedLM], Callable[[CompressedLM, str], Any]]] = {
    "autocompressor": (build_autocompressor, compress_autocompressor),
    "icae": (build_icae, compress_icae),
}

if __name__ == "__main__":
    main()
