"""Scores against the original implementation, and the cases that definitions leave open."""

from __future__ import annotations

import json
import random

import pytest
from golden_files import GOLDEN
from hypothesis import given
from hypothesis import strategies as st

from pcc_bench.tasks.metrics.achieved_compression.achieved_compression import compression
from pcc_bench.tasks.metrics.squad_answers.squad_answers import contains, exact_match, f1, normalize, score_qa

CASES = [case for path in sorted(GOLDEN.glob("pcc/*/metrics/qa_metrics.json")) for case in json.loads(path.read_text())]


def test_golden_cases_are_there() -> None:
    assert CASES, f"no pcc/*/metrics/qa_metrics.json under {GOLDEN}: set PCC_GOLDEN"


@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case["pred"])[:30])
def test_golden_scores_equal_the_original(case: dict[str, object]) -> None:
    prediction, reference = str(case["pred"]), str(case["gold"])
    assert normalize(prediction) == case["norm_pred"]
    assert f1(prediction, reference) == case["f1"]
    assert exact_match(prediction, reference) == case["em"]


def test_each_score_is_the_best_over_the_references() -> None:
    doc = {"answers": ["Marta", "the Ilves of Orrin"]}
    assert score_qa(doc, ["It was Marta Ilves."]) == {"exact_match": 0.0, "f1": pytest.approx(0.4), "contains": 1.0}
    assert score_qa(doc, ["Ilves of Orrin"]) == {"exact_match": 1.0, "f1": 1.0, "contains": 1.0}


def test_a_reference_of_articles_is_not_contained_in_everything() -> None:
    assert contains("anything", "The") == 0.0
    assert contains("", "The") == 1.0
    assert contains("built in 1843, they say", "In 1843") == 1.0


@given(st.text(), st.text())
def test_scores_are_ordered(prediction: str, reference: str) -> None:
    """An exact match is contained, and unless it is empty its F1 is 1."""
    assert exact_match(prediction, reference) <= contains(prediction, reference)
    if exact_match(prediction, reference) and normalize(reference):
        assert f1(prediction, reference) == 1.0
    assert 0.0 <= f1(prediction, reference) <= 1.0


def test_compression_is_the_ratio_of_the_sums() -> None:
    records = [
        {"source_tokens": 400, "slots": 96, "boundary": 4},
        {"source_tokens": 10, "slots": 4, "boundary": 1},
    ]
    assert compression(records) == pytest.approx(410 / 105)
    assert compression([{"source_tokens": 400, "slots": 0, "boundary": 0}]) is None  # null in lm-eval's results
    assert compression([]) is None


# A reading of SQuAD's official rule of its own, letter by letter: no pattern, no counter, no code of ours.

ASCII_PUNCTUATION = set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
PIECES = [
    *("a", "an", "the", "The", "A", "AN", "theatre", "an-the", "a.", "(the)", "a\u0301", "“the”", "the—a", "a's"),
    *("Kelm", "kelm", "KELM,", "1843", "1,843", "3.50", "$5", "U.S.", "Mr.", "x_y", "-", "--", "...", "!?", "¿"),
    *(
        "Straße",
        "STRASSE",
        "İstanbul",
        "東京",
        "東京。",
        "über",
        "UBER",
        "é",
        "e\u0301",
        "ﬁ",
        "№7",
        "Ⅳ",
        "👩‍👧",
        "\u200b",
    ),
    *("\u00a0", "\t", "\n", "\u2003", "", " "),
]


def official_words(text: str) -> list[str]:
    kept = [letter for letter in text.lower() if letter not in ASCII_PUNCTUATION]
    runs: list[list[str]] = []  # of letters and figures, or of anything else
    for letter in kept:
        if runs and runs[-1][0].isalnum() == letter.isalnum():
            runs[-1].append(letter)
        else:
            runs.append([letter])
    return "".join(" " if "".join(run) in ("a", "an", "the") else "".join(run) for run in runs).split()


def official_f1(prediction: str, reference: str) -> float:
    said, meant = official_words(prediction), official_words(reference)
    left, shared = list(meant), 0
    for word in said:
        if word in left:
            left.remove(word)
            shared += 1
    return (
        2 * (shared / len(said)) * (shared / len(meant)) / (shared / len(said) + shared / len(meant)) if shared else 0
    )


def test_scores_are_those_of_the_official_rule_on_5000_random_pairs() -> None:
    draws = random.Random(0)
    told = {"equal": 0, "partly": 0, "empty": 0, "apart": 0}
    for _ in range(5000):
        reference = draws.choices(PIECES, k=draws.randrange(6))
        prediction = [piece for piece in reference if draws.random() < 0.8] + draws.choices(
            PIECES, k=draws.randrange(3)
        )
        said, meant = (draws.choice(["", " ", "\n"]).join(pieces) for pieces in (prediction, reference))
        assert normalize(said) == " ".join(official_words(said))
        assert exact_match(said, meant) == (official_words(said) == official_words(meant))
        assert f1(said, meant) == pytest.approx(official_f1(said, meant), abs=1e-12)
        empty = not official_words(said) or not official_words(meant)
        kind = "empty" if empty else "equal" if exact_match(said, meant) else "partly" if f1(said, meant) else "apart"
        told[kind] += 1
    assert min(told.values()) > 200, told
