"""Fine-tuning rows: from each kind of data, a context to compress, a prompt after it, and the answer to learn.

The official code releases the format of SQuAD only (context, question, answer). For GSM8K and Harry Potter Dialogue the
paper states that demonstrations are compressed and how many tokens they have; the wording here is ours.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pcc_bench.core.errors import UsageError
from pcc_bench.core.questions import question_prompt, question_text
from pcc_bench.model.training.sections import Data

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Exchange:
    """What one row teaches.

    Attributes:
        context: Is compressed.
        prompt: Stands after the memory as text and is not scored.
        answer: Is scored.
    """

    context: str
    prompt: str
    answer: str


@dataclass(frozen=True)
class RowReader:
    """How the rows of one kind of data are read.

    Attributes:
        columns: What each row must have.
        answer: Columns that may hold the answer, the first that is there; a row in which it is empty is left out.
        read: A row, the rows that are its demonstrations, and the recipe's data, to an exchange.
        demonstrations: Chooses other rows: (rows to choose from in ascending order, row, how many, seed) to rows. None
            where a row brings its own context.
    """

    columns: tuple[str, ...]
    answer: tuple[str, ...]
    read: Callable[[Row, Sequence[Row], Data], Exchange]
    demonstrations: Callable[[Sequence[int], int, int, int], list[int]] | None = None

    def usable(self, row: Row) -> bool:
        """Has the row an answer? SQuAD 2.0 has rows without; the paper's 86,821 training rows are the others."""
        return bool(self.answers(row))

    def answers(self, row: Row) -> list[str]:
        """All references of a row."""
        found = next((row[column] for column in self.answer if column in row), None)
        return [text for text in texts(found) if text.strip()]


def exchanges(
    data: Data, rows: Sequence[Row], chosen: Sequence[int], trained: Sequence[int], seed: int
) -> list[Exchange]:
    """What the rows at the chosen places teach.

    Demonstrations are drawn with the seed from the training rows (places, ascending), never the row itself, so that
    nothing held out is ever seen; a `UsageError` where there are too few.
    """
    reader = READERS[data.kind]
    if reader.demonstrations is None:
        return [reader.read(rows[i], (), data) for i in chosen]
    if len(trained) <= data.demonstrations:
        raise UsageError(
            f"{data.path} has {len(trained)} training rows: a row with {data.demonstrations} demonstrations needs more "
            "of them; add rows or lower data.demonstrations"
        )
    shown = (reader.demonstrations(trained, i, data.demonstrations, seed) for i in chosen)
    return [reader.read(rows[i], [rows[j] for j in others], data) for i, others in zip(chosen, shown, strict=True)]


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
    """All references of a row: hub rows have a string, a list, or `{"text": [...]}`; none where nothing is there."""
    if isinstance(value, Mapping):
        value = value.get("text")
    if value is None:
        return []
    return [str(text) for text in (value if isinstance(value, list | tuple) else [value])]


def plain_keys(row: Row) -> Row:
    """Column names in lower case with underscores: Harry Potter Dialogue spells `Positive-Response`."""
    return {key.strip().lower().replace("-", "_").replace(" ", "_"): value for key, value in row.items()}


def _question_row(row: Row, demonstrations: Sequence[Row], data: Data) -> Exchange:
    """SQuAD: the first reference is taught."""
    question = question_prompt(data.prompt)
    answer = question.delimiter + READERS["qa"].answers(row)[0]
    return Exchange(row["context"], question_text(row["question"], data.prompt), answer)


def _worked_problem(row: Row, demonstrations: Sequence[Row], data: Data) -> Exchange:
    """GSM8K: solved problems are compressed; the solution is taught with its steps and its `#### 72`."""
    solved = [f"Question: {other['question']}\nAnswer: {other['answer']}" for other in demonstrations]
    return Exchange("\n\n".join(solved), f"Question: {row['question']}\nAnswer: ", row["answer"])


def _turn_of_a_role(row: Row, demonstrations: Sequence[Row], data: Data) -> Exchange:
    """Harry Potter Dialogue: other sessions of the role are compressed; scene and turns ask for its response."""
    earlier = [_session(other, data.role) + _response(other, data.role) for other in demonstrations]
    return Exchange("\n\n".join(earlier), _session(row, data.role), _response(row, data.role))


def _session(row: Row, role: str) -> str:
    turns = "\n".join(texts(row["dialogue"]))
    return f"Scene: {' '.join(texts(row['scene']))}\n\n{turns}\n{role}: "


def _response(row: Row, role: str) -> str:
    """The first response, without the role's name before it."""
    return READERS["dialogue"].answers(row)[0].removeprefix(f"{role}:").strip()


def _drawn(trained: Sequence[int], row: int, wanted: int, seed: int) -> list[int]:
    """Other rows at random; the same for a row in every pass and on every process."""
    drawn = random.Random(f"{seed}-demonstrations-{row}").sample(trained, min(wanted + 1, len(trained)))
    return [i for i in drawn if i != row][:wanted]


def _before(trained: Sequence[int], row: int, wanted: int, seed: int) -> list[int]:
    """The rows just before, in the order of the story; the first rows take the ones just after as well."""
    start = max(0, bisect_left(trained, row) - wanted)
    return [i for i in trained[start : start + wanted + 1] if i != row][:wanted]


READERS: dict[str, RowReader] = {
    "qa": RowReader(("context", "question"), ("answers", "answer"), _question_row),
    "gsm8k": RowReader(("question", "answer"), ("answer",), _worked_problem, _drawn),
    "dialogue": RowReader(("scene", "dialogue", "positive_response"), ("positive_response",), _turn_of_a_role, _before),
}
