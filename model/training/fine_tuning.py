"""Fine-tuning rows: from each kind of data, a context to compress, a prompt after it, and the answer to learn.

The official code releases the format of SQuAD only (context, question, answer). For GSM8K and Harry Potter Dialogue the
paper states that demonstrations are compressed and how many tokens they have; the wording here is ours.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pcc_bench.core.errors import UsageError
from pcc_bench.core.questions import question_prompt
from pcc_bench.model.training.sections import Data

Row = Mapping[str, Any]
COLUMNS = {  # what each row must have
    "qa": ("context", "question"),
    "gsm8k": ("question", "answer"),
    "dialogue": ("scene", "dialogue", "positive_response"),
}
ANSWERS = {"qa": ("answers", "answer"), "gsm8k": ("answer",), "dialogue": ("positive_response",)}  # the first there is


@dataclass(frozen=True)
class Exchange:
    """What one row teaches."""

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
    """What the rows at the chosen places teach.

    Demonstrations come from the training rows (places, ascending), never the row itself, so that nothing held out is
    ever seen. Those of `gsm8k` are drawn, the same for a row in every pass and on every process; those of `dialogue`
    are the sessions just before, in the order of the story, for the first ones also those just after.
    """
    if data.kind == "qa":
        return [exchange(rows[place], (), data) for place in chosen]
    count = data.demonstrations
    if len(trained) <= count:
        raise UsageError(
            f"{data.path} has {len(trained)} training rows: a row with {count} demonstrations needs more of them; add "
            "rows or lower data.demonstrations"
        )
    learned = []
    for place in chosen:
        if data.kind == "gsm8k":
            others = random.Random(f"{seed}-demonstrations-{place}").sample(trained, count + 1)
        else:
            start = max(0, bisect_left(trained, place) - count)
            others = list(trained[start : start + count + 1])
        demonstrations = [rows[other] for other in others if other != place][:count]
        learned.append(exchange(rows[place], demonstrations, data))
    return learned


def exchange(row: Row, demonstrations: Sequence[Row], data: Data) -> Exchange:
    """What a row teaches: SQuAD's first reference, GSM8K's solution with its `#### 72`, a role's response."""
    if data.kind == "qa":
        answer = question_prompt(data.prompt).delimiter + answers(row, "qa")[0]
        return Exchange(row["context"], question_prompt(data.prompt).asking(row["question"]), answer)
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


def plain_keys(row: Row) -> Row:
    """Column names in lower case with underscores: Harry Potter Dialogue spells `Positive-Response`."""
    return {key.strip().lower().replace("-", "_").replace(" ", "_"): value for key, value in row.items()}
