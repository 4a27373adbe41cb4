"""Training samples: a deterministic stream that can go on from any step.

Sample `i` belongs to optimizer step `i // batch_size`; its segment length, its task and its place in the text follow
from the recipe and from `i` alone. Every process walks the same stream (accelerate hands each its share) and only cuts
text into encoder tokens; decoder tokens are made by `Collator`, for the samples a process keeps.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerBase

from pcc_bench.decoder import Decoder
from pcc_bench.model.corpus import Corpus, Position, first_answer
from pcc_bench.model.encoder import Encoder
from pcc_bench.model.objectives import IGNORED, Task
from pcc_bench.model.recipe import Combination, Phase, Recipe

CHARACTERS_PER_TOKEN = 8  # more text than this many characters a token is never needed for a continuation


@dataclass(frozen=True)
class Sample:
    """One context and what follows it.

    Attributes:
        index: Its place in the stream.
        phase: Phase of the recipe it belongs to.
        tasks: What the decoder is asked to do with the memory.
        context: Encoder ids.
        text: The text of the context (for reconstruction).
        continuation: The text after it (completion), or the answer (fine-tuning).
        question: The prompt before the answer (fine-tuning).
    """

    index: int
    phase: int
    tasks: tuple[Task, ...]
    context: list[int]
    text: str
    continuation: str
    question: str = ""


class Samples(IterableDataset[Sample]):
    """The stream of a recipe's samples from a step on.

    Args:
        recipe: The recipe.
        corpus: Its data.
        encoder: Cuts contexts into its tokens.
        step: Optimizer step to start at.
        position: Where the corpus stands at that step.
    """

    def __init__(
        self, recipe: Recipe, corpus: Corpus, encoder: Encoder, step: int = 0, position: Position | None = None
    ) -> None:
        self.recipe = recipe
        self.corpus = corpus
        self.encoder = encoder
        self.step = step
        self.position = position or Position()
        self.positions: dict[int, Position] = {step: self.position}  # before each step that has been reached

    def __iter__(self) -> Iterator[Sample]:
        if self.recipe.data.kind == "qa":
            return self._answering()
        return self._pretraining()

    def _pretraining(self) -> Iterator[Sample]:
        size = self.recipe.optimisation.batch_size
        index = self.step * size
        skip = self.position.token
        for where, text in self.corpus.from_position(self.position):
            ids, spans = self._tokens(text)
            start, skip = skip, 0
            while (phase := self.recipe.phase_at(index // size)) is not None:
                length = _window(self.recipe.phases[phase])
                if start + length > len(ids):
                    break
                self._note(index, Position(where.epoch, where.document, start))
                begin, end = spans[start][0], spans[start + length - 1][1]
                rest = text[end : end + self.recipe.objective.completion_tokens * CHARACTERS_PER_TOKEN]
                if not rest.strip():
                    break
                tasks = draw_tasks(self.recipe, index // size)
                yield Sample(index, phase, tasks, ids[start : start + length], text[begin:end], rest)
                index, start = index + 1, start + length

    def _answering(self) -> Iterator[Sample]:
        size = self.recipe.optimisation.batch_size
        index = self.step * size
        for where, row in self.corpus.from_position(self.position):
            self._note(index, where)
            question = f"Question: {row['question']}\n\nAnswer: "
            (ids,) = self.encoder.tokenize([row["context"]])
            phase = self.recipe.phase_at(index // size)
            yield Sample(index, phase, (Task.ANSWERING,), ids, row["context"], first_answer(row), question)
            index += 1

    def _note(self, index: int, position: Position) -> None:
        step, first = divmod(index, self.recipe.optimisation.batch_size)
        if not first:
            self.positions[step] = position
            self.positions.pop(step - 10_000, None)

    def _tokens(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoded = self.encoder.tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
        )
        return encoded["input_ids"], encoded["offset_mapping"]


def draw_tasks(recipe: Recipe, step: int) -> tuple[Task, ...]:
    """What the samples of a step are trained on.

    `sampled` draws one objective a step, the same for all of its samples (the official code draws one a micro-batch);
    the draw depends on seed and step alone, so that a resumed or a distributed run draws the same.
    """
    objective = recipe.objective
    both = ((Task.RECONSTRUCTION, 1 - objective.completion), (Task.COMPLETION, objective.completion))
    if objective.combination is Combination.SUMMED:
        return tuple(task for task, weight in both if weight)
    drawn = random.Random(f"{recipe.seed}-task-{step}").random()
    return (Task.COMPLETION if drawn < objective.completion else Task.RECONSTRUCTION,)


@dataclass(frozen=True)
class Collator:
    """Turns samples into a batch: encoder ids as lists, targets in decoder tokens.

    Attributes:
        decoder: Its tokenizer makes the targets.
        recipe: Says how long a continuation is and whether a target ends with the end of sequence.
    """

    decoder: Decoder
    recipe: Recipe
    _tokenizer: PreTrainedTokenizerBase = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tokenizer", self.decoder.tokenizer)

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """A batch.

        Returns:
            `contexts` (encoder ids), `targets` by task (ids, and labels with -100 for what is not scored), `phase`,
            `indices`, and `labels`: all scored ids in one tensor, from which the Trainer counts a step's tokens.
        """
        targets = {task: self.targets(task, samples) for task in samples[0].tasks}
        scored = [token for rows in targets.values() for row in rows["labels"] for token in row]
        return {
            "contexts": [sample.context for sample in samples],
            "targets": {task.value: rows for task, rows in targets.items()},
            "phase": samples[0].phase,
            "indices": [sample.index for sample in samples],
            "labels": torch.tensor(scored),
        }

    def targets(self, task: Task, samples: Sequence[Sample]) -> dict[str, list[list[int]]]:
        """Decoder ids of the targets of one task, and their labels."""
        end = [self._tokenizer.eos_token_id] if self.recipe.objective.append_eos else []
        if task is Task.ANSWERING:
            questions = self._ids([sample.question for sample in samples])
            answers = [ids + end for ids in self._ids([sample.continuation for sample in samples])]
            pairs = list(zip(questions, answers, strict=True))
            return {
                "ids": [question + answer for question, answer in pairs],
                "labels": [[IGNORED] * len(question) + answer for question, answer in pairs],
            }
        limit = self.recipe.objective.completion_tokens if task is Task.COMPLETION else None
        texts = [sample.continuation if task is Task.COMPLETION else sample.text for sample in samples]
        ids = [row[:limit] + end for row in self._ids(texts)]
        return {"ids": ids, "labels": ids}

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self._tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)
        return [list(ids) for ids in encoded["input_ids"]]


def _window(phase: Phase) -> int:
    return phase.segment_length * phase.segments
