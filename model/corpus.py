"""Training text: documents of files, folders and hub data sets, in a seeded order, from any position on."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcc_bench.errors import UsageError
from pcc_bench.model.recipe import Data

DOCUMENT_CHARACTERS = 8_000  # plain text files are cut here, at paragraph ends, and the pieces are shuffled
HELD_OUT_DOCUMENTS = 200  # kept back at the start of a stream


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
