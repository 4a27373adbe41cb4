"""The verbs that read results: `pcc-bench report`, `compare` and `pack`; the gate's `gate` and `baseline`."""

import json
import os
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option, Typer, echo

from pcc_bench.cli.terminal import fill, show
from pcc_bench.core import texttable
from pcc_bench.core.documents import replaced, write_text
from pcc_bench.core.errors import UsageError

baseline_app = Typer(help="Baselines of the gate: freeze a run, choose the rows of a stage.", no_args_is_help=True)

Results = Annotated[Path, Argument(help="A results folder, a results_*.json, or a frozen baseline.")]
PolicyFile = Annotated[Path | None, Option("--policy", help="YAML file of rules; sensible ones without it.")]
Stage = Option(help="A stage of the policy: smoke, medium or full.")


def report(
    results: Annotated[
        list[Path] | None, Argument(help="Folders of 'run', 'eval', 'train', 'cost'; by default the lab's that ship.")
    ] = None,
    out: Annotated[Path, Option("--output", "-o", help="Folder of the report.")] = Path("report"),
    paper: Annotated[bool, Option("--paper", help="Also tables of which only published values exist.")] = False,
    into: Annotated[
        Path | None, Option(help="Markdown whose tables between report:KEY and /report (HTML comments) are renewed.")
    ] = None,
) -> None:
    """Write the paper's tables and figures of results, ours beside theirs: one page, Markdown, LaTeX, CSV."""
    from pcc_bench.reports import render
    from pcc_bench.reports import report as module

    written = module.write(results or (), out, paper)
    for note in written.notes:
        echo(texttable.visible(f"note: {note}"))
    if into is not None:
        changed = fill(into, "report", {table.key: render.brief(table) for table in written.tables})
        echo(f"{'renewed' if changed else 'up to date'}: {into}")
    names = ", ".join(table.key for table in written.tables) or "none"
    echo(f"tables: {names}\nwritten: {out / 'index.html'} ({len(written.files)} files in {out})")


def compare(
    a: Annotated[Path, Argument(help="The first run: a results_*.json, or a folder with one run.")],
    b: Annotated[Path, Argument(help="The second run.")],
    metric: Annotated[list[str] | None, Option(help="Compare only this metric; repeatable.")] = None,
) -> None:
    """Compare two runs row by row: differences, intervals, paired tests."""
    from pcc_bench.reports import compare as module

    comparisons, notes = module.compare(a, b, metric or ())
    show(module.table(comparisons, notes))


def pack(
    results: Annotated[list[Path], Argument(help="Folders that 'run' or 'eval' wrote.")],
    out: Annotated[Path, Option("--output", "-o", help="Where the copies go, a folder for each.")],
) -> None:
    """Copy results to publish them: samples compressed, no paths and nothing about the machine."""
    from pcc_bench.reports import report

    files = report.pack(results, out)
    size = sum(file.stat().st_size for file in files) / 2**20
    echo(f"written: {len(files)} files in {out} ({size:.1f} MiB)")


def gate(
    candidate: Results,
    against: Annotated[Path, Option(help="The baseline: a results folder or a frozen file.")],
    policy: PolicyFile = None,
    stage: Annotated[str | None, Stage] = None,
    reference: Annotated[Path | None, Option(help="Results of a run of the same job, for speed.")] = None,
    json_: Annotated[Path | None, Option("--json", help="Write the verdict, all numbers, as JSON.")] = None,
    junit: Annotated[Path | None, Option(help="Write JUnit XML.")] = None,
    markdown: Annotated[Path | None, Option(help="Write the Markdown table.")] = None,
) -> None:
    """Is a checkpoint worse than the baseline, by more than chance?

    Exit status: 0 pass, 1 regression, 2 misuse, 3 inconclusive (where the policy says so, and before the last stage:
    go on with the next one). In GitHub Actions it annotates the run and adds the table to the step's summary.
    """
    from pcc_bench.gate import result
    from pcc_bench.gate.compare import compare
    from pcc_bench.gate.policy import Policy
    from pcc_bench.results.frozen import load

    rules = Policy.read(policy)
    verdict = compare(load(candidate), load(against), rules, stage, load(reference) if reference else None)
    echo(f"{result.above(verdict)}\n")
    show(result.table(verdict))
    if os.environ.get("GITHUB_ACTIONS") == "true" and (commands := result.workflow_commands(verdict)):
        echo(commands)
    if wrong := result.append_summary(verdict):
        echo(f"pcc-bench: warning: {wrong}", err=True)
    texts = (verdict.model_dump_json(indent=1) + "\n", result.junit(verdict), result.markdown(verdict) + "\n")
    for path, text in zip((json_, junit, markdown), texts, strict=True):
        if path:
            write_text(path, text)
    if verdict.status:
        raise Exit(verdict.status)


@baseline_app.command(epilog="Example: `pcc-bench baseline freeze results/main -o baseline.json.xz`")
def freeze(
    results: Results,
    output: Annotated[Path, Option("--output", "-o", help="File to write; its name ends in .json.xz.")],
) -> None:
    """Put a run's scores by row, with fingerprints, into a small file for git. The same run gives the same bytes."""
    from pcc_bench.results import frozen

    if not output.name.endswith(frozen.SUFFIX):
        raise UsageError(f"{output} does not end in {frozen.SUFFIX}, by which a frozen baseline is known: name it so")
    run = frozen.load(results)
    content = frozen.freeze(run)
    with replaced(output) as part:
        part.write_bytes(content)
    rows = sum(len(task.rows) for task in run.tasks.values())
    tasks = texttable.visible(", ".join(run.tasks))
    echo(f"written: {output} ({len(content):,} bytes, {rows:,} rows of {tasks})")


SAMPLES = '--samples "$(pcc-bench baseline rows base.json.xz --stage smoke)"'


@baseline_app.command(epilog=f"Example: `lm_eval --model pcc --tasks pcc_squad {SAMPLES}`")
def rows(baseline: Results, stage: Annotated[str, Stage], policy: PolicyFile = None) -> None:
    """Print the rows of a stage as lm-eval's `--samples` wants them."""
    from pcc_bench.gate.policy import Policy
    from pcc_bench.gate.scores import select
    from pcc_bench.results.frozen import load

    rules = Policy.read(policy)
    chosen = select(load(baseline), rules, rules.stage(stage)[0])
    # lm-eval numbers the rows right only if they are sorted (they are), and reads an empty list as "all".
    # One argument of a command holds 128 KiB on Linux, some 20,000 rows without blanks.
    samples = {task: numbers for task, numbers in chosen.items() if numbers}
    echo(json.dumps(samples, separators=(",", ":")))
