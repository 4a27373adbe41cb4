"""The verbs `pcc-bench report` and `pcc-bench compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pcc_bench.core import escaping


def report(
    results: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of 'run', 'eval', 'train' and 'cost'; by default the lab's that ship."),
    ] = None,
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder of the report.")] = Path("report"),
    paper: Annotated[bool, typer.Option("--paper", help="Also tables of which only published values exist.")] = False,
    into: Annotated[
        Path | None,
        typer.Option(
            help="A Markdown file whose tables between the markers report:KEY and /report (HTML comments) are renewed."
        ),
    ] = None,
) -> None:
    """Write the paper's tables and figures of results, ours beside theirs: one page, Markdown, LaTeX, CSV.

    Example: `pcc-bench report results/lab-table2 -o report`
    """
    from pcc_bench.core import markers
    from pcc_bench.reports import render
    from pcc_bench.reports import report as module

    made = module.write(results or (), out, paper)
    for note in made.notes:
        typer.echo(escaping.visible(f"note: {note}"))
    if into is not None:
        changed = markers.fill(into, "report", {table.key: render.brief(table) for table in made.tables})
        typer.echo(f"{'renewed' if changed else 'up to date'}: {into}")
    names = ", ".join(table.key for table in made.tables) or "none"
    typer.echo(f"tables: {names}\nwritten: {out / 'index.html'} ({len(made.files)} files in {out})")


def compare(
    a: Annotated[Path, typer.Argument(help="The first run: a results_*.json, or a folder with one run.")],
    b: Annotated[Path, typer.Argument(help="The second run.")],
    metric: Annotated[list[str] | None, typer.Option(help="Compare only this metric; repeatable.")] = None,
) -> None:
    """Compare two runs row by row: differences, intervals, paired tests.

    Example: `pcc-bench compare results/pcc-4x results/pcc-16x --metric f1`
    """
    from pcc_bench.cli.terminal import show
    from pcc_bench.reports import compare as module

    comparisons, notes = module.compare(a, b, metric or ())
    show(module.table(comparisons, notes))


def pack(
    results: Annotated[list[Path], typer.Argument(help="Folders that 'run' or 'eval' wrote.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="Where the copies go, a folder for each.")],
) -> None:
    """Copy results to publish them: samples compressed, no paths and nothing about the machine.

    Example: `pcc-bench pack results/lab-table2 -o published`
    """
    from pcc_bench.reports.pack import pack as packed

    files = packed(results, out)
    size = sum(file.stat().st_size for file in files) / 2**20
    typer.echo(f"written: {len(files)} files in {out} ({size:.1f} MiB)")
