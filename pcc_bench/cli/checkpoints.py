"""The verbs that make checkpoints: `pcc-bench init`, `train` and `convert`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option, echo

from pcc_bench.cli.options import NewFolder, Rate
from pcc_bench.cli.terminal import resumable, show
from pcc_bench.core.errors import UsageError
from pcc_bench.core.texttable import TextTable

DecoderName = Annotated[str, Option("--decoder", help="The decoder, folder or hub id.")]
Force = Annotated[bool, Option("--force", help="Write into a folder that is not empty.")]


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
