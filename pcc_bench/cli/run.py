"""The verb `pcc-bench run`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pcc_bench.cli.options import Data, Device, Dtype, Limit
from pcc_bench.core.documents import write_text
from pcc_bench.suite.spec import Executor, Terms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcc_bench.suite.spec import Cell, Suite


def run(
    suite: Annotated[str, typer.Argument(help="A suite file, or a shipped suite: table2, lab-table2, ...")],
    out: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the results, a folder a cell, and of the table.")
    ],
    only: Annotated[
        str | None, typer.Option(help="Only cells whose label, here or in a report, or task matches, e.g. 'pcc*'.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and what it takes; run nothing.")] = False,
    limit: Limit = None,
    batch_size: Annotated[str | None, typer.Option(help="A number, or auto; by default the suite's.")] = None,
    device: Device = None,
    dtype: Dtype = None,
    data: Data = None,
    into: Annotated[
        Path | None,
        typer.Option(help="A Markdown file whose table between run:SUITE and /run (HTML comments) is renewed."),
    ] = None,
    memory_store: Annotated[
        Path | None, typer.Option(help="A folder that keeps the memories of all cells, for any number of processes.")
    ] = None,
    executor: Annotated[
        Executor, typer.Option(help="Who runs the cells: this machine, a Ray cluster, or SLURM through submitit.")
    ] = Executor.LOCAL,
    gpus_per_cell: Annotated[float, typer.Option(min=0, help="GPUs a cell gets from Ray or submitit.")] = 0,
    cpus_per_cell: Annotated[int, typer.Option(min=1, help="CPU cores a cell gets from Ray or submitit.")] = 1,
    retries: Annotated[
        int | None,
        typer.Option(min=0, help="New attempts at a cell whose machine or process is lost; 2 by default, local 0."),
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option(min=1, help="Most cells at a time; by default 1 on this machine, else all that fit."),
    ] = None,
    executor_option: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE of the engine: address=HOST:PORT, slurm_partition=gpu ...; repeatable."),
    ] = None,
) -> None:
    """Run a suite: methods by tasks, or checkpoints by decoders; one table.

    Killed, or some cells failed? The same command again runs only what is missing. Exit status 1: a cell failed.

    Example: `pcc-bench run lab-table2 --output results/lab-table2`,
    `pcc-bench run table2 --output SHARED/table2 --executor ray --gpus-per-cell 1`
    """
    from pcc_bench.cli.terminal import show
    from pcc_bench.core import markers
    from pcc_bench.host.evaluate import kept_answers
    from pcc_bench.suite.cell import results
    from pcc_bench.suite.check import check, plan
    from pcc_bench.suite.engines import open_engine
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
    cells = read.plan(out, changes, device, memory_store)
    chosen = choose(cells, only)
    check(chosen)
    if dry_run:
        show(plan(chosen))
        return
    terms = Terms(gpus_per_cell, cpus_per_cell, retries, at_once)
    try:
        engine = functools.partial(open_engine, executor, out, terms, executor_option or ())
        failed = run_cells(read, out, chosen, typer.echo, engine)
    except KeyboardInterrupt:
        done = sum(results(cell.command) is not None for cell in cells)
        answers = sum(kept_answers(cell.folder) for cell in cells)
        typer.echo(
            f"\nstopped: {done} of {len(cells)} cells are done, {answers:,} answers are kept in {out}; "
            "the same command goes on",
            err=True,
        )
        raise typer.Exit(130) from None
    text = _show_table(read, out, cells)
    if into is not None:
        markers.fill(into, "run", {read.name: text}, partly=True)
    if failed:
        typer.echo("\nfailed, tried again by the next call:\n" + "\n".join(f"- {k}: {v}" for k, v in failed.items()))
        raise typer.Exit(1)


def _show_table(suite: Suite, out: Path, cells: Sequence[Cell]) -> str:
    """Print the table of all cells that are done, and keep it."""
    from pcc_bench.cli.terminal import show
    from pcc_bench.suite.cell import results
    from pcc_bench.suite.grid import table

    lines = [(cell.label, results(cell.command)) for cell in cells]
    scores = table(lines, suite.metrics)
    text = scores.markdown()
    write_text(out / "table.md", text + "\n")
    typer.echo()
    show(scores)
    typer.echo(f"\nwritten: {out / 'table.md'}")
    missing = [label for label, path in lines if path is None]
    if missing:
        typer.echo(f"missing: {', '.join(missing)}")
    return text
