"""`pcc-bench lab`: remake, measure and check the models that ship with the project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pcc_bench import shipped

app = typer.Typer(help="The lab: the paper in miniature, trained from nothing.", no_args_is_help=True)

Folder = Annotated[Path, typer.Option(help="Folder of the parts; by default those that ship with the package.")]
Parts = Annotated[list[str] | None, typer.Argument(help="Parts ('pcc-bench lab ls'); all of them if none is named.")]


@app.command()
def build(
    output: Annotated[Path, typer.Option(help="Where the parts go, each in a folder of its own.")],
    parts: Parts = None,
    again: Annotated[bool, typer.Option("--again", help="Make parts anew whose recipe or world has changed.")] = False,
    threads: Annotated[
        int | None, typer.Option(help="Processor threads; several parts can be built side by side.")
    ] = None,
) -> None:
    """Train parts of the lab, and what they need. Killed? The same command again goes on.

    Example: `pcc-bench lab build pcc-lab-4x --output my-lab`
    """
    import torch

    from pcc_bench.lab.build import build as build_parts

    if threads:
        torch.set_num_threads(threads)
    made = build_parts(output, tuple(parts or ()), again)
    typer.echo(f"built {', '.join(made)} in {output}" if made else f"everything is there already, in {output}")


@app.command()
def record(
    folder: Folder = shipped.FOLDER,
    parts: Parts = None,
    figures: Annotated[
        Path | None,
        typer.Option(help="A folder whose recorded figures are taken instead of measuring (when some of it ships)."),
    ] = None,
) -> None:
    """Measure finished parts and write lab.json, which `lab check`, `lab table` and `lab findings` read."""
    from pcc_bench.lab.check import record as record_parts
    from pcc_bench.lab.check import table as as_table

    typer.echo(as_table(record_parts(folder, tuple(parts or ()), figures)).to_markdown())


@app.command()
def check(folder: Folder = shipped.FOLDER) -> None:
    """Measure the shipped models again; fails when weights, the generated world or the scoring have changed."""
    from pcc_bench.lab.check import check as check_parts

    wrong = check_parts(folder)
    for sentence in wrong:
        typer.echo(sentence, err=True)
    if wrong:
        raise typer.Exit(1)
    typer.echo("all as recorded: files, recipes, generated data, figures")


@app.command()
def table(folder: Folder = shipped.FOLDER) -> None:
    """Print the recorded figures: answering by model, floors and ceilings, and reconstruction."""
    from pcc_bench.lab.check import read_record
    from pcc_bench.lab.check import table as as_table

    typer.echo(as_table(read_record(folder)).to_markdown())


@app.command()
def findings(folder: Folder = shipped.FOLDER) -> None:
    """What the paper found, asked of the recorded figures: agrees, disagrees or undecided, with intervals."""
    from pcc_bench.lab.check import read_record
    from pcc_bench.lab.findings import findings as judged

    typer.echo(judged(read_record(folder).measured).to_markdown(index=False))


@app.command("ls")
def list_parts(folder: Folder = shipped.FOLDER) -> None:
    """List the parts, what they need, and which are there."""
    from pcc_bench.lab.build import read_card
    from pcc_bench.lab.parts import PARTS, needs

    for name, recipe in PARTS.items():
        state = "there" if read_card(folder, name) else "not built"
        settings = ", ".join(
            f"{key}={value}" for key, value in recipe.model_dump(exclude_defaults=True, mode="json").items()
        )
        typer.echo(f"{name:28} {state:10} {settings}" + (f" (needs {', '.join(needs(name))})" if needs(name) else ""))
