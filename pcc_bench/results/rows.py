"""The rows of a task: numbers by row, from a file of samples or a frozen baseline.

Every line is checked where it is read, by hand, since a pydantic model for each of a million lines would take longer
than everything else together.
"""

import hashlib
import json
import math
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pcc_bench.core.documents import read_json_lines
from pcc_bench.core.errors import UsageError
from pcc_bench.results.files import is_number

if TYPE_CHECKING:
    import pandas as pd

Numbers = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Columns = dict[tuple[str, str], tuple["array[int]", "array[float]"]]  # metric, filter -> places and values

HASHES = ("doc_hash", "prompt_hash", "target_hash")  # lm-eval's
COUNTS = ("source_tokens", "slots", "boundary", "prompt_positions")  # of a row's account; the same on every machine
ACCOUNT = (
    *COUNTS, "compressor_tokens", "source_bytes", "ratio_slots", "ratio", "truncated_bytes", "compress_seconds",
    "prefill_seconds", "decode_seconds", "new_tokens", "cached",
)  # fmt: skip
COMPRESSION = "compression"  # key of the account, and the metric made of it
NO_ACCOUNT = (None,) * len(ACCOUNT)
REPEAT = "repeat the run"
# The first line of a packed file of samples names the file, shared by runs on the same rows, of what was asked.
QUESTIONS = "questions"
ASKED = ("doc", "target", "arguments", "filter", "metrics", *HASHES)  # of a sample, in that file; `doc_id` is in both


@dataclass(frozen=True, eq=False)  # arrays do not compare as a whole
class Rows:
    """The rows of a task, in the order of their numbers; columns of floats have nan where a row has no value."""

    number: Integers  # `[rows]`, unique, ascending
    context: Integers  # `[rows]`, equal for rows on the same context; a row without a marked one stands for itself
    content: Integers | None  # `[rows]`, a hash of row, prompt and references; None in files of older versions
    scores: Mapping[str, Numbers]  # metric, or `metric,filter` of several -> `[rows]`; inf for what is not finite
    # metric that is a ratio of sums -> `[rows]`, what its score is divided by (tokens for `perplexity`)
    below: Mapping[str, Numbers] = field(default_factory=dict)
    # count or time of `records.SampleRecord` -> `[rows]`; columns without a value are left out
    account: Mapping[str, Numbers] = field(default_factory=dict)
    filters: tuple[str, ...] = ("none",)  # lm-eval's, in the order of the file

    def __len__(self) -> int:
        return len(self.number)

    def column(self, metric: str) -> str:
        """The key of a metric of the first filter, which is the one that lm-eval's aggregate is of."""
        return metric if len(self.filters) == 1 else f"{metric},{self.filters[0]}"

    def frame(self, run: str, task: str) -> "pd.DataFrame":
        """`run`, `task`, `row`, `context`, account, metrics of the first filter, `<metric>/of`; arrays are shared."""
        import pandas as pd

        if not len(self):
            return pd.DataFrame()
        columns: dict[str, Any] = {"run": run, "task": task, "row": self.number, "context": self.context}
        columns |= {name: values for name, values in self.account.items() if name != "cached"}
        for name, values in self.scores.items():
            metric, _, kind = name.partition(",")
            if kind in ("", self.filters[0]) and metric not in columns:
                columns[metric] = values
                if name in self.below:
                    columns[f"{metric}/of"] = self.below[name]
        return pd.DataFrame(columns, copy=False)


def check_finite(rows: Rows, name: str, what: str) -> None:
    """Raises `UsageError` where a score is not a finite number; `what` names metric and run."""
    wrong = rows.number[np.isinf(rows.scores[name])]
    if len(wrong):
        why = f"{len(wrong)} scores are not finite numbers (first in row {wrong[0]}), which nothing is compared with"
        raise UsageError(f"{what}: {why}: {REPEAT}, or leave the metric out")


