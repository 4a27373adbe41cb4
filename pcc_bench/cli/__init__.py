"""The command `pcc-bench`: thin verbs over the modules that do the work, which are imported only when asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated

import typer

from pcc_bench import __version__
from pcc_bench.cli.checkpoints import convert, init, train
from pcc_bench.cli.cost import cost
from pcc_bench.cli.lab import app as lab_app
from pcc_bench.cli.memory import ask, compress, prompt, serve_check
from pcc_bench.cli.results import baseline_app, compare, gate, pack, report
from pcc_bench.cli.runs import evaluate, run, run_demo, validate
from pcc_bench.core import texttable
from pcc_bench.core.errors import UsageError

app = typer.Typer(
    name="pcc-bench",
    help="Context compression of large language models, measured inside lm-eval. New here? Try: pcc-bench demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
verbs: list[Callable[..., None]] = [cost, gate, run, report, compare, pack, prompt]
for verb in verbs:
    app.command()(verb)
app.command("serve-check")(serve_check)
app.command("eval")(evaluate)
verbs = [compress, ask, init, train, convert]
for verb in verbs:
    app.command()(verb)
app.add_typer(baseline_app, name="baseline")
app.add_typer(lab_app, name="lab")

EARLIER = {"--out": "--output", "--batch": "--batch-size"}  # names that options had


class Kind(StrEnum):
    """What `ls` can list."""

    METHODS = "methods"
    MODELS = "models"
    TASKS = "tasks"
    DATA = "data"
    DECODERS = "decoders"
    RECIPES = "recipes"
    SUITES = "suites"


@app.command("ls")
def list_(what: Annotated[Kind, typer.Argument(help="The kind; data is what lies in PCC_DATA.")]) -> None:
    """List what there is to run.

    Example: `pcc-bench ls methods`
    """
    from pcc_bench.cli.terminal import show
    from pcc_bench.host import inventory

    table = inventory.LISTS[what.value]()
    show(table)
    if what is Kind.DATA and not table.rows:
        folder = inventory.data_folder()
        typer.echo(f"no data in {folder}" if folder else "PCC_DATA names no folder: rows come from the hub")


app.command()(validate)


@app.command()
def doctor() -> None:
    """Look at versions, devices, data and lm-eval; say what is missing and the command that fixes it.

    Example: `pcc-bench doctor`
    """
    from pcc_bench.cli.doctor import examine
    from pcc_bench.cli.terminal import show_marks

    findings = list(examine())
    show_marks([(f.mark, f.what, f.found + ("" if f.good else f"; fix: {f.fix}")) for f in findings])
    if any(finding.needed and not finding.good for finding in findings):
        raise typer.Exit(1)


app.command("demo")(run_demo)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"pcc-bench {__version__}")
        raise typer.Exit


@app.callback()
def options_of_all(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Context compression of large language models, measured inside lm-eval. New here? Try: pcc-bench demo."""


def canonical(words: Sequence[str]) -> list[str]:
    """A command line with the names of options as `--help` has them: dashes for underscores, today's for earlier ones.

    Words after `--` are for another command and stay as they are.
    """
    end = words.index("--") if "--" in words else len(words)
    line = []
    for word in words[:end]:
        name, equals, value = word.partition("=")
        dashed = name.replace("_", "-")
        line.append(EARLIER.get(dashed, dashed) + equals + value if word.startswith("--") else word)
    return [*line, *words[end:]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Console entry: a mistake that the user can correct is one sentence and status 2."""
    try:
        app(args=canonical(sys.argv[1:] if arguments is None else arguments), prog_name="pcc-bench")
    except UsageError as error:
        sys.stderr.write(f"pcc-bench: error: {texttable.visible(str(error))}\n")
        sys.exit(2)
