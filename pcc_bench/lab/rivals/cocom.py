"""COCOM in training: one LoRA with which the decoder compresses documents and answers from their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from pcc_bench.baselines._cocom_weights import ALPHA_PER_RANK
from pcc_bench.baselines.export import export_cocom, lora_of
from pcc_bench.decoder import Decoder
from pcc_bench.lab.rivals.rival import Reader, Rival, add_lora, drawn_vectors
from pcc_bench.model.objectives import Task
from pcc_bench.model.recipe import Recipe

MEMORY, AUTOENCODE, ENCODE, SEPARATOR = range(4)  # rows of the special tokens, which the original does not train


class CocomRival(Rival):
    """COCOM whose decoder compresses; `<SEP>` behind each document.

    Args:
        decoder: Gets the LoRA.
        recipe: Says what is learned.
        rank: Of the LoRA.
    """

    special: torch.Tensor

    def __init__(self, decoder: Decoder, recipe: Recipe, rank: int) -> None:
        super().__init__(decoder, recipe)
        head = decoder.model.get_output_embeddings()
        layers = {
            name.rpartition(".")[2]
            for name, module in decoder.model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head
        }
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            add_lora(decoder.model, sorted(layers), rank, ALPHA_PER_RANK * rank)
        self.body = decoder.model.base_model
        self.register_buffer("special", drawn_vectors(decoder, 4, recipe.seed))
        self.only_trained_in_state()

    @property
    def reader(self) -> Reader:
        """Contexts have no special tokens; each document of one gets its own."""
        return Reader(self.decoder.tokenizer, specials=False)

    def encode(self, contexts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Vectors of each context's documents, each document's followed by `<SEP>`: [n, width]."""
        length = self.segment_length
        pieces = [(i, ids[at : at + length]) for i, ids in enumerate(contexts) for at in range(0, len(ids), length)]
        rows = [self._document(ids) for _, ids in pieces]
        hidden = self.read(rows)
        vectors: list[list[torch.Tensor]] = [[] for _ in contexts]
        for (context, ids), row, states in zip(pieces, rows, hidden, strict=True):
            made = states[len(row) - self._count(ids) : len(row)]
            vectors[context] += [made, self.special[SEPARATOR][None]]
        return [torch.cat(parts) for parts in vectors]

    def prefixes(self, encoded: Sequence[torch.Tensor], task: Task) -> list[torch.Tensor]:
        """BOS and vectors; `<AE>` comes first for reconstruction."""
        start = self.decoder.embed(self.start_token()).float()
        if task is Task.RECONSTRUCTION:
            start = torch.cat([self.special[AUTOENCODE][None], start])
        return [torch.cat([start, vectors]) for vectors in encoded]

    def export(self, folder: Path, base: str) -> None:
        """See `Rival.export`."""
        lora = lora_of(self.decoder.model)
        rows = {"embed_tokens": self.special}
        if not self.decoder.model.config.tie_word_embeddings:
            rows["lm_head"] = self.special
        # The lab's decoder knows no [INST]: questions are asked as of the plain decoder.
        length = self.segment_length
        export_cocom(folder, lora, rows, base, rate=self.rate, document_length=length, lead="", closing="")

    def _document(self, ids: Sequence[int]) -> torch.Tensor:
        """`<ENC>`, BOS, text, end of sequence, memory tokens: [length, width]."""
        end = self.decoder.tokenizer.eos_token_id
        text = [*self.start_token(), *ids, *([] if end is None else [end])]
        memory = self.special[MEMORY].expand(self._count(ids), -1)
        return torch.cat([self.special[ENCODE][None], self.decoder.embed(text).float(), memory])

    def _count(self, ids: Sequence[int]) -> int:
        return -(-len(ids) // self.rate)
