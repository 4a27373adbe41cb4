"""Tasks with demonstrations before the test item: none, as text, or as the part of the prompt that is compressed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.utils import apply_template

from pcc_bench.core.context import Prompt, literal, mark, mark_row
from pcc_bench.core.errors import UsageError
from pcc_bench.tasks.demonstrations import SEPARATOR, TokenCounter, Wanted
from pcc_bench.tasks.population import choice
from pcc_bench.tasks.task import PccTask, end_of_prompt, scored_tokens

# Fields of an account (`pcc_bench.core.account`): what adds up over a row's prompts, over its requests, and the ratios.
SIZES = (
    "contexts",
    "source_tokens",
    "compressor_tokens",
    "source_bytes",
    "slots",
    "boundary",
    "prompt_positions",
    "truncated_bytes",
    "compress_seconds",
)
COSTS = ("prefill_seconds", "decode_seconds", "new_tokens", "scored_tokens")
RATIOS = (
    ("ratio_slots", "source_tokens", ("slots",)),
    ("ratio", "source_tokens", ("slots", "boundary")),
    ("bytes_per_position", "source_bytes", ("slots", "boundary")),
)


class DemonstratedTask(PccTask):
    """A task whose template begins with `{{demonstrations}}`; its three forms differ in nothing else.

    Besides those of `PccTask`, its YAML has the key `demonstrations`: the form, and a count or a budget (see `Wanted`),
    which the user may change by `metadata.demonstrations`. The test item always stays text. A row may be asked several
    times (once a seed); all its requests are scored together, so that a row counts once.
    """

    def __init__(self, config: Mapping[str, Any], **kwargs: Any) -> None:
        own = dict(config)
        self.wanted = Wanted.read(own.pop("demonstrations"), own["metadata"].get("demonstrations"))
        self._template_end: str | None = None  # under a chat template the answer follows the template's text
        super().__init__(own, **kwargs)

    @cached_property
    def counter(self) -> TokenCounter:
        """Counts tokens of the decoder that answers."""
        return TokenCounter.open(self.config.metadata, f"{self.config.task} counts decoder tokens")

    def blocks(self, doc: Mapping[str, Any]) -> list[str]:
        """The demonstrations before a row: one text for each time it is asked ("" for none)."""
        raise NotImplementedError

    def item(self, doc: Mapping[str, Any]) -> str:
        """The test item alone, as plain text."""
        return str(apply_template(self.config.doc_to_text, {**doc, "demonstrations": ""}))

    def answer_tokens(self, doc: Mapping[str, Any], answer: str, result: Any = None) -> int:
        """Decoder tokens of an answer to a row: those that its result scored, or counted where the answer stands."""
        if (scored := scored_tokens(result)) is not None:
            return scored
        if self._template_end is not None:
            return self.counter.continuation(self._template_end, answer)
        return self.counter.continuation(self.item(doc), self.config.target_delimiter + answer)

    # Prompts

    def fewshot_context(self, doc: Mapping[str, Any], num_fewshot: int = 0, **kwargs: Any) -> Any:
        """The prompt of a row, or the list of its prompts where it is asked several times.

        Raises:
            UsageError: lm-eval's own few-shot examples are asked for.
        """
        if num_fewshot:
            raise UsageError(f"{self.config.task} brings its own demonstrations: leave num_fewshot out")
        prompts = self.prompts(doc, **kwargs)
        return prompts[0] if len(prompts) == 1 else prompts

    def prompts(self, doc: Mapping[str, Any], **kwargs: Any) -> list[Prompt]:
        """A prompt for each block of demonstrations."""
        return [self._prompt({**doc, "demonstrations": block}, **kwargs) for block in self.blocks(doc)]

    def _prompt(self, doc: Mapping[str, Any], **kwargs: Any) -> Prompt:
        prompt = super().fewshot_context(doc, num_fewshot=0, **kwargs)
        assert isinstance(prompt, Prompt)
        return prompt

    def construct_requests(self, doc: Any, ctx: Any, **kwargs: Any) -> list[Instance]:
        """The requests of all prompts of a row, numbered through."""
        made: list[Instance] = []
        for context in ctx if isinstance(ctx, list) else [ctx]:
            built = super().construct_requests(doc, context, **kwargs)
            made += built if isinstance(built, list) else [built]
        for number, instance in enumerate(made):
            instance.idx = number
        return made

    def build_all_requests(self, *, tokenizer_name: str = "", apply_chat_template: bool = False, **kwargs: Any) -> None:
        """As lm-eval does; its request cache also knows the demonstrations."""
        shown = self.config.metadata["population"]["demonstrations"]["fingerprint"]
        name = f"{tokenizer_name}-{shown}"
        super().build_all_requests(tokenizer_name=name, apply_chat_template=apply_chat_template, **kwargs)
        self._template_end = end_of_prompt(self.instances) if apply_chat_template else None

    def _marked(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        row = mark_row({key: value for key, value in doc.items() if key != "demonstrations"}, {})
        return {**row, "demonstrations": self._shown(doc.get("demonstrations", ""))}

    def _shown(self, block: str) -> str:
        """The demonstrations, marked: with `protocol=official` the last separator is compressed with them."""
        if not block:
            return ""
        if self.wanted.form == "text":
            return literal(block + SEPARATOR)
        if choice(self.config.metadata, "protocol", ("strict", "official")) == "official":
            return mark(block + SEPARATOR)
        return mark(block, SEPARATOR)

    # Scores

    def process_results(self, doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """Scores of a row over all its requests, and one account for them; a row skipped in part is in no score."""
        if "bypass" in self.aggregation():  # --predict_only
            return {"bypass": 0}
        records = [record for record in (getattr(result, "record", None) for result in results) if record is not None]
        if any(record.get("skipped") for record in records):
            return {}
        self._check_answers(doc, results)
        scores: dict[str, Any] = self.config.process_results(doc, self.answers(doc, results))
        self._check_scores(doc, scores)
        return {**scores, "compression": self._account(doc, records)} if records else scores

    def answers(self, doc: Mapping[str, Any], results: Sequence[Any]) -> Any:
        """What the YAML's `process_results` gets: the answers as the data set's scores read them."""
        return results

    def per_prompt(self, doc: Mapping[str, Any]) -> int:
        """Requests that share a prompt: one an option."""
        return len(self.doc_to_choice(doc)) if self.config.doc_to_choice else 1

    def _account(self, doc: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The account of a row: contexts of its prompts (each counted once), costs of all its requests."""
        asked, step = len(self.blocks(doc)), self.per_prompt(doc)
        prompts = records[: asked * step : step]
        merged = {**records[0], **{key: sum(record[key] for record in prompts) for key in SIZES if key in records[0]}}
        merged |= {key: sum(record[key] for record in records) for key in COSTS if key in records[0]}
        for ratio, amount, parts in RATIOS:
            if ratio in merged:
                memory = sum(merged[part] for part in parts)
                merged[ratio] = merged[amount] / memory if memory else None
        return merged
