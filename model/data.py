"""Training samples: a deterministic stream that can go on from any step.

Sample `i` belongs to optimizer step `i // batch_size`; its segment length, its task and its place in the text follow
from the recipe and from `i` alone. Every process walks the same stream (accelerate hands each its share) and only cuts
text into encoder tokens; decoder tokens are made by `Collator`, for the samples a process keeps.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerBase

from pcc_bench.decoder import Decoder
from pcc_bench.errors import UsageError
from pcc_bench.model.encoder import Encoder
from pcc_bench.model.objectives import IGNORED, Task
from pcc_bench.model.recipe import Combination, Data, Phase, Recipe

DOCUMENT_CHARACTERS = 8_000  # plain text files are cut here, at paragraph ends, and the pieces are shuffled
HELD_OUT_DOCUMENTS = 200  # kept back at the start of a stream
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


@dataclass(frozen=True)
class Position:
    """Where the stream stands before a step: the pass over the data, the document in it, the token in that."""

    epoch: int = 0
    document: int = 0
    token: int = 0


class Corpus:
    """Documents in a seeded order, a new one each pass.

    Args:
        data: What to read.
        seed: Of the order.
        documents: The documents; None where they are streamed.
        held_out: Of a stream, the documents that are kept back, instead of all others.
    """

    def __init__(self, data: Data, seed: int, documents: Sequence[Any] | None, held_out: bool = False) -> None:
        self.data = data
        self.seed = seed
        self.documents = documents
        self.held_out = held_out

    def from_position(self, position: Position) -> Iterator[tuple[Position, Any]]:
        """Documents from a position on, pass after pass, each with its own position (token 0)."""
        epoch, first = position.epoch, position.document
        while True:
            for number, document in self._epoch(epoch, first):
                yield Position(epoch, number), document
            epoch, first = epoch + 1, 0

    def _epoch(self, epoch: int, first: int) -> Iterator[tuple[int, Any]]:
        if self.documents is None:
            rows = self._stream(epoch).skip(first)
            yield from enumerate((row[self.data.column] for row in rows), start=first)
            return
        order = list(range(len(self.documents)))
        random.Random(f"{self.seed}-{epoch}").shuffle(order)
        for number in range(first, len(order)):
            yield number, self.documents[order[number]]

    def _stream(self, epoch: int) -> Any:
        """A pass over a hub data set, from which nothing is downloaded ahead."""
        rows = _hub_stream(self.data)
        if self.held_out:
            return rows.take(HELD_OUT_DOCUMENTS)
        return rows.skip(HELD_OUT_DOCUMENTS).shuffle(seed=self.seed + epoch, buffer_size=10_000)


def read_corpora(data: Data, seed: int) -> tuple[Corpus, Corpus]:
    """The training text and the held-out text.

    Where a recipe names no held-out text, every 50th document of the training text is kept back, or the first 200 of a
    stream.

    Raises:
        UsageError: Nothing to read, or not readable; names the file.
    """
    if data.streaming:
        return Corpus(data, seed, None), Corpus(data, seed, None, held_out=True)
    documents = read_documents(data, data.path, data.split)
    if data.held_out:
        local = Path(data.path).exists()  # then it is a file, of a hub data set a split
        held_out = read_documents(data, data.held_out if local else data.path, data.held_out)
        return Corpus(data, seed, documents), Corpus(data, seed, held_out)
    kept_back = [document for i, document in enumerate(documents) if i % 50 == 0]
    trained = [document for i, document in enumerate(documents) if i % 50]
    if not trained:
        raise UsageError(f"{data.path} has only {len(documents)} documents: too little text to hold any back; add some")
    return Corpus(data, seed, trained), Corpus(data, seed, kept_back)


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
        self, recipe: Recipe, corpus: Corpus, encoder: Encoder, step: int = 0, position: Position = Position()
    ) -> None:
        self.recipe = recipe
        self.corpus = corpus
        self.encoder = encoder
        self.step = step
        self.position = position
        self.positions: dict[int, Position] = {step: position}  # before each step that has been reached

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


def read_documents(data: Data, name: str, split: str = "train") -> list[Any]:
    """All documents of a file or folder, or of a hub data set's split: texts, or answerable rows for fine-tuning.

    Raises:
        UsageError: Missing, empty or malformed; names file and line.
    """
    path = Path(name)
    if not path.exists():
        rows = _hub_stream(data.model_copy(update={"path": name, "split": split}))
        documents = list(rows) if data.kind == "qa" else [row[data.column] for row in rows]
        return [document for document in documents if data.kind == "text" or is_answerable(document)]
    files = sorted(p for p in path.rglob("*") if p.suffix in (".txt", ".jsonl")) if path.is_dir() else [path]
    documents = [document for file in files for document in _read_file(file, data)]
    if not documents:
        raise UsageError(f"{path} has no text to train on: give .txt or .jsonl files that are not empty")
    return documents


def first_answer(row: Mapping[str, Any]) -> str:
    """The reference a fine-tuned model is taught: the first."""
    return _answers(row)[0]


def is_answerable(row: Mapping[str, Any]) -> bool:
    """Has the row an answer? SQuAD 2.0 has rows without; the paper's 86,821 training rows are the others."""
    return bool(_answers(row))


def _answers(row: Mapping[str, Any]) -> list[str]:
    """All references of a row: hub rows have a string, a list, or `{"text": [...]}`."""
    answers = row.get("answers", row.get("answer", []))
    if isinstance(answers, Mapping):
        answers = answers["text"]
    return [str(answer) for answer in (answers if isinstance(answers, list) else [answers])]


def split_text(text: str, size: int = DOCUMENT_CHARACTERS) -> list[str]:
    """Cut a long text into documents of about `size` characters, at the ends of paragraphs."""
    documents, begin = [], 0
    while begin < len(text):
        end = text.find("\n\n", begin + size)
        end = len(text) if end < 0 else end + 2
        documents.append(text[begin:end])
        begin = end
    return [document for document in documents if document.strip()]


def _window(phase: Phase) -> int:
    return phase.segment_length * phase.segments


def _read_file(path: Path, data: Data) -> list[Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start})") from None
    if path.suffix == ".txt":
        if data.kind == "qa":
            raise UsageError(f"{path} is plain text, but fine-tuning needs .jsonl rows with context, question, answers")
        return split_text(text)
    lines = ((number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip())
    documents = [_document(line, path, number, data) for number, line in lines]
    return [document for document in documents if data.kind == "text" or is_answerable(document)]


def _document(line: str, path: Path, number: int, data: Data) -> Any:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path} line {number} is not valid JSON ({error.msg})") from None
    wanted = ("context", "question") if data.kind == "qa" else (data.column,)
    for column in wanted:
        if not isinstance(row, dict) or column not in row:
            raise UsageError(f"{path} line {number} has no column '{column}'")
    return row if data.kind == "qa" else row[data.column]


def _hub_stream(data: Data) -> Any:
    import datasets

    try:
        return datasets.load_dataset(
            data.path, data.name, split=data.split, streaming=data.streaming, revision=data.revision
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        first = str(error).strip().splitlines()[0][:200]
        raise UsageError(
            f"training data '{data.path}' is no file or folder here and could not be loaded from the hub ({first})"
        ) from None
