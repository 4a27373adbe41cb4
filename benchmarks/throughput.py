"""Questions per second of our path against the official way, on real questions.

The official way is the published evaluation loop: for each question anew, encode its context segment by segment in
batches of one (vocabulary logits included), then decode greedily, one prompt at a time. Ours compresses each distinct
context once, all segments in large forwards, and decodes in batches. Same weights, same rows, same process; the two
must give the same answers (their number is printed). Weights are random: speed does not depend on them.

    python benchmarks/throughput.py --data <folder with squad/ and hotpotqa/> --profile

Only ratios within one run mean anything; absolute figures depend on the machine and its load.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from speed import forget, profiled, questions, random_pair, requests

import pcc_bench
from pcc_bench.core.context import Prompt
from pcc_bench.cost.measure import Stopwatch
from pcc_bench.host import models as lm_models
from pcc_bench.host import startup
from pcc_bench.host.lm import CompressedLM
from pcc_bench.host.planning import Request

NEW_TOKENS = 30


def main() -> None:
    """Measure and print."""
    arguments = parse()
    torch.manual_seed(0)
    startup.install()
    with tempfile.TemporaryDirectory() as folder:
        prompts = questions(["pcc_squad", "pcc_hotpotqa"], arguments.data, arguments.questions // 2)
        texts = [context for prompt in prompts for context in prompt.contexts]
        sizes = (arguments.encoder, arguments.decoder, [arguments.rate], arguments.vocabulary)
        random_pair(Path(folder), texts, *sizes)
        pcc = str(Path(folder) / "pcc")
        model: CompressedLM = lm_models.pcc(pretrained=pcc, dtype="float32", batch_size=arguments.batch_size)
        describe(model, prompts, arguments)
        slow_prompts = prompts[:: arguments.official_every]
        ours, seconds, report = run_ours(model, prompts, arguments.profile)
        official, slow_seconds = run_official(model, slow_prompts)
    same = sum(a == b for a, b in zip(ours[:: arguments.official_every], official, strict=True))
    print(f"\nsame answers: {same} of {len(official)}")
    rate, slow_rate = len(prompts) / seconds, len(slow_prompts) / slow_seconds["total"]
    print(f"{'':14}{'questions/s':>12}{'compress s':>12}{'prefill s':>12}{'decode s':>12}{'other s':>12}")
    for name, speed, phases in (("ours", rate, report), ("official way", slow_rate, slow_seconds)):
        cells = "".join(f"{phases[key]:12.1f}" for key in ("compress", "prefill", "decode", "other"))
        print(f"{name:14}{speed:12.2f}{cells}")
    print(f"ratio {rate / slow_rate:.1f}x")
    print(arithmetic(model, prompts, report))


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("PCC_DATA"), help="folder of data sets (default: $PCC_DATA)")
    parser.add_argument("--questions", type=int, default=300, help="half SQuAD, half HotpotQA (ten paragraphs each)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rate", type=int, default=4)
    parser.add_argument("--encoder", default="256x4", help="width x layers of the GPT-2 encoder")
    parser.add_argument("--decoder", default="256x4", help="width x layers of the Llama decoder")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--official-every", type=int, default=3, help="the official way answers every n-th question")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--profile", action="store_true", help="print where our path spends its time")
    arguments = parser.parse_args()
    if not arguments.data:
        parser.error("give --data or set PCC_DATA to a folder with squad/ and hotpotqa/")
    torch.set_num_threads(arguments.threads)
    return arguments


def arithmetic(model: CompressedLM, prompts: Sequence[Prompt], seconds: dict[str, float]) -> str:
    """How near our compressing and prefilling come to what the device can multiply (attention products left out)."""
    planned = [model.planner.job(Request(p, {}, tuple(p.contexts), "", 0), 0, 10**9, 0) for p in prompts]
    positions = sum(job.plan.length for job in planned if job is not None)
    contexts = sorted({context for prompt in prompts for context in prompt.contexts})
    read = sum(map(len, model.compressor.pcc.encoder.segments(model.compressor.pcc.encoder.tokenize(contexts))))
    work = {"compress": read * weights(model.compressor.pcc), "prefill": positions * weights(model.frozen.model.model)}
    square = torch.randn(2048, 2048)
    start = time.perf_counter()
    for _ in range(8):
        square = (square @ square) * 1e-3
    peak = 8 * 2 * 2048**3 / (time.perf_counter() - start) / 1e9
    shares = ", ".join(f"{name} {2 * work[name] / seconds[name] / 1e9:.0f} GFLOP/s" for name in work)
    return f"arithmetic: {shares}; a large matrix product here: {peak:.0f} GFLOP/s"


def weights(module: torch.nn.Module) -> int:
    """Weights that multiply every position: matrices but embeddings."""
    tables = {id(m.weight) for m in module.modules() if isinstance(m, torch.nn.Embedding)}
    return sum(p.numel() for p in module.parameters() if p.dim() == 2 and id(p) not in tables)


def describe(model: CompressedLM, prompts: Sequence[Prompt], arguments: argparse.Namespace) -> None:
    """What is measured, on what."""
    distinct = {context for prompt in prompts for context in prompt.contexts}
    sizes = model.frozen.count_tokens(sorted(distinct))
    long = sum(size >= 1000 for size in model.frozen.count_tokens([c for p in prompts for c in p.contexts]))
    print(f"pcc_bench {pcc_bench.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{model.frozen.device.type}, {len(prompts)} questions on {len(distinct)} contexts, {arguments.rate}x")
    print(f"context tokens: mean {sum(sizes) / len(sizes):.0f}, longest {max(sizes)}; {long} questions on >= 1,000")
    parameters = [sum(p.numel() for p in m.parameters()) / 1e6 for m in (model.compressor.pcc, model.frozen.model)]
    print(f"compressor {parameters[0]:.1f}M, decoder {parameters[1]:.1f}M parameters, batch {arguments.batch_size}")


def run_ours(
    model: CompressedLM, prompts: Sequence[Prompt], profile: bool
) -> tuple[list[str], float, dict[str, float]]:
    """All questions through the lm-eval model; answers, seconds, and seconds by phase."""
    model.generate_until(requests(prompts[:2], NEW_TOKENS), disable_tqdm=True)  # warm-up
    forget(model)
    with profiled(profile):
        start = time.perf_counter()
        answers: list[Any] = model.generate_until(requests(prompts, NEW_TOKENS), disable_tqdm=True)
        seconds = time.perf_counter() - start
    phases = {"compress": model.book.seconds}
    phases |= {key: sum(a.record[f"{key}_seconds"] for a in answers) for key in ("prefill", "decode")}
    return [str(a) for a in answers], seconds, phases | {"other": seconds - sum(phases.values())}


@torch.inference_mode()
def run_official(model: CompressedLM, prompts: Sequence[Prompt]) -> tuple[list[str], dict[str, float]]:
    """The published loop, written out: nothing batched, nothing shared, nothing kept."""
    pcc, decoder = model.compressor.pcc, model.frozen
    body = pcc.encoder.body
    head = body.get_input_embeddings().weight  # GPT-2 ties its vocabulary head
    stops = {decoder.tokenizer.eos_token_id, *model.compressor.layout.stop_token_ids}
    seconds = dict.fromkeys(("compress", "prefill", "decode", "other", "total"), 0.0)
    watch = Stopwatch(decoder.device)
    answers = []
    for prompt in prompts:
        watch.lap()
        segments = pcc.encoder.segments(pcc.encoder.tokenize(prompt.contexts))
        slots = []
        for segment in segments:
            ids = torch.tensor([segment.ids + pcc.encoder.memory_ids[: segment.slots]], device=decoder.device)
            hidden = body(ids, use_cache=False).last_hidden_state
            _ = hidden @ head.T  # the official encoder is a whole language model: logits are made and thrown away
            slots.append(hidden[0, len(segment.ids) :])
        memory = pcc.frame(pcc.converter(torch.cat(slots)).split([len(s) for s in slots]))
        text = "".join(part.text for part in prompt.parts if part.kind != "context")
        ids = decoder.tokenizer.encode(text, add_special_tokens=False)
        pieces = [decoder.embed([decoder.tokenizer.bos_token_id]), memory, decoder.embed(ids)]
        inputs = torch.cat(pieces)[None].to(decoder.dtype)
        compressing = watch.lap()
        out = decoder.model(inputs_embeds=inputs, use_cache=True)
        tokens = [int(out.logits[0, -1].argmax())]
        prefilling = watch.lap()
        while tokens[-1] not in stops and len(tokens) < NEW_TOKENS:
            step = decoder.embed(tokens[-1:])[None]
            out = decoder.model(inputs_embeds=step, past_key_values=out.past_key_values, use_cache=True)
            tokens.append(int(out.logits[0, -1].argmax()))
        phases = {"compress": compressing, "prefill": prefilling, "decode": watch.lap()}
        answers.append(decoder.tokenizer.decode(tokens, skip_special_tokens=True))
        for key, value in (*phases.items(), ("total", sum(phases.values()))):
            seconds[key] += value
    return answers, seconds


if __name__ == "__main__":
    main()
