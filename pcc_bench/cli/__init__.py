"""The command `pcc-bench`: thin verbs over the modules that do the work, which are imported only when asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pcc_bench import __version__
from pcc_bench.cli.cost import cost
from pcc_bench.cli.gate import baseline_app, gate
from pcc_bench.cli.lab import app as lab_app
from pcc_bench.cli.options import (
    BatchSize,
    ChatTemplate,
    Data,
    Device,
    Dtype,
    Extra,
    FewShot,
    Limit,
    Metadata,
    Model,
    ModelArgs,
    Output,
    Seed,
    Wide,
)
from pcc_bench.cli.report import compare, pack, report
from pcc_bench.cli.run import run
from pcc_bench.cli.serving import prompt, serve_check
from pcc_bench.core import escaping
from pcc_bench.core.errors import UsageError

if TYPE_CHECKING:
    from pcc_bench.model.pcc import PCC

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
app.command()(prompt)
app.command("serve-check")(serve_check)
app.add_typer(baseline_app, name="baseline")
app.add_typer(lab_app, name="lab")


class Format(StrEnum):
    """Layouts of a checkpoint folder."""

    OWN = "own"
    PUBLISHED = "published"


class Kind(StrEnum):
    """What `ls` can list."""

    METHODS = "methods"
    MODELS = "models"
    TASKS = "tasks"
    DATA = "data"
    DECODERS = "decoders"
    RECIPES = "recipes"
    SUITES = "suites"


EARLIER = {"--out": "--output", "--batch": "--batch-size"}  # names that options had

# Options that several verbs here share; those of pcc_bench.cli.options stand in other modules too.
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
Method = Annotated[
    str | None,
    typer.Option("--model", help="A method ('pcc-bench ls methods'); by default the checkpoint's, else pcc."),
]
MethodOptions = Annotated[
    list[str] | None, typer.Option("--option", help="Further options of the method, e.g. boundaries=once; repeatable.")
]
CompressPart = Annotated[
    str | None, typer.Option("--compress", help="Part of lm-eval's own tasks: auto, a field, a template or a map.yaml.")
]
Force = Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")]


@app.command("eval")
def evaluate(
    tasks: Annotated[str, typer.Option(help="Tasks, comma-separated ('pcc-bench ls tasks'), or any of lm-eval's.")],
    output: Output,
    model: Model = "pcc",
    model_args: ModelArgs = "",
    limit: Limit = None,
    batch_size: BatchSize = "1",
    device: Device = None,
    dtype: Dtype = None,
    data: Data = None,
    metadata: Metadata = None,
    num_fewshot: FewShot = None,
    apply_chat_template: ChatTemplate = False,
    seed: Seed = None,
    wide: Wide = False,
    compress_part: CompressPart = None,
    extra: Extra = None,
) -> None:
    """Run tasks through lm-eval, keep every answer, print one table.

    Killed? The same command again answers only what is missing.

    Example: `pcc-bench eval --model pcc --model-args pretrained=CKPT,rate=4 --tasks pcc_squad --limit 200
    --batch-size 8 --output results/pcc-4x -- --gen_kwargs max_gen_toks=50`
    """
    from pcc_bench.cli.terminal import show
    from pcc_bench.host.command import Command
    from pcc_bench.host.evaluate import kept_answers, run, with_setting
    from pcc_bench.reports.summary import summarise

    model_args = with_setting(model_args, "dtype", dtype) or ""
    metadata = with_setting(metadata, "data", data)
    settings = (limit, batch_size, device, metadata, num_fewshot, apply_chat_template, seed)
    try:
        files = run(Command(model, model_args, tasks, output, *settings, tuple(extra or ()), compress=compress_part))
    except KeyboardInterrupt:
        typer.echo(
            f"\nstopped: {kept_answers(output):,} answers are kept in {output}; the same command goes on", err=True
        )
        raise typer.Exit(130) from None
    if files:  # only the first of several processes has any
        show(summarise(files, wide))


@app.command()
def compress(
    ckpt: Annotated[str, typer.Argument(help="The checkpoint, folder or hub id.")],
    out: Annotated[Path | None, typer.Option("--output", "-o", help="The memory file to write (.safetensors).")] = None,
    store: Annotated[Path | None, typer.Option(help="A memory store to read it from, or to keep it in.")] = None,
    file: Annotated[Path | None, typer.Argument(help="A UTF-8 text file; - reads standard input.")] = None,
    text: Annotated[str | None, typer.Option(help="The text itself, instead of a file.")] = None,
    method: Method = None,
    query: Annotated[str | None, typer.Option(help="The question, for a method that compresses for one.")] = None,
    rate: Rate = None,
    decoder: RecordedDecoder = None,
    device: Device = None,
    dtype: Dtype = None,
    store_dtype: Annotated[
        str, typer.Option(help="What the store keeps: exact, or slots before the converter in float32 ... int8.")
    ] = "exact",
    option: MethodOptions = None,
) -> None:
    """Compress a text into a memory file, or into a store that evaluations read, and print its counts.

    Example: `pcc-bench compress CKPT book.txt --rate 16 --output book.safetensors`
    """
    from pcc_bench.cli.terminal import show
    from pcc_bench.core import memory_file
    from pcc_bench.core.texttable import TextTable
    from pcc_bench.host.api import ContextCompressor
    from pcc_bench.host.compressing import compress as compress_text
    from pcc_bench.host.compressing import counts, parse_options, read_input
    from pcc_bench.host.store.store import MemoryStore

    if out is None and store is None:
        raise UsageError("the memory has no place to go: pass --output FILE, --store FOLDER, or both")
    content = read_input(file, text)
    options = parse_options(option or ()) | ({} if rate is None else {"rate": rate})
    pcc = ContextCompressor.from_pretrained(ckpt, method, decoder, device or "auto", dtype or "auto", **options)
    pcc.check_queries([query or ""])
    stored = MemoryStore(store, pcc.compressor, store_dtype) if store else None
    memory = compress_text(content, pcc.compressor, stored, query or "")
    show(TextTable(("count", "value"), tuple(counts(memory, pcc.compressor).items())))
    if stored:
        typer.echo(f"memory store {store}: {'it was there' if stored.counts['hits'] else 'written'}")
    if out:
        memory_file.save(memory, pcc.compressor, out)
        typer.echo(f"written: {out} ({out.stat().st_size:,} bytes)")


@app.command()
def ask(
    source: Annotated[
        Path, typer.Argument(help="A memory ('pcc-bench compress', .safetensors), or a text; - is stdin.")
    ],
    question: Annotated[str, typer.Argument(help="The question.")],
    checkpoint: Annotated[
        str | None,
        typer.Option(help="Compresses a text; by default the method's that ships, good for the lab's texts only."),
    ] = None,
    method: Method = None,
    decoder: RecordedDecoder = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of the answer.")] = 30,
    prompt: Annotated[
        str, typer.Option(help="Words of the question: official (the paper's), short or chat.")
    ] = "official",
    device: Device = None,
    dtype: Dtype = None,
    option: MethodOptions = None,
) -> None:
    """Ask the decoder a question about a memory that was saved before, or about a text, compressed now.

    Example: `pcc-bench ask book.safetensors "Who is the captain?"`
    """
    from pcc_bench.core.registry import get
    from pcc_bench.host.api import ContextCompressor, open_memory
    from pcc_bench.host.compressing import parse_options, read_input

    options = parse_options(option or ())
    if source.suffix == ".safetensors":
        if options or method:
            raise UsageError(f"{source} is a memory, already compressed: --model and --option are for texts")
        memory = open_memory(source, decoder, checkpoint, device or "auto", dtype or "auto")
    else:
        text = read_input(source, None)
        pcc = ContextCompressor.from_pretrained(
            checkpoint or get(method or "pcc").default, method, decoder, device or "auto", dtype or "auto", **options
        )
        memory = pcc.compress(text, query=question if pcc.compressor.query_aware else None)
    typer.echo(memory.answer(question, max_new_tokens, prompt).strip())


@app.command()
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


@app.command()
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
    from pcc_bench.core.claims import claimed
    from pcc_bench.model.training.journal import kept_states
    from pcc_bench.model.training.loop import train as run

    try:
        with claimed(out):
            trained = run(read, out)
    except KeyboardInterrupt:
        typer.echo(f"\nstopped: {kept_states(out)} in {out}; the same command goes on", err=True)
        raise typer.Exit(130) from None
    if trained is not None:  # the first of several processes
        typer.echo(f"written: {out}. Next: pcc-bench validate --model pcc --model-args pretrained={out}")


@app.command()
def convert(
    src: Annotated[str, typer.Argument(help="A checkpoint of either format, folder or hub id.")],
    decoder: DecoderName,
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
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
    --output pcc-lite-4x`
    """
    import torch

    from pcc_bench.host import compressing
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
def list_(
    what: Annotated[Kind, typer.Argument(help="The kind; data is what lies in PCC_DATA.")],
) -> None:
    """List what there is to run.

    Example: `pcc-bench ls methods`
    """
    from pcc_bench.cli.terminal import show
    from pcc_bench.host import inventory

    table = inventory.LISTS[what.value]()
    show(table)
    if what is Kind.DATA and not table.rows:
        folder = inventory.data_folder()
        typer.echo(f"no data in {folder}" if folder else "PCC_DATA names no folder: rows come from the hub")


