"""From a result file of lm-eval to a run (what ran, on what, with which scores), and to the texts of its samples."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from pcc_bench.core.documents import checked, read_json
from pcc_bench.core.errors import UsageError
from pcc_bench.core.provenance import SCHEMA_VERSION
from pcc_bench.results.files import Foreign, Reported, ResultFile, is_number, samples_file
from pcc_bench.results.rows import COMPRESSION, REPEAT, of_first_filter
from pcc_bench.results.run import Run, TaskRun, protocol

UNDEFINED = ("ratio_of_sums", "compression")  # aggregations that may be 0 by 0


def read_run(path: Path) -> Run:
    """The run of a result file of this or an older version. Raises UsageError: it is none, or a score is not finite."""
    data = checked(ResultFile, read_json(path), f"{path} is not a result file of lm-eval")
    ours = data.config.pcc_bench
    if ours and (version := ours.schema_version) > SCHEMA_VERSION:
        raise UsageError(f"{path} has schema version {version}, this pcc-bench reads up to {SCHEMA_VERSION}: update it")
    reported, config, arguments = ours or Reported(), data.config, data.config.arguments
    method = reported.method or config.model
    checkpoint = str(arguments.get("pretrained") or data.model_name)
    rate = reported.requested_rate
    parts = (method, reported.control, rate and f"{rate:g}x", Path(checkpoint).name)
    ended = datetime.fromtimestamp(data.date, UTC) if isinstance(data.date, int | float) else None
    versions = {"lm-eval": data.lm_eval_version, "transformers": data.transformers_version, "code": data.git_hash}
    return Run(
        id="-".join(str(part) for part in parts if part),
        path=path,
        place=path.name,
        method=method,
        model=Path(data.model_name).name,
        rate=rate,
        fingerprints=reported.fingerprints,
        tasks={task: _task(path, data, task, reported) for task in data.results if task in data.configs},
        control=reported.control,
        labels=_labels(path),
        checkpoint=checkpoint,
        decoder=reported.decoder or str(arguments.get("decoder") or ("" if ours else checkpoint)),
        arguments=arguments,
        seeds=(config.random_seed, config.numpy_seed, config.torch_seed, config.fewshot_seed),
        date=ended.isoformat(timespec="seconds") if ended else "",
        parameters=config.model_num_parameters,
        dtype=config.model_dtype.removeprefix("torch."),
        versions={name: version for name, version in versions.items() if version},
        groups=data.groups,
        reported=ours,
    )


def _task(path: Path, data: ResultFile, task: str, ours: Reported) -> TaskRun:
    config, values = data.configs[task], data.results[task]
    functions = {entry.metric: entry.aggregation.removeprefix("def ").partition("(")[0] for entry in config.metric_list}
    aggregations = {metric: function.strip() for metric, function in functions.items()}
    first_values: dict[str, Any] = {}
    for name, value in values.items():
        if "," in name:
            first_values.setdefault(name.partition(",")[0], value)
    numbers = {}
    for key, value in first_values.items():
        if is_number(value):
            numbers[key] = float(value)
            continue
        no_ratio = key == COMPRESSION or aggregations.get(key) in UNDEFINED  # no row has anything for it
        if isinstance(value, str) or key.endswith("_stderr"):
            allowed = not isinstance(value, dict | list)
        else:
            allowed = no_ratio and (value is None or value != value)
        if not allowed:
            raise UsageError(f"{path}: {key} of {task} is {str(value)[:40]!r}, not a finite number: {REPEAT}")
    scored = values.get("sample_len", data.samples.get(task, {}).get("effective", 0))
    if type(scored) is not int or scored < 0:
        raise UsageError(f"{path}: sample_len of {task} is {str(scored)[:40]!r}, not a number of rows: {REPEAT}")
    skipped = len(ours.skipped.get(task, ()))
    return TaskRun(
        name=task,
        protocol=protocol(data, task, scored + skipped),
        population=config.metadata.population,
        higher_is_better={name: up for name, up in (data.higher_is_better.get(task) or {}).items() if up is not None},
        scores={key: value for key, value in numbers.items() if not key.endswith("_stderr")},
        errors={key.removesuffix("_stderr"): value for key, value in numbers.items() if key.endswith("_stderr")},
        aggregations=aggregations,
        scored=scored,
        skipped=skipped,
        marked=tuple(config.metadata.compress),
        samples=samples_file(path, task),
    )


def _labels(path: Path) -> dict[str, str]:
    """Suite and label of the cell whose folder a result file is in."""
    for folder in path.parents:
        mark = folder.parent / "suite.json"
        if mark.is_file():
            state = read_json(mark)
            if not isinstance(state, dict) or not isinstance(state.get("suite"), str):
                raise UsageError(f"{mark} names no suite: run the suite again, or remove the file")
            name, _, digest = folder.name.rpartition("-")
            label = name if len(digest) == 8 and name else folder.name
            return {state["suite"]: label.replace("-", " ")}
    return {}


@dataclass(frozen=True)
class Answer:
    """The texts of one sample."""

    row: int  # number of the row
    context: str  # what may be compressed; "" where the task marks nothing
    question: str  # what is asked beside it: the row's question, else the prompt without the context
    references: tuple[str, ...]  # what would be right
    answer: str  # what the model said; for options, the one it preferred
    scores: Mapping[str, float]  # metric -> number, of the metrics that are finite numbers of a row


def read_answers(task: TaskRun) -> Iterator[Answer]:
    """The texts of a task's samples in the order of the file; none where none were logged. Raises as `rows.samples`."""
    if task.samples is None:
        return
    metrics = [name for name in task.scores if name != COMPRESSION]
    for sample in of_first_filter(task.samples):
        texts = checked(_Texts, sample, f"{task.samples}, row {sample['doc_id']}")
        context = "\n\n".join(str(texts.doc.get(column, "")) for column in task.marked)
        first = next(iter(texts.arguments.values()), None) if isinstance(texts.arguments, dict) else None
        prompt = str(first.get("arg_0", "")) if isinstance(first, dict) else ""
        rest = prompt.replace(context, "", 1).strip() if context else prompt
        answers = texts.doc.get("answers")
        references = answers if isinstance(answers, list) else [texts.target]
        yield Answer(
            row=texts.doc_id,
            context=context,
            question=str(texts.doc.get("question") or rest),
            references=tuple(dict.fromkeys(map(str, references))),
            answer=texts.answer,
            scores={name: float(sample[name]) for name in metrics if is_number(sample.get(name))},
        )


