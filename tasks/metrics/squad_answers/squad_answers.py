"""Scores of short answers: SQuAD's normaliser, exact match, F1, substring accuracy, and what they are held against."""

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

import datasets
import evaluate

PROTOCOLS = ("strict", "official")

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")


def normalize(text: str) -> str:
    """SQuAD's normal form: lower case, no ASCII punctuation, no articles, single blanks."""
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLE.sub(" ", bare).split())


def exact_match(prediction: str, reference: str) -> float:
    return float(normalize(prediction) == normalize(reference))


def f1(prediction: str, reference: str) -> float:
    """F1 of the bags of normalised words; 0 where nothing is shared, two empty answers included, as in the original."""
    predicted, expected = normalize(prediction).split(), normalize(reference).split()
    shared = (Counter(predicted) & Counter(expected)).total()
    if not shared:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(expected)
    return 2 * precision * recall / (precision + recall)


def contains(prediction: str, reference: str) -> float:
    predicted, expected = normalize(prediction), normalize(reference)
    # A reference that normalises to nothing ("the") is a part of anything: it only counts against an empty prediction.
    return float(expected in predicted if expected else not predicted)


_SCORES: Mapping[str, Callable[[str, str], float]] = {"exact_match": exact_match, "f1": f1, "contains": contains}


def scored_against(answers: Sequence[str], protocol: str) -> list[str]:
    """The references that an answer is scored against: all (`strict`), or the first as in PCC's code (`official`)."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol={protocol!r}: it is one of {', '.join(PROTOCOLS)}")
    return list(answers[:1] if protocol == "official" else answers)


def score_qa(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """All scores of one answer, each the maximum over the references (lm-eval's `process_results`)."""
    prediction = results[0]
    return {name: max(score(prediction, answer) for answer in doc["answers"]) for name, score in _SCORES.items()}


class SquadAnswers(evaluate.Metric):  # type: ignore[misc]
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Exact match, F1 and substring accuracy of short answers, 0 to 1.",
            citation="Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text, EMNLP 2016",
            inputs_description=f"predictions: texts; references: lists of texts; protocol: {', '.join(PROTOCOLS)}.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Sequence(datasets.Value("string"))}
            ),
        )

    def _compute(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]], protocol: str = "strict"
    ) -> dict[str, Any]:
        pairs = zip(predictions, references, strict=True)
        rows = [score_qa({"answers": scored_against(answers, protocol)}, [text]) for text, answers in pairs]
        return {name: mean(row[name] for row in rows) for name in rows[0]}