def samples(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file of samples, one at a time. Raises UsageError: it can't be read, or a line is no sample."""
    for number, sample in _lines(path):
        if problem := _problem(sample):
            raise UsageError(f"{path}, line {number} is no sample of lm-eval ({problem}): {REPEAT}")
        yield sample


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Numbers and values of the lines; those of a packed file with what was asked."""
    lines = read_json_lines(path)
    first = next(lines, (0, None))
    head = first[1]
    if not isinstance(head, dict) or "doc_id" in head or QUESTIONS not in head:
        yield from (first, *lines) if first[0] else ()
        return
    name = str(head[QUESTIONS])
    # the name of a file, and no path
    folders = path.resolve().parents if re.fullmatch(r"questions_[\w.,=-]{1,200}", name) else ()
    file = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if file is None:
        raise UsageError(
            f"{path} needs the file {name[:80]!r} of its questions, which lies neither beside it nor in a folder "
            "above: copy the packed folder whole"
        )
    for (number, sample), (_, asked) in zip_longest(lines, read_json_lines(file), fillvalue=(0, {})):
        if not isinstance(sample, dict) or not isinstance(asked, dict) or sample.get("doc_id") != asked.get("doc_id"):
            where = f"line {number}" if number else "its end"
            raise UsageError(f"{path}, {where}: not the row that {file.name} has in that place: pack the results again")
        yield number, asked | sample


def of_first_filter(path: Path) -> Iterator[dict[str, Any]]:
    first: str | None = None
    for sample in samples(path):
        kind = sample.get("filter", "none")
        first = kind if first is None else first
        if kind == first:
            yield sample


def read(path: Path, marked: Sequence[str], metrics: Sequence[str]) -> Rows:
    """The rows of a file of samples; the columns `marked` of a row are its context.

    Samples of older versions do not name their metrics: these take the task's. Raises UsageError: as `samples`, or a
    row is there twice, or its account is none.
    """
    table = _Table(path, tuple(marked), tuple(metrics))
    for sample in samples(path):
        table.add(sample)
    return table.rows()


class _Table:
    def __init__(self, path: Path, marked: tuple[str, ...], metrics: tuple[str, ...]) -> None:
        self.path, self.marked, self.metrics = path, marked, metrics
        self.filters: dict[str, set[int]] = {}  # with their rows
        self.places: dict[int, int] = {}  # row -> place
        self.content, self.context = array("q"), array("q")
        self.accounts: list[tuple[Any, ...]] = []
        self.hashed = True
        self.scores: Columns = {}
        self.below: Columns = {}

    def add(self, sample: Mapping[str, Any]) -> None:
        row, kind = sample["doc_id"], sample.get("filter", "none")
        rows = self.filters.setdefault(kind, set())
        if row in rows:
            raise UsageError(f"{self.path} has row {row} twice: row ids are unique in a run; {REPEAT}")
        hashes = [sample.get(name) for name in HASHES]
        self.hashed = self.hashed and None not in hashes
        # 48 bits: rows are matched by number; the hash only has to notice another content.
        content = int(hashlib.sha256(json.dumps(hashes).encode()).hexdigest()[:12], 16)
        rows.add(row)
        place = self.places.setdefault(row, len(self.content))
        if place == len(self.content):
            context = [str(sample["doc"].get(column)) for column in self.marked] or [str(row)]
            digest = hashlib.blake2b("\0".join(context).encode(errors="surrogatepass"), digest_size=6).digest()
            account = sample.get(COMPRESSION)
            self.content.append(content)
            self.context.append(int.from_bytes(digest))
            self.accounts.append(tuple(map(account.get, ACCOUNT)) if isinstance(account, dict) else NO_ACCOUNT)
        elif self.content[place] != content:
            raise UsageError(f"{self.path} has row {row} with two contents: row ids are unique in a run; {REPEAT}")
        for metric in sample.get("metrics", self.metrics):
            value = sample.get(metric)
            if isinstance(value, list) and len(value) == 2 and all(isinstance(part, int | float) for part in value):
                _put(self.below, metric, kind, place, value[1])
                value = value[0]
            if isinstance(value, int | float):  # accounts and texts of corpus-wide metrics are no scores of a row
                _put(self.scores, metric, kind, place, value)

    def rows(self) -> Rows:
        """Everything that was added, in the order of the row numbers."""
        number = np.array(list(self.places), np.int64)
        order, several = np.argsort(number), len(self.filters) > 1
        scores: dict[str, Numbers] = {}
        below: dict[str, Numbers] = {}
        for columns, arrays in ((self.scores, scores), (self.below, below)):
            for (metric, kind), (at, values) in columns.items():
                column = np.full(len(number), np.nan)
                column[at] = values
                arrays[f"{metric},{kind}" if several else metric] = column[order]
        account = {}
        for name, counts in zip(ACCOUNT, zip(*self.accounts, strict=True), strict=False):  # a whole column at a time
            missing = np.array([count is None for count in counts])
            if missing.all():
                continue
            kinds = set(map(type, counts)) - {int, float, bool, type(None)}
            try:
                numbers = np.array(counts, np.float64) if not kinds else np.full(len(counts), -1.0)
            except OverflowError:
                numbers = np.full(len(counts), np.inf)
            wrong = np.flatnonzero(~missing & ~(np.isfinite(numbers) & (numbers >= 0)))
            if len(wrong):
                row, count = number[wrong[0]], str(counts[wrong[0]])[:40]
                raise UsageError(f"{self.path}: {name} of row {row} is {count!r}, no count or time: {REPEAT}")
            account[name] = numbers[order]
        content, context = (np.array(values, np.int64)[order] for values in (self.content, self.context))
        filters = tuple(self.filters) or ("none",)
        return Rows(number[order], context, content if self.hashed else None, scores, below, account, filters)


def _put(columns: Columns, metric: str, kind: str, place: int, value: float) -> None:
    places, values = columns.setdefault((metric, kind), (array("q"), array("d")))
    places.append(place)
    values.append(value if is_number(value) else math.inf)


def _problem(sample: Any) -> str:
    """What is wrong with a line, "" for a sample."""
    if not isinstance(sample, dict):
        return "it is no JSON object"
    number, metrics = sample.get("doc_id"), sample.get("metrics", ())
    if type(number) is not int or not 0 <= number < 2**63:
        return f"doc_id is {str(number)[:40]!r}, not the number of a row"
    if not isinstance(sample.get("doc"), dict):
        return "doc is no JSON object"
    if not isinstance(sample.get("filter", "none"), str):
        return "filter is no name"
    if not isinstance(metrics, list | tuple) or not all(isinstance(name, str) for name in metrics):
        return "metrics is no list of names"
    missing = [name for name in metrics if name not in sample and name != COMPRESSION]
    if missing:
        return f"the metric {missing[0]!r} is named and absent"
    wrong = [name for name in HASHES if not isinstance(sample.get(name), str | None)]
    if wrong:
        return f"{wrong[0]} is no text"
    if not isinstance(sample.get(COMPRESSION), dict | int | float | None):
        return "compression is no account"
    return ""
