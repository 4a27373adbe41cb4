"""The lm-eval task over marked contexts: any lm-eval model sees its plain text, ours see its parts."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import datasets
from lm_eval.api.instance import Instance
from lm_eval.api.samplers import ContextSampler
from lm_eval.api.task import ConfigurableTask

from pcc_bench.core.context import Prompt, literal, mark_row
from pcc_bench.core.errors import UsageError, print_usage_errors_plainly
from pcc_bench.core.questions import OFFICIAL, question_prompt
from pcc_bench.host.settings import check_spelling
from pcc_bench.tasks.data import fingerprint, load_docs
from pcc_bench.tasks.metadata import warn_of_another_prompt, whole

LARGEST = 700.0  # nats a unit: the exponential of more is no float
TAIL = 64  # characters, of which tokens reach back over a few

print_usage_errors_plainly()  # lm-eval's command line shows tracebacks; our mistakes-to-fix are one sentence


class PccTask(ConfigurableTask):  # type: ignore[misc]
    """A task whose YAML says which columns may be compressed (`metadata.compress`) and how to read a row.

    Besides lm-eval's own, the YAML has the keys `class` (this class) and `read_row` (a row -> `Example` or `Dropped`).
    The metadata (`dataset`, `split`, `hub`, `population_filter`, `official_references`) say where the rows come from;
    `data`, `protocol`, `population` and `tokenizer` may be given by the user. `metadata.population` then holds the
    account of what was read, kept and dropped, so that it stands in lm-eval's results.
    """

    def __init__(self, config: Mapping[str, Any], **kwargs: Any) -> None:
        own = dict(config)
        own.pop("class", None)  # the factory's business, unknown to TaskConfig
        self._read_row = own.pop("read_row")
        check_spelling(map(str, own["metadata"]))
        columns = own["metadata"].get("compress", {})
        if not isinstance(columns, Mapping) or not all(isinstance(after, str) for after in columns.values()):
            raise UsageError(f"{own['task']} says itself what is compressed: leave compress={columns!r} out")
        super().__init__(config=own, **kwargs)
        sampler: Any = getattr(self, "sampler", None)
        if type(sampler) is ContextSampler:  # one that the YAML names is left alone
            self.sampler: Any = OtherQuestions(sampler.df, self._asked)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Load the rows."""
        docs, account = load_docs(self.config.metadata, self._read_row)
        self.take(docs, **account)

    def take(self, docs: list[dict[str, Any]], dropped: Mapping[str, int], **account: Any) -> None:
        """Take rows, and note for lm-eval's results what they are; `account` adds to what stands here, or replaces it.

        With the setting `draw` the rows are asked in an order drawn with that seed: a file has its rows by article, so
        that the first N of them are of a few.

        Args:
            docs: The rows that are asked.
            dropped: How many others were read, by reason.
            account: Source of the rows, tokenizer, settings.
        """
        counts = {"rows_read": len(docs) + sum(dropped.values()), "kept": len(docs), "dropped": dict(dropped)}
        known = {"protocol": self.config.metadata.get("protocol", "strict"), "population": "all", **counts}
        known |= {"fingerprint": fingerprint(docs), **account}
        if "draw" in self.config.metadata:
            seed = whole(self.config.metadata, "draw", 0, least=0)
            docs = random.Random(seed).sample(docs, len(docs))
            known |= {"draw": seed, "fingerprint": f"{known['fingerprint']}-draw-{seed}"}
        self.config.metadata = {**self.config.metadata, "population": known}
        self.dataset = {"test": datasets.Dataset.from_list(docs)}

    # Prompts. Everything of the data that enters a prompt is marked, as context or as literal.

    def doc_to_text(self, doc: Mapping[str, Any], doc_to_text: Any = None) -> Any:
        """The template over the marked row."""
        return super().doc_to_text(self._marked(doc), doc_to_text)

    def doc_to_prefix(self, doc: Mapping[str, Any]) -> Any:
        """The beginning of the answer that is given to the model."""
        return super().doc_to_prefix(self._marked(doc))

    def resolve_field(self, doc: Mapping[str, Any], field: str | None = None) -> Any:
        """A column or template of the few-shot prefix or the description."""
        return super().resolve_field(self._marked(doc), field)

    def build_qa_turn(
        self, *, q: str | None = None, c: list[str] | None = None, a: Any = None, **kwargs: Any
    ) -> list[Any]:
        """A turn whose answer is marked; the question is marked by the template, or is a choice of the data."""
        question = _literals(q) if self.multiple_input else q
        turn: list[Any] = super().build_qa_turn(q=question, c=_literals(c), a=_literals(a), **kwargs)
        return turn

    def fewshot_context(self, *args: Any, **kwargs: Any) -> Prompt | list[Prompt]:
        """The assembled prompt (few-shot examples, chat template), split into its parts."""
        assembled = super().fewshot_context(*args, **kwargs)
        if isinstance(assembled, list):
            return [Prompt.parse(prompt) for prompt in assembled]
        return Prompt.parse(assembled)

    def build_all_requests(self, *, tokenizer_name: str = "", **kwargs: Any) -> None:
        """As lm-eval does, with a key for its request cache that knows the rows and the version of the task."""
        rows = self.config.metadata["population"]["fingerprint"]
        super().build_all_requests(tokenizer_name=f"{tokenizer_name}-v{self.VERSION}-{rows}", **kwargs)

    # Scores

    def process_results(self, doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """Scores, and the account of compression where the model keeps one (attribute `record` of its answers)."""
        record = getattr(results[0], "record", None)
        if record is not None and record.get("skipped"):
            return {}  # in no score; the model reports it
        self._check_answers(doc, results)
        scores: dict[str, Any] = super().process_results(doc, results)
        self._check_scores(doc, scores)
        if record is not None and "compression" in self.aggregation():  # --predict_only has no such metric
            return {**scores, "compression": record}
        return scores

    def _check_answers(self, doc: Mapping[str, Any], answers: Sequence[Any]) -> None:
        """See that every log-likelihood of a row is a finite number."""
        for answer in answers:
            likelihood = answer[0] if isinstance(answer, tuple) else answer
            if isinstance(likelihood, float) and not math.isfinite(likelihood):
                where = f"{self.config.task}: a log-likelihood of row {doc.get('id')} is {likelihood}, no finite number"
                raise UsageError(f"{where}: the model's dtype is too small, or its weights are damaged")

    def _check_scores(self, doc: Mapping[str, Any], scores: Mapping[str, Any]) -> None:
        """See that perplexities (log-likelihood, units) are numbers that a float holds."""
        for metric, score in scores.items():
            if isinstance(score, tuple) and isinstance(score[0], float) and not abs(score[0]) < LARGEST * score[1]:
                raise UsageError(
                    f"{self.config.task}: the {metric} of row {doc.get('id')}, {score}, has no finite mean"
                )

    def _marked(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        return mark_row(doc, self.config.metadata["compress"])

    def _asked(self, doc: Mapping[str, Any]) -> str:
        """What a row asks, context and question, without regard to white space and id."""
        text = ConfigurableTask.doc_to_text(self, doc)
        if not isinstance(text, str):  # the number of a choice: all the row is asked
            text = repr([(key, value) for key, value in doc.items() if key != "id"])
        return " ".join(text.split())


class OtherQuestions(ContextSampler):  # type: ignore[misc]
    """lm-eval's sampler of few-shot examples, for rows that may stand in a data set twice under different ids.

    Draws are the same. A row is left out that asks what the scored row asks; lm-eval compares whole rows, ids too.
    """

    def __init__(self, rows: Sequence[dict[str, Any]], asked: Callable[[Mapping[str, Any]], str]) -> None:
        super().__init__(rows)
        self._asked = asked

    def sample(
        self, n: int, eval_doc: dict[str, Any] | None = None, df: Any = None, **kwargs: Any
    ) -> Sequence[dict[str, Any]]:
        """The examples of a scored row.

        Raises:
            UsageError: Too few rows ask something else.
        """
        rows, own = self.fewshot_docs(), self._asked(eval_doc) if eval_doc else None
        drawn = self.rnd.sample(rows, min(n + (eval_doc is not None), len(rows)))
        others = [row for row in drawn if self._asked(row) != own][:n]
        if len(others) == n:
            return others
        pool = [row for row in rows if self._asked(row) != own]
        if len(pool) < n:
            raise UsageError(f"num_fewshot={n}: only {len(pool)} rows ask something else than the row that is scored")
        other: Sequence[dict[str, Any]] = self.rnd.sample(pool, n)
        return other


class QuestionTask(PccTask):
    """A question on a context, in the words that `metadata.prompt` names (`pcc_bench.core.questions`).

    The account of the rows says which they were (`metadata.population.prompt`). A YAML with a `doc_to_text` of its own
    keeps that, and its prompt is `custom`.

    Raises:
        UsageError: No such prompt, or one is chosen for a YAML that has its own words.
    """

    def __init__(self, config: Mapping[str, Any], **kwargs: Any) -> None:
        name = config["metadata"].get("prompt")
        self._needs_chat_template = False
        words: dict[str, Any] = {}
        if "doc_to_text" not in config:
            name = OFFICIAL if name is None else name
            prompt = question_prompt(name)
            words = {
                "doc_to_text": "{{context}}" + prompt.text.replace("{question}", "{{question}}"),
                "target_delimiter": prompt.delimiter,
                "gen_prefix": prompt.answer_start or None,
                "generation_kwargs": {**config["generation_kwargs"], **prompt.ending},
            }
            self._needs_chat_template = prompt.needs_chat_template
        elif name is not None:
            raise UsageError(f"prompt={name!r}: {config['task']} has a doc_to_text of its own: leave prompt out")
        super().__init__({**config, **words}, **kwargs)
        self.config.metadata["population"]["prompt"] = name or "custom"
        if name is not None:
            warn_of_another_prompt(self.config.metadata, name)

    def build_all_requests(self, *, tokenizer_name: str = "", apply_chat_template: bool = False, **kwargs: Any) -> None:
        """As lm-eval does; its request cache also knows the prompt.

        Raises:
            UsageError: The prompt is a user's turn, and there is no chat template to put it in.
        """
        name = self.config.metadata["population"]["prompt"]
        if self._needs_chat_template and not apply_chat_template:
            raise UsageError(
                f"prompt={name} is a user's turn in a chat: pass --apply_chat_template (pcc-bench eval: "
                "--apply-chat-template), or prompt=short for a decoder without a chat template"
            )
        super().build_all_requests(
            tokenizer_name=f"{tokenizer_name}-{name}", apply_chat_template=apply_chat_template, **kwargs
        )


def scored_tokens(result: Any) -> int | None:
    """Tokens whose log-likelihoods an answer sums up; None where the model does not say, as lm-eval's own."""
    return (getattr(result, "record", None) or {}).get("scored_tokens")


def end_of_prompt(instances: Sequence[Instance]) -> str:
    """The last characters of a task's prompts under a chat template, where all end alike: what an answer follows."""
    return str(instances[0].args[0])[-TAIL:] if instances else ""


def _literals(data: Any) -> Any:
    """Strings as literals ("" stays empty: lm-eval asks whether there is an answer), lists of them too."""
    if isinstance(data, list):
        return [_literals(item) for item in data]
    return literal(data) if isinstance(data, str) and data else data
