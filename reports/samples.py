"""Samples of a run: numbers as a frame, texts one by one."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pcc_bench.errors import UsageError
from pcc_bench.reports import files
from pcc_bench.reports.results import Run, TaskResult

HASHES = ("doc_hash", "prompt_hash", "target_hash")  # lm-eval's
ACCOUNT = (
    "source_tokens",
    "compressor_tokens",
    "source_bytes",
    "slots",
    "boundary",
    "ratio_slots",
    "ratio",
    "prompt_positions",
    "truncated_bytes",
    "compress_seconds",
    "prefill_seconds",
    "decode_seconds",
    "new_tokens",
)


@dataclass(frozen=True)
class Answer:
    """The texts of one sample.

    Attributes:
        row: Number of the row.
        context: What may be compressed; "" where the task marks nothing.
        question: What is asked beside it: the row's question, else the prompt without the context.
        references: What would be right.
        answer: What the model said; for options, the one it preferred.
        scores: Metric -> number, of the metrics that are numbers of a row.
    """

    row: int
    context: str
    question: str
    references: tuple[str, ...]
    answer: str
    scores: Mapping[str, float]


def read_frame(run: Run, task: TaskResult) -> pd.DataFrame:
    """The frame of one task; see `results`. Empty where no samples were logged.

    Raises:
        UsageError: The file is cut or damaged, or no file of samples.
    """
    names = [metric for metric in task.scores if metric != "compression"]
    rows: list[tuple[int, int, int]] = []
    numbers: list[list[float]] = []
    for sample in _of_first_filter(task):
        content = _hash(*(str(sample.get(key, "")) for key in HASHES))
        rows.append((int(sample["doc_id"]), _context_id(sample, task), content))
        account = sample.get("compression")
        told = account if isinstance(account, dict) else {}
        line = [_number(told.get(key)) for key in ACCOUNT]
        for metric in names:
            line += _parts(sample.get(metric))
        numbers.append(line)
    if not rows:
        return pd.DataFrame()
    frame = pd.DataFrame(rows, columns=["row", "context", "content"])
    keys = [*ACCOUNT, *(key for metric in names for key in (metric, f"{metric}/of"))]
    values = pd.DataFrame(np.array(numbers), columns=keys).dropna(axis="columns", how="all")
    frame.insert(0, "task", task.name)
    frame.insert(0, "run", run.id)
    return pd.concat([frame, values], axis="columns")


def read_answers(run: Run, task: TaskResult, rows: frozenset[int] | None) -> Iterator[Answer]:
    """Texts of the rows wanted, all of them for None.

    Raises:
        UsageError: The file is cut or damaged, or no file of samples.
    """
    for sample in _of_first_filter(task):
        if rows is None or int(sample["doc_id"]) in rows:
            yield _answer(sample, task)


def _of_first_filter(task: TaskResult) -> Iterator[dict[str, Any]]:
    """Lines of the filter that comes first, which is the one the scores are of."""
    if task.samples is None:
        return
    first: Any = None
    for sample in files.json_lines(task.samples):
        missing = {"doc_id", "doc", "resps"} - set(sample)
        if missing:
            raise UsageError(f"{task.samples} is no file of samples (a line lacks {', '.join(sorted(missing))})")
        first = first if first is not None else sample.get("filter", "none")
        if sample.get("filter", "none") == first:
            yield sample


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _parts(value: Any) -> tuple[float, float]:
    """A number and nan, or the two parts of a ratio; texts and lists have no number of a row."""
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, int | float) for part in value):
        return float(value[0]), float(value[1])
    return _number(value), math.nan


def _context_id(sample: Mapping[str, Any], task: TaskResult) -> int:
    """48 bits of the context's hash; a row without a marked context stands for itself."""
    doc = sample["doc"]
    marked = [str(doc.get(column)) for column in task.metadata.get("compress") or ()]
    return _hash(*marked) if marked else _hash(str(sample["doc_id"]))


def _hash(*parts: str) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(parts).encode(errors="surrogatepass"), digest_size=6).digest())


def _answer(sample: Mapping[str, Any], task: TaskResult) -> Answer:
    doc = sample["doc"]
    context = "\n\n".join(str(doc.get(column, "")) for column in task.metadata.get("compress") or ())
    first: Mapping[str, Any] = next(iter(sample.get("arguments", {}).values()), {})
    prompt = str(first.get("arg_0", ""))
    rest = prompt.replace(context, "", 1).strip() if context else prompt
    references = doc.get("answers") if isinstance(doc.get("answers"), list) else [sample.get("target", "")]
    numbers = {key: _number(sample.get(key)) for key in task.scores}
    return Answer(
        row=int(sample["doc_id"]),
        context=context,
        question=str(doc.get("question") or rest),
        references=tuple(dict.fromkeys(map(str, references))),
        answer=_said(sample, doc),
        scores={key: value for key, value in numbers.items() if not math.isnan(value)},
    )


def _said(sample: Mapping[str, Any], doc: Mapping[str, Any]) -> str:
    """Generated text; for options the likeliest; for a single continuation its log-likelihood."""
    answers: Sequence[Any] = sample.get("filtered_resps") or sample["resps"]
    if isinstance(answers[0], str):
        return answers[0].strip()
    likelihoods = [float(_first(answer)) for answer in answers]
    if len(likelihoods) == 1:
        return f"log-likelihood {likelihoods[0]:.4g}"
    best = likelihoods.index(max(likelihoods))
    options = doc.get("candidates") or doc.get("choices") or []
    return str(options[best]) if len(options) == len(likelihoods) else f"option {best + 1} of {len(likelihoods)}"


def _first(answer: Any) -> Any:
    """The log-likelihood of `[[log-likelihood, greedy]]`, however deep."""
    return _first(answer[0]) if isinstance(answer, list) else answer
