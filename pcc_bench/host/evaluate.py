"""`pcc-bench eval`: lm-eval's own run with samples and answers kept, so that a killed run goes on where it stopped."""

import json
import logging
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pcc_bench.core import documents, provenance, registry
from pcc_bench.core.claims import claimed
from pcc_bench.core.errors import UsageError, first_line
from pcc_bench.host import startup
from pcc_bench.host.responses import database_errors

ANSWERS = "answers"  # lm-eval adds _rank0.db
COMMAND_FILE = "command.json"


@dataclass(frozen=True)
class Command:  # the options of `lm-eval run` that matter here
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
        names = ("model", "model_args", "tasks", "limit", "metadata", "num_fewshot", "chat_template", "seed")
        state = {name: getattr(self, name) for name in names}
        if self.compress is not None:  # runs from before it existed go on
            state["compress"] = self.compress
        return {**state, "extra": list(self.extra), "PCC_DATA": os.environ.get("PCC_DATA")}

    @property
    def task_metadata(self) -> str | None:  # as tasks are given it: with `compress`
        return with_setting(self.metadata or "{}", "compress", self.compress) if self.compress else self.metadata

    @property
    def arguments(self) -> list[str]:
        names = ("model", "tasks", "batch_size", "device", "num_fewshot", "seed")  # which lm-eval calls so too
        pairs: dict[str, Any] = {name: getattr(self, name) for name in names}
        pairs |= {"model_args": self.model_args or None, "metadata": self.task_metadata, "output_path": self.output}
        pairs |= {"limit": None if self.limit is None else f"{self.limit:g}", "use_cache": self.output / ANSWERS}
        words = [str(word) for name, value in pairs.items() if value is not None for word in (f"--{name}", value)]
        return [*words, "--log_samples", *(["--apply_chat_template"] if self.chat_template else []), *self.extra]


class Recorded(BaseModel):  # `command.json` of a folder
    identity: dict[str, Any] | None = None  # what decided its answers
    runs: list[dict[str, Any]] = []  # each start


def record(command: Command) -> None:
    """Write down the command before it starts; a folder with answers holds those of one command only."""
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
            other = f"{command.output} holds a run with {name}={identity.get(name)}, this one has {name}={value}"
            raise UsageError(f"{other}: repeat that command to go on with it, or choose another --output")
    start: dict[str, Any] = {"started": datetime.now(UTC).isoformat(timespec="seconds"), "arguments": command.arguments}
    start |= {"versions": provenance.versions(), "code": provenance.code()}
    state = {"identity": command.identity, "runs": [*known.runs, start]}
    documents.write_text(path, json.dumps(state, indent=1, ensure_ascii=False) + "\n")


def kept_answers(folder: Path) -> int:
    """Answers in a folder's caches (rows of any table), which the same command does not ask for again."""
    answers = 0
    for database in folder.glob(f"{ANSWERS}_rank*.db"):
        with closing(sqlite3.connect(database)) as connection:
            try:
                for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
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


def asks_ours_only(command: Command) -> bool:  # are all its tasks ours?
    from pcc_bench.host.settings import task_names

    return set(command.tasks.split(",")) <= set(task_names())


def run(command: Command) -> list[Path]:
    """Run lm-eval in this process, one of several under `accelerate launch`; the first returns the new result files."""
    from pcc_bench.host.arguments import default_checkpoint, parse_arguments

    startup.install()
    check_all(command)
    with claimed(command.output):
        path = command.output / f"{ANSWERS}_rank{os.environ.get('RANK', '0')}.db"
        # lm-eval opens the file of this process's answers in a thread, whose errors are no sentence.
        with database_errors(path), closing(sqlite3.connect(path, timeout=60)) as connection, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS unnamed (key TEXT PRIMARY KEY, value BLOB)")
        named = command
        if command.model in registry.names():  # what else decides the model: lm-eval names results by `pretrained`
            default = default_checkpoint(registry.get(command.model), parse_arguments(command.model_args))
            arguments = with_setting(command.model_args, "pretrained", default)
            store = str(command.memory_store) if command.memory_store else None
            named = replace(command, model_args=with_setting(arguments, "memory_store", store) or "")
        if os.environ.get("RANK", "0") != "0":
            _run_lm_eval(named, command.output)  # which writes none there
            return []
        for part in command.output.glob(".*.part"):  # of a killed command
            shutil.rmtree(part, ignore_errors=True)
        before = set(command.output.rglob("results_*.json"))
        record(command)
        part = command.output / f".{os.getpid()}.part"
        try:
            _run_lm_eval(named, part)
            documents.move_over(part, command.output, last="results_")  # which says that the samples are there
        finally:
            shutil.rmtree(part, ignore_errors=True)
        if files := sorted(set(command.output.rglob("results_*.json")) - before):
            return files
        remedy = "see lm-eval's warning above, check the disk, and repeat the command (answers are kept)"
        raise UsageError(f"the run ended but no results could be saved in {command.output}: {remedy}")


