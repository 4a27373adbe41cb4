"""Overlap of a text with its reference, in any script: BLEU in two readings, ROUGE-L.

Chinese, Japanese, Thai, Lao, Khmer, Burmese and Tibetan put no blanks between words: there each character is a word, as
for sacrebleu's `zh` and `char`. Other text is left as it is. EM and F1 keep to SQuAD's official rule in any script.
"""

import re
import unicodedata
import warnings
from collections.abc import Sequence
from statistics import mean
from typing import Any

import datasets
import evaluate
import sacrebleu
from nltk.stem.porter import PorterStemmer
from nltk.tokenize import NLTKWordTokenizer, PunktSentenceTokenizer
from nltk.translate.bleu_score import sentence_bleu
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer

# Character class of the scripts without blanks (with their marks), in regular expressions.
SPACELESS = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U000323af"
)
NAMED = "each character of a script without blanks (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan) is a word"

WORDS = {  # how the scores take a text apart, for the results
    "bleu": f"sacrebleu 13a; {NAMED}",
    "bleu_sentence": f"nltk word_tokenize; {NAMED}",
    "rougeL": f"letters and digits of any script, ASCII words stemmed (Porter); {NAMED}",
}

_CHARACTER = re.compile(f"([{SPACELESS}])")


def spaced(text: str) -> str:
    return _CHARACTER.sub(r" \1 ", text)


def score_overlap(answer: str, reference: str) -> dict[str, float]:
    """Scores of one text, each from 0 to 1.

    `bleu_sentence`: nltk's, the answer as hypothesis; `bleu_official`: the same with the two exchanged, as PCC's code
    has them. `rougeL`: F of the longest common subsequence of words.
    """
    said, meant = tokenize(answer), tokenize(reference)
    return {
        "bleu_sentence": bleu_of_words(said, meant),
        "bleu_official": bleu_of_words(meant, said),
        "rougeL": float(_ROUGE.score(reference, answer)["rougeL"].fmeasure),
    }


def tokenize(text: str) -> list[str]:
    """Words as nltk's `word_tokenize` finds them, without its download; scripts without blanks by character.

    Sentences, whose last full stop becomes a word of its own, are found by nltk's Punkt without the trained English
    model: after an abbreviation (Dr. Reed) it sees an end where that model sees none.
    """
    return [word for sentence in _SENTENCES.tokenize(spaced(text)) for word in _TREEBANK.tokenize(sentence)]


def corpus_bleu(pairs: Sequence[tuple[str, str]]) -> float:
    """Corpus BLEU by sacrebleu's default, 0 to 100, but scripts without blanks by character; (reference, answer)."""
    said, meant = [spaced(answer) for _, answer in pairs], [spaced(reference) for reference, _ in pairs]
    return float(sacrebleu.corpus_bleu(said, [meant]).score)


def bleu_of_words(hypothesis: list[str], reference: list[str]) -> float:
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
        """Words of letters, digits and marks of any script; of ASCII text, those of `[A-Za-z0-9]+`."""
        chars = (c if c.isalnum() or unicodedata.category(c).startswith("M") else " " for c in spaced(text.lower()))
        words = "".join(chars).split()
        return [self._stemmer.stem(word) if len(word) > 3 and word.isascii() else word for word in words]


_ROUGE = RougeScorer(["rougeL"], tokenizer=_RougeWords())
_SENTENCES, _TREEBANK = PunktSentenceTokenizer(), NLTKWordTokenizer()


class TextOverlap(evaluate.Metric):  # type: ignore[misc]
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=f"BLEU and ROUGE-L of texts against one reference each; {NAMED}. Words: {WORDS}",
            citation="Papineni et al., BLEU, ACL 2002; Lin, ROUGE, 2004; Post, sacreBLEU, WMT 2018",
            inputs_description="predictions, references: texts; blanks around them do not count.",
            features=datasets.Features(dict.fromkeys(("predictions", "references"), datasets.Value("string"))),
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
        pairs = [(r.strip(), p.strip()) for p, r in zip(predictions, references, strict=True)]
        rows = [score_overlap(answer, reference) for reference, answer in pairs]
        return {"bleu": corpus_bleu(pairs), **{name: mean(row[name] for row in rows) for name in rows[0]}}
