"""Training recipes: one YAML file is one run, typed, unknown keys refused."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pcc_bench.core import documents
from pcc_bench.core.errors import UsageError
from pcc_bench.core.questions import OFFICIAL
from pcc_bench.model.config import Boundaries, Pooling, SlotPositions, Slots, check_rate

Positive = Annotated[int, Field(gt=0)]
# Which weights learn, the decoder's never: all of a full encoder or its LoRA; the embedding rows of `<mem_i>` only; the
# scores that weight the tokens of a pooled group (a checkpoint without a gate gets one); the vectors of `<mem>`,
# `</mem>` and `<ae>`, which the paper keeps frozen.
Trained = Literal["encoder", "converter", "memory_tokens", "gate", "special"]


class Section(documents.Strict, allow_inf_nan=False): ...


class Data(Section):
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

    # Reconstruction or completion each step, the latter with probability lambda (official code), or both, weighted (the
    # paper's formula).
    combination: Literal["sampled", "summed"] = "sampled"
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
    learning_rates: dict[Trained, Annotated[float, Field(gt=0)]] = Field(default={})  # of some weights instead
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


class Recipe(Section):
    name: str
    purpose: str = ""  # one sentence for a reader
    source: str = ""  # where its numbers come from
    start: str | None = None  # a checkpoint to go on from (fine-tuning, adapting), or a fresh one:
    encoder: str | None = None  # a causal LM, GPT-2 for Lite, Llama for Large
    encoder_layers: int | None = Field(default=None, ge=0)  # or the first so many layers of the decoder
    lora_rank: int = Field(default=0, ge=0)  # 0 trains the whole encoder; alpha is half the rank
    lora_alpha: Positive | None = None  # another alpha, with `encoder_layers`
    lora_dropout: float = Field(default=0.1, ge=0, lt=1)  # with `encoder_layers`
    pooling: Pooling = "memory_tokens"  # mean needs `encoder_layers`
    # `random` (the paper), or `identity`: slots start as the scaled means of the decoder's own input vectors, which it
    # can read at rate 1 without any training; needs mean pooling.
    converter_start: Literal["random", "identity"] = "random"
    special_from: tuple[str, ...] = Field(default=(), max_length=3)  # tokens as which `<mem>`, `</mem>`, `<ae>` start
    decoder: str  # frozen
    boundaries: Boundaries = "per_segment"  # of a fresh checkpoint, and so the following two
    slot_positions: SlotPositions = "consecutive"
    slots: Slots = "official"
    train: tuple[Trained, ...] = ("encoder", "converter")
    data: Data  # where a phase names none
    objective: Objective = Objective()
    phases: tuple[Phase, ...] = (Phase(),)
    optimisation: Optimisation
    checks: Checks = Checks()
    seed: int = Field(default=42, ge=0, lt=2**32)  # of initialisation, order of the data and objective draws

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if [self.start, self.encoder, self.encoder_layers].count(None) != 2:
            raise ValueError("give one of start (a checkpoint), encoder (a model) and encoder_layers (of the decoder)")
        ends = [phase.until for phase in self.phases]
        if None in ends[:-1] or ends[-1] is not None:
            raise ValueError("every phase but the last needs 'until', the last has none")
        if sorted(end for end in ends if end) != ends[:-1]:
            raise ValueError("phases must end in order")
        if self.optimisation.steps and any(end >= self.optimisation.steps for end in ends if end):
            raise ValueError(f"a phase ends at or after the last of {self.optimisation.steps} steps")
        if not self.train:
            raise ValueError("train names nothing: choose among encoder, converter, memory_tokens, gate, special")
        pooling = "mean" if self.start else self.pooling  # of a checkpoint it is not known here
        for index, phase in enumerate(self.phases):
            for rate in (phase.rate, *phase.rates):
                try:
                    check_rate(rate, phase.segment_length, pooling)
                except ValueError as error:
                    raise ValueError(f"phases.{index}: {error}") from None
        if unknown := sorted(set(self.optimisation.learning_rates) - set(self.train)):
            raise ValueError(f"optimisation.learning_rates names {unknown[0]}, which does not learn: see train")
        if self.optimisation.epochs and any(phase.data for phase in self.phases):
            raise ValueError("epochs are passes over one data set: give steps where a phase has data of its own")
        if self.objective.distillation and self.data_at(-1).is_text:
            raise ValueError("objective.distillation is for fine-tuning: pretraining text has no question to answer")
        return self

    @model_validator(mode="after")
    def _makes_what_it_says(self) -> Self:
        """Keys that only say how a fresh checkpoint is made must have one to make."""
        if self.pooling == "mean" and self.encoder_layers is None:
            raise ValueError("pooling mean needs encoder_layers")
        if self.slot_positions == "centre" and (self.start or self.boundaries == "none"):
            raise ValueError(
                "slot_positions centre needs a fresh checkpoint (one to start from has its own) and boundaries"
            )
        if self.converter_start == "identity" and self.pooling != "mean":
            raise ValueError("converter_start identity needs pooling mean")
        if "gate" in self.train and not self.start and self.pooling != "mean":
            raise ValueError("train names a gate, which needs pooling mean")
        if self.special_from and (self.encoder_layers is None or len(self.special_from) != 3):
            raise ValueError("special_from names three tokens, for <mem>, </mem> and <ae>, and needs encoder_layers")
        if self.lora_alpha and self.encoder_layers is None:
            raise ValueError("lora_alpha needs encoder_layers; elsewhere it is half of lora_rank, as in the paper")
        return self

    @property
    def final(self) -> Phase:
        """Its segment length and rate are the finished checkpoint's."""
        return self.phases[-1]

    def phase_at(self, step: int) -> int:
        return next(i for i, phase in enumerate(self.phases) if phase.until is None or step < phase.until)

    def rate_at(self, step: int) -> int:
        """Compression of an optimizer step (counted from 0): its phase's, or drawn by seed and step alone."""
        phase = self.phases[self.phase_at(step)]
        return random.Random(f"{self.seed}-rate-{step}").choice(phase.rates) if phase.rates else phase.rate

    def data_at(self, phase: int) -> Data:
        return self.phases[phase].data or self.data

    def completion_at(self, phase: int) -> float:
        own = self.phases[phase].completion
        return self.objective.completion if own is None else own

    @classmethod
    def read(cls, name: str, changes: Sequence[str] = ()) -> "Recipe":
        """A YAML file or shipped recipe, also `like: <recipe>` with what differs; changes: `optimisation.steps=100`."""
        path = find_recipe(name)
        state = _keys(path)
        if "like" in state:
            model = _keys(find_recipe(str(state.pop("like"))))
            if "like" in model:
                raise UsageError(f"{path} is like a recipe that is like another one: name that one")
            for key, value in model.items():
                own = state.setdefault(key, value)
                state[key] = {**value, **own} if isinstance(value, dict) and isinstance(own, dict) else own
        for change in changes:
            dotted, equals, text = change.partition("=")
            if not equals:
                raise UsageError(f"--set {change}: give key=value, e.g. optimisation.steps=100")
            *sections, last = dotted.split(".")
            section = state
            for key in sections:
                section = section.setdefault(key, {})
                if not isinstance(section, dict):
                    raise UsageError(f"--set {change}: '{key}' holds no keys of its own")
            section[last] = documents.parse_yaml(text, f"--set {change}")
        return cls.checked(state, f"{path} with the changes given" if changes else str(path))

    @classmethod
    def checked(cls, state: dict[str, Any], where: str) -> "Recipe":
        return documents.checked(cls, state, where)


def _keys(path: Path) -> dict[str, Any]:
    state = documents.read_yaml(path)
    if not isinstance(state, dict):
        raise UsageError(f"{path} is no recipe: it holds no keys (see 'pcc-bench ls recipes')")
    return state


def shipped() -> dict[str, Path]:
    return {path.stem: path for path in sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    if documents.is_file(name):
        return Path(name)
    if name in (known := shipped()):
        return known[name]
    raise UsageError(f"no recipe '{name}': give a YAML file or one of {', '.join(known)}")
