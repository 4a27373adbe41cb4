"""A soft baseline in training: the encoder that an evaluation runs, and the decoder that teaches it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from pcc_bench.baselines.autocompressor.encoder import SummaryEncoder
from pcc_bench.baselines.cocom.encoder import CocomEncoder
from pcc_bench.baselines.icae.encoder import IcaeEncoder
from pcc_bench.baselines.soft import CausalEncoder, Purpose
from pcc_bench.core.decoder import Decoder
from pcc_bench.model.training.learner import Learner
from pcc_bench.model.training.objectives import Task
from pcc_bench.model.training.recipe import Recipe

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


class Rival(Learner):
    """A baseline in training.

    Args:
        decoder: Reads the memories.
        recipe: Says what is learned.
        method: One of `ENCODERS`.
        rank: Of its LoRA.
    """

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

    def prefixes(self, encoded: Sequence[torch.Tensor], task: Task) -> list[torch.Tensor]:
        """As the method was published: [length, width], float32."""
        return [self.encoder.prompt(vectors, PURPOSES[task]).float() for vectors in encoded]

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
