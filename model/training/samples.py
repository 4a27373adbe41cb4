"""Training samples: a deterministic stream that can go on from any step.

Sample `i` belongs to optimizer step `i // batch_size`; its segment length, its task and its place in the text follow
from the recipe and from `i` alone. Every process walks the same stream (accelerate hands each its share) and only cuts
text into encoder tokens; decoder tokens are made by `Collator`, for the samples a process keeps.
"""

import random
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch.utils.data import IterableDataset

from pcc_bench.core.decoder import Decoder, plain_tokens
from pcc_bench.core.errors import UsageError
from pcc_bench.model.encoder import Encoder
from pcc_bench.model.training.corpus import Corpus, Position
from pcc_bench.model.training.objectives import IGNORED, Task
from pcc_bench.model.training.recipe import Recipe

CHARACTERS_PER_TOKEN = 8  # more text than this many characters a token is never needed for a continuation


@dataclass(frozen=True)
class Sample:
    index: int  # its place in the stream
    phase: int  # of the recipe
    rate: int  # of its step
    tasks: tuple[Task, ...]  # what the decoder is asked to do with the memory
    context: list[int]  # encoder ids
    text: str  # of the context (for reconstruction)
    continuation: str  # the text after it (completion), or the answer (fine-tuning)
    prompt: str = ""  # stands before the answer and is not scored (fine-tuning)


class Samples(IterableDataset[Sample]):
    """The stream of a recipe's samples from an optimizer step on."""

    def __init__(
        self,
        recipe: Recipe,
        corpora: Sequence[Corpus],  # of each phase; those that go on with the data of the one before share the object
        encoder: Encoder,  # cuts contexts into its tokens
        step: int = 0,
        position: Position | None = None,  # where the corpus of that step's phase stands
    ) -> None:
        self.recipe, self.corpora, self.encoder, self.step = recipe, corpora, encoder, step
        self.position = position or Position()
        self.positions: dict[int, Position] = {step: self.position}  # before each step that has been reached

    def __iter__(self) -> Iterator[Sample]:
        index, position = self.step * self.recipe.optimisation.batch_size, self.position
        while True:  # one round for each corpus, up to the first sample of a phase that has another one
            corpus = self.corpora[self._phase(index)]
            stretch = self._pretraining if corpus.data.is_text else self._answering
            index = yield from stretch(corpus, index, position)
            position = Position()

    def _pretraining(self, corpus: Corpus, index: int, position: Position) -> Generator[Sample, None, int]:
        skip, used = position.token, position.epoch
        for where, text in corpus.from_position(position):
            if where.epoch > used + 1:
                raise UsageError(f"{corpus.data.path} has no text long enough for {self._window(index)} encoder tokens")
            encoded = plain_tokens(self.encoder.tokenizer, [text], return_offsets_mapping=True)
            (ids,), (spans,) = encoded["input_ids"], encoded["offset_mapping"]
            start, skip = skip, 0
            while self.corpora[phase := self._phase(index)] is corpus:
                length = self._window(index)
                if start + length > len(ids):
                    break
                begin, end = spans[start][0], spans[start + length - 1][1]
                rest = text[end : end + self.recipe.objective.completion_tokens * CHARACTERS_PER_TOKEN]
                self._note(index, Position(where.epoch, where.document, start))
                if not rest.strip():
                    break
                step = index // self.recipe.optimisation.batch_size
                rate, tasks = self.recipe.rate_at(step), draw_tasks(self.recipe, step)
                yield Sample(index, phase, rate, tasks, ids[start : start + length], text[begin:end], rest)
                index, start, used = index + 1, start + length, where.epoch
            else:
                break
        return index

    def _answering(self, corpus: Corpus, index: int, position: Position) -> Generator[Sample, None, int]:
        """Rows step by step, those of a step by length, so that little of its micro-batches is padding."""
        size = self.recipe.optimisation.batch_size
        rows = corpus.from_position(position)
        while self.corpora[phase := self._phase(index)] is corpus:
            step = list(islice(rows, size))
            self._note(index, step[0][0])
            contexts = self.encoder.tokenize([row.context for _, row in step])
            pairs = sorted(zip(contexts, (row for _, row in step), strict=True), key=lambda pair: len(pair[0]))
            rate, tasks = self.recipe.rate_at(index // size), (Task.ANSWERING,)
            for i, (ids, row) in enumerate(pairs, index):
                yield Sample(i, phase, rate, tasks, ids, row.context, row.answer, row.prompt)
            index += size
        return index

    def _phase(self, index: int) -> int:
        return self.recipe.phase_at(index // self.recipe.optimisation.batch_size)

    def _window(self, index: int) -> int:
        phase = self.recipe.phases[self._phase(index)]
        return phase.segment_length * phase.segments

    def _note(self, index: int, position: Position) -> None:
        step, first = divmod(index, self.recipe.optimisation.batch_size)
        if not first:
            self.positions[step] = position
            self.positions.pop(step - 10_000, None)


def draw_tasks(recipe: Recipe, step: int) -> tuple[Task, ...]:
    share = recipe.completion_at(recipe.phase_at(step))
    both = ((Task.RECONSTRUCTION, 1 - share), (Task.COMPLETION, share))
    if recipe.objective.combination == "summed":
        return tuple(task for task, weight in both if weight)
    # One a step (the official code: a micro-batch), by seed and step alone: resumed and distributed runs draw the same.
    drawn = random.Random(f"{recipe.seed}-task-{step}").random()
    return (Task.COMPLETION if drawn < share else Task.RECONSTRUCTION,)


@dataclass(frozen=True)
class Collator:
    """Turns samples into the arguments of `Learner.forward`."""

    decoder: Decoder  # its tokenizer makes the targets
    recipe: Recipe  # how long a continuation is, whether a target ends with the end of sequence

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """A batch; its `labels` are all scored ids in one tensor, from which the Trainer counts a step's tokens."""
        targets = {task: self.targets(task, samples) for task in samples[0].tasks}
        scored = [token for rows in targets.values() for row in rows["labels"] for token in row]
        texts = self._ids([sample.text for sample in samples]) if self.recipe.objective.distillation else None
        contexts, indices = [sample.context for sample in samples], [sample.index for sample in samples]
        batch: dict[str, Any] = {"contexts": contexts, "targets": {task.value: targets[task] for task in targets}}
        batch |= {"phase": samples[0].phase, "rate": samples[0].rate, "texts": texts, "indices": indices}
        return {**batch, "labels": torch.tensor(scored)}

    def targets(self, task: Task, samples: Sequence[Sample]) -> dict[str, list[list[int]]]:
        end = [self.decoder.tokenizer.eos_token_id] if self.recipe.objective.append_eos else []
        if task is Task.ANSWERING:
            prompts = self._ids([sample.prompt for sample in samples])
            answers = [ids + end for ids in self._ids([sample.continuation for sample in samples])]
            pairs = list(zip(prompts, answers, strict=True))
            labels = [[IGNORED] * len(prompt) + answer for prompt, answer in pairs]
            return {"ids": [prompt + answer for prompt, answer in pairs], "labels": labels}
        limit = self.recipe.objective.completion_tokens if task is Task.COMPLETION else None
        texts = [sample.continuation if task is Task.COMPLETION else sample.text for sample in samples]
        ids = [row[:limit] + end for row in self._ids(texts)]
        return {"ids": ids, "labels": ids}

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return list(plain_tokens(self.decoder.tokenizer, texts)["input_ids"])
