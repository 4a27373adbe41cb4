"""Part 5: training throughput at true geometry, random weights: the recipes `smollm2` and `lite-4x`, last phase.

A step is the recipe's own: its samples and targets, our loss under autocast, backward, clipping, its optimizer. The
Trainer around it (logging, evaluation, states) is left out. Micro-batches and the optimizer are timed apart, and a step
is put together from them. FLOPs are counted by torch's FlopCounterMode on the very micro-batches that are timed.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from cost_questions import paragraphs
from device import MATMUL
from rows import Row, Setting, part
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from pcc_bench.core import tiny
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import first_line
from pcc_bench.cost import geometry, sizes
from pcc_bench.cost import measure as measuring
from pcc_bench.model.training import loop
from pcc_bench.model.training.corpus import corpora_of
from pcc_bench.model.training.recipe import Recipe
from pcc_bench.model.training.samples import Samples

PART = "training"
GOAL = 0.35  # of the measured matrix product
TIMED = 8  # micro-batches, after as many that are counted
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY |= {"num_key_value_heads": 2, "vocab_size": 1024}


@dataclass(frozen=True)
class Case:
    """A recipe, as it is or with changes to its optimisation."""

    recipe: str
    changes: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return ", ".join([self.recipe, *(f"{key} {value}" for key, value in self.changes)])


CASES = (
    Case("smollm2"),
    Case("lite-4x"),
    Case("lite-4x", (("micro_batch_size", 16),)),
    Case("smollm2", (("micro_batch_size", 32), ("attention", "sdpa"))),
)


def run(setting: Setting) -> None:
    """All cases; one that fails is a row."""
    device, ceiling = measuring.find_device(None), setting.value(MATMUL)
    cases = [case for case in CASES if setting.only in (None, str(case))]
    for case in cases[: 2 if setting.small else None]:
        with tempfile.TemporaryDirectory() as folder:
            try:
                measure(setting, case, Path(folder), device, ceiling)
            except Exception as error:  # most likely memory; the other cases still count
                setting.add(Row(PART, str(case), note=first_line(error), met=False))
        gc.collect()
        measuring.release(device)


def measure(setting: Setting, case: Case, folder: Path, device: torch.device, ceiling: float | None) -> None:
    """The rows of one case."""
    recipe = recipe_of(case, folder, setting.small)
    model = model_of(recipe, case, folder, device, setting.small)
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = loop.chosen_optimizer(model, recipe)
    if optimizer is None:  # the Trainer's own
        fused = device.type == "cuda"
        optimizer = torch.optim.AdamW(learned, lr=recipe.optimisation.learning_rate, fused=fused)
    corpora, _ = corpora_of(recipe)
    stream = iter(Samples(recipe, corpora, model.reader))
    watch = measuring.Stopwatch(device)
    size = recipe.optimisation.micro_batch_size
    batches = [model.collator()(list(itertools.islice(stream, size))) for _ in range(2 if setting.small else TIMED)]
    data = watch.lap() / len(batches)
    with FlopCounterMode(display=False) as counter:
        for batch in batches:
            backward(model, batch, device)
    update(model, learned, recipe, optimizer)  # makes the optimizer's states
    measuring.reset_peaks(device)
    micro, updates = timed(model, learned, recipe, optimizer, batches, device)
    report(setting, case, recipe, batches, micro, updates, counter.get_total_flops() / len(batches), ceiling)
    setting.add(Row(PART, f"{case}: data", 1e3 * data, "ms", note="of a micro-batch, made on the CPU in one process"))
    if (peak := measuring.peak_device(device)) is not None:
        setting.add(Row(PART, f"{case}: peak memory", peak / 2**30, "GiB"))
    if not setting.small:
        setting.profile(f"training: a micro-batch of {case}", lambda: backward(model, batches[0], device))


def report(
    setting: Setting,
    case: Case,
    recipe: Recipe,
    batches: Sequence[dict[str, Any]],
    micro: float,
    updates: float,
    flops: float,
    ceiling: float | None,
) -> None:
    """Tokens a second of a whole step, and the share of the ceiling."""
    optimisation = recipe.optimisation
    shares = optimisation.batch_size // optimisation.micro_batch_size
    step = shares * micro + updates
    tokens = sum(len(ids) for batch in batches for ids in batch["contexts"]) / len(batches)
    note = f"micro-batch of {optimisation.micro_batch_size} {1e3 * micro:.1f} ms, optimizer {1e3 * updates:.1f} ms"
    setting.add(Row(PART, str(case), shares * tokens / step, "context tokens/s", note=note))
    reached = shares * flops / step / 1e12
    note = f"{reached:.3g} TFLOP/s" + ("" if ceiling else "; no ceiling was measured")
    share = reached / ceiling if ceiling else None
    goal, met = f">= {GOAL:.0%}", None if share is None else share >= GOAL
    setting.add(Row(PART, f"{case}: of the matrix product", share and 100 * share, "%", goal, met, note))


def timed(
    model: loop.PccForTraining,
    learned: list[Any],
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[dict[str, Any]],
    device: torch.device,
) -> tuple[float, float]:
    """Mean seconds of a micro-batch over all of them, which differ in work, and median seconds of an update."""
    watch, micro, updates = measuring.Stopwatch(device), [], []
    for batch in batches:
        watch.lap()
        backward(model, batch, device)
        micro.append(watch.lap())
    for _ in range(3):
        backward(model, batches[0], device)
        watch.lap()
        update(model, learned, recipe, optimizer)
        updates.append(watch.lap())
    return statistics.mean(micro), statistics.median(updates)


def backward(model: loop.PccForTraining, batch: dict[str, Any], device: torch.device) -> None:
    """Forward and backward of a micro-batch under autocast, as the Trainer does them."""
    with torch.autocast(device.type, torch.bfloat16):
        loss = model(**batch)["loss"]
    loss.backward()


def update(model: loop.PccForTraining, learned: list[Any], recipe: Recipe, optimizer: torch.optim.Optimizer) -> None:
    """Clip, and let the weights learn."""
    torch.nn.utils.clip_grad_norm_(learned, recipe.optimisation.max_grad_norm)
    optimizer.step()
    model.zero_grad()


def recipe_of(case: Case, folder: Path, small: bool) -> Recipe:
    """The last phase of a recipe, on text that ships."""
    text = folder / "text.txt"
    text.write_text("\n\n".join(paragraphs() * 4), encoding="utf-8")
    state = Recipe.read(case.recipe).model_dump(mode="json")
    state["phases"] = [{**state["phases"][-1], "data": None, "until": None}]
    state["data"] = {"path": str(text)}
    state["optimisation"] |= dict(case.changes)
    if small:
        state["optimisation"] |= {"batch_size": 2, "micro_batch_size": 1}
        state["encoder_layers"] = state["encoder_layers"] and 1
    return Recipe.checked(state, str(case))


def model_of(recipe: Recipe, case: Case, folder: Path, device: torch.device, small: bool) -> loop.PccForTraining:
    """Compressor and decoder of a recipe's sizes with random weights, on the device."""
    vocabulary = 1000 if small else 8192
    if recipe.encoder_layers is None:  # Lite: GPT-2 Large for Llama-3-8B
        pair = geometry.named("tiny" if small else "lite")
        rates = [recipe.final.rate]
        pcc, decoder = geometry.build(
            pair,
            rates,
            device,
            torch.bfloat16,
            recipe.seed,
            texts=paragraphs(),
            vocabulary=vocabulary,
            encoder_dtype=torch.float32,
        )
    else:
        config = sizes.from_state({**sizes.KNOWN[recipe.decoder], **(TINY if small else {})})
        tokenizer = tiny.make_tokenizer(paragraphs(), vocabulary, special=recipe.special_from)
        torch.manual_seed(recipe.seed)
        decoder = Decoder(AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16), tokenizer, recipe.decoder)
        pcc = loop.starting_point(recipe, decoder, folder)
        decoder.model.to(device)
    if recipe.optimisation.attention:
        decoder.model.set_attn_implementation(recipe.optimisation.attention)
        pcc.encoder.body.set_attn_implementation(recipe.optimisation.attention)
    return loop.PccForTraining(pcc, decoder, recipe).to(device).train()


if __name__ == "__main__":
    part(run)
