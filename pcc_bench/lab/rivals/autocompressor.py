"""AutoCompressor in training: a decoder with a LoRA learns to write summary vectors and to go on from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pcc_bench.baselines._segments import segments
from pcc_bench.baselines.export import export_autocompressor, lora_of
from pcc_bench.decoder import Decoder
from pcc_bench.lab.rivals.rival import Reader, Rival, add_lora, drawn_vectors
from pcc_bench.model.objectives import Task
from pcc_bench.model.recipe import Recipe

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
STEPS_OF_GRADIENT = 2  # segments through which gradients flow; in the original two sub-steps of two segments


class AutoCompressorRival(Rival):
    """AutoCompressor with accumulated summaries.

    Args:
        decoder: Gets the LoRA.
        recipe: Says what is learned.
        rank: Of the LoRA.
    """

    def __init__(self, decoder: Decoder, recipe: Recipe, rank: int) -> None:
        super().__init__(decoder, recipe)
        self.alpha = float(rank)
        self.summary = nn.Parameter(drawn_vectors(decoder, self.segment_length // self.rate, recipe.seed))
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            add_lora(decoder.model, TARGETS, rank, self.alpha)
        self.body = decoder.model.base_model
        self.only_trained_in_state()

    @property
    def reader(self) -> Reader:
        """Contexts have no special tokens."""
        return Reader(self.decoder.tokenizer, specials=False)

    def forward(
        self,
        contexts: list[list[int]],
        targets: Mapping[str, Mapping[str, list[list[int]]]],
        phase: int,
        indices: list[int],
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> dict[str, torch.Tensor]:
        """Fine-tuning answers from memories; pretraining reads on, each segment behind the summaries of the others.

        Its loss is over all tokens of all segments; what the collator made to be continued is not used.
        """
        if Task.ANSWERING.value in targets:
            return super().forward(contexts, targets, phase, indices, labels, num_items_in_batch)
        self.enter(phase)
        self.tokens_seen += sum(map(len, contexts))
        nll, count = self._read_on(torch.tensor(contexts, device=self.decoder.device))
        self._record(Task.COMPLETION, nll, count, indices)
        return {"loss": nll / count}

    def encode(self, contexts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Summary vectors of all segments of each context: [n, width]."""
        cut = [segments(ids, self.segment_length) for ids in contexts]
        soft = [self.summary[:0] for _ in contexts]
        for step in range(max(map(len, cut))):
            live = [i for i, pieces in enumerate(cut) if len(pieces) > step]
            rows = [torch.cat([soft[i], self.decoder.embed(cut[i][step]).float(), self.summary]) for i in live]
            for i, row, states in zip(live, rows, self.read(rows), strict=True):
                soft[i] = torch.cat([soft[i], states[len(row) - len(self.summary) : len(row)]])
        return soft

    def prefixes(self, encoded: Sequence[torch.Tensor], task: Task) -> list[torch.Tensor]:
        """The soft prompt alone."""
        return list(encoded)

    def export(self, folder: Path, base: str) -> None:
        """See `Rival.export`."""
        lora = lora_of(self.decoder.model)
        export_autocompressor(folder, lora, self.summary, base, alpha=self.alpha, segment_length=self.segment_length)

    def _read_on(self, ids: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Summed loss of the tokens of texts [texts, tokens] behind their first, and how many they are."""
        soft = self.summary[:0].expand(len(ids), -1, -1)
        states = []
        pieces = ids.split(self.segment_length, dim=1)
        for step, piece in enumerate(pieces):
            if step and step % STEPS_OF_GRADIENT == 0:
                soft = soft.detach()
            vectors = self.decoder.embedding(piece).float()
            hidden = self.read(list(torch.cat([soft, vectors, self.summary.expand(len(ids), -1, -1)], dim=1)))
            first, last = soft.shape[1], soft.shape[1] + piece.shape[1]
            states.append(hidden[:, first:last])
            soft = torch.cat([soft, hidden[:, last:]], dim=1)
        head: Any = self.decoder.model.get_output_embeddings()
        told = torch.cat(states, dim=1)[:, :-1].to(head.weight.dtype)
        wanted = ids[:, 1:]
        nll = nn.functional.cross_entropy(head(told).float().flatten(0, 1), wanted.flatten(), reduction="sum")
        return nll, wanted.numel()
