"""A real training run on real text, small enough for a laptop: what training PCC looks like.

Stages, each resumable by calling again: a small Llama decoder trained on the text; a PCC-Lite (GPT-2 encoder and
converter) that begins at 1x (`pcc_bench.lab.compressors` says why), then is pretrained at 2x on reconstruction and
completion, all with `pcc-bench train`'s own code; the curves of the 2x stage as a picture. The decoder starts with the
circuit that copies (`pcc_bench.lab.heads`), and half of its training is reconstructing what stands between memory
boundaries: a decoder that can't copy from its own tokens can't copy from slots either.

    python benchmarks/real_text.py --text <folder of .txt files> --out runs/real-text
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from torch.utils.data import IterableDataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, Trainer, TrainingArguments

mpl.use("agg")
import matplotlib.pyplot as plt

from pcc_bench.core import tiny
from pcc_bench.lab import CompressorRecipe
from pcc_bench.lab.compressors import at_rate, start_lite
from pcc_bench.lab.heads import draw_induction_heads
from pcc_bench.model import init
from pcc_bench.model.pcc import SPECIAL_TOKENS
from pcc_bench.model.training.corpus import read_documents
from pcc_bench.model.training.loop import train
from pcc_bench.model.training.recipe import Data, Recipe

WINDOW = 128  # tokens the decoder is trained on at once
SEGMENT, RATE = 32, 2


def main() -> None:
    """Run all stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, help="a .txt file; by default every 50th document is kept back")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--decoder-steps", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    documents = read_documents(Data(path=str(arguments.text)), str(arguments.text))
    language_model(documents, arguments)
    decoder = init.open_decoder(str(arguments.out / "decoder"))
    start = arguments.out / "start"
    if not (start / "config.json").is_file():
        lite = CompressorRecipe(rate=RATE, layers=arguments.layers, seed=arguments.seed)
        start_lite(decoder, start, lite, SEGMENT)
    for rate, steps in ((1, 60), (RATE, arguments.steps)):
        run = arguments.out / f"pcc-{rate}x"
        begin = arguments.out / f"begin-{rate}x"
        if not (begin / "config.json").is_file():
            at_rate(start, begin, decoder, rate, RATE)
        train(recipe(arguments, begin, rate, steps), run)
        start = run
    picture(start, arguments.out / "curves")


def recipe(arguments: argparse.Namespace, start: Path, rate: int, steps: int) -> Recipe:
    """A stage. Reconstruction comes first: completion from the start would teach the slots to do no harm."""
    phases: list[dict[str, Any]] = [{"segment_length": SEGMENT, "rate": rate}]
    if rate == RATE:
        phases = [{**phases[0], "completion": 0.0, "until": int(0.4 * steps)}, phases[0]]
    return Recipe.checked(
        {
            "name": f"real-text-{rate}x",
            "purpose": "PCC-Lite on public-domain books and Wikipedia paragraphs, to see training work.",
            "start": str(start),
            "decoder": str(arguments.out / "decoder"),
            "data": {
                "path": str(arguments.text),
                "held_out": str(arguments.held_out) if arguments.held_out else None,
                "held_out_rows": 64,
            },
            "objective": {"completion": 0.3 if rate == RATE else 0.0, "completion_tokens": 16},
            "phases": phases,
            "optimisation": {
                "learning_rate": 1e-3,
                "warmup_steps": 20,
                "batch_size": 32,
                "micro_batch_size": 32,
                "max_grad_norm": 1.0,
                "steps": steps,
                "precision": "bfloat16",
            },
            "checks": {"evaluate_every": 200, "save_every": 200, "generated_rows": 24},
            "seed": arguments.seed,
        },
        "this run's recipe",
    )


