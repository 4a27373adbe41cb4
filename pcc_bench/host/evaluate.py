"""`pcc-bench eval`: lm-eval's own run with samples and answers kept, so that a killed run goes on where it stopped."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, redirect_stdout
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import pcc_bench
from pcc_bench.core import documents, provenance, registry
from pcc_bench.core.claims import claimed
from pcc_bench.core.errors import UsageError, first_line
from pcc_bench.host import startup
from pcc_bench.host.command import ANSWERS, Command
from pcc_bench.host.responses import database_errors

COMMAND_FILE = "command.json"
PACKAGES = ("lm_eval", "torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "safetensors", "numpy")


class Recorded(BaseModel):
    """What a folder's `command.json` says: what decided its answers, and each start."""

    identity: dict[str, Any] | None = None
    runs: list[dict[str, Any]] = []


def asks_ours_only(command: Command) -> bool:
    """Are all its tasks ours?"""
    from pcc_bench.host.inventory import task_names

    return set(command.tasks.split(",")) <= set(task_names())


def run(command: Command) -> list[Path]:
    """Run lm-eval in this process; under `accelerate launch`, in each of its processes.

    Returns:
        The new result files; none in processes other than the first.

    Raises:
        UsageError: An unknown model or task, an output folder of another command, results that were not saved, or
            whatever the model and the tasks find wrong.
    """
    from pcc_bench.host.arguments import parse_metadata
    from pcc_bench.host.settings import check_settings

    startup.install()
    _check_model(command.model)
    check(command)
    if command.metadata and asks_ours_only(command):
        check_settings(parse_metadata(command.metadata))
    with claimed(command.output):
        _make_answers(command.output)
        named = replace(command, model_args=_named(command))
        if not _is_first_process():
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
        return new_results(command.output, before)


def check(command: Command) -> None:
    """See that batch size and limit are such, and that a map of what is compressed is one.

    Raises:
        UsageError: One is not.
    """
    from pcc_bench.host.arguments import check_batch_size
    from pcc_bench.tasks.foreign import maps_of

    check_batch_size(command.batch_size)
    maps_of(command.compress or "")
    if command.limit is not None and not 0 < command.limit < float("inf"):
        raise UsageError(f"--limit {command.limit:g} leaves no row: give a number of rows, or a fraction below 1")


def record(command: Command) -> None:
    """Write down the command before it starts; a folder holds the answers of one command only.

    A command that ended before its first answer (a misspelt option) leaves no claim on the folder.

    Raises:
        UsageError: The folder holds another command's, or can't be written.
    """
    path = command.output / COMMAND_FILE
    known = _read_command(path) if _has_answers(command.output) else Recorded()
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
        "versions": versions(),
        "code": provenance.code(),
    }
    state = {"identity": command.identity, "runs": [*known.runs, start]}
    documents.write_text(path, json.dumps(state, indent=1, ensure_ascii=False) + "\n")


def with_setting(text: str | None, name: str, value: str | None) -> str | None:
    """Model arguments or metadata, as `key=value,key=value` or JSON, with one more setting.

    Raises:
        UsageError: It is set already.
    """
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


def kept_answers(folder: Path) -> int:
    """Answers in a folder's caches, which the same command does not ask for again."""
    return sum(map(_count_rows, folder.glob(f"{ANSWERS}_rank*.db")))


def versions() -> dict[str, str | None]:
    """Versions of the packages that can change a result; None where one is not installed."""
    return {"pcc_bench": pcc_bench.__version__, **{name: installed(name) for name in PACKAGES}}


