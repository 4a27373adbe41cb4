"""What a run writes while it trains: its log, measurements of held-out text, and what makes it resumable."""

import json
import logging
import math
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sacrebleu
import torch
from pydantic import BaseModel, Field
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from transformers import TrainerCallback, TrainerState, TrainingArguments

from pcc_bench.core.documents import checked, parse_json, read_json, read_text, write_text
from pcc_bench.model.training.corpus import Corpus, Position
from pcc_bench.model.training.objectives import IGNORED, Task, behind, predictions
from pcc_bench.model.training.recipe import Recipe
from pcc_bench.model.training.samples import Samples

if TYPE_CHECKING:
    from pcc_bench.model.training.learner import Learner

STATES = "states"  # resumable states, inside the output folder
DONE = "position.json"  # written last into a state: one without it was interrupted and is not resumed from
logger = logging.getLogger(__name__)
ROWS = "evaluation-rows.jsonl"
Losses = dict[str, list[float]]  # `nll` (nats) and `tokens` of each held-out row


class DataPosition(BaseModel):
    step: int = Field(ge=0)
    position: Position


def last_state(folder: Path) -> Path | None:
    """The newest resumable state that was written to its end."""
    states = [path.parent for path in (folder / STATES).glob(f"checkpoint-*/{DONE}")]
    return max(states, key=lambda path: int(path.name.split("-")[1]), default=None)


def kept_states(folder: Path) -> str:
    state = last_state(folder)
    return "no state was saved yet" if state is None else f"the state after step {state.name.split('-')[1]} is kept"


def read_position(state: Path) -> tuple[int, Position]:
    saved = checked(DataPosition, read_json(state / DONE), str(state / DONE))
    return saved.step, saved.position


