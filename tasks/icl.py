"""In-context learning (GSM8K, SST-2, WSC) on a fixed set of demonstrations, once for each demonstration seed."""

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import mean, stdev
from typing import Any, ClassVar, NamedTuple

from lm_eval.api.filter import Filter
from lm_eval.api.registry import register_filter
from lm_eval.utils import apply_template

from pcc_bench.core.context import Prompt
from pcc_bench.core.errors import UsageError
from pcc_bench.tasks.data import demonstration_rows, fingerprint, read_table
from pcc_bench.tasks.demonstrations import Block, DemonstratedTask, block, without_repeats
from pcc_bench.tasks.metrics.gsm8k_answers.gsm8k_answers import extracted, is_result

CONTENT_FREE = "N/A"  # stands in for the input when an option's bias is measured (paper's code)
FEW = 21  # up to so many rows Python's `random.sample` draws from a list, beyond it redraws what it had


class IclTask(DemonstratedTask):
    """Demonstrations are drawn from a training split, the same for all rows, anew for each of `metadata.seeds`.

    Besides those of `DemonstratedTask`, the YAML has the keys `demonstrations_split` (in a data folder and on the hub)
    and `balanced` (labels in turn, or at random). A demonstration is the task's own template with its answer.
    """

    OWN: ClassVar[tuple[str, ...]] = ("demonstrations_split", "balanced")

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        metadata, shots = self.config.metadata, self.shots
        source, docs = read_table(metadata, self._read_row)
        self._blocks = {0: Block()}
        if shots.form != "none":
            given: Any = metadata.get("seeds")
            seeds: list[int] = list(given) if isinstance(given, list | tuple) else [given]
            whole = all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in seeds)
            if not seeds or not whole or len(set(seeds)) < len(seeds):
                raise UsageError(f"seeds={given!r}: seeds is a list of different whole numbers, such as [0, 1, 2]")
            place, rows = self.read(self._demonstrations_split, lab_rows=demonstration_rows(metadata))
            counter = self.counter if shots.tokens else None
            self._blocks = {seed: block(self._pieces(rows, seed), shots, counter, place["place"]) for seed in seeds}
        tokenizer = self.counter.name if shots.tokens else None
        shown: dict[str, Any] = {"form": shots.form, "budget": shots.tokens, "tokenizer": tokenizer}
        shown["seeds"] = {str(s): {"count": b.count, "tokens": b.tokens} for s, b in sorted(self._blocks.items())}
        shown["fingerprint"] = fingerprint({"seed": seed, "text": b.text} for seed, b in self._blocks.items())
        self.take(docs, {}, **source, demonstrations=shown)

    def blocks(self, doc: Mapping[str, Any]) -> list[str]:
        return [shown.text for shown in self._blocks.values()]

    def _pieces(self, rows: Sequence[Mapping[str, Any]], seed: int) -> Iterator[str]:
        """Demonstrations in the order of a seed; the paper's code strips them on the right."""
        labels = [row["label"] for row in rows] if self._balanced else [0] * len(rows)
        for number in demonstration_order(labels, seed, balanced=self._balanced):
            row = rows[number]
            if choices := self.config.doc_to_choice:
                answer = str(choices[row["label"]])
            else:
                answer = str(apply_template(self.config.doc_to_target, row))
            yield (self.item(row) + self.config.target_delimiter + answer).rstrip()


def demonstration_order(labels: Sequence[int], seed: int, *, balanced: bool) -> Iterator[int]:
    """Numbers of a training set's rows, of which the labels are given, in the order they become demonstrations in.

    The paper's generator and seed (`random` seeded 10^6 * seed + 10^3). At random, the order is that of
    `random.sample`. Balanced, the rows of each label are shuffled and taken in turn, in as many rounds as the rarest
    label has rows; the paper's code cuts a window at a place that depends on the number of demonstrations, which no
    stable order can do, and here it starts at the first.
    """
    generator = random.Random(10**6 * seed + 10**3)
    if balanced:
        rows = {label: [n for n, other in enumerate(labels) if other == label] for label in sorted(set(labels))}
        for numbers in rows.values():
            generator.shuffle(numbers)
        yield from (number for turn in zip(*rows.values(), strict=False) for number in turn)
    elif len(labels) <= FEW:
        yield from generator.sample(range(len(labels)), len(labels))
    else:
        yield from without_repeats(generator, len(labels))


def seed_spread(rows: Sequence[Sequence[float]]) -> float:
    """The sample standard deviation (n - 1) of the demonstration seeds' means; `rows`: of each row a score a seed."""
    return stdev(mean(scores) for scores in zip(*rows, strict=True)) if rows else math.nan


def _over_seeds(right: Mapping[str, Sequence[bool]], headline: str) -> dict[str, Any]:
    scores: dict[str, Any] = {name: mean(map(float, values)) for name, values in right.items()}
    return {**scores, "seed_spread": list(map(float, right[headline]))} if len(right[headline]) > 1 else scores


