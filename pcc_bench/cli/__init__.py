"""The command `pcc-bench`: thin verbs over the modules that do the work, which are imported only when asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import typer

from pcc_bench import __version__
from pcc_bench.cli.checkpoints import convert, init, train
from pcc_bench.cli.cost import cost
from pcc_bench.cli.lab import app as lab_app
from pcc_bench.cli.memory import ask, compress, prompt, serve_check
from pcc_bench.cli.results import baseline_app, compare, gate, pack, report
from pcc_bench.cli.runs import evaluate, run, run_demo, validate
from pcc_bench.cli.terminal import show, show_marks
from pcc_bench.core import texttable
from pcc_bench.core.errors import UsageError

EARLIER = {"out": "output", "batch": "batch-size"}  # names that options had


def canonical(name: str) -> str:
    """An option's name as `--help` has it: dashes for underscores, today's name for an earlier one."""
    dashed = name.replace("_", "-")
    return EARLIER.get(dashed, dashed)


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"token_normalize_func": canonical},
)


def list_(
    what: Annotated[
        Literal["methods", "models", "tasks", "data", "decoders", "recipes", "suites"],
        typer.Argument(help="The kind; data is what lies in PCC_DATA."),
    ],
) -> None:
    """List what there is to run.

    Example: `pcc-bench ls methods`
    """
    from pcc_bench.host import inventory

    table = inventory.LISTS[what]()
    show(table)
    if what == "data" and not table.rows:
        folder = inventory.data_folder()
        typer.echo(f"no data in {folder}" if folder else "PCC_DATA names no folder: rows come from the hub")


def doctor() -> None:
    """Look at versions, devices, data and lm-eval; say what is missing and the command that fixes it.

    Example: `pcc-bench doctor`
    """
    from pcc_bench.cli.doctor import examine

    findings = list(examine())
    show_marks([(f.mark, f.what, f.found + ("" if f.good else f"; fix: {f.fix}")) for f in findings])
    if any(finding.needed and not finding.good for finding in findings):
        raise typer.Exit(1)


PANELS: dict[str, dict[str, Callable[..., None] | typer.Typer]] = {  # of `--help`, in the order of a learner
    "Start": {"demo": run_demo, "doctor": doctor, "ls": list_},
    "Compress and ask": {"compress": compress, "ask": ask, "prompt": prompt, "serve-check": serve_check},
    "Evaluate": {"eval": evaluate, "run": run, "validate": validate},
    "Results": {"report": report, "compare": compare, "pack": pack, "gate": gate, "baseline": baseline_app},
    "Cost": {"cost": cost},
    "Train": {"init": init, "train": train, "convert": convert},
    "Lab": {"lab": lab_app},
}
for panel, verbs in PANELS.items():
    for name, verb in verbs.items():
        if isinstance(verb, typer.Typer):
            app.add_typer(verb, name=name, rich_help_panel=panel)
        else:
            app.command(name, rich_help_panel=panel)(verb)


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Console entry: a mistake that the user can correct is one sentence and status 2."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="pcc-bench")
    except UsageError as error:
        sys.stderr.write(f"pcc-bench: error: {texttable.visible(str(error))}\n")
        sys.exit(2)
