"""Answers with their accounting, their cache on disk (lm-eval's has a key without the model), counts of a run."""

import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pcc_bench.core.context import Prompt
from pcc_bench.core.documents import digest, parse_json
from pcc_bench.core.errors import UsageError

TABLE = "pcc_bench_1"
NOTHING_SCORED = 3  # exit status of a run that scored nothing


class Response(str):
    """A generated text; `record` is the accounting of the sample it answers."""

    record: dict[str, Any]

    def __new__(cls, text: str, record: dict[str, Any] | None = None) -> Self:  # lm-eval makes references without one
        response = super().__new__(cls, text)
        response.record = {} if record is None else record
        return response


class Score(tuple[float, bool]):
    """A log-likelihood and whether greedy decoding gives the continuation; `record` as in `Response`."""

    record: dict[str, Any]

    def __new__(cls, logprob: float, is_greedy: bool, record: dict[str, Any]) -> Self:
        score = super().__new__(cls, (logprob, is_greedy))
        score.record = record
        return score

    def __reduce__(self) -> tuple[Any, ...]:  # processes exchange answers pickled
        return Score, (*self, self.record)


Answer = Response | Score


def skipped(kind: str) -> Answer:
    """The answer to a request that is longer than the decoder's window and left out of the scores."""
    record = {"skipped": True, "reason": "longer than the decoder's window"}
    return Response("", record) if kind == "generate_until" else Score(float("nan"), False, record)


@contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """Failures of the disk and of a file of answers in one sentence; earlier batches are in it, whole."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        remedy = "make room, or remove the file if it is damaged, and run the same command again"
        problem = f"the answers in {path} can't be read or written ({error})"
        raise UsageError(f"{problem}: {remedy}; it goes on behind the answers that are there") from error


class ResponseCache:
    """Answers by key in an SQLite file, committed by batches; `fingerprint`: all that decides but the request."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.path = path
        with database_errors(self.path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=60)
            with self._connection:
                self._connection.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} (key TEXT PRIMARY KEY, value TEXT)")

    def key(self, kind: str, prompt: Prompt, arguments: Any, memories: Iterable[str]) -> str:
        """Hash of a request: type, prompt with its parts, arguments, and the contexts whose memories are read."""
        parts = [(part.text, part.kind, part.after) for part in prompt.parts]
        return digest([self.fingerprint, kind, parts, arguments, list(memories)], 64)

    def get(self, key: str) -> Answer | None:
        """The stored answer, its record marked `cached`; None where there is none, or no key."""
        if not key:
            return None
        with database_errors(self.path):
            row = self._connection.execute(f"SELECT value FROM {TABLE} WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        value, record = parse_json(row[0], f"an answer in {self.path}")
        record["cached"] = True
        return Response(value, record) if isinstance(value, str) else Score(value[0], value[1], record)

    def put(self, answers: Iterable[tuple[str, Answer]]) -> None:
        rows = [
            (key, json.dumps([str(answer) if isinstance(answer, Response) else list(answer), answer.record]))
            for key, answer in answers
            if key
        ]
        with database_errors(self.path), self._connection:
            self._connection.executemany(f"INSERT OR REPLACE INTO {TABLE} VALUES (?, ?)", rows)


@dataclass
class Tally:
    counts: Counter[str] = field(default_factory=Counter)  # lm-eval's padding of the shorter processes included
    asked: dict[str, set[int]] = field(default_factory=dict)  # rows of each task
    skipped: dict[str, set[int]] = field(default_factory=dict)  # those among them that were skipped for their length

    def merge(self, other: "Tally") -> None:
        self.counts += other.counts
        for known, rows in ((self.asked, other.asked), (self.skipped, other.skipped)):
            for task, numbers in rows.items():
                known.setdefault(task, set()).update(numbers)
        self.counts["skipped"] = sum(map(len, self.skipped.values()))

    def unscored(self) -> dict[str, int]:
        """Tasks of which every row was skipped, at least in part, with the number of their rows."""
        return {task: len(rows) for task, rows in self.asked.items() if rows <= self.skipped.get(task, set())}


latest = Tally()  # of the model that lm-eval's command has run, which it does not hand on


def finish() -> None:
    """Say which tasks have no score, as lm-eval's table does not; exit with `NOTHING_SCORED` where none has."""
    empty = latest.unscored()
    if not empty:
        return
    rows = ", ".join(f"{task} ({count})" for task, count in sorted(empty.items()))
    alone = len(empty) == len(latest.asked)
    verdict = "error: nothing was scored" if alone else "some tasks have no score"
    why = f"all rows of {rows} are longer than the decoder's window and were skipped"
    remedy = "pass a larger max_length, a higher rate or overflow=truncate"
    sys.stderr.write(f"pcc-bench: {verdict}: {why}; {remedy}\n")
    if alone:
        raise SystemExit(NOTHING_SCORED)
