"""Train a decoder of the lab from scratch on its lessons."""

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments
from transformers.models.auto.modeling_auto import AutoModelForCausalLM
from transformers.trainer import TRAINER_STATE_NAME

from pcc_bench.core import tiny
from pcc_bench.core.documents import read_json, write_text
from pcc_bench.lab import ClassifierRecipe, DecoderRecipe
from pcc_bench.lab.heads import draw_induction_heads
from pcc_bench.lab.lessons import ANSWER, RANDOM, SAY_AGAIN, Lesson, corpus, draw_lesson
from pcc_bench.model.pcc import SPECIAL_TOKENS
from pcc_bench.model.training.journal import append, keep_until
from pcc_bench.model.training.optimizer import MuonAndAdamW
from pcc_bench.tasks.lab.world import seeded, shuffle

ROUND = 8  # steps whose lessons are drawn together and sorted by length
PAD_TO = 16  # lengths are multiples of this: few shapes, few kernels to prepare
TOKENIZER_LESSONS = 4_000
WARMUP_STEPS = 40


@dataclass(eq=False)
class Lessons(IterableDataset[dict[str, torch.Tensor]]):
    """Whole batches of lessons, the same for a step however the run came to it."""

    recipe: DecoderRecipe
    tokenizer: PreTrainedTokenizerBase
    step: int = 0

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        first, skip = divmod(self.step, ROUND)
        for number in range(first, -(-self.recipe.steps // ROUND)):
            yield from self.round(number)[skip:]
            skip = 0

    def round(self, number: int) -> list[dict[str, torch.Tensor]]:
        """The batches of `ROUND` steps: [lessons, tokens] each, of lessons of similar length."""
        ease = max(0.0, 1 - number * ROUND / (self.recipe.growing * self.recipe.steps))
        random = seeded(self.recipe.seed, "round", number)
        rows: list[tuple[list[int], list[float]]] = []
        missing, index = ROUND * self.recipe.tokens, number * 10_000  # tokens
        while missing > 0:
            lessons = [draw_lesson(self.recipe.seed, index + i, ease) for i in range(32)]
            rows += self._encode(lessons, index)
            missing -= sum(len(ids) for ids, _ in rows[-32:])
            index += 32
        rows.sort(key=lambda row: len(row[0]))
        total, read = sum(len(ids) for ids, _ in rows), 0
        batches: list[list[tuple[list[int], list[float]]]] = [[] for _ in range(ROUND)]
        for row in rows:
            batches[min(ROUND - 1, read * ROUND // total)].append(row)
            read += len(row[0])
        padded = []
        for batch in shuffle(random, [batch for batch in batches if batch]):
            longest = -(-max(len(ids) for ids, _ in batch) // PAD_TO) * PAD_TO + 1
            ids = torch.full((len(batch), longest), self.tokenizer.pad_token_id)
            weights = torch.zeros(ids.shape)
            for place, row in enumerate(batch):
                ids[place, : len(row[0])], weights[place, : len(row[1])] = map(torch.tensor, row)
            padded.append({"input_ids": ids, "weights": weights})
        return padded

    def _encode(self, lessons: Sequence[Lesson], index: int) -> Iterator[tuple[list[int], list[float]]]:
        texts = ["".join(piece.text for piece in run) for lesson in lessons for run in lesson]
        encoded = self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        tokens = iter(zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True))
        for number, lesson in enumerate(lessons):
            ids, weights = [self.tokenizer.bos_token_id], [0.0]
            for run in lesson:
                text, run_ids, spans = next(tokens)
                if text.startswith(RANDOM):
                    random = seeded(self.recipe.seed, "random", index + number)
                    first = len(tiny.SPECIAL) + len(SPECIAL_TOKENS)
                    count, words = int(text.removeprefix(RANDOM)), len(self.tokenizer) - first
                    run_ids = [first + int(random.random() * words) for _ in range(count)]
                    again = len(ids) > 3  # the first time it can't be known
                    weights += [run[0].weight if again else 0.0] * count
                else:  # the weight of a token is that of the piece in which it ends
                    ends = list(accumulate(len(piece.text) for piece in run))
                    weights += [run[min(bisect_left(ends, stop), len(run) - 1)].weight for _, stop in spans]
                ids += run_ids
            yield ids, weights


class _LessonTrainer(Trainer):
    """Weighted next-token loss; the journal has it with the shares of right answers and of right repetitions."""

    journal: Path
    counts: dict[str, list[float]]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        ids, weights = inputs["input_ids"], inputs["weights"][:, 1:]
        scored = weights > 0
        with self.accelerator.autocast():  # accelerate wraps `forward` alone, which would make logits of every token
            hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
            logits = model.lm_head(hidden[scored]).float()
        labels, weights = ids[:, 1:][scored], weights[scored]
        right = logits.argmax(-1) == labels
        for name, weight in (("answers", ANSWER), ("repetition", SAY_AGAIN)):
            kind = weights == weight
            self.counts[name][0] += float(right[kind].sum())
            self.counts[name][1] += float(kind.sum())
        nll = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        return (nll * weights).sum() / weights.sum()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs, start_time)
        if "loss" in logs:
            shares = {name: round(right / max(1.0, all_), 4) for name, (right, all_) in self.counts.items()}
            self.counts.clear()
            append(self.journal, {"step": self.state.global_step, "loss": round(float(logs["loss"]), 4), **shares})


def train_decoder(recipe: DecoderRecipe, folder: Path) -> None:
    """Make a decoder, or go on where an earlier call was interrupted; model and tokenizer are saved in `folder`."""
    states = folder / "states"
    states.mkdir(parents=True, exist_ok=True)
    # The Trainer's own record comes last: a state with it was written to its end.
    ended = [path.parent for path in states.glob(f"checkpoint-*/{TRAINER_STATE_NAME}")]
    step, last = max(((int(state.name.rpartition("-")[2]), state) for state in ended), default=(0, None))
    tokenizer, model = start(recipe, folder)
    trainer = _LessonTrainer(
        model=model,
        args=training_arguments(
            states,
            recipe,
            per_device_train_batch_size=1,  # an item is a whole batch
            warmup_steps=WARMUP_STEPS,
            lr_scheduler_type="warmup_stable_decay",
            lr_scheduler_kwargs={"num_decay_steps": round(recipe.decay * recipe.steps), "decay_type": "linear"},
            max_grad_norm=1.0,
            bf16=True,
            save_steps=100,
            save_total_limit=1,
            ignore_data_skip=True,
            accelerator_config={"dispatch_batches": False},
        ),
        train_dataset=Lessons(recipe, tokenizer, step),
        optimizers=(MuonAndAdamW(model.modules(), recipe.learning_rate, (0.9, 0.98)), None),
        data_collator=lambda items: items[0],
    )
    trainer.counts = defaultdict(lambda: [0.0, 0.0])
    trainer.journal = folder / "log.jsonl"
    keep_until(trainer.journal, step)
    trainer.journal.touch()
    if last and step >= recipe.steps:  # the Trainer would take another step
        model.load_state_dict(load_file(last / "model.safetensors"), strict=False)  # a tied head is not in it
    else:
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    model.save_pretrained(folder)


def training_arguments(states: Path, recipe: DecoderRecipe | ClassifierRecipe, **options: Any) -> TrainingArguments:
    options |= {"output_dir": str(states), "max_steps": recipe.steps, "learning_rate": recipe.learning_rate}
    options |= {"seed": recipe.seed, "logging_steps": 25, "use_cpu": not torch.cuda.is_available()}
    return TrainingArguments(**options, remove_unused_columns=False, report_to=[])


def save_in_half(model: Any, tokenizer: Any, folder: Path) -> None:
    """Model and tokenizer, in half precision on disk and to be computed with in full."""
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "config.json"
    write_text(path, json.dumps(read_json(path) | {"dtype": "float32"}, indent=2) + "\n")


def start(recipe: DecoderRecipe, folder: Path) -> tuple[PreTrainedTokenizerBase, Any]:
    """Tokenizer and untrained decoder, with the circuit that copies."""
    texts = corpus(recipe.seed, TOKENIZER_LESSONS)
    tokenizer = tiny.make_tokenizer(texts, recipe.vocabulary, prefix_space=True, special=SPECIAL_TOKENS)
    sizes: dict[str, Any] = {"width": recipe.width, "layers": recipe.layers, "heads": recipe.heads, "window": 4096}
    sizes |= {"num_key_value_heads": recipe.heads, "tie_word_embeddings": True, "rope_theta": 100_000.0}
    tiny.make_model(recipe.family, tokenizer, folder, seed=recipe.seed, std=0.02, **sizes)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")  # the fastest for short rows
    draw_induction_heads(model, recipe.seed)
    return tokenizer, model
