"""Tasks with demonstrations before the test item: none, as text, or as the part of the prompt that is compressed."""

import random
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any, Self, cast

from lm_eval.api.instance import Instance
from lm_eval.utils import apply_template

from pcc_bench.core.context import Prompt, literal, mark, mark_row
from pcc_bench.core.errors import UsageError
from pcc_bench.tasks.data import read_table
from pcc_bench.tasks.metadata import TokenCounter, choice
from pcc_bench.tasks.task import PccTask, scored_tokens

SEPARATOR = "\n\n"  # after each demonstration
# Fields of an account (`pcc_bench.core.provenance`): what adds up over a row's prompts, over its requests; the ratios.
SIZES = (
    *("contexts", "source_tokens", "compressor_tokens", "source_bytes", "slots", "boundary", "prompt_positions"),
    *("truncated_bytes", "compress_seconds"),
)
COSTS = ("prefill_seconds", "decode_seconds", "new_tokens", "scored_tokens")
RATIOS = (
    ("ratio_slots", "source_tokens", ("slots",)),
    ("ratio", "source_tokens", ("slots", "boundary")),
    ("bytes_per_position", "source_bytes", ("slots", "boundary")),
)


@dataclass(frozen=True)
class Shots:
    form: str  # `none`, `text` (they stay text) or `memory` (they are what is compressed)
    count: int | None = None  # so many demonstrations; None where a budget says
    tokens: int | None = None  # as many as fit this budget of decoder tokens; None where a count says

    @classmethod
    def read(cls, shipped: Mapping[str, Any], changed: Any) -> Self:
        """A task's own wish, changed by what the user says (`demonstrations` in the metadata)."""
        if not changed:
            return cls(**shipped)
        what = f"demonstrations={changed!r}"
        if not isinstance(changed, Mapping) or len(changed) != 1 or not set(changed) <= {"count", "tokens"}:
            raise UsageError(f'{what}: pass {{"count": 30}} or {{"tokens": 750}}, one of them')
        if shipped["form"] == "none":
            raise UsageError(f"{what}: this task has no demonstrations, its _text and _memory forms have")
        if any(not isinstance(value, int) or isinstance(value, bool) or value < 1 for value in changed.values()):
            raise UsageError(f"{what}: a count or budget is a whole number of 1 or more")
        return cls(shipped["form"], **changed)


@dataclass(frozen=True)
class Block:
    text: str = ""  # separators between them but not after the last
    count: int = 0
    tokens: int | None = None  # decoder tokens of the text and a last separator; None where nobody counted


def block(pieces: Iterator[str], shots: Shots, counter: TokenCounter | None, place: str) -> Block:
    """The first demonstrations, as many as a count says or a budget holds (see `fill`), from a `place`."""
    if shots.count is not None:
        texts = list(islice(pieces, shots.count))
        if len(texts) < shots.count:
            raise UsageError(f"{place} has {len(texts)} demonstrations, {shots.count} are wanted: ask for fewer")
        return Block(SEPARATOR.join(texts), len(texts))
    assert counter is not None and shots.tokens is not None
    ended = [piece + SEPARATOR for piece in islice(pieces, shots.tokens + 1)]  # each has a token at least
    first, few = f"the first demonstration of {place}", f"{place} has too few demonstrations ({len(ended)})"
    return fill(ended, shots.tokens, counter, first=first, few=few)


def fill(
    pieces: Sequence[str], budget: int, counter: TokenCounter, *, first: str, few: str, backwards: bool = False
) -> Block:
    """As many of the first pieces as fit a budget of tokens; with one more it would be exceeded.

    `backwards`: each stands before the one that it follows here; else they are in an order that was drawn. A
    `UsageError` where not even the first one fits (`first` says what it is), or all are too little (`few` says so).
    """

    def joined(count: int) -> str:
        return "".join(reversed(pieces[:count]) if backwards else pieces[:count])

    sizes = counter.count_all(pieces)
    count = bisect_right(list(accumulate(sizes)), budget)  # a guess: tokens may merge where pieces meet
    while count and counter.count(joined(count)) > budget:
        count -= 1
    while count < len(pieces) and counter.count(joined(count + 1)) <= budget:
        count += 1
    if not count and pieces:
        remedy = "pass a larger budget" + ("" if backwards else " or another seed")
        raise UsageError(f"{first} has {sizes[0]} decoder tokens and can't fit the budget of {budget}: {remedy}")
    if count == len(pieces):
        remedy = "provide more rows or pass a smaller budget"
        raise UsageError(f"{few} to fill a budget of {budget} decoder tokens: {remedy}")
    text = joined(count)
    return Block(text.removesuffix(SEPARATOR), count, counter.count(text))


def without_repeats(generator: random.Random, size: int) -> Iterator[int]:
    """The numbers below `size`, each once, in an order that is drawn as it is read."""
    seen: set[int] = set()
    while len(seen) < size:
        number = generator.randrange(size)
        if number not in seen:
            seen.add(number)
            yield number