def installed(package: str) -> str | None:
    """The version of a package, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def new_results(folder: Path, before: set[Path]) -> list[Path]:
    """The result files in `folder` that are not among `before`.

    Raises:
        UsageError: There are none: lm-eval only warns when it can't save.
    """
    files = sorted(set(folder.rglob("results_*.json")) - before)
    if not files:
        raise UsageError(
            f"the run ended but no results could be saved in {folder}: see lm-eval's warning above, check the disk, "
            "and repeat the command (answers are kept)"
        )
    return files


def _named(command: Command) -> str:
    """The model arguments with what else decides the model spelled out.

    That is the method's default checkpoint, by which lm-eval names the results, and the store of memories.
    """
    if command.model not in registry.names():
        return command.model_args
    from pcc_bench.host.arguments import default_checkpoint, parse_arguments

    given = parse_arguments(command.model_args)
    default = default_checkpoint(registry.get(command.model), given)
    named = with_setting(command.model_args, "pretrained", default)
    store = command.memory_store
    return with_setting(named, "memory_store", str(store) if store else None) or ""


def _make_answers(folder: Path) -> None:
    """Make the file of this process's answers: lm-eval opens it in a thread, whose errors are no sentence.

    Raises:
        UsageError: It can't be written, or is no database.
    """
    path = folder / f"{ANSWERS}_rank{os.environ.get('RANK', '0')}.db"
    with database_errors(path), closing(sqlite3.connect(path, timeout=60)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS unnamed (key TEXT PRIMARY KEY, value BLOB)")


def _run_lm_eval(command: Command, results: Path) -> None:
    """Run it, with its results in a folder of their own."""
    from lm_eval._cli import HarnessCLI
    from lm_eval.utils import setup_logging

    setup_logging()
    with _command_line(["lm-eval", "run", *command.arguments, "--output_path", str(results)]), _adjusted(command):
        harness = HarnessCLI()
        try:
            parsed = harness.parse_args()
        except ValueError as error:
            raise UsageError(f"lm-eval can't read the arguments ({error}): mend them") from None
        try:
            # lm-eval prints the scores of our tasks in a table of its own; the caller has one that says more.
            with redirect_stdout(StringIO()) if asks_ours_only(command) else nullcontext():
                harness.execute(parsed)
        except ValueError as error:
            _explain(error)
            raise


@contextmanager
def _adjusted(command: Command) -> Iterator[None]:
    """lm-eval without what is of no use to this run.

    It indexes its thousands of tasks, though all that are asked for are ours; it asks git for a commit where there is
    no repository, and git complains; and it counts the answers in its own cache, which are none of ours.
    """
    from lm_eval import evaluator, tasks

    from pcc_bench import tasks as own

    manager, commit, log = tasks.TaskManager, evaluator.get_git_commit_hash, logging.getLogger("lm_eval.api.model")
    lean = asks_ours_only(command) and not command.extra
    if lean:
        tasks.TaskManager = lambda include_path=None, metadata=None: manager(
            include_path=own.__path__[0], include_defaults=False, metadata=metadata
        )
    here = Path.cwd()
    if not any((folder / ".git").exists() for folder in (here, *here.parents)):
        evaluator.get_git_commit_hash = lambda: None
    tracker = logging.getLogger("lm_eval.loggers.evaluation_tracker")
    tracker.addFilter(_is_saved)
    if command.model in registry.names():
        log.addFilter(_is_no_count_of_cache)
    try:
        yield
    finally:
        tasks.TaskManager, evaluator.get_git_commit_hash = manager, commit
        log.removeFilter(_is_no_count_of_cache)
        tracker.removeFilter(_is_saved)


def _is_no_count_of_cache(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(("Cached requests:", "Loading '"))


def _is_saved(record: logging.LogRecord) -> bool:
    """lm-eval says of results and samples that it could not save them, and goes on."""
    if record.getMessage().startswith("Could not save"):
        error = sys.exc_info()[1]
        why = getattr(error, "strerror", None) or first_line(error or OSError())
        raise UsageError(f"the results can't be saved ({why}): make room, and repeat the command (answers are kept)")
    return True


def _explain(error: ValueError) -> None:
    """Raise a sentence of ours in the place of lm-eval's, where we know better."""
    from pcc_bench.host.inventory import task_names

    missing = str(error).removeprefix("Tasks not found: ")
    if missing == str(error):
        return
    first = missing.split(",")[0].strip()
    hint = registry.suggest(first, task_names())
    raise UsageError(f"unknown task '{first}'{hint} (lm-eval's own: 'lm_eval ls tasks')") from None


def _check_model(name: str) -> None:
    if name in registry.names():
        return
    import lm_eval.models  # noqa: F401  # fills the registry
    from lm_eval.api.registry import model_registry

    known = sorted(model_registry.keys())
    if name not in known:
        near = registry.nearest(name, registry.names()) or registry.nearest(name, known)
        hint = f"did you mean '{near}'?" if near else "ours are " + ", ".join(registry.names())
        raise UsageError(f"unknown model '{name}': {hint} (lm-eval's own work too)")


def _has_answers(folder: Path) -> bool:
    """Are there results, or rows in any table of a cache of answers?"""
    return any(folder.rglob("results_*.json")) or kept_answers(folder) > 0


def _count_rows(database: Path) -> int:
    """Rows in all tables of a cache of answers."""
    with closing(sqlite3.connect(database)) as connection:
        try:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            counts = (connection.execute(f'SELECT COUNT(*) FROM "{name}"').fetchone() for (name,) in tables)
            return sum(count for (count,) in counts)
        except sqlite3.DatabaseError as error:
            raise UsageError(f"{database} is damaged ({error}): remove it, or choose another --output") from None


def _is_first_process() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def _read_command(path: Path) -> Recorded:
    if not path.is_file():
        return Recorded()
    try:
        return documents.checked(Recorded, documents.read_json(path), str(path))
    except UsageError as error:
        raise UsageError(f"{error}: remove it, or choose another --output") from None


@contextmanager
def _command_line(arguments: list[str]) -> Iterator[None]:
    """lm-eval reads its arguments from `sys.argv`."""
    before = sys.argv
    sys.argv = arguments
    try:
        yield
    finally:
        sys.argv = before
