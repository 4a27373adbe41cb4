"""The completion task: how well the decoder expects what comes after a text that it read as a memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from pcc_bench.core.context import mark
from pcc_bench.tasks.data import fingerprint
from pcc_bench.tasks.documents import pieces
from pcc_bench.tasks.metadata import whole
from pcc_bench.tasks.metrics.perplexity.perplexity import score_log_likelihood
from pcc_bench.tasks.task import PccTask, end_of_prompt, scored_tokens


class CompletionTask(PccTask):
    """The beginning of a document is compressed; what follows is scored.

    Settings in the metadata: `tokens` (of the beginning, default 256) and `continuation_tokens` (default 128), in the
    decoder's tokens; `documents` (looked at, default 500).
    """

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Cut the documents and record where they are from."""
        metadata = self.config.metadata
        lengths = [whole(metadata, "tokens", 256), whole(metadata, "continuation_tokens", 128)]
        cut = pieces(metadata, lengths, f"{self.config.task} counts decoder tokens")
        continuations = cut.counter.ids([after for _, after in cut.texts])
        docs = [
            {"id": str(number), "document": before, "continuation": after, "tokens": len(ids)}
            for number, ((before, after), ids) in enumerate(zip(cut.texts, continuations, strict=True), 1)
        ]
        self._counter = cut.counter
        self._template_end: str | None = None
        self.config.metadata = {**metadata, "population": {**cut.account, "fingerprint": fingerprint(docs)}}
        self.dataset = {"test": datasets.Dataset.from_list(docs)}

    def build_all_requests(self, *, apply_chat_template: bool = False, **kwargs: Any) -> None:
        """As lm-eval does."""
        super().build_all_requests(apply_chat_template=apply_chat_template, **kwargs)
        self._template_end = end_of_prompt(self.instances) if apply_chat_template else None

    def process_results(self, doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """Scores of a row, over the tokens that were scored."""
        tokens = scored_tokens(results[0])
        if tokens is None and self._template_end is not None:
            tokens = self._counter.continuation(self._template_end, doc["continuation"])
        return super().process_results(doc if tokens is None else {**doc, "tokens": tokens}, results)

    def _marked(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        return {"document": mark(doc["document"])}


def score_continuation(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    """The continuation's log-likelihood with its decoder tokens and its bytes, for `weighted_perplexity`.

    Its tokens are those that were scored: the model says how many, and blanks at the end of a chat template are among
    them. For lm-eval's own models without a template they are counted on their own.
    """
    return score_log_likelihood(float(results[0][0]), doc["tokens"], doc["continuation"])
