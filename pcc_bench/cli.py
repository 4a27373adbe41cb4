"""The command `pcc-bench`: thin verbs over the modules that do the work, which are imported only when asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pcc_bench import escaping
from pcc_bench.cost.cli import cost
from pcc_bench.errors import UsageError
from pcc_bench.gate.cli import baseline_app, gate
from pcc_bench.lab.cli import app as lab_app
from pcc_bench.report_cli import compare, pack, report
from pcc_bench.suite.cli import run

if TYPE_CHECKING:
    from pcc_bench.model.pcc import PCC
    from pcc_bench.texttable import TextTable

app = typer.Typer(
    name="pcc-bench",
    help="Context compression of large language models, measured inside lm-eval. New here? Try: pcc-bench demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(cost)
app.command()(gate)
app.command()(run)
app.command()(report)
app.command()(compare)
app.command()(pack)
app.add_typer(baseline_app, name="baseline")
app.add_typer(lab_app, name="lab")


class Format(StrEnum):
    """Layouts of a checkpoint folder."""

    OWN = "own"
    PUBLISHED = "published"


class Kind(StrEnum):
    """What `ls` can list."""

    METHODS = "methods"
    TASKS = "tasks"
    DATA = "data"
    DECODERS = "decoders"
    RECIPES = "recipes"
    SUITES = "suites"


# Options that several verbs share.
Model = Annotated[str, typer.Option(help="A method ('pcc-bench ls methods') or any model of lm-eval.")]
ModelArgs = Annotated[
    str,
    typer.Option(help="Arguments of the model, e.g. pretrained=CKPT,rate=4,dtype=bfloat16,decoder=FOLDER."),
]
Tasks = Annotated[str, typer.Option(help="Tasks, comma-separated ('pcc-bench ls tasks'), or any of lm-eval's.")]
Metadata = Annotated[
    str | None,
    typer.Option(
        help='Settings of the tasks, e.g. \'{"data": "FOLDER", "protocol": "official", "population": "all"}\'.'
    ),
]
Device = Annotated[str | None, typer.Option(help="cuda, cuda:1, cpu ...; a GPU by default where there is one.")]
Dtype = Annotated[str, typer.Option(help="Dtype of decoder and encoder: float32, bfloat16 or float16.")]
DecoderName = Annotated[str, typer.Option("--decoder", help="The decoder, folder or hub id.")]
RecordedDecoder = Annotated[
    str | None,
    typer.Option("--decoder", help="The decoder, folder or hub id; by default the one the checkpoint records."),
]
Rate = Annotated[int | None, typer.Option(help="Source tokens per slot; one of the rates the checkpoint declares.")]
EncoderBase = Annotated[
    str | None,
    typer.Option("--encoder", help="Base model of a LoRA encoder, where it is not the one recorded."),
]
SpecialTokens = Annotated[
    Path | None,
    typer.Option(help="special_token_patch.pt, for published checkpoints whose decoder lacks <mem>, </mem>, <ae>."),
]
Force = Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")]


@app.command("eval")
def evaluate(
    model: Model,
    tasks: Tasks,
    output: Annotated[Path, typer.Option(help="Folder of results, samples and answers; one command each.")],
    model_args: ModelArgs = "",
    limit: Annotated[float | None, typer.Option(help="Rows a task; a fraction below 1. For trials only.")] = None,
    batch_size: Annotated[str, typer.Option(help="A number, or auto.")] = "1",
    device: Device = None,
    metadata: Metadata = None,
    num_fewshot: Annotated[int | None, typer.Option(help="Examples before each question.")] = None,
    apply_chat_template: Annotated[
        bool, typer.Option("--apply-chat-template", help="Put prompts into the tokenizer's chat template.")
    ] = False,
    seed: Annotated[str | None, typer.Option(help="One seed, or four (python,numpy,torch,fewshot).")] = None,
    extra: Annotated[list[str] | None, typer.Argument(help="After --: further options of 'lm_eval run'.")] = None,
) -> None:
    """Run tasks through lm-eval, keep every answer, print one table.

    Killed? The same command again answers only what is missing.

    Example: `pcc-bench eval --model pcc --model-args pretrained=CKPT,rate=4 --tasks pcc_squad --limit 200
    --batch-size 8 --output results/pcc-4x -- --gen_kwargs max_gen_toks=50`
    """
    from pcc_bench.evaluate import Command, run
    from pcc_bench.reports.summary import summarise

    settings = (limit, batch_size, device, metadata, num_fewshot, apply_chat_template, seed)
    files = run(Command(model, model_args, tasks, output, *settings, tuple(extra or ())))
    if files:  # only the first of several processes has any
        typer.echo(summarise(files).markdown())


@app.command()
def compress(
    ckpt: Annotated[str, typer.Argument(help="The checkpoint, folder or hub id.")],
    out: Annotated[Path | None, typer.Option(help="The memory file to write (.safetensors).")] = None,
    store: Annotated[Path | None, typer.Option(help="A memory store to read it from, or to keep it in.")] = None,
    file: Annotated[Path | None, typer.Argument(help="A UTF-8 text file; - reads standard input.")] = None,
    text: Annotated[str | None, typer.Option(help="The text itself, instead of a file.")] = None,
    model: Annotated[str, typer.Option(help="The method that the checkpoint is of.")] = "pcc",
    rate: Rate = None,
    decoder: RecordedDecoder = None,
    device: Device = None,
    dtype: Dtype = "float32",
    store_dtype: Annotated[
        str, typer.Option(help="What the store keeps: exact, or slots before the converter in float32 ... int8.")
    ] = "exact",
    option: Annotated[
        list[str] | None, typer.Option(help="Further options of the method, e.g. boundaries=once; repeatable.")
    ] = None,
) -> None:
    """Compress a text into a memory file, or into a store that evaluations read, and print its counts.

    Example: `pcc-bench compress CKPT book.txt --rate 16 --out book.safetensors`
    """
    from pcc_bench import compressing, memory_file
    from pcc_bench.store.store import MemoryStore
    from pcc_bench.texttable import TextTable

    if out is None and store is None:
        raise UsageError("the memory has no place to go: pass --out FILE, --store FOLDER, or both")
    content = compressing.read_input(file, text)
    with compressing.quiet():
        compressor = compressing.open_compressor(ckpt, decoder, device, dtype, rate, option or (), model)
        kept = MemoryStore(store, compressor, store_dtype) if store else None
        memory = compressing.compress(content, compressor, kept)
    _show(TextTable(("count", "value"), tuple(compressing.counts(memory, compressor).items())))
    if kept:
        typer.echo(f"memory store {store}: {'it was there' if kept.counts['hits'] else 'written'}")
    if out:
        memory_file.save(memory, compressor, out)
        typer.echo(f"written: {out} ({out.stat().st_size:,} bytes)")


@app.command()
def init(
    encoder: Annotated[str, typer.Option(help="A plain causal LM: GPT-2 (Lite) or Llama with --lora-rank (Large).")],
    decoder: DecoderName,
    rate: Annotated[list[int], typer.Option(help="Source tokens per slot; repeat for several, the first is default.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    segment_length: Annotated[int, typer.Option(min=1, help="Encoder tokens a segment.")] = 256,
    lora_rank: Annotated[int, typer.Option(min=0, help="0 trains the whole encoder; the paper's Large has 64.")] = 0,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of everything that is drawn.")] = 0,
    force: Force = False,
) -> None:
    """Make a fresh, untrained checkpoint for an encoder, a decoder and rates.

    Example: `pcc-bench init --encoder gpt2 --decoder meta-llama/Llama-3.2-1B --rate 4 --rate 16 --out fresh`
    """
    from pcc_bench import compressing
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


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or a shipped recipe ('pcc-bench ls recipes').")],
    out: Annotated[Path | None, typer.Option(help="Folder of checkpoint, logs and resumable states.")] = None,
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
    from pcc_bench.model import dry_run as planning
    from pcc_bench.model.recipe import Recipe

    read = Recipe.read(recipe, set_ or ())
    if dry_run:
        plan = planning.plan(read, utilisation=utilisation, device=accelerator, devices=accelerators)
        typer.echo(planning.render(plan))
        return
    if out is None:
        raise UsageError("--out names no folder: give one for the checkpoint, or pass --dry-run")
    from pcc_bench.claims import claimed
    from pcc_bench.model.training import train as run

    with claimed(out):
        trained = run(read, out)
    if trained is not None:  # the first of several processes
        typer.echo(f"written: {out}. Next: pcc-bench validate --model pcc --model-args pretrained={out}")


@app.command()
def convert(
    src: Annotated[str, typer.Argument(help="A checkpoint of either format, folder or hub id.")],
    decoder: DecoderName,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    to: Annotated[Format, typer.Option(help="The format to write.")] = Format.OWN,
    rate: Rate = None,
    segment_length: Annotated[
        int | None, typer.Option(help="Where the source does not record it (default 256).")
    ] = None,
    encoder: EncoderBase = None,
    special_tokens: SpecialTokens = None,
    weights: Annotated[
        Literal["float32", "float16", "bfloat16"] | None,
        typer.Option(help="Dtype of the weights in our format; half of the file for half of the bits."),
    ] = None,
    force: Force = False,
) -> None:
    """Convert a checkpoint between our format and the published one.

    Example: `pcc-bench convert BroAlanTaps/Stage2-PCC-Lite-4x --decoder BroAlanTaps/PCC-Decoder-Llama3-8B-Instruct
    --out pcc-lite-4x`
    """
    import torch

    from pcc_bench import compressing
    from pcc_bench.model import conversion

    _refuse_full(out, force)
    patch = str(special_tokens) if special_tokens else None
    options = {"rate": rate, "segment_length": segment_length, "encoder": encoder, "special_tokens": patch}
    with compressing.quiet():
        dtype = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}.get(weights or "")
        pcc = conversion.convert(src, decoder, out, to.value, dtype, **options)
    _show_sizes(pcc)
    typer.echo(f"written: {out} ({to.value} format, rate {pcc.config.rate}x)")


@app.command("ls")
def list_(what: Annotated[Kind, typer.Argument(help="methods, tasks, recipes, suites, or data (PCC_DATA).")]) -> None:
    """List what there is to run.

    Example: `pcc-bench ls methods`
    """
    from pcc_bench import inventory

    table = inventory.LISTS[what.value]()
    _show(table)
    if what is Kind.DATA and not table.rows:
        folder = inventory.data_folder()
        typer.echo(f"no data in {folder}" if folder else "PCC_DATA names no folder: rows come from the hub")


@app.command()
def validate(
    model: Model = "pcc",
    model_args: ModelArgs = "",
    tasks: Annotated[str, typer.Option(help="Tasks, comma-separated; none by default.")] = "",
    metadata: Metadata = None,
) -> None:
    """Find trouble before a GPU does: configurations, tokenizers, weights' headers, one row a task.

    Example: `pcc-bench validate --model-args pretrained=CKPT,rate=16 --tasks pcc_squad`
    """
    from pcc_bench import validate as module

    report = module.validate(model, model_args, tasks, metadata)
    for example in report.examples:
        typer.echo(f"\nfirst row of {example.task}:")
        _show(module.example_table(example))
    _show_marks([("OK" if check.holds else "FAIL", check.what, check.says) for check in report.checks])
    if not report.holds:
        raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """Look at versions, devices, data and lm-eval; say what is missing and the command that mends it.

    Example: `pcc-bench doctor`
    """
    from pcc_bench.doctor import examine

    findings = list(examine())
    _show_marks([(f.mark, f.what, f.found + ("" if f.good else f"; mend: {f.mend}")) for f in findings])
    if any(finding.needed and not finding.good for finding in findings):
        raise typer.Exit(1)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path(".demo"),
    rows: Annotated[int, typer.Option(help="Questions of each kind.", min=2)] = 100,
) -> None:
    """Run everything in miniature, without a network: the lab's trained models, its questions, one table.

    Example: `pcc-bench demo`
    """
    from pcc_bench import demo as module

    typer.echo(module.ABOUT)
    table = module.run(out, rows)
    typer.echo(f"\n{table.markdown()}\n\nFiles: {out}\n\n{module.NEXT}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Console entry: a mistake the user can mend is one sentence and status 2."""
    try:
        app(args=arguments, prog_name="pcc-bench")
    except UsageError as error:
        sys.stderr.write(f"pcc-bench: error: {escaping.visible(str(error))}\n")
        sys.exit(2)


