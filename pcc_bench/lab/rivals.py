"""Soft baselines of the lab (ICAE, COCOM, AutoCompressor), trained as its compressors are and on the same tokens.

A baseline in training is the encoder that an evaluation runs, and the decoder that teaches it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pcc_bench.baselines.autocompressor import SummaryEncoder
from pcc_bench.baselines.cocom.encoders import CocomEncoder
from pcc_bench.baselines.icae import IcaeEncoder
from pcc_bench.baselines.soft import CausalEncoder, Purpose
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError
from pcc_bench.core.plan import Plan
from pcc_bench.lab.parts import RivalRecipe
from pcc_bench.lab.stages import (
    GROWING,
    PURPOSE,
    QUESTIONS,
    SEGMENT,
    TEXT,
    TEXT_HELD_OUT,
    growing,
    optimisation,
    write_data,
)
from pcc_bench.model import init
from pcc_bench.model.training.learner import Learner
from pcc_bench.model.training.loop import claim, fit
from pcc_bench.model.training.objectives import Task
from pcc_bench.model.training.recipe import Recipe

LEARNED = "learned.safetensors"  # what a stage has learned, once it has ended
BATCH = 32
HELD_OUT_ROWS, GENERATED_ROWS = 64, 32
SEGMENTS = 4  # of a text that AutoCompressor reads on
ENCODERS: dict[str, type[CausalEncoder]] = {
    "icae": IcaeEncoder,
    "cocom": CocomEncoder,
    "autocompressor": SummaryEncoder,
}
PURPOSES: dict[Task, Purpose] = {
    Task.RECONSTRUCTION: "reconstruct",
    Task.COMPLETION: "continue",
    Task.ANSWERING: "answer",
}


def train_rival(folder: Path, name: str, recipe: RivalRecipe, work: Path) -> None:
    """Make a baseline, or go on where an earlier call was interrupted: `work` has its stages and their states."""
    decoder, data = folder / recipe.decoder, work.parent / "data"
    write_data(data)
    pretraining, tuning = work / "pretraining", work / "tuning"
    _stage(recipe, pretraining_recipe(name, recipe, str(decoder), str(data)), pretraining, None)
    rival = _stage(recipe, tuning_recipe(name, recipe, str(decoder), str(data)), tuning, pretraining / LEARNED)
    rival.encoder.export(folder / name, init.name_beside(str(decoder), folder / name))
    for log in ("log.jsonl", "evaluation.jsonl"):
        shutil.copy(tuning / log, folder / name / log)


def _stage(recipe: RivalRecipe, stage: Recipe, folder: Path, start: Path | None) -> Rival:
    claim(folder, stage)
    decoder = init.open_decoder(stage.decoder, torch.bfloat16)
    decoder.model.set_attn_implementation(str(stage.optimisation.attention))
    rival = Rival(decoder, stage, recipe.method, recipe.rank)
    learned = folder / LEARNED
    if learned.is_file():
        start = learned
    if start:
        state = load_file(start)
        if state.keys() != rival.state_dict().keys():  # what does not learn is in neither
            raise UsageError(f"{start} was written by another version of pcc-bench: delete {folder.parent}, and build")
        rival.load_state_dict(state, strict=False)
    if not learned.is_file():
        fit(rival, stage, folder)
        save_file({key: value.contiguous() for key, value in rival.state_dict().items()}, learned)
    return rival


def pretraining_recipe(name: str, recipe: RivalRecipe, decoder: str, data: str) -> Recipe:
    """Pretraining: segments grow and reconstruction comes first, as for PCC-Large; AutoCompressor reads on."""
    reads_on = recipe.method == "autocompressor"
    last: dict[str, Any] = {"segment_length": SEGMENT, "rate": recipe.rate}
    if reads_on:
        phases = [{**last, "segments": SEGMENTS}]
    else:
        phases = growing(GROWING, recipe.rate, 0.0)
        start = phases[-1]["until"]
        until = start + int(0.6 * (recipe.pretraining - start))
        phases += [{**last, "completion": 0.0, "until": until}, last]
    fewer = dict.fromkeys(("batch_size", "micro_batch_size"), BATCH // SEGMENTS)
    return _checked(
        name,
        recipe,
        decoder,
        data={"path": f"{data}/{TEXT}", "held_out": f"{data}/{TEXT_HELD_OUT}", "held_out_rows": HELD_OUT_ROWS},
        objective={"completion": 1.0 if reads_on else recipe.completion, "completion_tokens": 48},
        phases=phases,
        optimisation=optimisation(recipe.pretraining, 1e-3) | (fewer if reads_on else {}),
        checks={
            "evaluate_every": 200,
            "save_every": 100,
            "keep": 1,
            "generated_rows": 0 if reads_on else GENERATED_ROWS,
        },
    )


def tuning_recipe(name: str, recipe: RivalRecipe, decoder: str, data: str) -> Recipe:
    """Fine-tuning on questions."""
    return _checked(
        name,
        recipe,
        decoder,
        data={"kind": "qa", "path": f"{data}/{QUESTIONS}", "held_out_rows": HELD_OUT_ROWS},
        phases=[{"segment_length": SEGMENT, "rate": recipe.rate}],
        optimisation=optimisation(recipe.tuning, 5e-4),
        checks={"evaluate_every": 100, "save_every": 100, "keep": 1, "generated_rows": 0},
    )


def _checked(name: str, recipe: RivalRecipe, decoder: str, **stage: Any) -> Recipe:
    state = {"name": name, "purpose": PURPOSE, "encoder": decoder, "decoder": decoder, "seed": recipe.seed, **stage}
    return Recipe.checked(state, f"the lab's part {name}")


class Rival(Learner):
    """A baseline in training."""

    def __init__(self, decoder: Decoder, recipe: Recipe, method: str, rank: int) -> None:
        super().__init__(decoder, recipe)
        final = recipe.final
        self.encoder = ENCODERS[method].start(decoder, final.segment_length, final.rate, rank, recipe.seed)
        self.only_trained_in_state()

    @property
    def reader(self) -> CausalEncoder:
        """Contexts are cut into the encoder's tokens."""
        return self.encoder

    def enter(self, phase: int, rate: int) -> None:
        """Take a phase's segment length and a rate of its."""
        self.encoder.resize(self.recipe.phases[phase].segment_length, rate)

    def encode(self, contexts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Vectors of each context: [n, width], float32."""
        return self.encoder.encode(contexts)

    def plans(self, encoded: Sequence[torch.Tensor], task: Task) -> list[Plan]:
        """As the method was published."""
        return [Plan((self.encoder.prompt(vectors, PURPOSES[task]).float(),)) for vectors in encoded]

    def forward(
        self,
        contexts: list[list[int]],
        targets: Mapping[str, Mapping[str, list[list[int]]]],
        phase: int,
        rate: int,
        indices: list[int],
        labels: torch.Tensor,
        texts: list[list[int]] | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> dict[str, torch.Tensor]:
        """AutoCompressor's pretraining reads on, each segment behind the summaries of the others.

        Its loss is over all tokens of all segments; what the collator made to be continued is not used.
        """
        if not isinstance(self.encoder, SummaryEncoder) or Task.ANSWERING.value in targets:
            return super().forward(contexts, targets, phase, rate, indices, labels, texts, num_items_in_batch)
        self.enter(phase, rate)
        self.tokens_seen += sum(map(len, contexts))
        pairs = self.encoder.read_through(contexts, self.encoder.segment_length)
        head = self.decoder.model.get_output_embeddings()
        states = torch.stack([hidden[:-1] for hidden, _ in pairs]).to(head.weight.dtype)
        following = torch.tensor(contexts, device=self.decoder.device)[:, 1:]
        nll = nn.functional.cross_entropy(head(states).float().flatten(0, 1), following.flatten(), reduction="sum")
        self._record(Task.COMPLETION.value, nll, following.numel(), indices)
        return {"loss": nll / following.numel()}
