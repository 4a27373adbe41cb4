"""A token classifier of LLMLingua-2's kind for the lab.

The original learns from GPT-4's summaries which words to keep. Here the generator of the world is the teacher: it knows
which words of a passage are a name, a value, or say what the value is of.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForTokenClassification, Trainer, TrainingArguments

from pcc_bench.core.tiny import make_bert_tokenizer
from pcc_bench.lab.decoders import save_in_half
from pcc_bench.lab.parts import ClassifierRecipe
from pcc_bench.model.training.journal import append
from pcc_bench.tasks.lab.passages import Passage, draw_passage
from pcc_bench.tasks.lab.world import integer, seeded

NAME, VALUE, OTHER, REST = 0.9, 0.95, 0.5, 0.02  # how probable the teacher finds it that a word stays
EMPTY = {"a", "an", "the", "of", "is", "in", "on", "at", "for", "as", "by", "to", "that", "has", "was", "who", "are"}
FORCED = 100  # rows for forced words, as in the published checkpoints
CORPUS = 1_000  # passages that the tokenizer is made from
IGNORED = -1.0


class Passages(Dataset[tuple[str, list[tuple[int, int, float]]]]):
    """Passages and what the teacher says of their words, each by its number."""

    def __init__(self, seed: int, count: int) -> None:
        self.seed, self.count = seed, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[str, list[tuple[int, int, float]]]:
        random = seeded(self.seed, "classifier", index)
        passage = draw_passage(random, integer(random, 4, 28), fillers=integer(random, 0, 5))
        return passage.text, taught(passage)


def taught(passage: Passage) -> list[tuple[int, int, float]]:
    """Start, end and the teacher's probability of each word of a passage that carries something."""
    words = []
    for fact, start, end, value_start in passage.stated:
        spans = [(value_start, value_start + len(fact.value), VALUE)]
        if (name := passage.text.find(fact.subject, start, end)) >= 0:
            spans.append((name, name + len(fact.subject), NAME))
        for word in re.finditer(r"\w+", passage.text[start:end]):
            first, last = start + word.start(), start + word.end()
            inside = [weight for low, high, weight in spans if low <= first < high]
            if inside or word.group().lower() not in EMPTY:
                words.append((first, last, inside[0] if inside else OTHER))
    return words


def train_classifier(folder: Path, recipe: ClassifierRecipe, work: Path) -> None:
    """Make the classifier; a minute's work, which begins anew where it was interrupted."""
    data = Passages(recipe.seed, recipe.steps * recipe.batch)
    tokenizer: Any = make_bert_tokenizer([data[i][0] for i in range(min(CORPUS, len(data)))], recipe.vocabulary)
    torch.manual_seed(recipe.seed)
    sizes: dict[str, Any] = {"vocab_size": len(tokenizer) + FORCED, "hidden_size": recipe.width, "num_labels": 2}
    sizes |= {"num_hidden_layers": recipe.layers, "num_attention_heads": recipe.heads}
    sizes |= {"intermediate_size": 4 * recipe.width, "max_position_embeddings": 512}
    model = BertForTokenClassification(BertConfig(**sizes, pad_token_id=tokenizer.pad_token_id))
    trainer = _KeepTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(work / "states"),
            max_steps=recipe.steps,
            per_device_train_batch_size=recipe.batch,
            learning_rate=recipe.learning_rate,
            warmup_steps=20,
            lr_scheduler_type="linear",
            logging_steps=25,
            save_strategy="no",
            use_cpu=not torch.cuda.is_available(),
            seed=recipe.seed,
            remove_unused_columns=False,
            report_to=[],
        ),
        train_dataset=data,
        data_collator=lambda rows: _batch(tokenizer, rows),
    )
    trainer.train()
    save_in_half(model, tokenizer, folder)
    log = folder / "log.jsonl"
    log.unlink(missing_ok=True)
    for line in trainer.state.log_history:
        if "loss" in line:
            append(log, line)


class _KeepTrainer(Trainer):
    """Cross-entropy with the teacher's probabilities."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        taught = inputs.pop("taught")
        staying = model(**inputs).logits.log_softmax(-1)
        counted = taught != IGNORED
        nll = -(taught * staying[..., 1] + (1 - taught) * staying[..., 0])
        return nll[counted].mean()


def _batch(tokenizer: Any, rows: Sequence[tuple[str, list[tuple[int, int, float]]]]) -> dict[str, torch.Tensor]:
    encoded = tokenizer(
        [text for text, _ in rows],
        padding=True,
        return_offsets_mapping=True,
        return_tensors="pt",
    )
    spans = encoded.pop("offset_mapping")
    taught = torch.full(encoded["input_ids"].shape, IGNORED)
    for row, (_, words) in enumerate(rows):
        weights = {place: weight for first, last, weight in words for place in range(first, last)}
        for column, (first, last) in enumerate(spans[row].tolist()):
            if last > first:
                taught[row, column] = weights.get(first, REST)
    return {**encoded, "taught": taught}
