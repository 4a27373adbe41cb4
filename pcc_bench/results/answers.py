"""Texts of samples, one by one: what was asked and what the model said."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from pcc_bench.core.documents import checked
from pcc_bench.results.rows import of_first_filter


class _Texts(BaseModel):
    """The parts of a sample that are shown; older versions of lm-eval wrote the arguments as a list."""

    model_config = ConfigDict(extra="ignore", strict=True)

    doc_id: int
    doc: dict[str, Any]
    target: Any = ""
    arguments: Annotated[dict[str, Any], BeforeValidator(lambda given: given if isinstance(given, dict) else {})] = {}
    resps: Annotated[list[Any], Field(min_length=1)]
    filtered_resps: Annotated[list[Any], BeforeValidator(lambda given: [] if given is None else given)] = []


@dataclass(frozen=True)
class Answer:
    """The texts of one sample.

    Attributes:
        row: Number of the row.
        context: What may be compressed; "" where the task marks nothing.
        question: What is asked beside it: the row's question, else the prompt without the context.
        references: What would be right.
        answer: What the model said; for options, the one it preferred.
        scores: Metric -> number, of the metrics that are finite numbers of a row.
    """

    row: int
    context: str
    question: str
    references: tuple[str, ...]
    answer: str
    scores: Mapping[str, float]


def read(
    path: Path, marked: Sequence[str], metrics: Collection[str], numbers: Collection[int] | None = None
) -> Iterator[Answer]:
    """The texts of rows, in the order of the file.

    Args:
        path: A file of samples.
        marked: Columns of a row whose text may be compressed.
        metrics: Whose scores are wanted.
        numbers: Of the rows wanted; None: all.

    Raises:
        UsageError: As in `rows.samples`, or a sample has no answers.
    """
    for sample in of_first_filter(path):
        if numbers is None or sample["doc_id"] in numbers:
            texts = checked(_Texts, sample, f"{path}, row {sample['doc_id']}")
            scores = {name: sample[name] for name in metrics if isinstance(sample.get(name), int | float)}
            yield _answer(texts, marked, {name: float(score) for name, score in scores.items() if _is_finite(score)})


def _answer(texts: _Texts, marked: Sequence[str], scores: Mapping[str, float]) -> Answer:
    doc = texts.doc
    context = "\n\n".join(str(doc.get(column, "")) for column in marked)
    first: Any = next(iter(texts.arguments.values()), {})
    prompt = str(first.get("arg_0", "")) if isinstance(first, dict) else ""
    rest = prompt.replace(context, "", 1).strip() if context else prompt
    answers = doc.get("answers")
    references = answers if isinstance(answers, list) else [texts.target]
    return Answer(
        row=texts.doc_id,
        context=context,
        question=str(doc.get("question") or rest),
        references=tuple(dict.fromkeys(map(str, references))),
        answer=_said(texts),
        scores=scores,
    )


def _said(texts: _Texts) -> str:
    """Generated text; for options the likeliest; for a single continuation its log-likelihood."""
    answers = texts.filtered_resps or texts.resps
    if isinstance(answers[0], str):
        return answers[0].strip()
    likelihoods = [_likelihood(answer) for answer in answers]
    if any(math.isnan(likelihood) for likelihood in likelihoods):
        return str(answers[0])
    if len(likelihoods) == 1:
        return f"log-likelihood {likelihoods[0]:.4g}"
    best = likelihoods.index(max(likelihoods))
    options = texts.doc.get("candidates") or texts.doc.get("choices")
    named = isinstance(options, list) and len(options) == len(likelihoods)
    return str(options[best]) if options and named else f"option {best + 1} of {len(likelihoods)}"


def _likelihood(answer: Any) -> float:
    """The log-likelihood of `[[log-likelihood, greedy]]`, however deep; nan where there is none."""
    while isinstance(answer, list):
        answer = answer[0] if answer else None
    try:
        return float(answer)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _is_finite(score: float) -> bool:
    return -1e300 < score < 1e300  # an int of 400 digits has no float
