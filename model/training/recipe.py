"""Training recipes: one YAML file is one run, typed, unknown keys refused."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pcc_bench.core import documents
from pcc_bench.core.errors import UsageError
from pcc_bench.model.config import Boundaries, Pooling, SlotPositions, Slots, check_rate
from pcc_bench.model.training.sections import Checks, Data, Objective, Optimisation, Phase, Positive, Section, Trained


class Recipe(Section):
    """One training run."""

    name: str
    purpose: str = ""  # one sentence for a reader
    source: str = ""  # where its numbers come from
    start: str | None = None  # a checkpoint to go on from (fine-tuning, adapting), or a fresh one:
    encoder: str | None = None  # a causal LM, GPT-2 for Lite, Llama for Large
    encoder_layers: int | None = Field(default=None, ge=0)  # or the first so many layers of the decoder
    lora_rank: int = Field(default=0, ge=0)  # 0 trains the whole encoder; alpha is half the rank
    lora_alpha: Positive | None = None  # another alpha, with `encoder_layers`
    lora_dropout: float = Field(default=0.1, ge=0, lt=1)  # with `encoder_layers`
    pooling: Pooling = Pooling.MEMORY_TOKENS  # mean needs `encoder_layers`
    # `random` (the paper), or `identity`: slots start as the scaled means of the decoder's own input vectors, which it
    # can read at rate 1 without any training; needs mean pooling.
    converter_start: Literal["random", "identity"] = "random"
    special_from: tuple[str, ...] = Field(default=(), max_length=3)  # tokens as which `<mem>`, `</mem>`, `<ae>` start
    decoder: str  # frozen
    boundaries: Boundaries = Boundaries.PER_SEGMENT  # of a fresh checkpoint, and so the following two
    slot_positions: SlotPositions = SlotPositions.CONSECUTIVE
    slots: Slots = Slots.OFFICIAL
    train: tuple[Trained, ...] = (Trained.ENCODER, Trained.CONVERTER)
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
        if any(end is None for end in ends[:-1]) or ends[-1] is not None:
            raise ValueError("every phase but the last needs 'until', the last has none")
        if sorted(end for end in ends if end) != [end for end in ends if end]:
            raise ValueError("phases must end in order")
        if self.optimisation.steps and any(end >= self.optimisation.steps for end in ends if end):
            raise ValueError(f"a phase ends at or after the last of {self.optimisation.steps} steps")
        if not self.train:
            raise ValueError("train names nothing: choose among encoder, converter, memory_tokens, gate, special")
        pooling = Pooling.MEAN if self.start else self.pooling  # of a checkpoint it is not known here
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
        if self.pooling is Pooling.MEAN and self.encoder_layers is None:
            raise ValueError("pooling mean needs encoder_layers")
        if self.slot_positions is SlotPositions.CENTRE and (self.start or self.boundaries is Boundaries.NONE):
            raise ValueError(
                "slot_positions centre needs a fresh checkpoint (one to start from has its own) and boundaries"
            )
        if self.converter_start == "identity" and self.pooling is not Pooling.MEAN:
            raise ValueError("converter_start identity needs pooling mean")
        if Trained.GATE in self.train and not self.start and self.pooling is not Pooling.MEAN:
            raise ValueError("train names a gate, which needs pooling mean")
        if self.special_from and (self.encoder_layers is None or len(self.special_from) != 3):
            raise ValueError("special_from names three tokens, for <mem>, </mem> and <ae>, and needs encoder_layers")
        if self.lora_alpha and self.encoder_layers is None:
            raise ValueError("lora_alpha needs encoder_layers; elsewhere it is half of lora_rank, as in the paper")
        return self

    @property
    def final(self) -> Phase:
        """The last phase: its segment length and rate are the finished checkpoint's."""
        return self.phases[-1]

    def phase_at(self, step: int) -> int:
        """Index of the phase that an optimizer step (counted from 0) belongs to."""
        return next(i for i, phase in enumerate(self.phases) if phase.until is None or step < phase.until)

    def rate_at(self, step: int) -> int:
        """Compression of an optimizer step (counted from 0): its phase's, or drawn by seed and step alone."""
        phase = self.phases[self.phase_at(step)]
        return random.Random(f"{self.seed}-rate-{step}").choice(phase.rates) if phase.rates else phase.rate

    def data_at(self, phase: int) -> Data:
        """Training data of a phase (-1: the last): its own, or the recipe's."""
        return self.phases[phase].data or self.data

    def completion_at(self, phase: int) -> float:
        """Weight or probability of completion in a phase."""
        own = self.phases[phase].completion
        return self.objective.completion if own is None else own

    @classmethod
    def read(cls, name: str, changes: Sequence[str] = ()) -> Recipe:
        """Read a YAML file, or a recipe that ships with the project by its name.

        A file may say `like: <recipe>` and then only what differs from that one, also within sections. Changes are
        `key=value`, keys dotted, values in YAML: `optimisation.steps=100`.
        """
        path = find_recipe(name)
        state = _keys(path)
        if "like" in state:
            model = _keys(find_recipe(str(state.pop("like"))))
            if "like" in model:
                raise UsageError(f"{path} is like a recipe that is like another one: name that one")
            for key, value in model.items():
                own = state.setdefault(key, value)
                if isinstance(value, dict) and isinstance(own, dict):
                    state[key] = {**value, **own}
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
    def checked(cls, state: dict[str, Any], where: str) -> Recipe:
        """A recipe from plain data."""
        return documents.checked(cls, state, where)


def _keys(path: Path) -> dict[str, Any]:
    state = documents.read_yaml(path)
    if not isinstance(state, dict):
        raise UsageError(f"{path} is no recipe: it holds no keys (see 'pcc-bench ls recipes')")
    return state


def shipped() -> dict[str, Path]:
    """The recipes that ship with the project, by name."""
    return {path.stem: path for path in sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """Path of a recipe file or of a shipped recipe."""
    if documents.is_file(name):
        return Path(name)
    if name in (known := shipped()):
        return known[name]
    raise UsageError(f"no recipe '{name}': give a YAML file or one of {', '.join(known) or '(none shipped)'}")
