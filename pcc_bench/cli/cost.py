"""The verb `pcc-bench cost`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option, echo

from pcc_bench.cli.terminal import Device, show, unless_auto
from pcc_bench.core import shipped
from pcc_bench.core.errors import UsageError
from pcc_bench.cost.records import Mode, heading, tables

# Options of a few words stand in the verb's signature.
Weights = Annotated[str | None, Option(help="No checkpoint but true sizes: lite, large, small, tiny, ENCODER+DECODER.")]
Dtype = Annotated[
    str | None, Option(help="float32, bfloat16, float16, auto (bfloat16, on a CPU float32).", callback=unless_auto)
]
Output = Annotated[Path | None, Option("--output", "-o", help="Folder of cost_*.jsonl, for 'pcc-bench report'.")]


def cost(
    ckpt: Annotated[str | None, Argument(help="A PCC checkpoint, folder or hub id; by default pcc-lab-4x.")] = None,
    random_weights: Weights = None,
    predict: Annotated[bool, Option("--predict", help="Compute from sizes; load and run no model.")] = False,
    decoder: Annotated[str | None, Option(help="The decoder, where it is not the checkpoint's.")] = None,
    context: Annotated[list[int] | None, Option(min=1, help="Tokens; repeat for several. [1024]")] = None,
    rate: Annotated[list[int] | None, Option(min=1, help="Source tokens per slot; repeatable. [4]")] = None,
    batch_size: Annotated[list[int] | None, Option(min=1, help="Contexts at a time; repeatable. [1]")] = None,
    reuse: Annotated[list[int] | None, Option(min=1, help="Questions a context; repeatable. [1]")] = None,
    mode: Annotated[list[str] | None, Option(help=f"{', '.join(Mode)}; repeatable. [all]")] = None,
    question_tokens: Annotated[int, Option(min=1, help="Read behind each context.")] = 32,
    new_tokens: Annotated[int, Option(min=1, help="Of each answer.")] = 32,
    repeats: Annotated[int, Option(min=1, help="Times that each mode is timed.")] = 20,
    device: Device = None,
    dtype: Dtype = None,
    threads: Annotated[int | None, Option(min=1, help="Of torch on a CPU.")] = None,
    seed: Annotated[int, Option(min=0, max=2**32 - 1, help="Of random weights and of the tokens read.")] = 0,
    device_peak: Annotated[float | None, Option(help="For --predict: TFLOP/s of the device.")] = None,
    bandwidth: Annotated[float | None, Option(help="For --predict: GB/s of its memory.")] = None,
    utilisation: Annotated[float | None, Option(help="With --device-peak: share that a forward reaches. [0.5]")] = None,
    overhead: Annotated[float | None, Option(min=0, help="With --device-peak: ms to start a forward. [0]")] = None,
    output: Output = None,
) -> None:
    """Measure, or predict, what compression saves: time, tokens per second, memory.

    Four ways to a question's answer are timed, phase by phase (compress, prefill, decode):

    - **full**: the decoder reads the whole context anew.
    - **prefix-cached**: the context's keys and values are still in the decoder's cache.
    - **cold**: the context is compressed first, then the memory is read.
    - **warm**: the memory is there.

    What a memory knows plays no part, so random weights of true sizes give true costs without a download. Killed? The
    same command again measures only what is missing.

    - `pcc-bench cost --random-weights small --context 1024 --context 4096 --rate 4 --rate 16 --output costs`
    - `pcc-bench cost CKPT --context 1024 --reuse 1 --reuse 10 --device cuda --output costs`
    """
    from pcc_bench.cost import sweeps

    axes = (context or [1024], rate or [], batch_size or [1], reuse or [1])
    sweep = sweeps.Sweep(*axes, sweeps.modes(mode or list(Mode)), question_tokens, new_tokens)
    weights = ckpt if ckpt or random_weights else shipped.DEFAULT
    source = sweeps.Source(weights, random_weights, decoder, device, dtype, threads, seed)
    stated = (device_peak, bandwidth, utilisation, overhead)
    if predict:
        records = sweeps.predict(source, sweep, output, stated)
    elif any(value is not None for value in stated):
        raise UsageError("--device-peak, --bandwidth, --utilisation and --overhead are for --predict: add it")
    elif output is None:
        raise UsageError("--output names no folder: give one for the measurements, or pass --predict")
    else:
        records = sweeps.measure(source, sweep, repeats, output, echo)
    echo(heading(records))
    for table in tables(records):
        echo()
        show(table)
    if output is not None:
        echo(f"\nwritten: {output}")