def language_model(documents: list[str], arguments: argparse.Namespace) -> None:
    """Train a small causal LM on the text, unless it is there: first to copy, then also to go on after a frame."""
    folder = arguments.out / "decoder"
    if not (folder / "config.json").is_file():
        texts = random.Random(arguments.seed).sample(documents, min(len(documents), 400))
        tokenizer = tiny.make_tokenizer(texts, arguments.vocabulary, prefix_space=True, special=SPECIAL_TOKENS)
        size = {"width": arguments.width, "layers": arguments.layers, "window": 1024, "std": 0.02}
        whole = {"num_key_value_heads": 4, "tie_word_embeddings": True, "rope_theta": 100_000.0}
        tiny.make_model("llama", tokenizer, folder, seed=arguments.seed, **size, **whole)
        model = AutoModelForCausalLM.from_pretrained(folder)
        draw_induction_heads(model, arguments.seed)
        model.save_pretrained(folder)
    steps = arguments.decoder_steps
    for name, count, peak, framed in (("copying", steps, 2e-3, False), ("framed", steps // 5, 5e-4, True)):
        if not (folder / f"{name}.json").is_file():
            windows = Windows(documents, AutoTokenizer.from_pretrained(folder), arguments.seed, framed)
            log = fit(folder, windows, count, peak, arguments.seed)
            (folder / f"{name}.json").write_text(json.dumps(log), encoding="utf-8")


def fit(folder: Path, windows: IterableDataset[dict[str, torch.Tensor]], steps: int, peak: float, seed: int) -> Any:
    """Train the model of a folder and save it there."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")  # the fastest for short windows
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder / "states"),
            max_steps=steps,
            per_device_train_batch_size=32,
            learning_rate=peak,
            warmup_steps=50,
            lr_scheduler_type="linear",
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            logging_steps=50,
            save_strategy="no",
            seed=seed,
            report_to=[],
        ),
        train_dataset=windows,
    )
    trainer.train()
    model.save_pretrained(folder)
    return trainer.state.log_history


class Windows(IterableDataset[dict[str, torch.Tensor]]):
    """Windows of text; every second one is a random string or a passage between memory boundaries, and once more.

    With `framed`, the first half of every second window that remains stands between boundaries, too.
    """

    def __init__(self, documents: list[str], tokenizer: PreTrainedTokenizerBase, seed: int, framed: bool) -> None:
        self.documents = documents
        self.tokenizer = tokenizer
        self.seed = seed
        self.framed = framed

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        chance = random.Random(self.seed)
        opening, closing, again = self.tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))
        while True:
            ids = self.tokenizer.encode(chance.choice(self.documents), add_special_tokens=False)
            for start in range(0, len(ids) - WINDOW, WINDOW):
                window = ids[start : start + WINDOW]
                scored = True
                if (kind := chance.random()) < 0.5:
                    half = chance.randint(8, WINDOW // 2 - 3)
                    said = window[:half] if kind < 0.25 else chance.sample(range(len(SPECIAL_TOKENS) + 4, 2000), half)
                    window = [opening, *said, closing, again, *said, self.tokenizer.eos_token_id]
                    window += [self.tokenizer.pad_token_id] * (WINDOW - len(window))
                    scored = kind < 0.25
                elif self.framed and kind < 0.75:
                    half = chance.randint(8, WINDOW // 2)
                    window = [opening, *window[:half], closing, *window[half:]]
                window = [self.tokenizer.bos_token_id, *window[: WINDOW - 1]]
                labels = [-100 if token == self.tokenizer.pad_token_id else token for token in window]
                if not scored:  # the first half is noise
                    labels[: half + 3] = [-100] * (half + 3)
                yield {"input_ids": torch.tensor(window), "labels": torch.tensor(labels)}


def picture(run: Path, out: Path) -> None:
    """Loss and accuracy over steps, reconstruction and completion, training and held-out text."""
    log, held_out = ([json.loads(line) for line in (run / name).open()] for name in ("log.jsonl", "evaluation.jsonl"))
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    for key, name, colour in (("ae", "reconstruction", "#1b6ca8"), ("next_token", "completion", "#c8553d")):
        seen = [(line["step"], line[f"{key}_loss"]) for line in log if f"{key}_loss" in line]
        left.plot(*zip(*seen, strict=True), color=colour, alpha=0.35, linewidth=1, label=f"{name}, training")
        points = [(line["step"], line[f"{key}_loss"]) for line in held_out]
        left.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3, label=f"{name}, held-out")
        points = [(line["step"], 100 * line[f"{key}_accuracy"]) for line in held_out]
        middle.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3, label=name)
    right.plot([line["step"] for line in held_out], [line["bleu"] for line in held_out], color="#1b6ca8", marker="o")
    left.set(title="loss", ylabel="nats per token", xlabel="step")
    middle.set(title="next-token accuracy, held-out", ylabel="%", xlabel="step", ylim=(0, None))
    right.set(title="greedy reconstruction, held-out", ylabel="BLEU", xlabel="step", ylim=(0, None))
    for axis in (left, middle):
        axis.legend(frameon=False, fontsize=8)
    for axis in (left, middle, right):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    for suffix in ("png", "svg"):
        figure.savefig(out.with_suffix(f".{suffix}"), dpi=150)


if __name__ == "__main__":
    main()
