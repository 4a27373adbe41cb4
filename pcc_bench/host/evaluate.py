"""`pcc-bench eval`: lm-eval's own run with samples and answers kept, so that a killed run goes on where it stopped."""

import logging
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

from pcc_bench.core import documents, registry
from pcc_bench.core.claims import claimed
from pcc_bench.core.errors import UsageError, first_line
from pcc_bench.host import startup
from pcc_bench.host.command import ANSWERS, Command, record, with_setting
from pcc_bench.host.responses import database_errors


def asks_ours_only(command: Command) -> bool:
    """Are all its tasks ours?"""
    from pcc_bench.host.inventory import task_names

    return set(command.tasks.split(",")) <= set(task_names())


def run(command: Command) -> list[Path]:
    """Run lm-eval in this process, one of several under `accelerate launch`; the first returns the new result files."""
    from pcc_bench.host.arguments import default_checkpoint, parse_arguments, parse_metadata
    from pcc_bench.host.settings import check_settings

    startup.install()
    ours = registry.names()
    if command.model not in ours:
        import lm_eval.models  # noqa: F401  # fills the registry
        from lm_eval.api.registry import model_registry

        known = sorted(model_registry.keys())
        if command.model not in known:
            near = registry.nearest(command.model, ours) or registry.nearest(command.model, known)
            hint = f"did you mean '{near}'?" if near else "ours are " + ", ".join(ours)
            raise UsageError(f"unknown model '{command.model}': {hint} (lm-eval's own work too)")
    check(command)
    if command.metadata and asks_ours_only(command):
        check_settings(parse_metadata(command.metadata))
    with claimed(command.output):
        path = command.output / f"{ANSWERS}_rank{os.environ.get('RANK', '0')}.db"
        # lm-eval opens the file of this process's answers in a thread, whose errors are no sentence.
        with database_errors(path), closing(sqlite3.connect(path, timeout=60)) as connection, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS unnamed (key TEXT PRIMARY KEY, value BLOB)")
        named = command
        if command.model in ours:  # what else decides the model, spelled out: lm-eval names results by `pretrained`
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
        return new_results(command.output, before)


def check(command: Command) -> None:
    """See that batch size and limit are such, and that a map of what is compressed is one."""
    from pcc_bench.host.arguments import check_batch_size
    from pcc_bench.tasks.foreign import maps_of

    check_batch_size(command.batch_size)
    maps_of(command.compress or "")
    if command.limit is not None and not 0 < command.limit < float("inf"):
        raise UsageError(f"--limit {command.limit:g} leaves no row: give a number of rows, or a fraction below 1")


def new_results(folder: Path, before: set[Path]) -> list[Path]:
    """The result files in `folder` that are not among `before`; lm-eval only warns when it can't save."""
    files = sorted(set(folder.rglob("results_*.json")) - before)
    if not files:
        raise UsageError(
            f"the run ended but no results could be saved in {folder}: see lm-eval's warning above, check the disk, "
            "and repeat the command (answers are kept)"
        )
    return files


def _run_lm_eval(command: Command, results: Path) -> None:
    """Run it, with its results in a folder of their own."""
    from lm_eval._cli import HarnessCLI
    from lm_eval.utils import setup_logging

    from pcc_bench.host.inventory import task_names

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
    """lm-eval with this command line, without what is of no use to this run.

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

    def is_no_count(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(("Cached requests:", "Loading '"))

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
        tracker.removeFilter(_is_saved)


def _is_saved(record: logging.LogRecord) -> bool:
    """lm-eval says of results and samples that it could not save them, and goes on."""
    if record.getMessage().startswith("Could not save"):
        error = sys.exc_info()[1]
        why = getattr(error, "strerror", None) or first_line(error or OSError())
        raise UsageError(f"the results can't be saved ({why}): make room, and repeat the command (answers are kept)")
    return True
