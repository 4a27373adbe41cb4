"""Scores of a text said again: BLEU in two readings, ROUGE-L, exact match, errors by class of word."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import sacrebleu
from nltk.stem.porter import PorterStemmer
from nltk.tokenize import NLTKWordTokenizer, PunktSentenceTokenizer
from nltk.translate.bleu_score import sentence_bleu
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer

from pcc_bench.tasks.reconstruction.words import CLASSES, aligned, words
from pcc_bench.tasks.scripts import NAMED, letters_and_digits, spaced

WORDS = {  # how the scores of words take a text apart, for the results
    "bleu": f"sacrebleu 13a; {NAMED}",
    "bleu_sentence": f"nltk word_tokenize; {NAMED}",
    "rougeL": f"letters and digits of any script, ASCII words stemmed (Porter); {NAMED}",
    "error_word": f"letters and digits of any script and what joins them; {NAMED}",
}


def score_text(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Scores of one answer (lm-eval's `process_results`); those of tokens are the task's.

    Args:
        doc: `document` is the reference, `classes` the numbers of its words of each class.
        results: The answer; blanks around it do not count.

    Returns:
        `bleu`: reference and answer, for the corpus score. `bleu_sentence`: nltk's, the answer as hypothesis;
        `bleu_official`: the same with the two exchanged, as the paper's code has them. `rougeL`, `exact`.
        `error_<class>`: words missed and words there are, for the ratio of the sums; `error_word` is for all words.
    """
    answer, reference = results[0].strip(), doc["document"].strip()
    expected = words(reference)
    missed = set(range(len(expected))) - set(aligned(expected, words(answer)))
    said, meant = tokenize(answer), tokenize(reference)
    return {
        "bleu": (reference, answer),
        "bleu_sentence": _sentence_bleu(said, meant),
        "bleu_official": _sentence_bleu(meant, said),
        "rougeL": _rouge().score(reference, answer)["rougeL"].fmeasure,
        "exact": float(answer == reference),
        "error_word": (len(missed), len(expected)),
        **{f"error_{name}": (len(missed & set(doc["classes"][name])), len(doc["classes"][name])) for name in CLASSES},
    }


def tokenize(text: str) -> list[str]:
    """Words as nltk's `word_tokenize` finds them, without its download.

    The word rules are the same. Sentences, whose last full stop becomes a word of its own, are found by nltk's Punkt
    without the trained English model: after an abbreviation (Dr. Reed) it sees an end where that model sees none.
    Each character of a script without blanks is a word.
    """
    return [word for sentence in _punkt().tokenize(spaced(text)) for word in _word_tokenizer().tokenize(sentence)]


def corpus_bleu(pairs: Sequence[tuple[str, str]]) -> float:
    """Corpus BLEU by sacrebleu, 0 to 100; pairs of reference and answer.

    Its default settings, but that each character of a script without blanks is a word.
    """
    said, meant = [spaced(answer) for _, answer in pairs], [spaced(reference) for reference, _ in pairs]
    return float(sacrebleu.corpus_bleu(said, [meant]).score)


def ratio_of_sums(counts: Sequence[tuple[int, int]]) -> float:
    """Share of the things there are; nan where there are none."""
    total = sum(of for _, of in counts)
    return sum(count for count, _ in counts) / total if total else math.nan


def _sentence_bleu(hypothesis: list[str], reference: list[str]) -> float:
    """Uniform weights, 1 to 4 words, no smoothing: an order without a match leaves next to nothing."""
    if not hypothesis:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # nltk's advice to smooth
        return float(sentence_bleu([reference], hypothesis))


class _RougeWords(Tokenizer):  # type: ignore[misc]
    """rouge_score's own words of ASCII text, stemmed as there; and words in other scripts, which it drops."""

    def __init__(self) -> None:
        self._stemmer = PorterStemmer()

    def tokenize(self, text: str) -> list[str]:
        return [
            self._stemmer.stem(word) if len(word) > 3 and word.isascii() else word
            for word in letters_and_digits(text.lower())
        ]


@cache
def _rouge() -> RougeScorer:
    return RougeScorer(["rougeL"], tokenizer=_RougeWords())


@cache
def _punkt() -> PunktSentenceTokenizer:
    return PunktSentenceTokenizer()


@cache
def _word_tokenizer() -> NLTKWordTokenizer:
    return NLTKWordTokenizer()