def check_all(command: Command, where: str = "") -> None:
    """As `check`, and that lm-eval or we have the model, and our tasks the settings; `where`: before what is said."""
    from pcc_bench.host.arguments import parse_arguments
    from pcc_bench.host.settings import check_settings

    ours = registry.names()
    if command.model not in ours:
        import lm_eval.models  # noqa: F401  # fills the registry
        from lm_eval.api.registry import model_registry

        known = sorted(model_registry.keys())
        if command.model not in known:
            near = registry.nearest(command.model, ours) or registry.nearest(command.model, known)
            hint = f"did you mean '{near}'?" if near else "ours are " + ", ".join(ours)
            raise UsageError(f"{where}unknown model '{command.model}': {hint} (lm-eval's own work too)")
    if command.metadata and asks_ours_only(command):
        check_settings(parse_arguments(command.metadata, "metadata"), f"{where}--metadata")
    check(command)


def check(command: Command) -> None:
    from pcc_bench.host.arguments import HfOptions
    from pcc_bench.tasks.foreign import maps_of

    documents.checked(HfOptions, {"batch_size": command.batch_size}, "--batch-size")
    maps_of(command.compress or "")
    if command.limit is not None and not 0 < command.limit < float("inf"):
        raise UsageError(f"--limit {command.limit:g} leaves no row: give a number of rows, or a fraction below 1")


def _run_lm_eval(command: Command, results: Path) -> None:
    from lm_eval._cli import HarnessCLI
    from lm_eval.utils import setup_logging

    from pcc_bench.host.settings import task_names

    setup_logging()
    with _adjusted(command, results):
        harness = HarnessCLI()
        try:
            parsed = harness.parse_args()
        except ValueError as error:
            raise UsageError(f"lm-eval can't read the arguments ({error}): fix them") from None
        try:
            # lm-eval prints the scores of our tasks in a table of its own; the caller has one that says more.
            with redirect_stdout(StringIO()) if asks_ours_only(command) else nullcontext():
                harness.execute(parsed)
        except ValueError as error:
            missing = str(error).removeprefix("Tasks not found: ").split(",")[0].strip()
            if not str(error).startswith("Tasks not found: "):
                raise
            hint = registry.suggest(missing, task_names())
            raise UsageError(f"unknown task '{missing}'{hint} (lm-eval's own: 'lm_eval ls tasks')") from None


@contextmanager
def _adjusted(command: Command, results: Path) -> Iterator[None]:
    """lm-eval with this command line, without its index of all tasks, git's complaint and its own cache's count."""
    from lm_eval import evaluator, tasks

    from pcc_bench import tasks as own

    manager, commit, log = tasks.TaskManager, evaluator.get_git_commit_hash, logging.getLogger("lm_eval.api.model")
    if asks_ours_only(command) and not command.extra:
        tasks.TaskManager = lambda include_path=None, metadata=None: manager(
            include_path=own.__path__[0], include_defaults=False, metadata=metadata
        )
    here = Path.cwd()
    if not any((folder / ".git").exists() for folder in (here, *here.parents)):
        evaluator.get_git_commit_hash = lambda: None
    tracker = logging.getLogger("lm_eval.loggers.evaluation_tracker")

    def is_saved(record: logging.LogRecord) -> bool:  # lm-eval says of results that it could not save them, and goes on
        if record.getMessage().startswith("Could not save"):
            error = sys.exc_info()[1]
            why = getattr(error, "strerror", None) or first_line(error or OSError())
            remedy = "make room, and repeat the command (answers are kept)"
            raise UsageError(f"the results can't be saved ({why}): {remedy}")
        return True

    def is_no_count(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(("Cached requests:", "Loading '"))

    tracker.addFilter(is_saved)
    if command.model in registry.names():
        log.addFilter(is_no_count)
    arguments = sys.argv
    sys.argv = ["lm-eval", "run", *command.arguments, "--output_path", str(results)]
    try:
        yield
    finally:
        sys.argv = arguments
        tasks.TaskManager, evaluator.get_git_commit_hash = manager, commit
        log.removeFilter(is_no_count)
        tracker.removeFilter(is_saved)
