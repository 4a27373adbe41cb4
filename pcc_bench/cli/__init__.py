"""The command `pcc-bench`: thin verbs over the modules that do the work, which are imported only when asked for."""

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import typer

from pcc_bench import __version__
from pcc_bench.cli.checkpoints import convert, init, train
from pcc_bench.cli.cost import cost
from pcc_bench.cli.lab import app as lab_app
from pcc_bench.cli.memory import ask, compress, prompt, serve_check
from pcc_bench.cli.results import baseline_app, compare, gate, pack, report
from pcc_bench.cli.runs import evaluate, run, run_demo, validate
from pcc_bench.cli.terminal import show, show_marks
from pcc_bench.core import texttable
from pcc_bench.core.errors import UsageError

EARLIER = {"out": "output", "batch": "batch-size"}  # names that options had


def canonical(name: str) -> str:
    """An option's name as `--help` has it: dashes for underscores, today's name for an earlier one."""
    dashed = name.replace("_", "-")
    return EARLIER.get(dashed, dashed)


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"token_normalize_func": canonical},
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


PANELS: dict[str, dict[str, Callable[..., None] | typer.Typer]] = {  # of `--help`, in the order of a learner
    "Start": {"demo": run_demo, "doctor": doctor, "ls": list_},
    "Compress and ask": {"compress": compress, "ask": ask, "prompt": prompt, "serve-check": serve_check},
    "Evaluate": {"eval": evaluate, "run": run, "validate": validate},
    "Results": {"report": report, "compare": compare, "pack": pack, "gate": gate, "baseline": baseline_app},
    "Cost": {"cost": cost},
    "Train": {"init": init, "train": train, "convert": convert},
    "Lab": {"lab": lab_app},
}
EVAL = "--model pcc --model-args pretrained=CKPT,rate=4 --tasks pcc_squad --limit 200 --batch-size 8 --output out"
CONVERT = "BroAlanTaps/Stage2-PCC-Lite-4x --decoder BroAlanTaps/PCC-Decoder-Llama3-8B-Instruct --output pcc-lite-4x"
EXAMPLES = {  # what stands behind a verb at the end of its `--help`
    "demo": "--real",
    "ls": "methods",
    "compress": "CKPT book.txt --rate 16 --output book.safetensors",
    "ask": 'book.safetensors "Who is the captain?"',
    "prompt": 'book.safetensors --question "Who is the captain?" -o prompt.json',
    "serve-check": 'http://localhost:8000 book.safetensors --question "Who is the captain?"',
    "eval": f"{EVAL} -- --gen_kwargs max_gen_toks=50",
    "run": "lab-table2 --output lab`, `pcc-bench run table2 --output SHARED/table2 --executor ray --gpus-per-cell 1",
    "validate": "--model-args pretrained=CKPT,rate=16 --tasks pcc_squad",
    "report": "results/lab-table2 -o report",
    "compare": "results/pcc-4x results/pcc-16x --metric f1",
    "pack": "results/lab-table2 -o published",
    "gate": "results/new --against baseline.json.xz --policy gate.yaml --junit gate.xml",
    "init": "--encoder gpt2 --decoder meta-llama/Llama-3.2-1B --rate 4 --rate 16 --output fresh",
    "train": "lite-4x --dry-run --accelerator A100 --accelerators 4",
    "convert": CONVERT,
    "cost": "--predict --random-weights lite --context 8000 --rate 16 --device-peak 989 --bandwidth 4800",
}
for panel, verbs in PANELS.items():
    for name, verb in verbs.items():
        if isinstance(verb, typer.Typer):
            app.add_typer(verb, name=name, rich_help_panel=panel)
        else:
            example = " ".join(filter(None, ("pcc-bench", name, EXAMPLES.get(name))))
            app.command(name, rich_help_panel=panel, epilog=f"Example: `{example}`")(verb)


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
