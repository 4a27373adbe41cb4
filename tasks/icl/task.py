"""In-context learning on a fixed set of demonstrations, once for each demonstration seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets
from lm_eval.utils import apply_template

from pcc_bench.core.context import Prompt
from pcc_bench.core.errors import UsageError
from pcc_bench.tasks.data import demonstration_rows, fingerprint, read_table
from pcc_bench.tasks.demonstrated import DemonstratedTask
from pcc_bench.tasks.demonstrations import Block, block, drawn
from pcc_bench.tasks.icl.scores import OptionScores

CONTENT_FREE = "N/A"  # stands in for the input when an option's bias is measured (paper's code)


class IclTask(DemonstratedTask):
    """Demonstrations are drawn from a training split, the same for all rows, anew for each of `metadata.seeds`.

    Besides those of `DemonstratedTask`, the YAML has the keys `demonstrations_split` (in a data folder and on the hub)
    and `balanced` (labels in turn, or at random). A demonstration is the task's own template with its answer.
    """

    def __init__(self, config: Mapping[str, Any], **kwargs: Any) -> None:
        own = dict(config)
        self._split = own.pop("demonstrations_split")
        self._balanced = own.pop("balanced")
        self._blocks: dict[int, Block] = {}
        super().__init__(own, **kwargs)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Load the rows, draw the demonstrations, and record both."""
        metadata = self.config.metadata
        seeds = [0] if self.wanted.form == "none" else _seeds(metadata)
        source, docs = read_table(metadata, self._read_row)
        self._blocks = self._draw(seeds)
        account = {
            **source,
            "protocol": metadata.get("protocol", "strict"),
            "population": "all",
            "rows_read": len(docs),
            "kept": len(docs),
            "dropped": {},
            "fingerprint": fingerprint(docs),
            "demonstrations": self._shown_account(),
        }
        self.config.metadata = {**metadata, "population": account}
        self.dataset = {"test": datasets.Dataset.from_list(docs)}

    def blocks(self, doc: Mapping[str, Any]) -> list[str]:
        """One a seed."""
        return [shown.text for shown in self._blocks.values()]

    def _draw(self, seeds: Sequence[int]) -> dict[int, Block]:
        if self.wanted.form == "none":
            return {seed: Block() for seed in seeds}
        metadata = self.config.metadata
        hub = metadata["hub"] and {**metadata["hub"], "split": self._split}
        pool = {**metadata, "split": self._split, "hub": hub, "lab_rows": demonstration_rows(metadata)}
        source, rows = read_table(pool, self._read_row)
        counter = self.counter if self.wanted.tokens else None
        return {seed: block(self._pieces(rows, seed), self.wanted, counter, source["place"]) for seed in seeds}

    def _pieces(self, rows: Sequence[Mapping[str, Any]], seed: int) -> Iterator[str]:
        """Demonstrations in the order of a seed; the paper's code strips them on the right."""
        labels = [row["label"] for row in rows] if self._balanced else [0] * len(rows)
        for number in drawn(labels, seed, balanced=self._balanced):
            yield (self.item(rows[number]) + self.config.target_delimiter + self._solution(rows[number])).rstrip()

    def _solution(self, row: Mapping[str, Any]) -> str:
        if choices := self.config.doc_to_choice:
            return str(choices[row["label"]])
        return str(apply_template(self.config.doc_to_target, row))

    def _shown_account(self) -> dict[str, Any]:
        seeds = {
            str(seed): {"count": shown.count, "tokens": shown.tokens} for seed, shown in sorted(self._blocks.items())
        }
        return {
            "form": self.wanted.form,
            "budget": self.wanted.tokens,
            "tokenizer": self.counter.name if self.wanted.tokens else None,
            "seeds": seeds,
            "fingerprint": fingerprint({"seed": seed, "text": shown.text} for seed, shown in self._blocks.items()),
        }


