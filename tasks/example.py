"""What a row of any data set becomes: a question on a context, with its reference answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Example:
    """One question on one context.

    Attributes:
        context: What may be compressed.
        question: The question.
        answers: Reference answers, the data set's own first one first.
        id: The data set's id; "" where it has none (the row's number stands in).
        kind: The population the row belongs to, where a data set has several; "" otherwise.
    """

    context: str
    question: str
    answers: list[str]
    id: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Dropped:
    """A row that can't be asked, and why; the reasons are counted in the results."""

    reason: str


RowReader = Callable[[Mapping[str, Any]], Example | Dropped]


def answer_texts(answers: Any) -> list[str]:
    """References in any of the shapes data sets have them in: SQuAD's dict, a list, one string."""
    if isinstance(answers, str):
        return [answers]
    return list(answers["text"] if isinstance(answers, Mapping) else answers)
