"""The tasks of pretraining: reconstruction of what was compressed (overlap, errors by class of word), completion."""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from pcc_bench.core.context import again, mark
from pcc_bench.tasks.documents import cut_tokens, pieces
from pcc_bench.tasks.metadata import choice, whole
from pcc_bench.tasks.metrics.perplexity.perplexity import score_log_likelihood
from pcc_bench.tasks.metrics.text_overlap import text_overlap
from pcc_bench.tasks.metrics.text_overlap.text_overlap import NAMED, SPACELESS, score_overlap
from pcc_bench.tasks.task import PccTask, scored_tokens

INSTRUCTION = "Repeat the text above, word for word:\n"
ROOM = 44  # new tokens beyond those of the longest document: 300 for 256, as in the paper
WORDS = {  # how the scores of words take a text apart, for the results
    **text_overlap.WORDS,
    "error_word": f"letters and digits of any script and what joins them; {NAMED}",
}
CLASSES = ("number", "date", "name", "rare", "boundary")
RARE = 0.01  # a word is rare that stands in at most this share of the documents (and always if in one only)

# A word: letters and digits, with what joins them inside (3,000; Anna's; mid-May); or one character without blanks.
_LETTERS = rf"(?:(?![{SPACELESS}])\w)+"
_WORD = re.compile(rf"[{SPACELESS}]|{_LETTERS}(?:[.,'\u2019-]{_LETTERS})*")
split_words: Callable[[str], list[str]] = _WORD.findall
_MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
_NO_NAME = re.compile(rf"(?:I|{_MONTH})$|I['\u2019]")
_DATE = re.compile(
    rf"\b\d{{1,2}}(?:st|nd|rd|th)? (?:of )?(?:{_MONTH})(?:,? \d{{4}})?\b"  # 3 May 1981
    rf"|\b(?:{_MONTH}) \d{{1,2}}(?:st|nd|rd|th)?(?:,? \d{{4}})?\b"  # May 3, 1981
    rf"|\b(?:{_MONTH}),? \d{{4}}\b"
    r"|\b\d{4}-\d{2}-\d{2}\b|\b\d{1,2}[/.]\d{1,2}[/.]\d{2,4}\b"
    r"|\b(?:1[0-9]|20)\d{2}\b"  # a year
)
# What stands before a sentence's first word: the text's start, or the end of another sentence (and quotation marks).
_START = re.compile(r"(?:^|[.!?:;\n][\"'\u201d\u2019)]*\s*|[\"\u201c\u2018(]\s*)$")


