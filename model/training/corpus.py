"""Training text: documents of files, folders and hub data sets, in a seeded order, from any position on.

Rows to fine-tune on become a context to compress, a prompt after it and the answer to learn. The official code has the
format of SQuAD only. For GSM8K and Harry Potter Dialogue the paper says that demonstrations are compressed and how many
tokens they have; the wording here is ours.
"""

import logging
import random
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from pcc_bench.core.documents import read_json, read_json_lines, read_text
from pcc_bench.core.errors import UsageError
from pcc_bench.core.questions import question_prompt
from pcc_bench.model.training.recipe import Data, Recipe

logger = logging.getLogger(__name__)

DOCUMENT_CHARACTERS = 8_000  # plain text files are cut here, at paragraph ends, and the pieces are shuffled
HELD_OUT_DOCUMENTS = 200  # kept back at the start of a stream
Row = Mapping[str, Any]
COLUMNS = {  # what each row must have
    "qa": ("context", "question"),
    "gsm8k": ("question", "answer"),
    "dialogue": ("scene", "dialogue", "positive_response"),
}
ANSWERS = {"qa": ("answers", "answer"), "gsm8k": ("answer",), "dialogue": ("positive_response",)}  # the first there is


@dataclass(frozen=True)
class Position:
    """Where the stream stands before a step: the pass over the data, the document in it, the token in that."""

    epoch: int = 0
    document: int = 0
    token: int = 0


@dataclass(frozen=True, eq=False)
class Corpus:
    """Documents in a seeded order, a new one each pass."""

    data: Data
    seed: int
    documents: Sequence[Any] | None  # None where they are streamed
    held_out: bool = False  # of a stream, the documents that are kept back, instead of all others

    def from_position(self, position: Position) -> Iterator[tuple[Position, Any]]:
        """Documents from a position on, pass after pass, each with its own position (token 0)."""
        for epoch in count(position.epoch):
            first = position.document if epoch == position.epoch else 0
            for number, document in enumerate(self.epoch(epoch, first), start=first):
                yield Position(epoch, number), document

    def epoch(self, epoch: int, first: int) -> Iterator[Any]:
        if self.documents is None:
            rows = _hub_stream(self.data)
            if self.held_out:
                rows = rows.take(HELD_OUT_DOCUMENTS)
            else:
                rows = rows.skip(HELD_OUT_DOCUMENTS).shuffle(seed=self.seed + epoch, buffer_size=10_000)
            yield from (row[self.data.column] for row in rows.skip(first))
            return
        by_context: dict[Any, list[int]] = defaultdict(list)
        for number, document in enumerate(self.documents):
            by_context[document.context if self.data.together else number].append(number)
        groups = list(by_context.values())
        random.Random(f"{self.seed}-{epoch}").shuffle(groups)
        yield from (self.documents[number] for number in list(chain.from_iterable(groups))[first:])


def corpora_of(recipe: Recipe) -> tuple[list[Corpus], Corpus]:
    """The training data of each phase, and what is held out of the last one's."""
    # Phases that share their data share the corpus object, by which `Samples` knows that it is to be read on.
    read: list[tuple[Corpus, Corpus]] = []
    for phase in range(len(recipe.phases)):
        goes_on = phase > 0 and recipe.data_at(phase) == recipe.data_at(phase - 1)
        read.append(read[-1] if goes_on else read_corpora(recipe.data_at(phase), recipe.seed))
    return [trained for trained, _ in read], read[-1][1]


def read_corpora(data: Data, seed: int) -> tuple[Corpus, Corpus]:
    """The training documents and the held-out ones (see `Data.held_out`): texts, or for fine-tuning exchanges."""
    if data.streaming:
        return Corpus(data, seed, None), Corpus(data, seed, None, held_out=True)
    documents = read_documents(data, data.path, data.split)
    size = len(documents)
    trained: Sequence[int]
    if data.held_out:
        local = Path(data.path).exists()  # then it is a file, of a hub data set a split
        documents += read_documents(data, data.held_out if local else data.path, data.held_out)
        trained, kept_back = range(size), range(size, len(documents))
    else:
        trained = [i for i in range(size) if i % data.held_out_every]
        kept_back = range(0, size, data.held_out_every)
    if not trained:
        raise UsageError(f"{data.path} has only {len(documents)} documents: too little text to hold any back; add some")
    parts = (
        [documents[i] for i in chosen] if data.is_text else exchanges(data, documents, chosen, trained, seed)
        for chosen in (trained, kept_back)
    )
    return Corpus(data, seed, next(parts)), Corpus(data, seed, next(parts))


def read_documents(data: Data, name: str, split: str = "train") -> list[Any]:
    """All documents of a file, a folder or a hub data set's split: texts, or for fine-tuning rows with an answer."""
    path = Path(name)
    if path.exists():
        endings = (".txt", ".jsonl") if data.is_text else (".txt", ".jsonl", ".json")
        files = sorted(p for p in path.rglob("*") if p.suffix in endings) if path.is_dir() else [path]
        documents = [document for file in files for document in _read_file(file, data)]
    else:
        rows = _hub_stream(data.model_copy(update={"path": name, "split": split}))
        documents = [_document(row, data, f"hub data set {name}") for row in rows]
    if not data.is_text:
        rows = documents
        documents = [row for row in rows if answers(row, data.kind)]
        if left_out := len(rows) - len(documents):
            logger.info("%s: %d of %d rows have no answer and are left out", name, left_out, len(rows))
    if data.exclude:
        excluded = {text for file in data.exclude for _, row in read_json_lines(Path(file)) for text in passages(row)}
        rows = documents
        documents = [row for row in rows if not excluded.intersection(passages(row["context"]))]
        counts = len(rows) - len(documents), len(rows)
        logger.info("%s: %d of %d rows have a passage of %s and are left out", name, *counts, data.exclude)
    if not documents:
        raise UsageError(f"{path} has no text to train on: give .txt or .jsonl files that are not empty")
    return documents


