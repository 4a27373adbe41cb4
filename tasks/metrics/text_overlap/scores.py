"""Overlap of a text with its reference, in any script: BLEU in two readings, ROUGE-L."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache

import sacrebleu
from nltk.stem.porter import PorterStemmer
from nltk.tokenize import NLTKWordTokenizer, PunktSentenceTokenizer
from nltk.translate.bleu_score import sentence_bleu
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer

from .scripts import NAMED, letters_and_digits, spaced

WORDS = {  # how the scores take a text apart, for the results
    "bleu": f"sacrebleu 13a; {NAMED}",
    "bleu_sentence": f"nltk word_tokenize; {NAMED}",
    "rougeL": f"letters and digits of any script, ASCII words stemmed (Porter); {NAMED}",
}


def score_overlap(answer: str, reference: str) -> dict[str, float]:
    """Scores of one text, each from 0 to 1.

    Returns:
        `bleu_sentence`: nltk's, the answer as hypothesis; `bleu_official`: the same with the two exchanged, as PCC's
        code has them. `rougeL`: F of the longest common subsequence of words.
    """
    said, meant = tokenize(answer), tokenize(reference)
    return {
        "bleu_sentence": _sentence_bleu(said, meant),
        "bleu_official": _sentence_bleu(meant, said),
        "rougeL": float(_rouge().score(reference, answer)["rougeL"].fmeasure),
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
