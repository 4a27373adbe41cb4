"""Training tokens per second of our step against the official trainer's way, same weights, same batch, same process.

The official way encodes segment by segment in a loop, makes the encoder's vocabulary logits and throws them away, and
makes the decoder's logits at every position, the memory's included. Ours encodes all segments of a batch together,
without a vocabulary head, and makes logits only where a target is scored. Both give the same loss (printed).

    python benchmarks/training_speed.py --segments 4 --profile

Only ratios within one run mean anything; absolute figures depend on the machine and its load.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from speed import profiled

from pcc_bench.core import tiny
from pcc_bench.model import init
from pcc_bench.model.training.loop import PccForTraining
from pcc_bench.model.training.objectives import Task
from pcc_bench.model.training.recipe import Recipe


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="256x4", help="width x layers of the GPT-2 encoder")
    parser.add_argument("--decoder", default="256x4", help="width x layers of the Llama decoder")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--segments", type=int, default=4)
    parser.add_argument("--segment-length", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="print where our step spends its time")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, batch = build(Path(folder), arguments)
        ways = {"official way": lambda: official_step(model, batch), "ours": lambda: our_step(model, batch)}
        losses = {name: way() for name, way in ways.items()}  # also the warm-up
        seconds = measure(ways, arguments.repeats)
        if arguments.profile:
            with profiled(True, lines=10):
                ways["ours"]()
    tokens = sum(map(len, batch["contexts"]))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {tokens} context tokens a step")
    print(f"loss: official way {losses['official way']:.5f}, ours {losses['ours']:.5f}")
    for name, times in seconds.items():
        print(f"{name:14}{tokens / statistics.median(times):10.0f} tokens/s (median of {len(times)})")
    ratio = statistics.median(seconds["official way"]) / statistics.median(seconds["ours"])
    print(f"ratio {ratio:.2f}x")


def build(folder: Path, arguments: argparse.Namespace) -> tuple[PccForTraining, dict[str, Any]]:
    """A random pair of models and one batch of full segments to reconstruct."""
    tokenizer = tiny.make_tokenizer(["some text"], 300)
    for name, family, sizes in (("decoder", "llama", arguments.decoder), ("encoder", "gpt2", arguments.encoder)):
        width, layers = map(int, sizes.split("x"))
        size = {"width": width, "layers": layers, "window": 8192, "std": 0.02}
        tokenizer.add_tokens([f"word{i}" for i in range(arguments.vocabulary - len(tokenizer))])
        tiny.make_model(family, tokenizer, folder / name, **size)
    decoder = init.open_decoder(str(folder / "decoder"))
    recipe = Recipe.checked(
        {
            "name": "speed",
            "encoder": str(folder / "encoder"),
            "decoder": decoder.name,
            "data": {"path": "unused"},
            "phases": [{"segment_length": arguments.segment_length, "rate": 4, "segments": arguments.segments}],
            "optimisation": {"learning_rate": 1e-4, "batch_size": 1, "micro_batch_size": 1, "steps": 1},
        },
        "the benchmark's recipe",
    )
    pcc = init.fresh(recipe.encoder or "", decoder, [4], folder, segment_length=arguments.segment_length, lora_rank=0)
    length = arguments.segments * arguments.segment_length
    ids = torch.randint(10, 200, (arguments.batch_size, length)).tolist()
    rows = {"ids": ids, "labels": ids}
    batch = {
        "contexts": ids,
        "targets": {Task.RECONSTRUCTION.value: rows},
        "phase": 0,
        "rate": 4,
        "indices": [0],
        "labels": torch.tensor(ids),
    }
    return PccForTraining(pcc, decoder, recipe).eval(), batch  # without dropout the losses can be compared


def our_step(model: PccForTraining, batch: dict[str, Any]) -> float:
    """Forward and backward as in training."""
    model.zero_grad()
    loss = model(**batch)["loss"]
    loss.backward()
    return float(loss)


def official_step(model: PccForTraining, batch: dict[str, Any]) -> float:
    """Forward and backward as the official trainer does them."""
    model.zero_grad()
    pcc, decoder = model.pcc, model.decoder
    body, config = pcc.encoder.body, pcc.config
    ids = torch.tensor(batch["contexts"])
    memory = torch.tensor(pcc.encoder.memory_ids[: config.slots_per_segment]).expand(len(ids), -1)
    slots = []
    for start in range(0, ids.shape[1], config.segment_length):
        piece = torch.cat([ids[:, start : start + config.segment_length], memory], dim=1)
        hidden = body(piece, use_cache=False).last_hidden_state
        _ = hidden @ body.get_input_embeddings().weight.T
        slots.append(hidden[:, -config.slots_per_segment :])
    converted = pcc.converter(torch.cat(slots, dim=1)).split(config.slots_per_segment, dim=1)
    frames = torch.stack([pcc.frame([part[row] for part in converted]) for row in range(len(ids))])
    start_tokens = decoder.embed(decoder.bos or [0]).expand(len(ids), 1, -1)
    ae = pcc.special_vector("<ae>").expand(len(ids), 1, -1)
    inputs = torch.cat([start_tokens, frames, ae, decoder.embedding(ids)], dim=1)
    labels = torch.cat([torch.full(inputs.shape[:2], -100)[:, : inputs.shape[1] - ids.shape[1]], ids], dim=1)
    loss: torch.Tensor = decoder.model(inputs_embeds=inputs, labels=labels, use_cache=False).loss
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss)


def measure(ways: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, taken in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
