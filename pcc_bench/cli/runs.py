"""The verbs that measure: `pcc-bench eval`, `validate`, `run` (a suite) and `demo`, which run lm-eval; `cost`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option, echo

from pcc_bench.cli.terminal import Data, Device, Dtype, Limit, RunOptions, fill, resumable, show, show_marks, takes
from pcc_bench.core import shipped
from pcc_bench.core.documents import write_text
from pcc_bench.core.errors import UsageError
from pcc_bench.cost.records import Mode, heading, tables
from pcc_bench.host.evaluate import kept_answers
from pcc_bench.suite.spec import Executor, Settings, Suite, Terms

# Options of `run` and `cost`; those of a few words stand in their signatures.
SuiteOutput = Annotated[Path, Option("--output", "-o", help="Folder of the results, one a cell, and of the table.")]
Only = Annotated[str | None, Option(help="Only cells whose label, here or in a report, or task matches, e.g. 'pcc*'.")]
Into = Annotated[Path | None, Option(help="Markdown whose table between run:SUITE and /run (comments) is renewed.")]
Store = Annotated[Path | None, Option(help="Folder that keeps the memories of all cells, for any number of processes.")]
WhoRuns = Annotated[Executor, Option(help="Who runs the cells: this machine, a Ray cluster or SLURM through submitit.")]
Retries = Annotated[int | None, Option(min=0, help="New attempts if a process or machine is lost; default 2, local 0.")]
AtOnce = Annotated[int | None, Option(min=1, help="Most cells at a time; by default 1 here, else all that fit.")]
EngineOptions = Annotated[
    list[str] | None, Option(help="KEY=VALUE of the engine: address=HOST:PORT, slurm_partition=gpu ...; repeatable.")
]
Sizes = Annotated[str | None, Option(help="No checkpoint but true sizes: lite, large, small, tiny, ENCODER+DECODER.")]
CostDtype = Annotated[str | None, Option(help="float32, bfloat16, float16 or auto (bfloat16, on a CPU float32).")]
CostOutput = Annotated[Path | None, Option("--output", "-o", help="Folder of cost_*.jsonl, for 'pcc-bench report'.")]


@takes(RunOptions)
def evaluate(
    tasks: Annotated[str, Option(help="Tasks, comma-separated ('pcc-bench ls tasks'), or any of lm-eval's.")],
    output: Annotated[Path, Option("--output", "-o", help="Folder of the results; one command each.")],
    options: RunOptions,
) -> None:
    """Run tasks through lm-eval, keep every answer, print one table.

    Killed? The same command again answers only what is missing.
    """
    from pcc_bench.host.evaluate import run
    from pcc_bench.reports.compare import summarise

    command = options.command(tasks, output)
    with resumable(lambda: f"{kept_answers(output):,} answers are kept in {output}"):
        files = run(command)
    if files:  # only the first of several processes has any
        show(summarise(files, options.wide))


@takes(RunOptions)
def validate(
    tasks: Annotated[str, Option(help="Tasks, comma-separated; none by default.")] = "",
    output: Annotated[Path | None, Option("--output", "-o", help="As in 'eval'; nothing is written.")] = None,
    options: RunOptions = RunOptions(),  # noqa: B008
) -> None:
    """Find trouble before a GPU does: configurations, tokenizers, weights' headers, one row a task.

    Takes the options of `eval`, with the same defaults: put the one word in the place of the other.
    """
    from pcc_bench.host import validate as module
    from pcc_bench.host.evaluate import check

    command = options.command(tasks, output or Path())
    check(command)
    report = module.validate(command.model, command.model_args, tasks, command.task_metadata)
    for task, example in report.examples.items():
        echo(f"\nfirst row of {task}:")
        show(example)
    show_marks([("OK" if check.holds else "FAIL", check.what, check.says) for check in report.checks])
    if not report.holds:
        raise Exit(1)


def run(
    suite: Annotated[str, Argument(help="A suite file, or a shipped suite: table2, lab-table2, ...")],
    out: SuiteOutput,
    only: Only = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Print the plan and what it takes; run nothing.")] = False,
    limit: Limit = None,
    batch_size: Annotated[str | None, Option(help="A number, or auto; by default the suite's.")] = None,
    device: Device = None,
    dtype: Dtype = None,
    data: Data = None,
    into: Into = None,
    memory_store: Store = None,
    executor: WhoRuns = "local",
    gpus_per_cell: Annotated[float, Option(min=0, help="GPUs a cell gets from Ray or submitit.")] = 0,
    cpus_per_cell: Annotated[int, Option(min=1, help="CPU cores a cell gets from Ray or submitit.")] = 1,
    retries: Retries = None,
    at_once: AtOnce = None,
    executor_option: EngineOptions = None,
) -> None:
    """Run a suite: methods by tasks, or checkpoints by decoders; one table.

    Killed, or some cells failed? The same command again runs only what is missing. Exit status 1: a cell failed.
    """
    from pcc_bench.suite import check, runner
    from pcc_bench.suite.engines import open_engine, results

    read = Suite.read(suite)
    changes = Settings(limit=limit, batch_size=batch_size, metadata={"data": data} if data else {})
    changes = Settings(model_args={"dtype": dtype} if dtype else {}).over(changes)
    cells = read.plan(out, changes, device, memory_store)
    chosen = runner.choose(cells, only)
    check.check(chosen)
    if dry_run:
        show(check.plan(chosen))
        return

    def state() -> str:
        done = sum(results(cell.command) is not None for cell in cells)
        answers = sum(kept_answers(cell.command.output) for cell in cells)
        return f"{done} of {len(cells)} cells are done, {answers:,} answers are kept in {out}"

    terms = Terms(gpus_per_cell, cpus_per_cell, retries, at_once, executor_option or ())
    with resumable(state):
        failed = runner.run(read, out, chosen, echo, lambda: open_engine(executor, out, terms))
    lines = [(cell.label, results(cell.command)) for cell in cells]
    table = runner.table(lines, read.metrics)
    write_text(out / "table.md", table.markdown() + "\n")
    echo()
    show(table)
    missing = ", ".join(label for label, path in lines if path is None)
    echo(f"\nwritten: {out / 'table.md'}" + (f"\nmissing: {missing}" if missing else ""))
    if into is not None:
        fill(into, "run", {read.name: table.markdown()}, partly=True)
    if failed:
        echo("\nfailed, tried again by the next call:\n" + "\n".join(f"- {k}: {v}" for k, v in failed.items()))
        raise Exit(1)


def run_demo(
    out: Annotated[Path, Option("--output", "-o", help="Folder for the results.")] = Path(".demo"),
    rows: Annotated[int, Option(help="Questions of each kind (--real: at most 100).", min=2)] = 100,
    real: Annotated[bool, Option("--real", help="Real SQuAD questions, read by smollm2-135m.")] = False,
    checkpoint: Annotated[str | None, Option(help="With --real: a PCC checkpoint for that decoder.")] = None,
) -> None:
    """Run everything in miniature, without a network: trained models, their questions, one table."""
    from pcc_bench.cli import demo as module

    if checkpoint and not real:
        raise UsageError("--checkpoint is for real rows: add --real")
    if not real:
        echo(module.ABOUT)
        table = module.run(out, rows)
        echo(f"\n{table.markdown()}\n\nFiles: {out}\n\n{module.NEXT}")
        return
    echo(module.REAL_ABOUT.format(decoder=module.DECODER))
    table, answers = module.run_real(out, rows, checkpoint)
    missing = f"PCC is not in the table: {module.CHECKPOINT} does not ship with this version; pass --checkpoint "
    missing += f"<one for {module.DECODER}>."
    said = "" if checkpoint or shipped.find(module.CHECKPOINT) else missing
    echo(f"\n{table.markdown()}\n{said}\n\n{answers}\n\nFiles: {out}")


def cost(
    ckpt: Annotated[str | None, Argument(help="A PCC checkpoint, folder or hub id; by default pcc-lab-4x.")] = None,
    random_weights: Sizes = None,
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
    dtype: CostDtype = None,
    threads: Annotated[int | None, Option(min=1, help="Of torch on a CPU.")] = None,
    seed: Annotated[int, Option(min=0, max=2**32 - 1, help="Of random weights and of the tokens read.")] = 0,
    device_peak: Annotated[float | None, Option(help="For --predict: TFLOP/s of the device.")] = None,
    bandwidth: Annotated[float | None, Option(help="For --predict: GB/s of its memory.")] = None,
    utilisation: Annotated[float | None, Option(help="With --device-peak: share that a forward reaches. [0.5]")] = None,
    overhead: Annotated[float | None, Option(min=0, help="With --device-peak: ms to start a forward. [0]")] = None,
    output: CostOutput = None,
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
    source = sweeps.Source(weights, random_weights, decoder, device, None if dtype == "auto" else dtype, threads, seed)
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
