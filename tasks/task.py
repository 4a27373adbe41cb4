"""The lm-eval task over marked contexts: any lm-eval model sees its plain text, ours see its parts."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import datasets
from lm_eval.api.samplers import ContextSampler
from lm_eval.api.task import ConfigurableTask

from pcc_bench.core.context import Prompt, literal, mark_row
from pcc_bench.core.errors import UsageError, print_usage_errors_plainly
from pcc_bench.core.questions import OFFICIAL, question_prompt
from pcc_bench.host.settings import check_spelling
from pcc_bench.tasks.data import fingerprint, load_docs
from pcc_bench.tasks.metadata import TokenCounter, warn_of_another_prompt, whole

LARGEST = 700.0  # nats a unit: the exponential of more is no float
TAIL = 64  # characters, of which tokens reach back over a few

print_usage_errors_plainly()  # lm-eval's command line shows tracebacks; our mistakes-to-fix are one sentence


class PccTask(ConfigurableTask):  # type: ignore[misc]
    """A task whose YAML says which columns may be compressed (`metadata.compress`) and how to read a row.

    Besides lm-eval's own, the YAML has the keys `class` (this class), `read_row` (a row -> `Example` or `Dropped`), and
    those of `OWN`, each of which becomes an attribute with an underscore. The metadata (`dataset`, `split`, `hub`,
    `population_filter`, `official_references`) say where the rows come from; `data`, `protocol`, `population` and
    `tokenizer` may be given by the user. `metadata.population` then holds the account of what was read, kept and
    dropped, so that it stands in lm-eval's results.
    """

    OWN: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Mapping[str, Any], **kwargs: Any) -> None:
        own = dict(config)
        own.pop("class", None)  # the factory's business, unknown to TaskConfig
        for key in ("read_row", *self.OWN):
            setattr(self, f"_{key}", own.pop(key))
        self._template_end: str | None = None  # under a chat template: what an answer follows
        check_spelling(map(str, own["metadata"]))
        columns = own["metadata"].get("compress", {})
        if not isinstance(columns, Mapping) or not all(isinstance(after, str) for after in columns.values()):
            raise UsageError(f"{own['task']} says itself what is compressed: leave compress={columns!r} out")
        super().__init__(config=own, **kwargs)
        sampler: Any = getattr(self, "sampler", None)
        if type(sampler) is ContextSampler:  # one that the YAML names is left alone
            self.sampler: Any = OtherQuestions(sampler.df, self._asked)

    @cached_property
    def counter(self) -> TokenCounter:
        return TokenCounter.open(self.config.metadata, f"{self.config.task} counts decoder tokens")

    @property
    def seed(self) -> int:
        return whole(self.config.metadata, "seed", 0, least=0)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        docs, account = load_docs(self.config.metadata, self._read_row)
        self.take(docs, **account)

    def take(self, docs: list[dict[str, Any]], dropped: Mapping[str, int], **account: Any) -> None:
        """Take the rows that are asked, and note for lm-eval's results what they are.

        With the setting `draw` the rows are asked in an order drawn with that seed: a file has its rows by article, so
        that the first N of them are of a few. `dropped`: how many others were read, by reason. `account` (source,
        tokenizer, settings) adds to what stands here, or replaces it.
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
        return super().doc_to_text(self._marked(doc), doc_to_text)

    def doc_to_prefix(self, doc: Mapping[str, Any]) -> Any:
        return super().doc_to_prefix(self._marked(doc))

    def resolve_field(self, doc: Mapping[str, Any], field: str | None = None) -> Any:
        return super().resolve_field(self._marked(doc), field)

    def build_qa_turn(self, *, q: Any = None, c: Any = None, a: Any = None, **kwargs: Any) -> list[Any]:
        """A turn whose answer is marked; the question is marked by the template, or is a choice of the data."""
        question = _literals(q) if self.multiple_input else q
        return list(super().build_qa_turn(q=question, c=_literals(c), a=_literals(a), **kwargs))

    def fewshot_context(self, *args: Any, **kwargs: Any) -> Prompt | list[Prompt]:
        assembled = super().fewshot_context(*args, **kwargs)
        return list(map(Prompt.parse, assembled)) if isinstance(assembled, list) else Prompt.parse(assembled)

    def build_all_requests(self, *, tokenizer_name: str = "", apply_chat_template: bool = False, **kwargs: Any) -> None:
        """As lm-eval does; its request cache also knows the version of the task, its rows and how they are asked."""
        key = f"{tokenizer_name}-v{self.VERSION}-{fingerprint([self.config.metadata['population']])}"
        super().build_all_requests(tokenizer_name=key, apply_chat_template=apply_chat_template, **kwargs)
        ends = (str(instance.args[0])[-TAIL:] for instance in self.instances)  # all alike under a chat template
        self._template_end = next(ends, "") if apply_chat_template else None

    # Scores

    def process_results(self, doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """Scores, and the account of compression where the model keeps one (attribute `record` of its answers).

        A `UsageError` where a log-likelihood or a perplexity is no finite number.
        """
        records = [record for record in (getattr(result, "record", None) for result in results) if record is not None]
        if any(record.get("skipped") for record in records):
            return {}  # in no score; the model reports it
        for answer in results:
            likelihood = answer[0] if isinstance(answer, tuple) else answer
            if isinstance(likelihood, float) and not math.isfinite(likelihood):
                where = f"{self.config.task}: a log-likelihood of row {doc.get('id')} is {likelihood}, no finite number"
                raise UsageError(f"{where}: the model's dtype is too small, or its weights are damaged")
        scores = self.scores(doc, results)
        for metric, score in scores.items():  # perplexities are (log-likelihood, units)
            if isinstance(score, tuple) and isinstance(score[0], float) and not abs(score[0]) < LARGEST * score[1]:
                where = f"{self.config.task}: the {metric} of row {doc.get('id')}"
                raise UsageError(f"{where}, {score}, has no finite mean")
        if records and "compression" in self.aggregation():  # --predict_only has no such metric
            return {**scores, "compression": self.account(doc, records)}
        return scores

    def scores(self, doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        return dict(super().process_results(doc, results))

    def account(self, doc: Mapping[str, Any], records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return records[0]

    def _marked(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        return mark_row(doc, self.config.metadata["compress"])

    def _asked(self, doc: Mapping[str, Any]) -> str:
        """What a row asks, context and question, without regard to white space and id."""
        text = ConfigurableTask.doc_to_text(self, doc)
        if not isinstance(text, str):  # the number of a choice: all the row is asked
            text = repr([(key, value) for key, value in doc.items() if key != "id"])
        return " ".join(text.split())


class OtherQuestions(ContextSampler):  # type: ignore[misc]
    """lm-eval's few-shot examples without rows that ask what the scored row asks (it only leaves out equal rows)."""

    def __init__(self, rows: Sequence[dict[str, Any]], asked: Callable[[Mapping[str, Any]], str]) -> None:
        super().__init__(rows)
        self._asked = asked

    def sample(
        self, n: int, eval_doc: dict[str, Any] | None = None, df: Any = None, **kwargs: Any
    ) -> Sequence[dict[str, Any]]:
        rows, own = self.fewshot_docs(), self._asked(eval_doc) if eval_doc else None
        drawn = self.rnd.sample(rows, min(n + (eval_doc is not None), len(rows)))
        others = [row for row in drawn if self._asked(row) != own][:n]
        if len(others) == n:
            return others
        pool = [row for row in rows if self._asked(row) != own]
        if len(pool) < n:
            raise UsageError(f"num_fewshot={n}: only {len(pool)} rows ask something else than the row that is scored")
        return list(self.rnd.sample(pool, n))


class QuestionTask(PccTask):
    """A question on a context, in the words that `metadata.prompt` names (`pcc_bench.core.questions`).

    The account of the rows says which (`metadata.population.prompt`); a YAML's own `doc_to_text` is `custom`.
    """

    def __init__(self, config: Mapping[str, Any], **kwargs: Any) -> None:
        name = config["metadata"].get("prompt")
        self._needs_chat_template = False
        words: dict[str, Any] = {}
        if "doc_to_text" not in config:
            name = OFFICIAL if name is None else name
            prompt = question_prompt(name)
            words["doc_to_text"] = "{{context}}" + prompt.text.replace("{question}", "{{question}}")
            words |= {"target_delimiter": prompt.delimiter, "gen_prefix": prompt.answer_start or None}
            words["generation_kwargs"] = {**config["generation_kwargs"], **prompt.ending}
            self._needs_chat_template = prompt.needs_chat_template
        elif name is not None:
            raise UsageError(f"prompt={name!r}: {config['task']} has a doc_to_text of its own: leave prompt out")
        super().__init__({**config, **words}, **kwargs)
        self.config.metadata["population"]["prompt"] = name or "custom"
        if name is not None:
            warn_of_another_prompt(self.config.metadata, name)

    def build_all_requests(self, *, apply_chat_template: bool = False, **kwargs: Any) -> None:
        """As the others; a prompt that is a user's turn needs a chat template to put it in."""
        if self._needs_chat_template and not apply_chat_template:
            name = self.config.metadata["population"]["prompt"]
            raise UsageError(
                f"prompt={name} is a user's turn in a chat: pass --apply_chat_template (pcc-bench eval: "
                "--apply-chat-template), or prompt=short for a decoder without a chat template"
            )
        super().build_all_requests(apply_chat_template=apply_chat_template, **kwargs)


def scored_tokens(result: Any) -> int | None:
    """Tokens whose log-likelihoods an answer sums up; None where the model does not say, as lm-eval's own."""
    return (getattr(result, "record", None) or {}).get("scored_tokens")


def _literals(data: Any) -> Any:
    """Strings as literals ("" stays empty: lm-eval asks whether there is an answer), lists of them too."""
    if isinstance(data, list):
        return [_literals(item) for item in data]
    return literal(data) if isinstance(data, str) and data else data
