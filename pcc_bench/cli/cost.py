"""The verb `pcc-bench cost`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pcc_bench.cli.options import Device

MODES = ("full", "prefix-cached", "cold", "warm")


# Options of a few words stand in the verb's signature.
Checkpoint = Annotated[str | None, typer.Argument(help="A PCC checkpoint, folder or hub id; by default pcc-lab-4x.")]
Weights = Annotated[
    str | None, typer.Option(help="Instead of a checkpoint, true sizes: lite, large, small, tiny, or ENCODER+DECODER.")
]
Batch = Annotated[list[int] | None, typer.Option("--batch-size", min=1, help="Contexts at a time; repeatable. [1]")]
Dtype = Annotated[
    str | None, typer.Option(help="float32, bfloat16 or float16; auto, the default: bfloat16, on a CPU float32.")
]
Utilisation = Annotated[
    float | None, typer.Option(help="With --device-peak: share of it that a forward reaches. [0.5]")
]
Overhead = Annotated[float | None, typer.Option(min=0, help="With --device-peak: ms to start a forward's kernels. [0]")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder of cost_*.jsonl, which 'pcc-bench report' reads.")
]


def cost(
    ckpt: Checkpoint = None,
    random_weights: Weights = None,
    predict: Annotated[bool, typer.Option("--predict", help="Compute from sizes; load and run no model.")] = False,
    decoder: Annotated[str | None, typer.Option(help="The decoder, where it is not the checkpoint's.")] = None,
    context: Annotated[list[int] | None, typer.Option(min=1, help="Tokens; repeat for several. [1024]")] = None,
    rate: Annotated[list[int] | None, typer.Option(min=1, help="Source tokens per slot; repeatable. [4]")] = None,
    batch: Batch = None,
    reuse: Annotated[list[int] | None, typer.Option(min=1, help="Questions a context; repeatable. [1]")] = None,
    mode: Annotated[list[str] | None, typer.Option(help=f"{', '.join(MODES)}; repeatable. [all]")] = None,
    question_tokens: Annotated[int, typer.Option(min=1, help="Read behind each context.")] = 32,
    new_tokens: Annotated[int, typer.Option(min=1, help="Of each answer.")] = 32,
    repeats: Annotated[int, typer.Option(min=1, help="Times that each mode is timed.")] = 20,
    device: Device = None,
    dtype: Dtype = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch on a CPU.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of random weights and of the tokens read.")] = 0,
    device_peak: Annotated[float | None, typer.Option(help="For --predict: TFLOP/s of the device.")] = None,
    bandwidth: Annotated[float | None, typer.Option(help="For --predict: GB/s of its memory.")] = None,
    utilisation: Utilisation = None,
    overhead: Overhead = None,
    out: Output = None,
) -> None:
    """Measure, or predict, what compression saves: time, tokens per second, memory.

    Four ways to a question's answer are timed, phase by phase (compress, prefill, decode):

    - **full**: the decoder reads the whole context anew.
    - **prefix-cached**: the context's keys and values are still in the decoder's cache.
    - **cold**: the context is compressed first, then the memory is read.
    - **warm**: the memory is there.

    What a memory knows plays no part, so random weights of true sizes give true costs without a download. Killed? The
    same command again measures only what is missing.

    `pcc-bench cost --random-weights small --context 1024 --context 4096 --rate 4 --rate 16 --output costs`

    `pcc-bench cost CKPT --context 1024 --reuse 1 --reuse 10 --device cuda --output costs`

    `pcc-bench cost --predict --random-weights lite --context 8000 --rate 16 --device-peak 989 --bandwidth 4800`
    """
    from pcc_bench.cli.terminal import show
    from pcc_bench.core import shipped
    from pcc_bench.cost import sweeps
    from pcc_bench.cost.records import heading, tables

    contexts, batches, questions = (tuple(context or (1024,)), tuple(batch or (1,)), tuple(reuse or (1,)))
    modes = sweeps.modes(mode or MODES)
    sweep = sweeps.Sweep(contexts, tuple(rate or ()), batches, questions, modes, question_tokens, new_tokens)
    weights = ckpt if ckpt or random_weights else shipped.DEFAULT
    source = sweeps.Source(weights, random_weights, decoder, device, None if dtype == "auto" else dtype, threads, seed)
    speed = (device_peak, bandwidth, utilisation, overhead)
    records = sweeps.run(source, sweep, predict, speed, repeats, out, typer.echo)
    typer.echo(heading(records))
    for table in tables(records):
        typer.echo()
        show(table)
    if out is not None:
        typer.echo(f"\nwritten: {out}")
