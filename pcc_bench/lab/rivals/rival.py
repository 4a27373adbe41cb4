"""What the soft baselines of the lab share in training: a decoder with a LoRA, and how batches go through it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers import PreTrainedTokenizerBase

from pcc_bench.baselines._weights import stack
from pcc_bench.decoder import Decoder
from pcc_bench.generation import autocast_for
from pcc_bench.model.learner import Learner
from pcc_bench.model.recipe import Recipe


@dataclass(frozen=True)
class Reader:
    """Cuts contexts into the decoder's tokens.

    Attributes:
        tokenizer: The decoder's.
        specials: Whole contexts get special tokens, as the method's wrapper gives them.
    """

    tokenizer: PreTrainedTokenizerBase
    specials: bool

    def tokenize(self, contexts: Sequence[str]) -> list[list[int]]:
        """Token ids of whole contexts."""
        encoded = self.tokenizer(
            list(contexts), add_special_tokens=self.specials, split_special_tokens=True, verbose=False
        )
        return [list(ids) for ids in encoded["input_ids"]]


class Rival(Learner):
    """A baseline in training.

    Args:
        decoder: Reads the memories.
        recipe: Says what is learned.

    Attributes:
        segment_length: Tokens that are read at once in the present phase.
        rate: Tokens for each slot.
    """

    body: nn.Module

    def __init__(self, decoder: Decoder, recipe: Recipe) -> None:
        super().__init__(decoder, recipe)
        self.enter(len(recipe.phases) - 1, recipe.final.rate)

    def enter(self, phase: int, rate: int) -> None:
        """Take a phase's segment length and a rate of its."""
        self.segment_length, self.rate = self.recipe.phases[phase].segment_length, rate

    @abstractmethod
    def export(self, folder: Path, base: str) -> None:
        """Write a checkpoint that the method's wrapper loads, over a base model that lies at `base` beside it."""

    def read(self, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        """Last hidden states, after the final norm, of rows of input vectors: [rows, longest, width].

        Attention is causal: what fills shorter rows up at the end reaches nothing before it.
        """
        vectors = stack([row.float() for row in rows])
        with autocast_for(self.decoder, vectors):
            hidden: torch.Tensor = self.body(inputs_embeds=vectors, use_cache=False).last_hidden_state
        return hidden.float()

    def start_token(self) -> list[int]:
        """BOS, where the decoder has one."""
        bos = self.decoder.bos_token_id
        return [] if bos is None else [bos]


def add_lora(model: Any, targets: Sequence[str], rank: int, alpha: float) -> Any:
    """Put a LoRA without dropout into a model, in float32, the only part of it that learns."""
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets), lora_dropout=0.0)  # type: ignore[arg-type]
    adapted = inject_adapter_in_model(config, model)
    for name, parameter in adapted.named_parameters():
        parameter.requires_grad_(".lora_" in name)
        parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
    return adapted


def drawn_vectors(decoder: Decoder, count: int, seed: int) -> torch.Tensor:
    """Vectors at the scale of the decoder's token vectors: [count, width]."""
    generator = torch.Generator().manual_seed(seed)
    table = decoder.embedding.weight.detach().float()
    return torch.randn(count, table.shape[1], generator=generator) * table.std()
