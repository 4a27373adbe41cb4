"""The command `pcc-bench`: thin verbs over the modules that do the work, which are imported only when asked for."""

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import typer

from pcc_bench import __version__
from pcc_bench.cli.checkpoints import convert, init, lab_app, train
from pcc_bench.cli.memory import ask, compress, prompt, serve_check
from pcc_bench.cli.results import baseline_app, compare, gate, pack, report
from pcc_bench.cli.runs import cost, evaluate, run, run_demo, validate
from pcc_bench.cli.terminal import show, show_marks
from pcc_bench.core import texttable
from pcc_bench.core.errors import UsageError

EVAL = "--model pcc --model-args pretrained=CKPT,rate=4 --tasks pcc_squad --limit 200 --batch-size 8 --output out"
RUN = "pcc-bench run table2 --output SHARED/table2 --executor ray --gpus-per-cell 1"
CONVERT = "BroAlanTaps/Stage2-PCC-Lite-4x --decoder BroAlanTaps/PCC-Decoder-Llama3-8B-Instruct --output pcc-lite-4x"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"token_normalize_func": lambda name: name.replace("_", "-")},  # lm-eval's spelling
)


def list_(
    what: Annotated[
        Literal["methods", "models", "tasks", "data", "decoders", "recipes", "suites"],
        typer.Argument(help="The kind; data is what lies in PCC_DATA."),
    ],
) -> None:
    """List what there is to run."""
    from pcc_bench.host import inventory

    table = inventory.LISTS[what]()
    show(table)
    if what == "data" and not table.rows:
        folder = inventory.data_folder()
        typer.echo(f"no data in {folder}" if folder else "PCC_DATA names no folder: rows come from the hub")


def doctor() -> None:
    """Look at versions, devices, data and lm-eval; say what is missing and the command that fixes it."""
    from pcc_bench.cli.doctor import examine

    findings = list(examine())
    show_marks([(f.mark, f.what, f.found + ("" if f.good else f"; fix: {f.fix}")) for f in findings])
    if any(finding.needed and not finding.good for finding in findings):
        raise typer.Exit(1)


VERBS: tuple[tuple[str, str, Callable[..., None] | typer.Typer, str], ...] = (
    # panel of `--help`, in the order of a learner; name; verb; what stands behind it in the example
    ("Start", "demo", run_demo, "--real"),
    ("Start", "doctor", doctor, ""),
    ("Start", "ls", list_, "methods"),
    ("Compress and ask", "compress", compress, "CKPT book.txt --rate 16 --output book.safetensors"),
    ("Compress and ask", "ask", ask, 'book.safetensors "Who is the captain?"'),
    ("Compress and ask", "prompt", prompt, 'book.safetensors --question "Who is the captain?" -o prompt.json'),
    ("Compress and ask", "serve-check", serve_check, 'http://HOST:8000 book.safetensors --question "Who sails?"'),
    ("Evaluate", "eval", evaluate, f"{EVAL} -- --gen_kwargs max_gen_toks=50"),
    ("Evaluate", "run", run, f"lab-table2 --output lab`, `{RUN}"),
    ("Evaluate", "validate", validate, "--model-args pretrained=CKPT,rate=16 --tasks pcc_squad"),
    ("Results", "report", report, "results/lab-table2 -o report"),
    ("Results", "compare", compare, "results/pcc-4x results/pcc-16x --metric f1"),
    ("Results", "pack", pack, "results/lab-table2 -o published"),
    ("Results", "gate", gate, "results/new --against baseline.json.xz --policy gate.yaml --junit gate.xml"),
    ("Results", "baseline", baseline_app, ""),
    ("Cost", "cost", cost, "--predict --random-weights lite --context 8000 --device-peak 989 --bandwidth 4800"),
    ("Train", "init", init, "--encoder gpt2 --decoder meta-llama/Llama-3.2-1B --rate 4 --rate 16 --output fresh"),
    ("Train", "train", train, "lite-4x --dry-run --accelerator A100 --accelerators 4"),
    ("Train", "convert", convert, CONVERT),
    ("Lab", "lab", lab_app, ""),
)
for panel, name, verb, words in VERBS:
    if isinstance(verb, typer.Typer):
        app.add_typer(verb, name=name, rich_help_panel=panel)
    else:
        app.command(name, rich_help_panel=panel, epilog=f"Example: `{f'pcc-bench {name} {words}'.strip()}`")(verb)


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Console entry: a mistake that the user can correct is one sentence and status 2."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="pcc-bench")
    except UsageError as error:
        sys.stderr.write(f"pcc-bench: error: {texttable.visible(str(error))}\n")
        sys.exit(2)
