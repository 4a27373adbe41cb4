"""ICAE in training: one decoder twice, with a LoRA to read the text, without it to read the slots."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pcc_bench.baselines._icae_settings import IcaeConfig
from pcc_bench.baselines._icae_weights import TARGETS
from pcc_bench.baselines._spans import spans
from pcc_bench.baselines.export import export_icae, lora_of
from pcc_bench.baselines.icae import TASK_TOKENS
from pcc_bench.decoder import Decoder
from pcc_bench.lab.rivals.rival import Reader, Rival, add_lora, drawn_vectors
from pcc_bench.model.objectives import Task
from pcc_bench.model.recipe import Recipe

BEHIND = {Task.RECONSTRUCTION: "ae", Task.COMPLETION: "lm", Task.ANSWERING: "ft"}
MAX_SPANS = 64  # no context of the lab is longer


class IcaeRival(Rival):
    """Version 2: several spans, each with all memory tokens.

    Args:
        decoder: Stays as it is.
        recipe: Says what is learned.
        rank: Of the LoRA.
    """

    def __init__(self, decoder: Decoder, recipe: Recipe, rank: int) -> None:
        super().__init__(decoder, recipe)
        self.alpha = float(rank)
        count = self.segment_length // self.rate + len(TASK_TOKENS)
        self.table = nn.Parameter(drawn_vectors(decoder, count, recipe.seed))
        body: Any = decoder.model.base_model
        shared: dict[int, Any] = {id(tensor): tensor for tensor in (*body.parameters(), *body.buffers())}
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            self.body = add_lora(deepcopy(body, shared), TARGETS, rank, self.alpha)
        self.only_trained_in_state()

    @property
    def reader(self) -> Reader:
        """Contexts begin with BOS, as in the original's inference."""
        return Reader(self.decoder.tokenizer, specials=True)

    def encode(self, contexts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Slots of each context: [spans x memory tokens, width]."""
        memory = self.table[: self.segment_length // self.rate]
        pieces = [(i, span) for i, ids in enumerate(contexts) for span in spans(ids, self.segment_length)]
        hidden = self.read([torch.cat([self.decoder.embed(span).float(), memory]) for _, span in pieces])
        slots: list[list[torch.Tensor]] = [[] for _ in contexts]
        for (context, span), row in zip(pieces, hidden, strict=True):
            slots[context].append(row[len(span) : len(span) + len(memory)])
        return [torch.cat(parts) for parts in slots]

    def prefixes(self, encoded: Sequence[torch.Tensor], task: Task) -> list[torch.Tensor]:
        """Slots and the task's vector; BOS stands before questions only."""
        behind = self.table[TASK_TOKENS[BEHIND[task]] - len(TASK_TOKENS)][None]
        start = self.start_token() if task is Task.ANSWERING else []
        return [torch.cat([self.decoder.embed(start).float(), slots, behind]) for slots in encoded]

    def export(self, folder: Path, base: str) -> None:
        """See `Rival.export`."""
        config = IcaeConfig(
            base_model_name_or_path=base,
            version=2,
            rate=self.rate,
            max_spans=MAX_SPANS,
            lora_alpha=self.alpha,
            opening="",
            closing="",
        )
        name = self.decoder.model.base_model_prefix
        lora = {f"{name}.{layer}": pair for layer, pair in lora_of(self.body).items()}
        export_icae(folder, lora, self.table, config)
