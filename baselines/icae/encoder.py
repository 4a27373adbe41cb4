"""How an ICAE reads: a context in spans of nearly one length, each on its own, followed by the memory tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

import torch
from torch import nn

from pcc_bench.baselines import export, lora
from pcc_bench.baselines.icae.files import TARGETS, IcaeConfig
from pcc_bench.baselines.soft import CausalEncoder, Purpose, drawn_vectors
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError

TaskToken = Literal["ae", "lm", "ft"]
TASK_TOKENS: dict[TaskToken, int] = {"ae": -3, "lm": -2, "ft": -1}  # rows of the table
USES: dict[Purpose, TaskToken] = {"reconstruct": "ae", "continue": "lm", "answer": "ft"}
MAX_SPANS = 64  # of an exported checkpoint: no context of the lab is longer


class IcaeEncoder(CausalEncoder):
    """Writes each span's memory tokens.

    Args:
        decoder: The base model; stays as it is.
        body: A second tree of modules over its weights, with LoRA.
        table: [memory tokens + 3, width]: the memory tokens, then AE, LM and FT.
        rate: Tokens of a full span for each memory token.
        max_spans: Spans of a context that are read.

    Raises:
        UsageError: A full span and its memory tokens do not fit the decoder's positions.
    """

    adds_special_tokens: ClassVar[bool] = True

    def __init__(self, decoder: Decoder, body: nn.Module, table: torch.Tensor, rate: int, max_spans: int) -> None:
        super().__init__(decoder, body)
        self.table = table if isinstance(table, nn.Parameter) else nn.Parameter(table, requires_grad=False)
        self.max_spans = max_spans
        memory_tokens = len(table) - len(TASK_TOKENS)
        self.resize(memory_tokens * rate, rate)
        window = getattr(decoder.model.config, "max_position_embeddings", None)
        if window is not None and self.capacity + memory_tokens > window:
            raise UsageError(
                f"icae: spans of {self.capacity} tokens with {memory_tokens} memory tokens do not fit the {window} "
                "positions of the decoder: pass a lower rate"
            )

    @classmethod
    def start(cls, decoder: Decoder, segment_length: int, rate: int, rank: int, seed: int) -> Self:
        """The base model's queries and values get a LoRA, in a second tree."""
        table = nn.Parameter(drawn_vectors(decoder, segment_length // rate + len(TASK_TOKENS), seed))
        body = lora.trainable(lora.twin(decoder.model.base_model), TARGETS, rank, alpha=rank, seed=seed)
        return cls(decoder, body, table, rate, MAX_SPANS)

    def resize(self, segment_length: int, rate: int) -> None:
        """Spans of another length, with as many of the memory tokens as the rate leaves."""
        self.capacity, self.rate = segment_length, rate

    @property
    def limit(self) -> int:
        """All spans that are read."""
        return self.max_spans * self.capacity

    @property
    def memory_tokens(self) -> torch.Tensor:
        """[memory tokens in use, width]."""
        return self.table[: self.capacity // self.rate]

    def task_vector(self, task: TaskToken) -> torch.Tensor:
        """The vector behind the slots: [1, width]."""
        return self.table[TASK_TOKENS[task]][None]

    def encode(self, contexts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Slots of tokenized contexts: [spans x memory tokens, width] each."""
        pieces = [(i, span) for i, ids in enumerate(contexts) for span in spans(ids, self.capacity)]
        states = self.read([(span, self.memory_tokens) for _, span in pieces])
        slots = [[self.table[:0]] for _ in contexts]
        for (context, span), row in zip(pieces, states, strict=True):
            slots[context].append(row[len(span) :])
        return [torch.cat(parts) for parts in slots]

    def prompt(self, vectors: torch.Tensor, purpose: Purpose) -> torch.Tensor:
        """Slots and the task's vector; BOS stands before questions only."""
        start = self.bos() if purpose == "answer" else []
        return torch.cat([self.decoder.embed(start), vectors, self.task_vector(USES[purpose])])

    def export(self, folder: Path, base: str) -> None:
        """Version 2, whose questions stand in no `[INST]`."""
        prefix = self.decoder.model.base_model_prefix
        layers = {f"{prefix}.{layer}": pair for layer, pair in lora.lora_of(self.body).items()}
        config = IcaeConfig(
            base_model_name_or_path=base,
            version=2,
            rate=self.rate,
            max_spans=MAX_SPANS,
            lora_alpha=lora.rank_of(layers),
            opening="",
            closing="",
        )
        export.export_icae(folder, layers, self.table, config)


def spans(ids: Sequence[int], capacity: int) -> list[list[int]]:
    """Cut a context into as few spans as hold it, all of one length but the last: 70 for 32 gives 24, 24, 22."""
    if not ids:
        return []
    count = -(-len(ids) // capacity)
    length = -(-len(ids) // count)
    return [list(ids[start : start + length]) for start in range(0, len(ids), length)]
