"""Scores of a reconstructed text: overlap, exact match, errors by class of word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pcc_bench.tasks.metrics.text_overlap.scores import WORDS as OVERLAP_WORDS
from pcc_bench.tasks.metrics.text_overlap.scores import score_overlap
from pcc_bench.tasks.metrics.text_overlap.scripts import NAMED
from pcc_bench.tasks.reconstruction.words import CLASSES, aligned, words

WORDS = {  # how the scores of words take a text apart, for the results
    **OVERLAP_WORDS,
    "error_word": f"letters and digits of any script and what joins them; {NAMED}",
}


def score_text(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Scores of one answer (lm-eval's `process_results`); those of tokens are the task's.

    Args:
        doc: `document` is the reference, `classes` the numbers of its words of each class.
        results: The answer; blanks around it do not count.

    Returns:
        `bleu`: reference and answer, for the corpus score. `exact`, and those of `score_overlap`. `error_<class>`:
        words missed and words there are, for the ratio of the sums; `error_word` is for all words.
    """
    answer, reference = results[0].strip(), doc["document"].strip()
    expected = words(reference)
    missed = set(range(len(expected))) - set(aligned(expected, words(answer)))
    return {
        "bleu": (reference, answer),
        **score_overlap(answer, reference),
        "exact": float(answer == reference),
        "error_word": (len(missed), len(expected)),
        **{f"error_{name}": (len(missed & set(doc["classes"][name])), len(doc["classes"][name])) for name in CLASSES},
    }


def ratio_of_sums(counts: Sequence[tuple[int, int]]) -> float | None:
    """Share of the things there are; None (JSON's null) where there are none."""
    total = sum(of for _, of in counts)
    return sum(count for count, _ in counts) / total if total else None