class _Texts(Foreign):
    """The parts of a sample that are shown; older versions of lm-eval wrote the arguments as a list."""

    doc_id: int
    doc: dict[str, Any]
    target: Any = ""
    arguments: dict[str, Any] | list[Any] = Field(default={})
    resps: Annotated[list[Any], Field(min_length=1)]
    filtered_resps: list[Any] = Field(default=[])

    @property
    def answer(self) -> str:
        """Generated text; for options the likeliest; for a single continuation its log-likelihood."""
        answers = self.filtered_resps or self.resps
        if isinstance(answers[0], str):
            return answers[0].strip()
        likelihoods = []
        for likelihood in answers:  # [[log-likelihood, greedy]], however deep
            while isinstance(likelihood, list):
                likelihood = likelihood[0] if likelihood else None
            try:
                likelihoods.append(float(likelihood))
            except (TypeError, ValueError, OverflowError):
                return str(answers[0])
        if any(map(math.isnan, likelihoods)):
            return str(answers[0])
        if len(likelihoods) == 1:
            return f"log-likelihood {likelihoods[0]:.4g}"
        best = likelihoods.index(max(likelihoods))
        options = self.doc.get("candidates") or self.doc.get("choices")
        named = isinstance(options, list) and len(options) == len(likelihoods)
        return str(options[best]) if options and named else f"option {best + 1} of {len(likelihoods)}"
