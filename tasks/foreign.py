"""Compression of a part of any lm-eval task: that part becomes a marked context, everything else stays the task's own.

The prompt is lm-eval's, to the last character; only where its parts lie is found out. So a model that reads text
(`hf`, `full-context`) reads what it reads without this.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar, Self

from lm_eval.utils import apply_template
from pydantic import BaseModel, Field, model_validator

from pcc_bench.core.context import Kind, Part, Prompt
from pcc_bench.core.documents import Strict, checked, read_yaml
from pcc_bench.core.errors import UsageError
from pcc_bench.tasks.metrics.achieved_compression.achieved_compression import compression
from pcc_bench.tasks.task import PccTask

AUTO = "auto"
SHIPPED = Path(__file__).with_name("_compress_yaml")
METRIC = "compression"
Span = tuple[int, int, Kind]


class Mapped(Strict):
    """Which part of which tasks is compressed; see `_compress_yaml`."""

    tasks: str | list[str] = "*"
    compress: str | None = Field(default=None, min_length=1)
    pattern: str | None = None
    question: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _names_one_part(self) -> Self:
        if (self.compress is None) == (self.pattern is None):
            raise ValueError("a map has either compress (a field or a template) or pattern")
        try:
            groups = re.compile(self.pattern or "(?P<context>)").groupindex
        except re.error as error:
            raise ValueError(f"the pattern is no regular expression ({error})") from None
        if "context" not in groups:
            raise ValueError("a pattern has a group (?P<context>...)")
        return self

    @property
    def part(self) -> str:
        return self.compress or f"the pattern {self.pattern}"

    def holds(self, name: str) -> bool:
        names = [self.tasks] if isinstance(self.tasks, str) else self.tasks
        return any(fnmatchcase(name, known) for known in names)


class Maps(BaseModel):
    maps: list[Mapped]

    def of(self, name: str) -> Mapped | None:
        """The map of a task: the first whose names match."""
        return next((known for known in self.maps if known.holds(name)), None)


def shipped() -> Maps:
    return _read(str(SHIPPED))


def maps_of(compress: str) -> Maps | None:
    """The maps of the file that `--compress` names; None where it names none."""
    return _read(compress) if compress.endswith((".yaml", ".yml")) else None


def _read(path: str) -> Maps:
    state = read_yaml(Path(path))
    return checked(Maps, {"maps": state if isinstance(state, list) else [state]}, path)


def chosen(compress: str, task: str) -> Mapped:
    """The map of a task that `--compress` means: `auto`, a YAML file with maps, a field of the rows, or a template."""
    if (maps := maps_of(compress)) is not None:
        if (known := maps.of(task)) is None:
            raise UsageError(f"{compress} has no map for {task}: add one with tasks: {task}")
        return known
    known = shipped().of(task)
    if compress != AUTO:
        return Mapped(compress=compress, question=known.question if known and known.compress == compress else None)
    if known is None:
        raise UsageError(f"there is no map for {task}: pass --compress with a field of its rows, or a file map.yaml")
    return known


class MarkedTask:
    """What a task's class gets on top of its own: prompts that know their parts, the account of compression."""

    # the task's own class. Python lets an object change to a class below its own only, so not by `super()`.
    original: ClassVar[Any]
    config: Any
    mapped: Mapped  # which part is compressed

    def doc_to_text(self, doc: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The task's own, noted for `fewshot_context`."""
        text = self.original.doc_to_text(self, doc, *args, **kwargs)
        self.__dict__.setdefault("_rendered", []).append((doc, text))
        return text

    def fewshot_context(self, *args: Any, **kwargs: Any) -> Prompt:
        self._rendered: list[tuple[Mapping[str, Any], Any]] = []
        assembled = self.original.fewshot_context(self, *args, **kwargs)
        rendered, self._rendered = self._rendered, []
        if not isinstance(assembled, str) or not rendered:
            raise UsageError(f"{self.config.task} puts its choices in place of a prompt: it has no part to compress")
        spans, end = list[Span](), 0
        for doc, text in rendered:
            whole = next(t for t in (text, text.strip(), "") if t in assembled[end:])  # chat templates strip
            start = assembled.find(whole, end) if whole else end
            inside = list(spans_of(self.mapped, doc, whole)) if whole else []
            if not any(kind is Kind.CONTEXT for *_, kind in inside):
                shown = assembled if len(assembled) < 400 else f"{assembled[:300]} ... {assembled[-100:]}"
                raise UsageError(
                    f"--compress: {self.mapped.part} can't be found in a prompt of {self.config.task}: name a field of "
                    f"its rows ({', '.join(map(str, doc))}) or a map.yaml; the prompt is {shown!r}"
                )
            spans += [(start + first, start + last, kind) for first, last, kind in inside]
            end = start + len(whole)
        return Prompt(_parts(assembled, spans))

    def build_all_requests(self, *, tokenizer_name: str = "", **kwargs: Any) -> None:
        """The task's own; its request cache also knows the map."""
        key = f"{tokenizer_name}-compress-{self.mapped.model_dump_json(exclude={'tasks'})}"
        self.original.build_all_requests(self, tokenizer_name=key, **kwargs)
        for instance in self._instances:  # type: ignore[attr-defined]
            prompt = instance.args[0]
            if prompt and not isinstance(prompt, Prompt):
                shown = repr(str(prompt)[:200])
                raise UsageError(f"{self.config.task} rewrites its prompts, so that no part is known: {shown}")

    def apply_filters(self) -> Any:
        """The task's own; an answer keeps its account where a filter makes another text of it."""
        applied = self.original.apply_filters(self)
        for instance in self._instances:  # type: ignore[attr-defined]
            answer = instance.resps[0] if instance.resps else None
            kind: Any = type(answer)
            if isinstance(answer, str) and hasattr(answer, "record"):
                for name, value in instance.filtered_resps.items():
                    if type(value) is str:
                        instance.filtered_resps[name] = kind(value, answer.record)
        return applied

    def process_results(self, doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """The task's own scores, and the account; rows that were skipped are in none."""
        record = getattr(results[0], "record", None)
        if record is not None and record.get("skipped"):
            return {}
        scores: dict[str, Any] = self.original.process_results(self, doc, results)
        return scores if record is None else {**scores, METRIC: record}

    def aggregation(self) -> dict[str, Any]:
        return {**self.original.aggregation(self), METRIC: compression}

    def higher_is_better(self) -> dict[str, Any]:
        return {**self.original.higher_is_better(self), METRIC: True}


def mark_tasks(tasks: Mapping[str, Any], compress: str) -> None:
    """Let loaded tasks of lm-eval mark the part of their prompts that `--compress` means; ours mark theirs already."""
    foreign = {name: task for name, task in tasks.items() if not isinstance(task, PccTask)}
    if not foreign:
        raise UsageError(f"{', '.join(tasks)} say themselves what is compressed: leave --compress out")
    for name, task in foreign.items():
        task.mapped = chosen(compress, name)
        members = {key: value for key, value in vars(MarkedTask).items() if not key.startswith("__")}
        task.__class__ = type(f"Marked{type(task).__name__}", (type(task),), {**members, "original": type(task)})
        metadata = {} if task.config.metadata is None else task.config.metadata
        task.config.metadata = {**metadata, "compress": {task.mapped.part: ""}}


def spans_of(mapped: Mapped, doc: Mapping[str, Any], text: str) -> Iterator[Span]:
    """Where the contexts and the question of a row lie in its rendered text, in order."""
    spans, end = list[Span](), 0
    if mapped.pattern is not None:
        if (match := re.search(mapped.pattern, text, re.DOTALL)) is None:
            return
        kinds = (("context", Kind.CONTEXT), ("question", Kind.LITERAL))
        spans = [(*match.span(group), kind) for group, kind in kinds if group in match.re.groupindex]
    else:
        for value in _values(doc, mapped.compress):
            start = text.find(value, end)
            if start < 0:
                return
            end = start + len(value)
            spans.append((start, end, Kind.CONTEXT))
        for question in _values(doc, mapped.question)[:1]:
            start = text.find(question, end)
            start = start if start >= 0 else text.find(question, 0, spans[0][0] if spans else 0)
            if start >= 0:
                spans.append((start, start + len(question), Kind.LITERAL))
    yield from sorted(span for span in spans if span[0] < span[1])


def _values(doc: Mapping[str, Any], field: str | None) -> list[str]:
    if field is None or (field not in doc and "{{" not in field):
        return []
    value = doc[field] if field in doc else apply_template(field, dict(doc))
    return [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str) and text.strip()]


def _parts(text: str, spans: Sequence[Span]) -> Iterator[Part]:
    end = 0
    for start, behind, kind in spans:
        if end < start:
            yield Part(text[end:start])
        yield Part(text[start:behind], kind)
        end = behind
    if end < len(text):
        yield Part(text[end:])