@app.command()
def validate(
    tasks: Annotated[str, typer.Option(help="Tasks, comma-separated; none by default.")] = "",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="As in 'eval'; nothing is written.")] = None,
    model: Model = "pcc",
    model_args: ModelArgs = "",
    limit: Limit = None,
    batch_size: BatchSize = "1",
    device: Device = None,
    dtype: Dtype = None,
    data: Data = None,
    metadata: Metadata = None,
    num_fewshot: FewShot = None,
    apply_chat_template: ChatTemplate = False,
    seed: Seed = None,
    wide: Wide = False,
    compress_part: CompressPart = None,
    extra: Extra = None,
) -> None:
    """Find trouble before a GPU does: configurations, tokenizers, weights' headers, one row a task.

    Takes the options of `eval`, with the same defaults: put the one word in the place of the other.

    Example: `pcc-bench validate --model-args pretrained=CKPT,rate=16 --tasks pcc_squad`
    """
    from pcc_bench.cli.terminal import show
    from pcc_bench.host import validate as module
    from pcc_bench.host.command import Command
    from pcc_bench.host.evaluate import check, with_setting

    model_args = with_setting(model_args, "dtype", dtype) or ""
    metadata = with_setting(metadata, "data", data)
    settings = (limit, batch_size, device, metadata, num_fewshot, apply_chat_template, seed)
    command = Command(model, model_args, tasks, output or Path(), *settings, tuple(extra or ()), compress=compress_part)
    check(command)
    report = module.validate(model, model_args, tasks, command.task_metadata)
    for example in report.examples:
        typer.echo(f"\nfirst row of {example.task}:")
        show(module.example_table(example))
    _show_marks([("OK" if check.holds else "FAIL", check.what, check.says) for check in report.checks])
    if not report.holds:
        raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """Look at versions, devices, data and lm-eval; say what is missing and the command that mends it.

    Example: `pcc-bench doctor`
    """
    from pcc_bench.cli.doctor import examine

    findings = list(examine())
    _show_marks([(f.mark, f.what, f.found + ("" if f.good else f"; mend: {f.mend}")) for f in findings])
    if any(finding.needed and not finding.good for finding in findings):
        raise typer.Exit(1)


