"""Answers with their accounting, and their cache on disk.

lm-eval caches answers under a key that lacks the model and, for our prompts, the marks; and it stores pickles. Ours
keys by everything an answer depends on and stores JSON, in a table of its own in the file the user named.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pcc_bench.core.context import Prompt
from pcc_bench.core.documents import parse_json
from pcc_bench.core.errors import UsageError

TABLE = "pcc_bench_1"


class Response(str):
    """A generated text; `record` is the accounting of the sample it answers."""

    record: dict[str, Any]

    def __new__(cls, text: str, record: dict[str, Any] | None = None) -> Response:
        """A text with its accounting; lm-eval makes a reference answer one too, which has none."""
        response = super().__new__(cls, text)
        response.record = {} if record is None else record
        return response

    def __reduce__(self) -> tuple[type[Response], tuple[str, dict[str, Any]]]:
        return Response, (str(self), self.record)  # processes exchange answers pickled


class Score(tuple[float, bool]):
    """A log-likelihood and whether greedy decoding gives the continuation; `record` as in `Response`."""

    record: dict[str, Any]

    def __new__(cls, logprob: float, is_greedy: bool, record: dict[str, Any]) -> Score:
        """A score with its accounting."""
        score = super().__new__(cls, (logprob, is_greedy))
        score.record = record
        return score

    def __reduce__(self) -> tuple[type[Score], tuple[float, bool, dict[str, Any]]]:
        return Score, (self[0], self[1], self.record)


Answer = Response | Score


@contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """Failures of the disk and of a file of answers; earlier batches are in it, whole.

    Raises:
        UsageError: The file can't be read or written.
    """
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise UsageError(
            f"the answers in {path} can't be read or written ({error}): make room, or remove the file "
            "if it is damaged, and run the same command again; it goes on behind the answers that are there"
        ) from error


class ResponseCache:
    """Answers by key, in an SQLite file; each batch is committed, so that a killed run can go on where it stopped.

    Args:
        path: The file; made if missing.
        fingerprint: Hash of all that decides an answer besides the request: method, weights, decoder, options.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.path = path
        with database_errors(self.path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=60)
            with self._connection:
                self._connection.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} (key TEXT PRIMARY KEY, value TEXT)")

    def key(self, kind: str, prompt: Prompt, arguments: Any, memories: Iterable[str]) -> str:
        """Hash of a request.

        Args:
            kind: lm-eval's request type.
            prompt: Its parts count, not only its text: a context shown as text is another request.
            arguments: The rest of the request.
            memories: The contexts whose memories are read; not the prompt's own under a control.
        """
        parts = [(part.text, part.kind, part.after) for part in prompt.parts]
        state = [self.fingerprint, kind, parts, arguments, list(memories)]
        return hashlib.sha256(json.dumps(state, sort_keys=True, default=str).encode()).hexdigest()

    def get(self, key: str) -> Answer | None:
        """The stored answer, its record marked `cached`."""
        with database_errors(self.path):
            row = self._connection.execute(f"SELECT value FROM {TABLE} WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        value, record = parse_json(row[0], f"an answer in {self.path}")
        record["cached"] = True
        return Response(value, record) if isinstance(value, str) else Score(value[0], value[1], record)

    def put(self, answers: Iterable[tuple[str, Answer]]) -> None:
        """Store a batch of answers in one transaction."""
        rows = [(key, json.dumps([str(a) if isinstance(a, Response) else list(a), a.record])) for key, a in answers]
        with database_errors(self.path), self._connection:
            self._connection.executemany(f"INSERT OR REPLACE INTO {TABLE} VALUES (?, ?)", rows)