class ReconstructionTask(PccTask):
    """A document is compressed whole, and the decoder is asked to say it again.

    Settings in the metadata: `tokens` (of a document, in the decoder's tokens, default 256) or `characters`;
    `documents` (looked at, default 500); `segment_length` (in decoder tokens, default 256: where segments end, for
    the errors next to it; a compressor with a tokenizer of its own ends them a little elsewhere); `cue`: `own`
    (a soft method is asked in the way it was trained for) or `words` (every method reads the instruction).
    """

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        metadata = self.config.metadata
        segment = whole(metadata, "segment_length", 256)
        cue = choice(metadata, "cue", ("own", "words"))
        cut, dropped, account = pieces(metadata, [whole(metadata, "tokens", 256)], self.counter)
        texts = [text for (text,) in cut]
        rare, docs = rare_words(texts), list[dict[str, Any]]()
        for number, text in enumerate(texts, 1):
            tokens = self.counter.count(text)
            inside = (tokens - 1) // segment
            parts = (cut_tokens(text, [segment] * inside, self.counter) or ()) if inside else ()
            cuts = list(accumulate(map(len, parts)))
            docs.append({"id": str(number), "document": text, "tokens": tokens, "classes": classes(text, rare, cuts)})
        most = max(doc["tokens"] for doc in docs)
        self.config.generation_kwargs = {**self.config.generation_kwargs, "max_gen_toks": most + ROOM}
        self._cue = INSTRUCTION if cue == "words" else again(INSTRUCTION)
        self.take(docs, dropped, **account, segment_length=segment, cue=cue, words=WORDS)

    def process_results(self, doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """The scores of words, and of tokens: those of the document that stand in the answer in the same order."""
        scores = super().process_results(doc, results)
        if scores and "token_accuracy" in self.aggregation():
            expected, said = self.counter.ids([doc["document"].strip(), results[0].strip()])
            scores["token_accuracy"] = len(aligned(expected, said)) / len(expected)
        return scores

    def _marked(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        return {"document": mark(doc["document"], "\n\n"), "cue": self._cue}


def score_text(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Scores of one answer, blanks around it left out (lm-eval's `process_results`); those of tokens are the task's.

    `bleu`: reference and answer, for the corpus score. `error_<class>`, and `error_word` of all words: words missed and
    words there are, for the ratio of the sums.
    """
    answer, reference = results[0].strip(), doc["document"].strip()
    expected = split_words(reference)
    missed = set(range(len(expected))) - set(aligned(expected, split_words(answer)))
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


def rare_words(texts: Iterable[str]) -> set[str]:
    """Words (in lower case) that stand in few of the texts."""
    of_texts = [{word.lower() for word in split_words(text)} for text in texts]
    counts = Counter(word for words in of_texts for word in words)
    return {word for word, count in counts.items() if count <= max(1, RARE * len(of_texts))}


def classes(text: str, rare: set[str], cuts: Sequence[int]) -> dict[str, list[int]]:
    """The numbers (from 0) of a document's words of each class; a word may be in several.

    `number`: has a digit and is in no date. `date`: day and month, month and year, or a year from 1000 to 2099. `name`:
    begins with a capital inside a sentence, months and I left out. `rare`: in lower case, see `rare_words`. `boundary`:
    stands across the end of a segment (a character of `cuts`), or next to it on either side.
    """
    spans = [match.span() for match in _WORD.finditer(text)]
    dates = [match.span() for match in _DATE.finditer(text)]
    of_class: dict[str, list[int]] = {name: [] for name in CLASSES}
    for i, (start, end) in enumerate(spans):
        word = text[start:end]
        if any(first < end and start < last for first, last in dates):
            of_class["date"].append(i)
        elif any(char.isdigit() for char in word):
            of_class["number"].append(i)
        elif word[0].isupper() and not _NO_NAME.match(word) and not _START.search(text[max(0, start - 8) : start]):
            of_class["name"].append(i)
        if word.lower() in rare:
            of_class["rare"].append(i)
    beside: set[int] = set()
    for cut in cuts:  # the word across it, or the words next to it
        before = max((i for i, (start, _) in enumerate(spans) if start < cut), default=None)
        if before is not None and before + 1 < len(spans):
            beside |= {before} if spans[before][1] > cut else {before, before + 1}
    of_class["boundary"] = sorted(beside)
    return of_class


def aligned(expected: Sequence[Hashable], said: Sequence[Hashable]) -> list[int]:
    """The items of `expected` (their numbers) that stand in `said` in the same order, as many as there can be.

    A longest common subsequence, with rows of the table as the bits of an integer (Hyyrö 2004): milliseconds.
    """
    places = Counter[Hashable]()
    for i, item in enumerate(expected):
        places[item] |= 1 << i
    full = (1 << len(expected)) - 1
    row, rows = full, []
    for item in said:
        matches = row & places[item]
        row = ((row + matches) | (row - matches)) & full
        rows.append(row)
    common: list[int] = []
    i, j = len(expected), len(said)
    while i and j:
        bit = 1 << (i - 1)
        if rows[j - 1] & bit:
            i -= 1
            continue
        j -= 1
        if not j or rows[j - 1] & bit:
            i -= 1
            common.append(i)
    return common[::-1]


class CompletionTask(PccTask):
    """The beginning of a document is compressed; what follows is scored.

    Settings in the metadata: `tokens` (of the beginning, default 256) and `continuation_tokens` (default 128), in the
    decoder's tokens; `documents` (looked at, default 500).
    """

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        metadata = self.config.metadata
        lengths = [whole(metadata, "tokens", 256), whole(metadata, "continuation_tokens", 128)]
        texts, dropped, account = pieces(metadata, lengths, self.counter)
        sizes = map(len, self.counter.ids([after for _, after in texts]))
        docs = [
            {"id": str(number), "document": before, "continuation": after, "tokens": size}
            for number, ((before, after), size) in enumerate(zip(texts, sizes, strict=True), 1)
        ]
        self.take(docs, dropped, **account)

    def process_results(self, doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        tokens = scored_tokens(results[0])
        if tokens is None and self._template_end is not None:
            tokens = self.counter.continuation(self._template_end, doc["continuation"])
        return super().process_results(doc if tokens is None else {**doc, "tokens": tokens}, results)

    def _marked(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        return {"document": mark(doc["document"])}


def score_continuation(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    """The continuation's log-likelihood with its decoder tokens and its bytes, for `weighted_perplexity`."""
    return score_log_likelihood(float(results[0][0]), doc["tokens"], doc["continuation"])
