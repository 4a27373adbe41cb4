"""How the baselines of the lab are made."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class RivalRecipe(BaseModel):
    """How a soft baseline is made: pretraining on text, then fine-tuning on questions, like PCC-Large.

    Attributes:
        method: Which.
        rate: Its compression.
        decoder: The decoder that it adapts.
        pretraining: Steps of pretraining.
        completion: Share of completion in its last 40 %; AutoCompressor's only objective is to read on.
        tuning: Steps of fine-tuning.
        rank: Of the LoRA.
        seed: Of everything drawn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["icae", "cocom", "autocompressor"]
    rate: int = 4
    decoder: str = "lab-llama"
    pretraining: int = 900
    completion: float = 0.3
    tuning: int = 200
    rank: int = 32
    seed: int = 0


class ClassifierRecipe(BaseModel):
    """How the token classifier of LLMLingua-2's kind is made: a BERT that learns which words carry facts.

    Attributes:
        width: Hidden size.
        layers: Number of blocks.
        heads: Attention heads.
        vocabulary: Word pieces of its own tokenizer.
        steps: Optimizer steps.
        batch: Passages a step.
        learning_rate: Peak.
        seed: Of weights and passages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = 128
    layers: int = 2
    heads: int = 2
    vocabulary: int = 2000
    steps: int = 300
    batch: int = 16
    learning_rate: float = 1e-3
    seed: int = 0
