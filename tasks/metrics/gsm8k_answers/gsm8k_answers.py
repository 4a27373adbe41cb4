"""The number of a worked solution: lm-eval's two extractions, and by its value."""

import re
from collections.abc import Sequence
from decimal import Decimal
from statistics import mean
from typing import Any

import datasets
import evaluate

INVALID = "[invalid]"  # lm-eval's word for a solution without a number
EXTRACTIONS = ("strict-match", "flexible-extract", "pcc-number")

# Those of lm-eval's gsm8k: the first number after ####, and the last number.
_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
# A number as people write it: 18, 1,234.50, .5, -$3. A dash between two numbers is no sign.
_NUMBER = re.compile(
    r"(?:(?<![\w.)])[-\u2212])?(?:\$[-\u2212]?)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+", re.ASCII
)
_RESULT = re.compile(r"####(.*)")

# What lm-eval's gsm8k ignores when it compares two numbers: separators, currency, the way to the result, a full stop.
_IGNORED = re.compile(r",|\$")
_SOLUTION = re.compile(r"(?s).*#### ")
_STOP = re.compile(r"\.$")


def extracted(solution: str, reference: str, extraction: str) -> str:
    """The number of a worked solution, as text; `[invalid]` without one.

    `strict-match` (the first number after ####) and `flexible-extract` (the last number) are lm-eval's; `pcc-number` is
    either, by value ($29.00. is 29, and 18... is 18), spelled as in the reference's worked solution.
    """
    if extraction == "strict-match":
        return next(iter(_STRICT.findall(solution)), INVALID).strip()
    if extraction == "flexible-extract":
        return next(reversed(_FLEXIBLE.findall(solution)), INVALID).strip()
    if extraction != "pcc-number":
        raise ValueError(f"extraction={extraction!r}: it is one of {', '.join(EXTRACTIONS)}")
    value = number_of(solution)
    if value is None:
        return INVALID
    own = reference.rpartition("#### ")[2]
    return own if value == number_of(own) else f"{value:f}"


def number_of(solution: str) -> Decimal | None:
    """The result of a worked solution: the first number after `####`, else its last number; None without one."""
    marked = _RESULT.search(solution)
    numbers = _NUMBER.findall(marked[1]) if marked else []
    text = numbers[0] if numbers else next(reversed(_NUMBER.findall(solution)), "")
    plain = text.replace(",", "").replace("$", "").replace("\u2212", "-")
    return Decimal(plain) if plain else None


def is_result(number: str, reference: str) -> bool:
    """Whether an extracted number is the result of the reference's worked solution, compared as lm-eval does."""
    own, expected = (_STOP.sub("", _SOLUTION.sub("", _IGNORED.sub("", text))).lower() for text in (number, reference))
    return own == expected


class Gsm8kAnswers(evaluate.Metric):  # type: ignore[misc]
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Exact match of the numbers that worked solutions come to, 0 to 1.",
            citation="Cobbe et al., Training Verifiers to Solve Math Word Problems, 2021 (arXiv:2110.14168)",
            inputs_description=f"predictions, references: worked solutions; extraction: {', '.join(EXTRACTIONS)}.",
            features=datasets.Features(dict.fromkeys(("predictions", "references"), datasets.Value("string"))),
        )

    def _compute(
        self, predictions: Sequence[str], references: Sequence[str], extraction: str = "pcc-number"
    ) -> dict[str, Any]:
        pairs = zip(predictions, references, strict=True)
        return {"exact_match": mean(float(is_result(extracted(p, r, extraction), r)) for p, r in pairs)}
