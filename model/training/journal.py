"""What makes a run resumable: logs, positions in the data, and seeds by step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, Field
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pcc_bench.core.documents import checked, read_json, write_text
from pcc_bench.model.training.corpus import Position
from pcc_bench.model.training.evaluation import append, keep_until
from pcc_bench.model.training.samples import Samples

if TYPE_CHECKING:
    from pcc_bench.model.training.learner import Learner

STATES = "states"  # resumable states, inside the output folder
DONE = "position.json"  # written last into a state: one without it was interrupted and is not resumed from


class DataPosition(BaseModel):
    """What stands in a state about the data; see `corpus.Position`."""

    step: int = Field(ge=0)
    position: Position


def last_state(folder: Path) -> Path | None:
    """The newest resumable state that was written to its end."""
    found = [path.parent for path in (folder / STATES).glob(f"checkpoint-*/{DONE}")]
    return max(found, key=lambda path: int(path.name.split("-")[1]), default=None)


def kept_states(folder: Path) -> str:
    """What an interrupted run keeps, for a message."""
    state = last_state(folder)
    return "no state was saved yet" if state is None else f"the state after step {state.name.split('-')[1]} is kept"


def read_position(state: Path) -> tuple[int, Position]:
    """The step after which a state was written, and where the data stood."""
    saved = checked(DataPosition, read_json(state / DONE), str(state / DONE))
    return saved.step, saved.position


class SeedEachStep(TrainerCallback):
    """Makes dropout a function of seed, step and process.

    The Trainer restores the generator before its data loader draws from it, so that a resumed run would otherwise see
    other dropout masks than an uninterrupted one.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Seed torch's generators, the GPU's included."""
        torch.manual_seed((self.seed * 1_000_003 + state.global_step) * args.world_size + args.process_index)


class Journal(TrainerCallback):
    """Writes `log.jsonl` (one line a logged step) and, last into each state, where the data stood.

    A resumed run drops the lines after the state it goes on from, so that the log is that of one uninterrupted run.
    """

    def __init__(self, folder: Path, samples: Samples, model: Learner, step: int) -> None:
        self.path = folder / "log.jsonl"
        self.samples = samples
        self.model = model
        lines = keep_until(self.path, step)
        self.model.tokens_seen = lines[-1].get("tokens_seen", 0) if lines else 0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append what the Trainer logs, with the losses by task and the tokens seen by this process."""
        if state.is_world_process_zero and logs is not None and "loss" in logs:
            line = {"step": state.global_step, **logs, **self.model.drain(), "tokens_seen": self.model.tokens_seen}
            line.pop("epoch", None)
            append(self.path, line)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the state as whole."""
        if state.is_world_process_zero:
            position = self.samples.positions[state.global_step]
            done = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / DONE
            write_text(done, json.dumps({"step": state.global_step, "position": vars(position)}))