class Journal(TrainerCallback):
    """Writes `log.jsonl` (a resumed run drops what came after its state), and a `DataPosition` last into each state."""

    def __init__(self, folder: Path, samples: Samples, model: "Learner", step: int) -> None:
        self.path, self.samples, self.model = folder / "log.jsonl", samples, model
        lines = keep_until(self.path, step)
        self.model.tokens_seen = lines[-1].get("tokens_seen", 0) if lines else 0

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Make dropout a function of seed, step and process."""
        # The Trainer restores the generator before its data loader draws from it: a resumed run would see other masks.
        seed = self.model.recipe.seed
        torch.manual_seed((seed * 1_000_003 + state.global_step) * args.world_size + args.process_index)

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and logs is not None and "loss" in logs:
            line = {"step": state.global_step, **logs, **self.model.drain(), "tokens_seen": self.model.tokens_seen}
            line.pop("epoch", None)
            append(self.path, line)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            position = self.samples.positions[state.global_step]
            done = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / DONE
            write_text(done, json.dumps({"step": state.global_step, "position": vars(position)}))


class LoggedStep(BaseModel, extra="allow"):
    """A line of a log that a resumed run goes on with; what else stands in it is kept."""

    step: int = Field(ge=0)
    tokens_seen: int = Field(default=0, ge=0)


class Evaluation(TrainerCallback):
    """Measures held-out text (`corpus`) every so many steps, before the first and after the last.

    `evaluation.jsonl` gets one line a measurement, `evaluation-rows.jsonl` the losses behind it row by row,
    `reconstructions.jsonl` the greedy reconstructions behind its BLEU; lines after `step` are dropped.
    """

    def __init__(self, recipe: Recipe, model: "Learner", corpus: Corpus, folder: Path, step: int) -> None:
        self.recipe, self.model = recipe, model
        self.path, self.losses, self.texts = (folder / f for f in ("evaluation.jsonl", ROWS, "reconstructions.jsonl"))
        last = recipe.model_copy(update={"phases": (recipe.final,)})
        self.rates = sorted(set(recipe.final.rates)) or [recipe.final.rate]
        self.data = recipe.data_at(-1)
        self.samples = list(islice(Samples(last, [corpus], model.reader), self.data.held_out_rows))
        self.collator = model.collator()
        for path in (self.path, self.losses, self.texts):
            keep_until(path, step)

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        register_fsdp_forward_method(self.model, "encode")  # does nothing where the model is not sharded
        if state.global_step == 0:
            self._measure(state)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.recipe.checks.evaluate_every == 0 or state.global_step == state.max_steps:
            self._measure(state)

    def _measure(self, state: TrainerState) -> None:
        """The first process measures; with sharded weights, all take part in it and the first one writes."""
        if not state.is_world_process_zero and not isinstance(self.model, FSDPModule):
            return
        training = self.model.training
        self.model.eval()
        line: dict[str, Any] = {"step": state.global_step, "tokens_seen": self.model.tokens_seen}
        losses: list[dict[str, Any]] = []
        texts: list[dict[str, Any]] = []
        with torch.no_grad():
            for rate in self.rates:
                self.model.enter(len(self.recipe.phases) - 1, rate)
                scores, by_row, reconstructions = self._at_rate()
                suffix = f"_{rate}x" if len(self.rates) > 1 else ""
                line |= {f"{key}{suffix}": value for key, value in scores.items()}
                at = {"step": state.global_step, **({"rate": rate} if suffix else {})}
                losses += [{**at, "measure": f"{key}{suffix}", **rows} for key, rows in by_row.items()]
                texts += [{**at, **row} for row in reconstructions]
        self.model.train(training)
        shard_again(self.model)
        if not state.is_world_process_zero:
            return
        for path, rows in ((self.losses, losses), (self.texts, texts), (self.path, [line])):
            for row in rows:
                append(path, row)
        logger.info("held-out: %s", {key: round(value, 4) for key, value in line.items()})

    def _at_rate(self) -> tuple[dict[str, float], dict[str, Losses], list[dict[str, str]]]:
        """Loss (nats per token), perplexity and accuracy at the rate the model has; losses by row; reconstructions."""
        tasks = (Task.RECONSTRUCTION, Task.COMPLETION) if self.data.is_text else (Task.ANSWERING,)
        scores: dict[str, float] = {}
        losses: dict[str, Losses] = {}
        size = self.recipe.optimisation.micro_batch_size
        for task in tasks:
            own: Losses = {"nll": [], "tokens": []}
            correct = 0
            for start in range(0, len(self.samples), size):
                batch = self.samples[start : start + size]
                targets = self.collator.targets(task, batch)
                encoded = self.model.encode([sample.context for sample in batch])
                inputs = behind(self.model.decoder, self.model.plans(encoded, task), targets["ids"], targets["labels"])
                logits, labels = predictions(self.model.decoder, inputs)
                counts = inputs.labels[:, 1:].ne(IGNORED).sum(1).tolist()
                nll = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
                own["nll"] += [float(part.sum()) for part in nll.split(counts)]
                own["tokens"] += counts
                correct += int((logits.argmax(-1) == labels).sum())
            count, losses[f"{task.value}_loss"] = sum(own["tokens"]), own
            mean = sum(own["nll"]) / count
            measured = {"loss": mean, "perplexity": math.exp(min(mean, 50)), "accuracy": correct / count}
            scores |= {f"{task.value}_{name}": value for name, value in measured.items()}
        rows = self.samples[: self.recipe.checks.generated_rows] if self.data.is_text else []
        texts = self.model.reconstruct(rows) if rows else []
        if rows:
            scores["bleu"] = sacrebleu.corpus_bleu(texts, [[sample.text for sample in rows]]).score
        pairs = zip(rows, texts, strict=True)
        return scores, losses, [{"text": sample.text, "reconstruction": text} for sample, text in pairs]


def shard_again(model: torch.nn.Module) -> None:
    """Drop what a forward without a backward left gathered: training would go on with these copies, not its weights."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def keep_until(path: Path, step: int) -> list[dict[str, Any]]:
    """Drop the lines of steps after `step`, which an interrupted run wrote; what is left of them."""
    if not path.is_file():
        return []
    lines = []
    for number, text in enumerate(read_text(path).split("\n")[:-1], 1):  # a kill may have torn the last line
        where = f"{path}, line {number}"
        lines.append(checked(LoggedStep, parse_json(text, where), where).model_dump(exclude_unset=True))
    lines = [line for line in lines if line["step"] <= step and step > 0]
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return lines