class DemonstratedTask(PccTask):
    """A task whose template begins with `{{demonstrations}}`; its three forms differ in nothing else.

    Besides those of `PccTask`, its YAML has the key `demonstrations`: the form, and a count or a budget (see `Shots`),
    which the user may change by `metadata.demonstrations`. The test item always stays text. A row may be asked several
    times (once a seed); all its requests are scored together, so that a row counts once.
    """

    def __init__(self, config: Mapping[str, Any], **kwargs: Any) -> None:
        own = dict(config)
        self.shots = Shots.read(own.pop("demonstrations"), own["metadata"].get("demonstrations"))
        super().__init__(own, **kwargs)

    def read(self, split: str, **other: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Rows of a split of the data set, with other metadata, and their source."""
        hub = self.config.metadata["hub"]
        metadata = {**self.config.metadata, "split": split, "hub": hub and {**hub, "split": split}, **other}
        return read_table(metadata, self._read_row)

    def blocks(self, doc: Mapping[str, Any]) -> list[str]:
        """The demonstrations before a row: one text for each time it is asked ("" for none)."""
        return [doc["demonstrations"]]

    def item(self, doc: Mapping[str, Any]) -> str:
        return str(apply_template(self.config.doc_to_text, {**doc, "demonstrations": ""}))

    def likelihoods(
        self, doc: Mapping[str, Any], answers: Sequence[str], results: Sequence[Any]
    ) -> list[tuple[float, int]]:
        """Log-likelihood and decoder tokens of each answer: those scored, or counted where the answer stands."""
        pairs = []
        for answer, result in zip(answers, results, strict=True):
            if (tokens := scored_tokens(result)) is None:
                if (before := self._template_end) is None:
                    before, answer = self.item(doc), self.config.target_delimiter + answer
                tokens = self.counter.continuation(before, answer)
            pairs.append((float(result[0]), tokens))
        return pairs

    # Prompts

    def fewshot_context(self, doc: Mapping[str, Any], num_fewshot: int = 0, **kwargs: Any) -> Any:
        if num_fewshot:
            raise UsageError(f"{self.config.task} brings its own demonstrations: leave num_fewshot out")
        prompts = self.prompts(doc, **kwargs)
        return prompts[0] if len(prompts) == 1 else prompts

    def prompts(self, doc: Mapping[str, Any], **kwargs: Any) -> list[Prompt]:
        rows = [{**doc, "demonstrations": text} for text in self.blocks(doc)]
        return [cast(Prompt, PccTask.fewshot_context(self, row, num_fewshot=0, **kwargs)) for row in rows]

    def construct_requests(self, doc: Any, ctx: Any, **kwargs: Any) -> list[Instance]:
        requests: list[Instance] = []
        for context in ctx if isinstance(ctx, list) else [ctx]:
            of_prompt = super().construct_requests(doc, context, **kwargs)
            requests += of_prompt if isinstance(of_prompt, list) else [of_prompt]
        for number, instance in enumerate(requests):
            instance.idx = number
        return requests

    def _marked(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        """The row with its demonstrations: with `protocol=official` the last separator is compressed with them."""
        row = mark_row({key: value for key, value in doc.items() if key != "demonstrations"}, {})
        shown = doc.get("demonstrations", "")
        if shown and self.shots.form == "text":
            shown = literal(shown + SEPARATOR)
        elif shown and choice(self.config.metadata, "protocol", ("strict", "official")) == "official":
            shown = mark(shown + SEPARATOR)
        elif shown:
            shown = mark(shown, SEPARATOR)
        return {**row, "demonstrations": shown}

    # Scores

    def scores(self, doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        if "bypass" in self.aggregation():  # --predict_only
            return {"bypass": 0}
        return dict(self.config.process_results(doc, self.answers(doc, results)))

    def answers(self, doc: Mapping[str, Any], results: Sequence[Any]) -> Any:
        """What the YAML's `process_results` gets: of candidates, log-likelihood and tokens of each."""
        return self.likelihoods(doc, doc["candidates"], results) if "candidates" in doc else results

    def per_prompt(self, doc: Mapping[str, Any]) -> int:
        """Requests that share a prompt: one an option."""
        return len(self.doc_to_choice(doc)) if self.config.doc_to_choice else 1

    def account(self, doc: Mapping[str, Any], records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        asked, step = len(self.blocks(doc)), self.per_prompt(doc)
        # The contexts of its prompts, each counted once; the costs of all its requests.
        prompts = records[: asked * step : step]
        merged = {**records[0], **{key: sum(record[key] for record in prompts) for key in SIZES if key in records[0]}}
        merged |= {key: sum(record[key] for record in records) for key in COSTS if key in records[0]}
        for ratio, amount, parts in RATIOS:
            if ratio in merged:
                memory = sum(merged[part] for part in parts)
                merged[ratio] = merged[amount] / memory if memory else None
        return merged