@app.command("demo")  # the module demo has the plain name
def run_demo(
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path(".demo"),
    rows: Annotated[int, typer.Option(help="Questions of each kind (--real: at most 100).", min=2)] = 100,
    real: Annotated[bool, typer.Option("--real", help="Real SQuAD questions, read by smollm2-135m.")] = False,
    checkpoint: Annotated[str | None, typer.Option(help="With --real: a PCC checkpoint for that decoder.")] = None,
) -> None:
    """Run everything in miniature, without a network: trained models, their questions, one table.

    Example: `pcc-bench demo`, `pcc-bench demo --real`
    """
    from pcc_bench.cli import demo as module

    if checkpoint and not real:
        raise UsageError("--checkpoint is for real rows: add --real")
    if not real:
        typer.echo(module.ABOUT)
        table = module.run(out, rows)
        typer.echo(f"\n{table.markdown()}\n\nFiles: {out}\n\n{module.NEXT}")
        return
    typer.echo(module.REAL_ABOUT.format(decoder=module.DECODER))
    table, answers = module.run_real(out, rows, checkpoint)
    typer.echo(f"\n{table.markdown()}\n{module.missing_checkpoint(checkpoint)}\n\n{answers}\n\nFiles: {out}")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"pcc-bench {__version__}")
        raise typer.Exit


@app.callback()
def options_of_all(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Context compression of large language models, measured inside lm-eval. New here? Try: pcc-bench demo."""


def canonical(words: Sequence[str]) -> list[str]:
    """A command line with the names of options as `--help` has them: dashes for underscores, today's for earlier ones.

    Words after `--` are for another command and stay as they are.
    """
    end = words.index("--") if "--" in words else len(words)
    return [*map(_canonical, words[:end]), *words[end:]]


def _canonical(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    name = name.replace("_", "-")
    return EARLIER.get(name, name) + equals + value


def main(arguments: Sequence[str] | None = None) -> None:
    """Console entry: a mistake the user can mend is one sentence and status 2."""
    try:
        app(args=canonical(sys.argv[1:] if arguments is None else arguments), prog_name="pcc-bench")
    except UsageError as error:
        sys.stderr.write(f"pcc-bench: error: {escaping.visible(str(error))}\n")
        sys.exit(2)


def _refuse_full(folder: Path, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: choose another --output")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise UsageError(f"{folder} is not empty: choose another --output, or pass --force to write into it")


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
    from pcc_bench.cli.terminal import show
    from pcc_bench.core.texttable import TextTable

    rows = []
    for name, part in (("encoder", pcc.encoder), ("converter", pcc.converter)):
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in part.parameters()]
        trainable = sum(size for size, trains in sizes if trains)
        rows.append((name, f"{sum(size for size, _ in sizes):,}", f"{trainable:,}"))
    show(TextTable(("part", "parameters", "trainable"), tuple(rows)))
