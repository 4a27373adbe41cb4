"""Scores of words know words in any script, and ASCII text scores as it always did."""

from __future__ import annotations

import re
from typing import Any

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.tokenize import NLTKWordTokenizer, PunktSentenceTokenizer
from rouge_score.rouge_scorer import RougeScorer

from pcc_bench.tasks import pretraining
from pcc_bench.tasks.metrics.squad_answers.squad_answers import score_qa
from pcc_bench.tasks.metrics.text_overlap import text_overlap as overlap

TEXTS = {
    "Chinese": (
        "\u5317\u4eac\u662f\u4e2d\u56fd\u7684\u9996\u90fd\uff0c\u6709\u4e24\u5343\u591a\u4e07\u4eba\u53e3\u3002"
    ),
    "Japanese": "\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd\u3067\u3059\u3002\u30b9\u30fc\u30d1\u30fc\u3002",
    "Thai": (
        "\u0e01\u0e23\u0e38\u0e07\u0e40\u0e17\u0e1e\u0e40\u0e1b\u0e47\u0e19\u0e40\u0e21\u0e37\u0e2d"
        "\u0e07\u0e2b\u0e25\u0e27\u0e07"
    ),
    "Russian": (
        "\u041c\u043e\u0441\u043a\u0432\u0430 \u0431\u044b\u043b\u0430 \u043e\u0441\u043d"
        "\u043e\u0432\u0430\u043d\u0430 \u0432 1147 \u0433\u043e"
        "\u0434\u0443."
    ),
    "Greek": (
        "\u0397 \u0391\u03b8\u03ae\u03bd\u03b1 \u03b5\u03af\u03bd\u03b1\u03b9 \u03b7"
        " \u03c0\u03c1\u03c9\u03c4\u03b5\u03cd\u03bf\u03c5\u03c3\u03b1."
    ),
    "Hindi": (
        "\u0926\u093f\u0932\u094d\u0932\u0940 \u092d\u093e\u0930\u0924 \u0915\u0940 "
        "\u0930\u093e\u091c\u0927\u093e\u0928\u0940 \u0939\u0948"
    ),
    "Arabic": (
        "\u0627\u0644\u0642\u0627\u0647\u0631\u0629 \u0647\u064a \u0639\u0627\u0635\u0645\u0629 \u0645\u0635\u0631"
    ),
    "Korean": "\uc11c\uc6b8\uc740 \ub300\ud55c\ubbfc\uad6d\uc758 \uc218\ub3c4 \uc785\ub2c8\ub2e4",
}
PLAIN = st.lists(
    st.sampled_from(
        [
            "Dr.",
            "don't",
            "3,000",
            "isn't",
            "_x",
            "mid-May",
            "running",
            "runs",
            "a.b",
            "(so)",
            "$5",
            "%",
            "--",
            ".\n",
            "?",
            '"',
            "end",
        ]
    ),
    max_size=15,
)


def scored(reference: str, answer: str) -> dict[str, Any]:
    return pretraining.score_text(
        {"document": reference, "classes": {name: [] for name in pretraining.CLASSES}}, [answer]
    )


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_a_perfect_answer_is_perfect_and_a_better_one_is_better(text: str) -> None:
    perfect = scored(text, text)
    assert perfect["bleu_sentence"] == perfect["bleu_official"] == perfect["rougeL"] == perfect["exact"] == 1
    assert overlap.corpus_bleu([perfect["bleu"]]) == pytest.approx(100)
    half, nothing = scored(text, text[: len(text) * 2 // 3]), scored(text, "no word of it")
    assert 0.3 < half["rougeL"] < 1 and 0 < half["error_word"][0] < half["error_word"][1]
    assert nothing["rougeL"] == 0 and nothing["error_word"][0] == nothing["error_word"][1]
    assert len(pretraining.split_words(text)) >= 4
    assert score_qa({"answers": [text]}, [text]) == {"exact_match": 1, "f1": 1, "contains": 1}


def was_rouge(reference: str, answer: str) -> float:
    return float(RougeScorer(["rougeL"], use_stemmer=True).score(reference, answer)["rougeL"].fmeasure)


@settings(max_examples=300, deadline=None)
@given(st.one_of(PLAIN.map(" ".join), st.text(st.characters(max_codepoint=127), max_size=60)), PLAIN.map(" ".join))
def test_ascii_text_scores_as_it_did(reference: str, answer: str) -> None:
    reference = reference.strip()
    found = scored(reference, answer)
    assert found["rougeL"] == was_rouge(reference, answer.strip())
    sentences = PunktSentenceTokenizer().tokenize(reference)
    assert overlap.tokenize(reference) == [word for s in sentences for word in NLTKWordTokenizer().tokenize(s)]
    assert pretraining.split_words(reference) == re.findall(r"\w+(?:[.,'\u2019-]\w+)*", reference)
    assert overlap.corpus_bleu([(reference, answer)]) == sacrebleu.corpus_bleu([answer], [[reference]]).score


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_like_itself(text: str) -> None:
    found = scored(text, text)
    assert found["exact"] == 1 and found["error_word"][0] == 0
    assert found["rougeL"] == float(any(char.isalnum() for char in text)) or not text.isascii()
