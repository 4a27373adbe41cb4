"""The verbs that train: `pcc-bench init`, `train` and `convert`; `lab` remakes and checks the models that ship."""

from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Exit, Option, Typer, echo

from pcc_bench.cli.terminal import NewFolder, Rate, resumable, show, show_frame
from pcc_bench.core import shipped
from pcc_bench.core.errors import UsageError
from pcc_bench.core.texttable import TextTable

DecoderName = Annotated[str, Option("--decoder", help="The decoder, folder or hub id.")]
Force = Annotated[bool, Option("--force", help="Write into a folder that is not empty.")]
lab_app = Typer(help="The lab: the paper in miniature, trained from nothing.", no_args_is_help=True)

Folder = Annotated[Path, Option(help="Folder of the parts; by default those that ship with the package.")]
Parts = Annotated[list[str] | None, Argument(help="Parts ('pcc-bench lab ls'); all of them if none is named.")]


def init(
    encoder: Annotated[str, Option(help="A plain causal LM: GPT-2 (Lite) or Llama with --lora-rank (Large).")],
    decoder: DecoderName,
    rate: Annotated[list[int], Option(help="Source tokens per slot; repeat for several, the first is default.")],
    output: NewFolder,
    segment_length: Annotated[int, Option(min=1, help="Encoder tokens a segment.")] = 256,
    lora_rank: Annotated[int, Option(min=0, help="0 trains the whole encoder; the paper's Large has 64.")] = 0,
    seed: Annotated[int, Option(min=0, max=2**32 - 1, help="Of everything that is drawn.")] = 0,
    force: Force = False,
) -> None:
    """Make a fresh, untrained checkpoint for an encoder, a decoder and rates."""
    from pcc_bench.host import compressing
    from pcc_bench.model import checkpoint
    from pcc_bench.model import init as fresh

    _refuse_full(output, force)
    with compressing.quiet():
        frozen = fresh.open_decoder(decoder)
        pcc = fresh.fresh(encoder, frozen, rate, output, segment_length=segment_length, lora_rank=lora_rank, seed=seed)
        checkpoint.save(pcc, output)
    _show_sizes(pcc)
    echo(f"written: {output}. It is untrained: train it, then: pcc-bench validate --model-args pretrained={output}")


