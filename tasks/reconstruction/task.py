"""The reconstruction task: a memory is followed by what asks for its text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from pcc_bench.core.context import again, mark
from pcc_bench.tasks.data import fingerprint
from pcc_bench.tasks.documents import Pieces, cut_tokens, pieces, whole
from pcc_bench.tasks.population import choice
from pcc_bench.tasks.reconstruction.scores import WORDS
from pcc_bench.tasks.reconstruction.words import aligned, classes, rare_words
from pcc_bench.tasks.task import PccTask

INSTRUCTION = "Repeat the text above, word for word:\n"
ROOM = 44  # new tokens beyond those of the longest document: 300 for 256, as in the paper


class ReconstructionTask(PccTask):
    """A document is compressed whole, and the decoder is asked to say it again.

    Settings in the metadata: `tokens` (of a document, in the decoder's tokens, default 256) or `characters`;
    `documents` (looked at, default 500); `segment_length` (in decoder tokens, default 256: where segments end, for
    the errors next to it; a compressor with a tokenizer of its own ends them a little elsewhere); `cue`: `own`
    (a soft method is asked in the way it was trained for) or `words` (every method reads the instruction).
    """

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Cut the documents, find the words of each class, and record both."""
        metadata = self.config.metadata
        segment = whole(metadata, "segment_length", 256)
        cue = choice(metadata, "cue", ("own", "words"))
        made = pieces(metadata, [whole(metadata, "tokens", 256)], f"{self.config.task} counts decoder tokens")
        self._tokenizer = made.tokenizer
        docs = _docs(made, segment)
        most = max(doc["tokens"] for doc in docs)
        self.config.generation_kwargs = {**self.config.generation_kwargs, "max_gen_toks": most + ROOM}
        account = {
            **made.account,
            "segment_length": segment,
            "cue": cue,
            "words": WORDS,
            "fingerprint": fingerprint(docs),
        }
        self.config.metadata = {**metadata, "population": account}
        self.dataset = {"test": datasets.Dataset.from_list(docs)}

    def process_results(self, doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """The scores of words, and of tokens: those of the document that stand in the answer in the same order."""
        scores = super().process_results(doc, results)
        if scores and "token_accuracy" in self.aggregation():
            expected, found = (self._ids(text.strip()) for text in (doc["document"], results[0]))
            scores["token_accuracy"] = len(aligned(expected, found)) / len(expected)
        return scores

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    def _marked(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        """The document as context, and what asks for it."""
        in_words = self.config.metadata["population"]["cue"] == "words"
        cue = INSTRUCTION if in_words else again(INSTRUCTION)
        return {"document": mark(doc["document"], "\n\n"), "cue": cue}


def _docs(made: Pieces, segment: int) -> list[dict[str, Any]]:
    texts = [text for (text,) in made.texts]
    rare = rare_words(texts)
    docs = []
    for number, text in enumerate(texts, 1):
        ids = made.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        inside = (len(ids) - 1) // segment
        parts = (cut_tokens(text, [segment] * inside, made.tokenizer) or ()) if inside else ()
        cuts = [sum(map(len, parts[: n + 1])) for n in range(len(parts))]
        docs.append({"id": str(number), "document": text, "tokens": len(ids), "classes": classes(text, rare, cuts)})
    return docs
