"""The verbs that make checkpoints: `pcc-bench init`, `train` and `convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pcc_bench.cli.options import Rate
from pcc_bench.core.errors import UsageError

if TYPE_CHECKING:
    from pcc_bench.model.pcc import PCC

DecoderName = Annotated[str, typer.Option("--decoder", help="The decoder, folder or hub id.")]
EncoderBase = Annotated[
    str | None, typer.Option("--encoder", help="Base model of a LoRA encoder, where it is not the one recorded.")
]
SpecialTokens = Annotated[
    Path | None,
    typer.Option(help="special_token_patch.pt, for published checkpoints whose decoder lacks <mem>, </mem>, <ae>."),
]
Force = Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")]


def init(
    encoder: Annotated[str, typer.Option(help="A plain causal LM: GPT-2 (Lite) or Llama with --lora-rank (Large).")],
    decoder: DecoderName,
    rate: Annotated[list[int], typer.Option(help="Source tokens per slot; repeat for several, the first is default.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    segment_length: Annotated[int, typer.Option(min=1, help="Encoder tokens a segment.")] = 256,
    lora_rank: Annotated[int, typer.Option(min=0, help="0 trains the whole encoder; the paper's Large has 64.")] = 0,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of everything that is drawn.")] = 0,
    force: Force = False,
) -> None:
    """Make a fresh, untrained checkpoint for an encoder, a decoder and rates.

    Example: `pcc-bench init --encoder gpt2 --decoder meta-llama/Llama-3.2-1B --rate 4 --rate 16 --output fresh`
    """
    from pcc_bench.host import compressing
    from pcc_bench.model import checkpoint
    from pcc_bench.model import init as fresh

    _refuse_full(out, force)
    with compressing.quiet():
        made_for = fresh.open_decoder(decoder)
        pcc = fresh.fresh(encoder, made_for, rate, out, segment_length=segment_length, lora_rank=lora_rank, seed=seed)
        checkpoint.save(pcc, out)
    _show_sizes(pcc)
    typer.echo(
        f"written: {out}. It is untrained: train it, then: pcc-bench validate --model pcc --model-args pretrained={out}"
    )


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or a shipped recipe ('pcc-bench ls recipes').")],
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of checkpoint, logs and resumable states.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key, e.g. optimisation.steps=100; repeatable.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print sizes, memory and time; train nothing.")] = False,
    utilisation: Annotated[float, typer.Option(help="Of the accelerator's peak, for --dry-run.")] = 0.4,
    accelerator: Annotated[str, typer.Option(help="A100, H100 or H200, for --dry-run.")] = "H100",
    accelerators: Annotated[int, typer.Option(help="How many of them, for --dry-run.")] = 1,
) -> None:
    """Train a compressor against a frozen decoder.

    Interrupted? The same command again goes on from the last saved state. Several processes: `accelerate launch`.

    Example: `pcc-bench train lite-4x --dry-run --accelerator A100 --accelerators 4`
    """
    from pcc_bench.cost import dry_run as planning
    from pcc_bench.model.training.recipe import Recipe

    read = Recipe.read(recipe, set_ or ())
    if dry_run:
        plan = planning.plan(read, utilisation=utilisation, device=accelerator, devices=accelerators)
        typer.echo(planning.render(plan))
        return
    if out is None:
        raise UsageError("--output names no folder: give one for the checkpoint, or pass --dry-run")
    from pcc_bench.cli.terminal import resumable
    from pcc_bench.core.claims import claimed
    from pcc_bench.model.training.journal import kept_states
    from pcc_bench.model.training.loop import train as run

    with resumable(lambda: f"{kept_states(out)} in {out}"), claimed(out):
        trained = run(read, out)
    if trained is not None:  # the first of several processes
        typer.echo(f"written: {out}. Next: pcc-bench validate --model pcc --model-args pretrained={out}")


def convert(
    src: Annotated[str, typer.Argument(help="A checkpoint of either format, folder or hub id.")],
    decoder: DecoderName,
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    to: Annotated[Literal["own", "published"], typer.Option(help="The format to write.")] = "own",
    rate: Rate = None,
    segment_length: Annotated[
        int | None, typer.Option(help="Where the source does not record it (default 256).")
    ] = None,
    encoder: EncoderBase = None,
    special_tokens: SpecialTokens = None,
    weights: Annotated[
        Literal["float32", "float16", "bfloat16", "int8"] | None,
        typer.Option(help="Dtype of the weights in our format: half the bits, half the file; int8: the encoder's."),
    ] = None,
    force: Force = False,
) -> None:
    """Convert a checkpoint between our format and the published one.

    Example: `pcc-bench convert BroAlanTaps/Stage2-PCC-Lite-4x --decoder BroAlanTaps/PCC-Decoder-Llama3-8B-Instruct
    --output pcc-lite-4x`
    """
    import torch

    from pcc_bench.host import compressing
    from pcc_bench.model import init

    _refuse_full(out, force)
    patch = str(special_tokens) if special_tokens else None
    options = {"rate": rate, "segment_length": segment_length, "encoder": encoder, "special_tokens": patch}
    with compressing.quiet():
        dtype = getattr(torch, weights) if weights else None
        pcc = init.convert(src, decoder, out, to, dtype, **options)
    _show_sizes(pcc)
    typer.echo(f"written: {out} ({to} format, rate {pcc.config.rate}x)")


def _refuse_full(folder: Path, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: choose another --output")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise UsageError(f"{folder} is not empty: choose another --output, or pass --force to write into it")


def _show_sizes(pcc: PCC) -> None:
    """Print the parameters of a checkpoint."""
    from pcc_bench.cli.terminal import show
    from pcc_bench.core.texttable import TextTable

    rows = []
    for name, part in (("encoder", pcc.encoder), ("converter", pcc.converter)):
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in part.parameters()]
        trainable = sum(size for size, trains in sizes if trains)
        rows.append((name, f"{sum(size for size, _ in sizes):,}", f"{trainable:,}"))
    show(TextTable(("part", "parameters", "trainable"), tuple(rows)))