class OptionTask(IclTask):
    """Options are compared by log-likelihood, with and without calibration by a content-free input.

    Besides those of `IclTask`, the YAML has the key `content_free`: the `columns` that `N/A` takes the place of, and
    `each`, which says whether every row has its own content-free input, or one serves all rows (asked with the first).
    `metadata.calibration: false` leaves those requests, and the calibrated scores, out.
    """

    def __init__(self, config: Mapping[str, Any], **kwargs: Any) -> None:
        own = dict(config)
        self._content_free = own.pop("content_free")
        self._first = True  # the next row is the first of its build
        self._shared: list[list[float]] = []  # content-free mean NLL of each option, a list a seed
        super().__init__(own, **kwargs)

    @property
    def calibrates(self) -> bool:
        """Are content-free inputs asked?"""
        wanted = self.config.metadata.get("calibration", True)
        if not isinstance(wanted, bool):
            raise UsageError(f"calibration={wanted!r}: calibration is true or false")
        return wanted

    def build_all_requests(self, **kwargs: Any) -> None:
        """As in the other tasks; the first row asks the content-free inputs that all rows share."""
        self._first = True
        super().build_all_requests(**kwargs)

    def prompts(self, doc: Mapping[str, Any], **kwargs: Any) -> list[Prompt]:
        """The prompts of a row, one a seed, then those of its content-free input, if it asks one."""
        asks = self.calibrates and (self._content_free["each"] or self._first)
        self._first = False
        made = super().prompts(doc, **kwargs)
        return [*made, *super().prompts(self._emptied(doc), **kwargs)] if asks else made

    def _emptied(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        return {**doc, **dict.fromkeys(self._content_free["columns"], CONTENT_FREE)}

    def process_results(self, doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """Keep the content-free answers if the row has some, then score it."""
        own = len(self._blocks) * self.per_prompt(doc)
        if free := results[own:]:
            if not self._content_free["each"] and any(getattr(r, "record", {}).get("skipped") for r in free):
                raise UsageError(
                    f"{self.config.task}: the content-free prompt that all rows are calibrated by was skipped for its "
                    "length: show fewer demonstrations, or pass --metadata '{\"calibration\": false}'"
                )
            self._shared = self._mean_nlls(self._emptied(doc), free)
        return super().process_results(doc, results)

    def answers(self, doc: Mapping[str, Any], results: Sequence[Any]) -> list[OptionScores]:
        """The options' scores, one a seed."""
        step = self.per_prompt(doc)
        seeds = [results[n * step : (n + 1) * step] for n in range(len(self._blocks))]
        free = self._shared if self.calibrates else [None] * len(seeds)
        return [
            OptionScores([float(result[0]) for result in seed], self._tokens(doc, seed), of_free)
            for seed, of_free in zip(seeds, free, strict=True)
        ]

    def _mean_nlls(self, doc: Mapping[str, Any], results: Sequence[Any]) -> list[list[float]]:
        step = self.per_prompt(doc)
        seeds = [results[start : start + step] for start in range(0, len(results), step)]
        return [
            [-float(result[0]) / count for result, count in zip(seed, self._tokens(doc, seed), strict=True)]
            for seed in seeds
        ]

    def _tokens(self, doc: Mapping[str, Any], results: Sequence[Any]) -> list[int]:
        """Tokens of each option, in its results of one prompt."""
        return [self.answer_tokens(doc, *pair) for pair in zip(self.doc_to_choice(doc), results, strict=True)]


def _seeds(metadata: Mapping[str, Any]) -> list[int]:
    """The demonstration seeds: a list, or one number."""
    given: Any = metadata.get("seeds")
    seeds: list[int] = list(given) if isinstance(given, list | tuple) else [given]
    whole = all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in seeds)
    if not seeds or not whole or len(set(seeds)) < len(seeds):
        raise UsageError(f"seeds={given!r}: seeds is a list of different whole numbers, such as [0, 1, 2]")
    return seeds