def _refuse_full(folder: Path, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: choose another --out")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise UsageError(f"{folder} is not empty: choose another --out, or pass --force to write into it")


def _show(table: TextTable) -> None:
    """Print a table, as Markdown into a pipe."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Pretty
    from rich.text import Text

    if not table.rows:
        return
    if not sys.stdout.isatty():  # a pipe or a file has no width to wrap at
        typer.echo(table.markdown())
        return
    pretty = Pretty(*table.columns, box=box.SIMPLE_HEAD)
    for row in table.rows:
        pretty.add_row(*map(Text, row))
    Console().print(pretty)


def _show_marks(lines: Sequence[tuple[str, str, str]]) -> None:
    """Print a check list: a mark, what was looked at, what was found; one line each, however long."""
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True)
    colours = {"OK": "green", "note": "yellow"}
    widths = [max(len(line[i]) for line in lines) for i in (0, 1)]
    for mark, what, says in lines:
        console.print(
            Text.assemble((mark.ljust(widths[0]), colours.get(mark, "red")), f"  {what.ljust(widths[1])}  {says}")
        )


def _show_sizes(pcc: PCC) -> None:
    """Print the parameters of a checkpoint."""
    from pcc_bench.texttable import TextTable

    rows = []
    for name, part in (("encoder", pcc.encoder), ("converter", pcc.converter)):
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in part.parameters()]
        trainable = sum(size for size, trains in sizes if trains)
        rows.append((name, f"{sum(size for size, _ in sizes):,}", f"{trainable:,}"))
    _show(TextTable(("part", "parameters", "trainable"), tuple(rows)))


if __name__ == "__main__":
    main()
