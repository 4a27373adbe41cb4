"""Part 4: questions a second at true geometry, our path against the official way (segment by segment, batch 1).

The ways are those of benchmarks/cost_questions.py, on weights that are built on the device and never saved.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from cost_questions import PHASES, Way, ask, official, paragraphs, questions
from rows import Row, Setting, part

from pcc_bench.core.decoder import Decoder
from pcc_bench.cost import geometry, measure
from pcc_bench.host import arguments, models
from pcc_bench.host.lm import CompressedLM
from pcc_bench.model.compressor import PccCompressor
from pcc_bench.model.pcc import PCC

PART = "questions"
NEW_TOKENS = 30  # those of the official way
GOAL = 10.0


@dataclass(frozen=True)
class Plan:
    """Sizes of this part.

    Attributes:
        pair: The geometry.
        vocabulary: Of the tokenizers.
        cases: (context tokens, rate, questions on each context).
        questions: That our path answers.
        official: Of these, the ones that the official way answers, which takes as long for each.
        batch: Prompts that we decode together.
    """

    pair: str = "lite"
    vocabulary: int = 8192
    cases: tuple[tuple[int, int, int], ...] = ((1024, 4, 1), (1024, 16, 1), (4096, 16, 1), (4096, 16, 8))
    questions: int = 200
    official: int = 10
    batch: int = 64


TINY = Plan("tiny", 1000, ((128, 4, 1), (128, 16, 2)), 6, 2, 4)


def run(setting: Setting) -> None:
    """All cases, on the same weights."""
    plan, device = TINY if setting.small else Plan(), measure.find_device(None)
    texts = paragraphs()
    rates = list(dict.fromkeys(rate for _, rate, _ in plan.cases))
    pair = geometry.named(plan.pair)
    pcc, decoder = geometry.build(pair, rates, device, torch.bfloat16, 0, texts=texts, vocabulary=plan.vocabulary)
    for length, rate, per_context in plan.cases:
        prompts = questions(decoder.tokenizer, texts, length, plan.questions, per_context)
        one = opened(geometry.at_rate(pcc, rate), decoder, plan.batch)
        options = {"new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS}
        ask(one, prompts[:2], options, Way(2))  # kernels are chosen and compiled
        ways = {label: Way(len(prompts)) for label in ("cold", "warm")} | {"official": Way(plan.official)}
        model = opened(geometry.at_rate(pcc, rate), decoder, plan.batch)
        ask(model, prompts, options, ways["cold"])
        ask(model, prompts, options, ways["warm"])
        official(model, prompts[: plan.official], ways["official"])
        for label, way in ways.items():
            setting.add(row(label, way, ways["official"], f"{length:,} tokens, {rate}x, {per_context} a context"))
        if (length, rate, per_context) == plan.cases[0]:
            few = prompts[: plan.batch]
            fresh = opened(geometry.at_rate(pcc, rate), decoder, plan.batch)
            title = f"questions: one batch of {len(few)}, cold"
            setting.profile(title, partial(ask, fresh, few, options, Way(1)))


def opened(pcc: PCC, decoder: Decoder, batch: int) -> CompressedLM:
    """The lm-eval model that users run, over models that lie in memory instead of a folder."""

    def load_decoder(load: Any, name: str, device: Any, options: Any) -> None:
        load(pretrained=decoder.model, tokenizer=decoder.tokenizer, **options)

    def load(pretrained: str, own: Decoder, **options: Any) -> PccCompressor:
        return PccCompressor(pcc, own)

    with (
        patch.object(arguments, "load_decoder", load_decoder),
        patch.object(PccCompressor, "decoder_path", lambda pretrained, name: decoder.name),
        patch.object(PccCompressor, "load", load),
    ):
        model: CompressedLM = models.pcc(pretrained="random weights", batch_size=batch)
    return model


def row(label: str, way: Way, slow: Way, case: str) -> Row:
    """Questions a second, times the official way, and the seconds of each phase of a question."""
    phases = ", ".join(f"{name} {1e3 * way.phases.get(name, 0.0) / way.questions:.1f} ms" for name in PHASES)
    times = way.speed / slow.speed
    held = label == "cold"
    note = phases if label == "official" else f"{times:.1f}x the official way; {phases}"
    goal = f">= {GOAL:g}x the official way" if held else ""
    return Row(PART, f"{label}, {case}", way.speed, "questions/s", goal, times >= GOAL if held else None, note)


if __name__ == "__main__":
    part(run)
