"""`pcc-bench lab`: remake, measure and check the models that ship with the project."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option, Typer, echo

from pcc_bench.cli.terminal import show, show_frame
from pcc_bench.core import shipped
from pcc_bench.core.texttable import TextTable

app = Typer(help="The lab: the paper in miniature, trained from nothing.", no_args_is_help=True)

Folder = Annotated[Path, Option(help="Folder of the parts; by default those that ship with the package.")]
Parts = Annotated[list[str] | None, Argument(help="Parts ('pcc-bench lab ls'); all of them if none is named.")]


@app.command(epilog="Example: `pcc-bench lab build pcc-lab-4x --output my-lab`")
def build(
    output: Annotated[Path, Option("--output", "-o", help="Where the parts go, each in a folder of its own.")],
    parts: Parts = None,
    again: Annotated[bool, Option("--again", help="Make parts anew whose recipe or world has changed.")] = False,
    threads: Annotated[int | None, Option(help="Processor threads; several parts can be built side by side.")] = None,
) -> None:
    """Train parts of the lab, and what they need. Killed? The same command again goes on.

    What a part needs is built before it ('pcc-bench lab ls' has the order, and which parts ship). On one core a decoder
    takes up to 50 minutes and a compressor about 20; docs/lab.md has the minutes of each part.
    """
    import torch

    from pcc_bench.lab.build import build as build_parts

    if threads:
        torch.set_num_threads(threads)
    built = build_parts(output, tuple(parts or ()), again)
    echo(f"built {', '.join(built)} in {output}" if built else f"everything is there already, in {output}")


@app.command()
def record(
    folder: Folder = shipped.FOLDER,
    parts: Parts = None,
    figures: Annotated[
        Path | None, Option(help="A folder whose recorded figures are taken instead of measuring (if some ships).")
    ] = None,
) -> None:
    """Measure finished parts and write lab.json, which `lab check`, `lab table` and `lab findings` read."""
    from pcc_bench.lab import check as module

    show_frame(module.table(module.record(folder, tuple(parts or ()), figures)).reset_index())


@app.command()
def ship(
    folder: Annotated[Path, Argument(help="A folder of 'pcc-bench lab build'.")],
    parts: Annotated[list[str] | None, Argument(help="Parts that ship; all of them if none is named.")] = None,
    to: Annotated[Path, Option(help="Where to; by default into the package.")] = shipped.FOLDER,
) -> None:
    """Copy the parts that ship into the package. Then: `pcc-bench lab record --figures FOLDER`."""
    from pcc_bench.lab import build as module

    size = module.ship(folder, to, tuple(parts or ()))
    echo(f"{to} holds {size / 2**20:.1f} MiB of the {module.LIMIT / 2**20:.0f} that may ship")


@app.command()
def check(folder: Folder = shipped.FOLDER) -> None:
    """Measure the shipped models again; fails when weights, the generated world or the scoring have changed."""
    from pcc_bench.lab import check as module

    if wrong := module.check(folder):
        echo("\n".join(wrong), err=True)
        raise Exit(1)
    echo("all as recorded: files, recipes, generated data, figures")


@app.command()
def table(folder: Folder = shipped.FOLDER) -> None:
    """Print the recorded figures: answering by model, floors and ceilings, and reconstruction."""
    from pcc_bench.lab import check as module

    show_frame(module.table(module.read_record(folder)).reset_index())


@app.command()
def findings(folder: Folder = shipped.FOLDER) -> None:
    """What the paper found, asked of the recorded figures: agrees, disagrees or undecided, with intervals."""
    from pcc_bench.lab import check as module

    show_frame(module.findings(module.read_record(folder).measured))


@app.command("ls")
def list_parts(folder: Folder = shipped.FOLDER) -> None:
    """List the parts in the order of building: which are built, minutes, which ship, needs, recipe."""
    from pcc_bench.lab import PARTS, needs, part
    from pcc_bench.lab.build import in_order, read_card

    spent, rows = [], []
    for name in in_order(PARTS):
        card = read_card(folder, name)
        spent += [card["seconds"] / 60] if card else []
        built, minutes = ("yes", f"{spent[-1]:.0f}") if card else ("no", "-")
        ships = "yes" if name in shipped.SHIPPED else "no"
        changed = part(name).model_dump(exclude_defaults=True, mode="json")
        recipe = ", ".join(f"{key}={value}" for key, value in changed.items() if key not in ("decoder", "start"))
        rows.append((name, built, minutes, ships, ", ".join(needs(name)) or "-", recipe))
    show(TextTable(("part", "built", "minutes", "ships", "needs", "recipe, where it is not the default"), tuple(rows)))
    echo(f"{len(spent)} of {len(PARTS)} parts are built in {folder}; they took {sum(spent):.0f} minutes")
