"""The sections of a training recipe: data, objective, phases, optimisation, checks."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pcc_bench.core.questions import OFFICIAL

Positive = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """Keys of a recipe; unknown ones are refused."""

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
    """Where the training text comes from."""

    # `text`: plain text for pretraining. For fine-tuning, `qa`: rows with context, question and answers; `gsm8k`: rows
    # with question and worked answer; `dialogue`: sessions of Harry Potter Dialogue (scene, dialogue,
    # positive_response). See `fine_tuning`.
    kind: Literal["text", "qa", "gsm8k", "dialogue"] = "text"
    path: str  # hub data set, a file, or a folder of files (`.txt`, `.jsonl`; sessions also as one `.json`)
    name: str | None = None  # configuration of a hub data set
    split: str = "train"  # of a hub data set
    column: str = "text"  # holds the text (hub and JSON Lines)
    streaming: bool = False  # read a hub data set without downloading it first
    revision: str | None = None  # of a hub data set
    # A file (of a hub data set: a split) for evaluation. Where None, some documents are kept back; of streamed data
    # always the first 200.
    held_out: str | None = None
    held_out_every: int = Field(default=50, gt=1)  # else the first of so many is kept back; 10: the paper's 90/10 split
    held_out_rows: Positive = 64  # samples evaluated
    demonstrations: Positive = 4  # rows compressed before a row of `gsm8k` (drawn) or `dialogue` (the ones before)
    role: str = "Harry"  # who answers in a `dialogue`
    prompt: Literal["official", "short"] = OFFICIAL  # words of the question in `qa` (`pcc_bench.core.questions`)
    # Files of rows (JSON Lines) whose passages must not be trained on: `qa` rows with one as context are left out and
    # counted.
    exclude: tuple[str, ...] = ()
    # Shuffle the contexts of `qa` rows instead of the rows, so that a step holds all questions on a context and each
    # micro-batch compresses it once.
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
    """What the decoder must emit after a memory (pretraining only; fine-tuning is answering)."""

    combination: Combination = Combination.SAMPLED
    completion: float = Field(default=0.5, ge=0, le=1)  # lambda: 0 is reconstruction only, 1 completion only
    completion_tokens: Positive = 256  # decoder tokens of the continuation that are predicted
    append_eos: bool = True  # after every target (official, also where a continuation is cut mid-sentence)
    # Fine-tuning only: weight of the Kullback-Leibler divergence from the decoder that reads the whole text.
    distillation: float = Field(default=0.0, ge=0)


class Phase(Section):
    """A part of the run: from the end of the phase before it to `until`."""

    until: Positive | None = None  # optimizer step at which it ends; None for the last one
    segment_length: Positive = 256  # in encoder tokens
    rate: Positive = 4
    # One of these is drawn for each step, instead of `rate`, so that one checkpoint serves them all; one that is named
    # twice is drawn twice as often.
    rates: tuple[Positive, ...] = ()
    segments: Positive = 1  # of a pretraining sample; fine-tuning compresses whole contexts
    data: Data | None = None  # None: the recipe's. Data of the phase before are read on, others from their beginning
    completion: float | None = Field(default=None, ge=0, le=1)  # lambda; None: the objective's

    @model_validator(mode="after")
    def _rate_is_one_of_them(self) -> Self:
        if self.rates and self.rate not in self.rates:
            raise ValueError(f"rate {self.rate} is not one of rates {list(self.rates)}: it is the checkpoint's default")
        return self


class Optimisation(Section):
    """Optimizer and schedule, with the Trainer's defaults besides what stands here."""

    optimizer: Literal["adamw", "muon"] = "adamw"  # the paper's; Muon for the matrices of linear layers, AdamW else
    learning_rate: float = Field(gt=0)  # peak
    learning_rates: dict[Trained, Annotated[float, Field(gt=0)]] = {}  # peaks of some weights, instead of that one
    schedule: Literal["cosine", "linear", "constant"] = "cosine"  # after the warm-up
    warmup_steps: int = Field(default=300, ge=0)
    batch_size: Positive  # samples a step over all processes and accumulation steps
    micro_batch_size: Positive  # samples one process holds at once
    steps: Positive | None = None  # give this or `epochs`
    epochs: Positive | None = None
    tokens: Positive | None = None  # of the published run, for the estimate of `--dry-run`; not read by training
    max_grad_norm: float = Field(default=0.5, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    precision: Literal["float32", "bfloat16"] = "float32"  # the latter by autocast: weights stay in float32
    gradient_checkpointing: bool = False  # of the encoder
    attention: Literal["eager", "sdpa"] | None = None  # kernel; on a CPU in bfloat16 `eager` is faster for short rows

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        if self.batch_size % self.micro_batch_size:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of micro_batch_size")
        return self


class Checks(Section):
    """What is measured and saved along the way, every so many optimizer steps."""

    evaluate_every: Positive = 250
    save_every: Positive = 250
    keep: Positive = 2  # resumable states
    generated_rows: int = Field(default=16, ge=0)  # held-out rows reconstructed by greedy decoding for BLEU
    report_to: tuple[str, ...] = ()  # trackers of transformers (`tensorboard`, `trackio`, `wandb`)
