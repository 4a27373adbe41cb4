"""The sections of a training recipe: data, objective, phases, optimisation, checks."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pcc_bench.core.questions import OFFICIAL

Positive = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """Keys of a recipe: unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Trained(StrEnum):
    """Which weights learn. The decoder never does."""

    ENCODER = "encoder"  # all of a full encoder, or its LoRA
    CONVERTER = "converter"
    MEMORY_TOKENS = "memory_tokens"  # only the embedding rows of `<mem_i>`
    GATE = "gate"  # scores that weight the tokens of a pooled group; a checkpoint without a gate gets one
    SPECIAL = "special"  # the vectors of `<mem>`, `</mem>` and `<ae>`, which the paper keeps frozen


class Combination(StrEnum):
    """How reconstruction and completion are combined."""

    SAMPLED = "sampled"  # one of them a step, completion with probability lambda (official code)
    SUMMED = "summed"  # both each step, weighted (the paper's formula)


class Data(Section):
    """Where the training text comes from.

    Attributes:
        kind: `text`: plain text for pretraining. For fine-tuning, `qa`: rows with context, question and answers;
            `gsm8k`: rows with question and worked answer; `dialogue`: sessions of Harry Potter Dialogue (scene,
            dialogue, positive_response). See `fine_tuning`.
        path: Hub data set, a file, or a folder of files (`.txt`, `.jsonl`; sessions also as one `.json`).
        name: Configuration of a hub data set.
        split: Split of a hub data set.
        column: Column that holds the text (hub and JSON Lines).
        streaming: Read a hub data set without downloading it first.
        revision: Hub revision.
        held_out: A file (of a hub data set: a split) for evaluation. Where None, some documents are kept back; of
            streamed data always the first 200.
        held_out_every: Without `held_out`, the first of so many documents is kept back; 10 is the paper's 90/10 split.
        held_out_rows: Samples evaluated.
        demonstrations: Other rows that are compressed before a row of `gsm8k` (drawn) or `dialogue` (the ones before).
        role: Who answers in a `dialogue`.
        prompt: Words of the question in `qa`: `official` or `short` (`pcc_bench.core.questions`).
        exclude: Files of rows (JSON Lines) whose passages must not be trained on: `qa` rows with one of them as context
            are left out and counted.
        together: Shuffle the contexts of `qa` rows instead of the rows, so that a step holds all questions on a context
            and each micro-batch compresses it once.
    """

    kind: Literal["text", "qa", "gsm8k", "dialogue"] = "text"
    path: str
    name: str | None = None
    split: str = "train"
    column: str = "text"
    streaming: bool = False
    revision: str | None = None
    held_out: str | None = None
    held_out_every: int = Field(default=50, gt=1)
    held_out_rows: Positive = 64
    demonstrations: Positive = 4
    role: str = "Harry"
    prompt: Literal["official", "short"] = OFFICIAL
    exclude: tuple[str, ...] = ()
    together: bool = False

    @property
    def is_text(self) -> bool:
        """Text to pretrain on; else rows to fine-tune on."""
        return self.kind == "text"

    @model_validator(mode="after")
    def _rows_are_not_streamed(self) -> Self:
        if self.streaming and not self.is_text:
            raise ValueError(f"rows of kind '{self.kind}' are few and read whole: leave 'streaming' out")
        if self.kind != "qa" and (self.exclude or self.together or self.prompt != OFFICIAL):
            raise ValueError(f"prompt, exclude and together are of rows of kind 'qa', not '{self.kind}'")
        return self


class Objective(Section):
    """What the decoder must emit after a memory (pretraining only; fine-tuning is answering).

    Attributes:
        combination: See `Combination`.
        completion: lambda, the weight or probability of completion; 0 is reconstruction only, 1 completion only.
        completion_tokens: Decoder tokens of the continuation that are predicted.
        append_eos: End of sequence after every target (official, also where a continuation is cut mid-sentence).
        distillation: Fine-tuning only: weight of the Kullback-Leibler divergence from the decoder that reads the whole
            text, added to the cross-entropy.
    """

    combination: Combination = Combination.SAMPLED
    completion: float = Field(default=0.5, ge=0, le=1)
    completion_tokens: Positive = 256
    append_eos: bool = True
    distillation: float = Field(default=0.0, ge=0)


class Phase(Section):
    """A part of the run: from the end of the phase before it to `until`.

    Attributes:
        until: Optimizer step at which it ends; None for the last one.
        segment_length: Encoder tokens of a sample's segments.
        rate: Compression.
        rates: One of these is drawn for each step, instead of `rate`, so that one checkpoint serves them all; one that
            is named twice is drawn twice as often.
        segments: Segments of a pretraining sample; fine-tuning compresses whole contexts.
        data: Training data of this phase; None: the recipe's. Where it is the data of the phase before, it is read on;
            else read from its beginning.
        completion: lambda during this phase; None: the objective's.
    """

    until: Positive | None = None
    segment_length: Positive = 256
    rate: Positive = 4
    rates: tuple[Positive, ...] = ()
    segments: Positive = 1
    data: Data | None = None
    completion: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def _rate_is_one_of_them(self) -> Self:
        if self.rates and self.rate not in self.rates:
            raise ValueError(f"rate {self.rate} is not one of rates {list(self.rates)}: it is the checkpoint's default")
        return self


class Optimisation(Section):
    """Optimizer and schedule, with the Trainer's defaults besides what stands here.

    Attributes:
        optimizer: `adamw` (the paper's), or `muon`: Muon for the matrices of linear layers and AdamW for the rest.
        learning_rate: Peak.
        learning_rates: Peaks of some of the weights that learn, instead of that one.
        schedule: Shape after the warm-up.
        warmup_steps: Linear warm-up.
        batch_size: Samples a step over all processes and accumulation steps.
        micro_batch_size: Samples one process holds at once.
        steps: Optimizer steps; give this or `epochs`.
        epochs: Passes over the data.
        tokens: Tokens of the published run, for the estimate of `--dry-run`; not read by training.
        max_grad_norm: Gradient clipping.
        weight_decay: The optimizer's.
        precision: `float32` or `bfloat16` (autocast; weights stay in float32).
        gradient_checkpointing: Recompute the encoder's activations to save memory.
        attention: Kernel of encoder and decoder; None: transformers' choice. For short segments on a CPU in bfloat16
            `eager` is the faster one.
    """

    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(gt=0)
    learning_rates: dict[Trained, Annotated[float, Field(gt=0)]] = {}
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int = Field(default=300, ge=0)
    batch_size: Positive
    micro_batch_size: Positive
    steps: Positive | None = None
    epochs: Positive | None = None
    tokens: Positive | None = None
    max_grad_norm: float = Field(default=0.5, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    attention: Literal["eager", "sdpa"] | None = None

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        if self.batch_size % self.micro_batch_size:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of micro_batch_size")
        return self


class Checks(Section):
    """What is measured and saved along the way.

    Attributes:
        evaluate_every: Optimizer steps between evaluations.
        save_every: Optimizer steps between resumable states.
        keep: Resumable states kept.
        generated_rows: Held-out rows reconstructed by greedy decoding for BLEU.
        report_to: Trackers of transformers (`tensorboard`, `trackio`, `wandb`); none by default.
    """

    evaluate_every: Positive = 250
    save_every: Positive = 250
    keep: Positive = 2
    generated_rows: int = Field(default=16, ge=0)
    report_to: tuple[str, ...] = ()