def train(
    recipe: Annotated[str, Argument(help="A recipe file, or a shipped recipe ('pcc-bench ls recipes').")],
    output: Annotated[Path | None, Option("--output", "-o", help="Folder of checkpoint, logs, saved states.")] = None,
    set_: Annotated[list[str] | None, Option("--set", help="Change a key: optimisation.steps=100; repeatable.")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Print sizes, memory and time; train nothing.")] = False,
    utilisation: Annotated[float, Option(help="Of the accelerator's peak, for --dry-run.")] = 0.4,
    accelerator: Annotated[str, Option(help="A100, H100 or H200, for --dry-run.")] = "H100",
    accelerators: Annotated[int, Option(help="How many of them, for --dry-run.")] = 1,
) -> None:
    """Train a compressor against a frozen decoder.

    Interrupted? The same command again goes on from the last saved state. Several processes: `accelerate launch`.
    """
    from pcc_bench.model.training.recipe import Recipe

    read = Recipe.read(recipe, set_ or ())
    if dry_run:
        from pcc_bench.cost import dry_run as planning

        plan = planning.plan(read, utilisation=utilisation, device=accelerator, devices=accelerators)
        echo(planning.render(plan))
        return
    if output is None:
        raise UsageError("--output names no folder: give one for the checkpoint, or pass --dry-run")
    from pcc_bench.core.claims import claimed
    from pcc_bench.model.training.journal import kept_states
    from pcc_bench.model.training.loop import train as run

    with resumable(lambda: f"{kept_states(output)} in {output}"), claimed(output):
        trained = run(read, output)
    if trained is not None:  # the first of several processes
        echo(f"written: {output}. Next: pcc-bench validate --model pcc --model-args pretrained={output}")


def convert(
    src: Annotated[str, Argument(help="A checkpoint of either format, folder or hub id.")],
    decoder: DecoderName,
    output: NewFolder,
    to: Annotated[Literal["own", "published"], Option(help="The format to write.")] = "own",
    rate: Rate = None,
    segment_length: Annotated[int | None, Option(help="Where the source does not record it (default 256).")] = None,
    encoder: Annotated[str | None, Option(help="Base model of a LoRA encoder, if not the one recorded.")] = None,
    special_tokens: Annotated[
        Path | None,
        Option(help="special_token_patch.pt, for published checkpoints whose decoder lacks <mem>, </mem>, <ae>."),
    ] = None,
    weights: Annotated[
        Literal["float32", "float16", "bfloat16", "int8"] | None,
        Option(help="Dtype of the weights in our format: half the bits, half the file; int8: the encoder's."),
    ] = None,
    force: Force = False,
) -> None:
    """Convert a checkpoint between our format and the published one."""
    import torch

    from pcc_bench.host import compressing
    from pcc_bench.model import init

    _refuse_full(output, force)
    patch = str(special_tokens) if special_tokens else None
    options = {"rate": rate, "segment_length": segment_length, "encoder": encoder, "special_tokens": patch}
    with compressing.quiet():
        pcc = init.convert(src, decoder, output, to, getattr(torch, weights) if weights else None, **options)
    _show_sizes(pcc)
    echo(f"written: {output} ({to} format, rate {pcc.config.rate}x)")


def _refuse_full(folder: Path, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: choose another --output")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise UsageError(f"{folder} is not empty: choose another --output, or pass --force to write into it")


def _show_sizes(pcc: Any) -> None:
    rows = []
    for name, part in (("encoder", pcc.encoder), ("converter", pcc.converter)):
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in part.parameters()]
        trainable = sum(size for size, trains in sizes if trains)
        rows.append((name, f"{sum(size for size, _ in sizes):,}", f"{trainable:,}"))
    show(TextTable(("part", "parameters", "trainable"), tuple(rows)))


@lab_app.command(epilog="Example: `pcc-bench lab build pcc-lab-4x --output my-lab`")
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


@lab_app.command()
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


@lab_app.command()
def ship(
    folder: Annotated[Path, Argument(help="A folder of 'pcc-bench lab build'.")],
    parts: Annotated[list[str] | None, Argument(help="Parts that ship; all of them if none is named.")] = None,
    to: Annotated[Path, Option(help="Where to; by default into the package.")] = shipped.FOLDER,
) -> None:
    """Copy the parts that ship into the package. Then: `pcc-bench lab record --figures FOLDER`."""
    from pcc_bench.lab import build as module

    size = module.ship(folder, to, tuple(parts or ()))
    echo(f"{to} holds {size / 2**20:.1f} MiB of the {module.LIMIT / 2**20:.0f} that may ship")


@lab_app.command()
def check(folder: Folder = shipped.FOLDER) -> None:
    """Measure the shipped models again; fails when weights, the generated world or the scoring have changed."""
    from pcc_bench.lab import check as module

    if wrong := module.check(folder):
        echo("\n".join(wrong), err=True)
        raise Exit(1)
    echo("all as recorded: files, recipes, generated data, figures")


@lab_app.command()
def table(folder: Folder = shipped.FOLDER) -> None:
    """Print the recorded figures: answering by model, floors and ceilings, and reconstruction."""
    from pcc_bench.lab import check as module

    show_frame(module.table(module.read_record(folder)).reset_index())


@lab_app.command()
def findings(folder: Folder = shipped.FOLDER) -> None:
    """What the paper found, asked of the recorded figures: agrees, disagrees or undecided, with intervals."""
    from pcc_bench.lab import check as module

    show_frame(module.findings(module.read_record(folder).measured))


@lab_app.command("ls")
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