class OptionScores(NamedTuple):
    options: Sequence[tuple[float, int]]  # log-likelihood and decoder tokens of each option
    free: Sequence[float] | None  # mean token NLL of each option after the content-free input; None without calibration

    @property
    def nlls(self) -> list[float]:
        """Mean token NLL of each option."""
        return [-total / count for total, count in self.options]


class OptionTask(IclTask):
    """Options are compared by log-likelihood, with and without calibration by a content-free input.

    Besides those of `IclTask`, the YAML has the key `content_free`: the `columns` that `N/A` takes the place of, and
    `each`, which says whether every row has its own content-free input, or one serves all rows (asked with the first).
    `metadata.calibration: false` leaves those requests, and the calibrated scores, out.
    """

    OWN = (*IclTask.OWN, "content_free")
    _first = True  # the next row is the first of its build
    _shared: Sequence[Sequence[float]] = ()  # content-free mean NLL of each option, a list a seed

    @property
    def calibrates(self) -> bool:
        calibration = self.config.metadata.get("calibration", True)
        if not isinstance(calibration, bool):
            raise UsageError(f"calibration={calibration!r}: calibration is true or false")
        return calibration

    def build_all_requests(self, **kwargs: Any) -> None:
        self._first = True
        super().build_all_requests(**kwargs)

    def prompts(self, doc: Mapping[str, Any], **kwargs: Any) -> list[Prompt]:
        """The prompts of a row, one a seed, then those of its content-free input, if it asks one."""
        asks = self.calibrates and (self._content_free["each"] or self._first)
        self._first = False
        prompts = super().prompts(doc, **kwargs)
        return [*prompts, *super().prompts(self._emptied(doc), **kwargs)] if asks else prompts

    def _emptied(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        return {**doc, **dict.fromkeys(self._content_free["columns"], CONTENT_FREE)}

    def process_results(self, doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """Keep the content-free answers if the row has some, then score it."""
        if free := results[len(self._blocks) * self.per_prompt(doc) :]:
            if not self._content_free["each"] and any(getattr(r, "record", {}).get("skipped") for r in free):
                raise UsageError(
                    f"{self.config.task}: the content-free prompt that all rows are calibrated by was skipped for its "
                    "length: show fewer demonstrations, or pass --metadata '{\"calibration\": false}'"
                )
            seeds = self._of_seeds(self._emptied(doc), free)
            self._shared = [OptionScores(options, None).nlls for options in seeds]
        return super().process_results(doc, results)

    def answers(self, doc: Mapping[str, Any], results: Sequence[Any]) -> list[OptionScores]:
        seeds = self._of_seeds(doc, results[: len(self._blocks) * self.per_prompt(doc)])
        biases = self._shared if self.calibrates else [None] * len(seeds)
        return [OptionScores(options, bias) for options, bias in zip(seeds, biases, strict=True)]

    def _of_seeds(self, doc: Mapping[str, Any], results: Sequence[Any]) -> list[list[tuple[float, int]]]:
        step = self.per_prompt(doc)
        prompts = [results[start : start + step] for start in range(0, len(results), step)]
        return [self.likelihoods(doc, self.doc_to_choice(doc), prompt) for prompt in prompts]


def score_options(doc: Mapping[str, Any], seeds: Sequence[OptionScores]) -> dict[str, Any]:
    """Accuracies of a row, each the mean over the demonstration seeds (lm-eval's `process_results`).

    `acc`: of the option of the highest log-likelihood, as lm-eval. `acc_token`: of the lowest mean token NLL.
    `acc_calibrated`, with calibration: of the lowest one less that after the content-free input (what the input says
    for an option, not its bias), as the paper. `seed_spread`: the last for each of several seeds.
    """
    costs = {"acc": [[-total for total, _ in seed.options] for seed in seeds], "acc_token": [s.nlls for s in seeds]}
    biases = [seed.free for seed in seeds if seed.free is not None]
    if len(biases) == len(seeds):
        pairs = [zip(seed.nlls, bias, strict=True) for seed, bias in zip(seeds, biases, strict=True)]
        costs["acc_calibrated"] = [[nll - free for nll, free in options] for options in pairs]
    right = {name: [scores.index(min(scores)) == doc["label"] for scores in of] for name, of in costs.items()}
    return _over_seeds(right, list(right)[-1])


@register_filter("pcc_number")
class NumberFilter(Filter):  # type: ignore[misc]
    def __init__(self, extraction: str = "pcc-number") -> None:
        self.extraction = extraction

    def apply(self, resps: Iterable[Sequence[str]], docs: Sequence[dict[str, Any]]) -> Iterable[list[str]]:
        """The number of every answer of every row, with the account of the answer where it has one."""

        def number(answer: Any, doc: dict[str, Any]) -> str:
            text = extracted(answer, doc.get("answer", ""), self.extraction)
            return type(answer)(text, answer.record) if hasattr(answer, "record") else text

        return [[number(answer, doc) for answer in answers] for answers, doc in zip(resps, docs, strict=True)]


def score_number(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Whether the numbers extracted from the solutions, one a demonstration seed, are the reference's."""
    return _over_seeds({"exact_match": [is_result(number, doc["answer"]) for number in results]}, "exact_match")
