"""The verb `pcc-bench run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pcc_bench.documents import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcc_bench.suite.spec import Cell, Suite


def run(
    suite: Annotated[str, typer.Argument(help="A suite file, or a shipped suite: table2, lab-table2, ...")],
    out: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the results, a folder a cell, and of the table.")
    ],
    only: Annotated[str | None, typer.Option(help="Only cells whose label or task matches, e.g. 'pcc*'.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and what it takes; run nothing.")] = False,
    limit: Annotated[float | None, typer.Option(help="Rows a task; a fraction below 1. For trials only.")] = None,
    data: Annotated[str | None, typer.Option(help="Where rows come from: hub, lab or a folder.")] = None,
    batch_size: Annotated[str | None, typer.Option(help="A number, or auto.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    device: Annotated[str | None, typer.Option(help="cuda, cpu ...; a GPU by default where there is one.")] = None,
    into: Annotated[
        Path | None,
        typer.Option(help="A Markdown file whose table between run:SUITE and /run (HTML comments) is renewed."),
    ] = None,
) -> None:
    """Run a suite: methods by tasks, or checkpoints by decoders; one table.

    Killed, or some cells failed? The same command again runs only what is missing. Exit status 1: a cell failed.

    Example: `pcc-bench run lab-table2 --output results/lab-table2`
    """
    from pcc_bench import markers
    from pcc_bench.suite import cost
    from pcc_bench.suite.check import check
    from pcc_bench.suite.runner import choose
    from pcc_bench.suite.runner import run as run_cells
    from pcc_bench.suite.spec import Settings, Suite

    read = Suite.read(suite)
    changes = Settings(
        limit=limit,
        batch_size=batch_size,
        metadata={"data": data} if data else {},
        model_args={"dtype": dtype} if dtype else {},
    )
    cells = read.plan(out, changes, device)
    chosen = choose(cells, only)
    check(chosen)
    if dry_run:
        typer.echo(cost.plan(chosen).markdown())
        return
    failed = run_cells(read, out, chosen, typer.echo)
    text = _show_table(read, out, cells)
    if into is not None:
        markers.fill(into, "run", {read.name: text}, partly=True)
    if failed:
        typer.echo("\nfailed, tried again by the next call:\n" + "\n".join(f"- {k}: {v}" for k, v in failed.items()))
        raise typer.Exit(1)


def _show_table(suite: Suite, out: Path, cells: Sequence[Cell]) -> str:
    """Print the table of all cells that are done, and keep it."""
    from pcc_bench.suite.cell import results
    from pcc_bench.suite.table import table

    lines = [(cell.label, results(cell.command)) for cell in cells]
    text = table(lines, suite.metrics).markdown()
    write_text(out / "table.md", text + "\n")
    typer.echo(f"\n{text}\n\nwritten: {out / 'table.md'}")
    missing = [label for label, path in lines if path is None]
    if missing:
        typer.echo(f"missing: {', '.join(missing)}")
    return text
