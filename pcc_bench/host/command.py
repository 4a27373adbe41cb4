"""One run of lm-eval as `pcc-bench eval` and suites ask for it, and what its folder says of it."""

import json
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pcc_bench.core import documents, provenance
from pcc_bench.core.errors import UsageError

ANSWERS = "answers"  # lm-eval adds _rank0.db
COMMAND_FILE = "command.json"


@dataclass(frozen=True)
class Command:
    """What to run: the options of `lm-eval run` that matter here."""

    model: str  # a method of ours, or any model of lm-eval
    model_args: str  # as in lm-eval, `key=value,key=value`
    tasks: str  # names, comma-separated
    output: Path  # folder of the results
    limit: float | None = None  # rows a task; a fraction below 1
    batch_size: str = "1"  # a number or `auto`
    device: str | None = None  # as in lm-eval
    metadata: str | None = None  # as in lm-eval: JSON or `key=value,key=value`
    num_fewshot: int | None = None  # examples before the question
    chat_template: bool = False  # use the tokenizer's chat template
    seed: str | None = None  # as in lm-eval
    extra: tuple[str, ...] = ()  # further arguments of `lm-eval run`
    memory_store: Path | None = None  # folder that keeps memories exactly as they are; methods of ours only
    compress: str | None = None  # which part of lm-eval's own tasks is compressed; see `pcc_bench.tasks.foreign`

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the answers; batch size, device and a store of exact memories do not."""
        names = ["model", "model_args", "tasks", "limit", "metadata", "num_fewshot", "chat_template", "seed"]
        if self.compress is not None:  # runs from before it existed go on
            names.append("compress")
        state = {name: getattr(self, name) for name in names}
        return {**state, "extra": list(self.extra), "PCC_DATA": os.environ.get("PCC_DATA")}

    @property
    def task_metadata(self) -> str | None:
        """`metadata` as tasks are given it: with `compress`."""
        if self.compress is None:
            return self.metadata
        from pcc_bench.host.arguments import parse_metadata  # imports torch and lm-eval

        settings = parse_metadata(self.metadata) if self.metadata else {}
        if settings.get("compress", self.compress) != self.compress:
            raise UsageError(f"--compress {self.compress} and --metadata name different parts: leave one out")
        return json.dumps({**settings, "compress": self.compress})

    @property
    def arguments(self) -> list[str]:
        pairs = {
            "--model": self.model,
            "--model_args": self.model_args or None,
            "--tasks": self.tasks,
            "--limit": None if self.limit is None else f"{self.limit:g}",
            "--batch_size": self.batch_size,
            "--device": self.device,
            "--metadata": self.task_metadata,
            "--num_fewshot": self.num_fewshot,
            "--seed": self.seed,
            "--output_path": self.output,
            "--use_cache": self.output / ANSWERS,
        }
        flags = ["--log_samples", *(["--apply_chat_template"] if self.chat_template else [])]
        given = [str(word) for name, value in pairs.items() if value is not None for word in (name, value)]
        return [*given, *flags, *self.extra]


class Recorded(BaseModel):
    """What a folder's `command.json` says: what decided its answers, and each start."""

    identity: dict[str, Any] | None = None
    runs: list[dict[str, Any]] = []


def record(command: Command) -> None:
    """Write down the command before it starts; a folder holds the answers of one command only.

    A command that ended before its first answer (a misspelt option) leaves no claim on the folder.
    """
    path = command.output / COMMAND_FILE
    known = Recorded()
    if path.is_file() and (any(command.output.rglob("results_*.json")) or kept_answers(command.output)):
        try:
            known = documents.checked(Recorded, documents.read_json(path), str(path))
        except UsageError as error:
            raise UsageError(f"{error}: remove it, or choose another --output") from None
    identity = command.identity if known.identity is None else known.identity
    for name, value in command.identity.items():
        if identity.get(name) != value:
            raise UsageError(
                f"{command.output} holds a run with {name}={identity.get(name)}, this one has {name}={value}: "
                "repeat that command to go on with it, or choose another --output"
            )
    start = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "arguments": command.arguments,
        "versions": provenance.versions(),
        "code": provenance.code(),
    }
    state = {"identity": command.identity, "runs": [*known.runs, start]}
    documents.write_text(path, json.dumps(state, indent=1, ensure_ascii=False) + "\n")


def kept_answers(folder: Path) -> int:
    """Answers in a folder's caches (rows of any table), which the same command does not ask for again."""
    answers = 0
    for database in folder.glob(f"{ANSWERS}_rank*.db"):
        with closing(sqlite3.connect(database)) as connection:
            try:
                tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
                for (name,) in tables:
                    answers += connection.execute(f'SELECT COUNT(*) FROM "{name}"').fetchone()[0]
            except sqlite3.DatabaseError as error:
                raise UsageError(f"{database} is damaged ({error}): remove it, or choose another --output") from None
    return answers


def with_setting(text: str | None, name: str, value: str | None) -> str | None:
    """Model arguments or metadata, as `key=value,key=value` or JSON, with one more setting."""
    if value is None:
        return text
    if text and text.lstrip().startswith("{"):
        state = documents.parse_json(text, f"the settings {text[:200]}")
        taken, joined = name in state, json.dumps({**state, name: value})
    else:
        taken = any(pair.partition("=")[0].strip() == name for pair in (text or "").split(","))
        joined = ",".join(filter(None, (text, f"{name}={value}")))
    if taken:
        raise UsageError(f"{name} is set twice, as --{name} {value} and in '{text}': leave one out")
    return joined