def split_text(text: str, size: int = DOCUMENT_CHARACTERS) -> list[str]:
    """Cut a long text into documents of about `size` characters, at the ends of paragraphs."""
    documents = re.findall(rf".{{{size}}}.*?\n\n|.+", text, re.DOTALL)
    return [document for document in documents if document.strip()]


def _read_file(path: Path, data: Data) -> list[Any]:
    if path.suffix == ".json":
        sessions = read_json(path)
        rows = list(sessions.values()) if isinstance(sessions, dict) else sessions
        if not isinstance(rows, list):
            raise UsageError(f"{path} is neither a list of rows nor an object of them")
        return [_document(row, data, f"{path} entry {number}") for number, row in enumerate(rows, 1)]
    if path.suffix == ".txt":
        if not data.is_text:
            columns = ", ".join(COLUMNS[data.kind])
            raise UsageError(f"{path} is plain text, but fine-tuning needs .jsonl rows with {columns} and an answer")
        return split_text(read_text(path))
    return [_document(row, data, f"{path}, line {number}") for number, row in read_json_lines(path)]


def _document(row: Any, data: Data, where: str) -> Any:
    if isinstance(row, dict) and not data.is_text:
        # Harry Potter Dialogue spells `Positive-Response`
        row = {re.sub("[- ]", "_", key.strip().lower()): value for key, value in row.items()}
    for column in (data.column,) if data.is_text else COLUMNS[data.kind]:
        if not isinstance(row, dict) or column not in row:
            raise UsageError(f"{where} has no column '{column}'")
        if data.is_text and not isinstance(row[column], str):
            kind = type(row[column]).__name__
            raise UsageError(f"{where}: column '{column}' holds {kind}, not text: correct the row")
    return row[data.column] if data.is_text else row


def _hub_stream(data: Data) -> Any:
    import datasets

    try:
        options = {"split": data.split, "streaming": data.streaming, "revision": data.revision}
        return datasets.load_dataset(data.path, data.name, **options)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        first = str(error).strip().splitlines()[0][:200]
        raise UsageError(
            f"training data '{data.path}' is no file or folder here and could not be loaded from the hub ({first})"
        ) from None


@dataclass(frozen=True)
class Exchange:
    context: str  # is compressed
    prompt: str  # stands after the memory as text and is not scored
    answer: str  # is scored


def answers(row: Row, kind: str) -> list[str]:
    """All references of a row, none where it has no answer: the paper's 86,821 SQuAD 2.0 rows are those with one."""
    value = next((row[column] for column in ANSWERS[kind] if column in row), None)
    return [text for text in texts(value) if text.strip()]


def exchanges(
    data: Data, rows: Sequence[Row], chosen: Sequence[int], trained: Sequence[int], seed: int
) -> list[Exchange]:
    """What the rows at the chosen places teach; demonstrations are of training rows (ascending), never held out."""
    # Those of `gsm8k` are drawn, the same for a row in every pass and on every process; those of `dialogue` are the
    # sessions just before, in the order of the story, for the first ones also those just after.
    if data.kind == "qa":
        return [exchange(rows[place], (), data) for place in chosen]
    most = data.demonstrations
    if len(trained) <= most:
        raise UsageError(
            f"{data.path} has {len(trained)} training rows: a row with {most} demonstrations needs more of them; add "
            "rows or lower data.demonstrations"
        )
    learned = []
    for place in chosen:
        if data.kind == "gsm8k":
            others = random.Random(f"{seed}-demonstrations-{place}").sample(trained, most + 1)
        else:
            start = max(0, bisect_left(trained, place) - most)
            others = list(trained[start : start + most + 1])
        demonstrations = [rows[other] for other in others if other != place][:most]
        learned.append(exchange(rows[place], demonstrations, data))
    return learned


def exchange(row: Row, demonstrations: Sequence[Row], data: Data) -> Exchange:
    """What a row teaches: SQuAD's first reference, GSM8K's solution with its `#### 72`, a role's response."""
    if data.kind == "qa":
        words = question_prompt(data.prompt)
        return Exchange(row["context"], words.asking(row["question"]), words.delimiter + answers(row, "qa")[0])
    if data.kind == "gsm8k":
        solved = [f"Question: {other['question']}\nAnswer: {other['answer']}" for other in demonstrations]
        return Exchange("\n\n".join(solved), f"Question: {row['question']}\nAnswer: ", row["answer"])

    def session(row: Row) -> str:
        turns = "\n".join(texts(row["dialogue"]))
        return f"Scene: {' '.join(texts(row['scene']))}\n\n{turns}\n{data.role}: "

    def response(row: Row) -> str:
        return answers(row, "dialogue")[0].removeprefix(f"{data.role}:").strip()

    earlier = [session(other) + response(other) for other in demonstrations]
    return Exchange("\n\n".join(earlier), session(row), response(row))


def passages(value: Any) -> Iterator[str]:
    """All texts in a row of whatever shape, white space folded; sentences of a list also joined to a paragraph."""
    if isinstance(value, str):
        yield " ".join(value.split())
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from passages(inner)
    elif isinstance(value, Sequence):
        if all(isinstance(inner, str) for inner in value):
            yield " ".join("".join(value).split())
        for inner in value:
            yield from passages(inner)


def texts(value: Any) -> list[str]:
    """Texts of a column: hub rows have a string, a list, or `{"text": [...]}`."""
    if isinstance(value, Mapping):
        value = value.get("text")
    if value is None:
        return []
    return [str(text) for text in (value if isinstance(value, list | tuple) else [value])]
