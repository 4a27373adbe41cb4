"""Results in, a folder out: of tables, figures and one page; or of the results themselves, fit to be published."""

import hashlib
import json
import lzma
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from importlib.metadata import entry_points
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pandas as pd

from pcc_bench.core.documents import COMPRESSED, read_json, read_text, replaced, write_text
from pcc_bench.core.errors import UsageError
from pcc_bench.reports import figures, page, render
from pcc_bench.reports.figures import training
from pcc_bench.reports.table import Table
from pcc_bench.reports.tables import losses, quality, recorded
from pcc_bench.results.collection import Results, load
from pcc_bench.results.files import RESULTS, matching
from pcc_bench.results.reading import read_run
from pcc_bench.results.rows import ASKED, QUESTIONS, samples

TABLES: tuple[Callable[[Results], Table], ...] = (
    *(quality.table2, quality.comparisons, losses.kinds, losses.borders, quality.table3, quality.table4),
    *(quality.table5, quality.pretraining, quality.ablations, recorded.hyperparameters, recorded.cost),
)
BUILDERS = {build.__name__: build for build in TABLES}
PLUGIN_GROUP = "pcc_bench.tables"
ALL_TASKS = "tasks"  # ends the name of suites that ask few rows of every task


@dataclass(frozen=True)
class Report:
    tables: tuple[Table, ...]  # in the order of the page
    files: tuple[Path, ...]  # all files, in the order they were written
    notes: tuple[str, ...]  # what the reader must know


def shipped() -> Path:
    """The lab's results that come with the package. Raises UsageError: there are none in this version."""
    folder = Path(str(resources.files("pcc_bench"))) / "lab" / "results"
    if not matching([folder], RESULTS):
        raise UsageError(
            "no results were given, and this version ships none of the lab's: name folders that 'pcc-bench run' or "
            "'eval' wrote, or pass --paper for the published numbers alone"
        )
    return folder


def tables(results: Results, published: bool = False) -> list[Table]:
    """Every table that something was measured (or `published`) for. Raises UsageError: runs don't match."""
    most, shown = without_all_tasks(results), []
    plugins = {point.name: point.load() for point in entry_points(group=PLUGIN_GROUP) if point.name not in BUILDERS}
    for build in (BUILDERS | plugins).values():
        table = build(most)
        table = table if table.measured else build(results)
        if table.measured or (published and not table.empty):
            shown.append(table)
    return shown


def without_all_tasks(results: Results) -> Results:
    """The results without suites that ask few rows of every task, where there are others: rows are not mixed."""
    runs = [run for run in results.runs if not run.labels or not all(name.endswith(ALL_TASKS) for name in run.labels)]
    return replace(results, runs=tuple(runs) or results.runs)


def write(paths: Sequence[Path], out: Path, published: bool = False) -> Report:
    """Write `index.html`, `tables/` (Markdown, LaTeX, CSV) and `figures/` of results; without paths, of shipped ones.

    `published`: also tables that only have published values, and without paths the paper alone. Raises UsageError:
    there is nothing to report, something can't be read, or the folder can't be written.
    """
    results = load(paths or [shipped()]) if paths or not published else Results((), (), pd.DataFrame())
    results = replace(results, notes=(*results.notes, *training.sentences(training.over_tokens(results))))
    shown = tables(results, published)
    if not shown and not results.runs:
        raise UsageError(f"{', '.join(map(str, paths))}: nothing in it belongs in a table or a figure")
    files = []
    for table in shown:
        for kind, printer in (("md", render.markdown), ("tex", render.latex), ("csv", render.as_csv)):
            files.append(out / "tables" / f"{table.key}.{kind}")
            write_text(files[-1], printer(table))
    files.append(out / "tables" / "all.tex")
    write_text(files[-1], render.document(shown))
    most = without_all_tasks(results)
    drawn = figures.draw_all(most, shown, out / "figures")
    files += sorted((out / "figures").glob("*")) if drawn else []
    files.append(page.write(most, shown, drawn, out))
    return Report(tuple(shown), tuple(files), results.notes)


MACHINE = ("pretty_env_info", "git_hash", "upper_git_hash")  # what lm-eval says of where it ran


def pack(paths: Sequence[Path], out: Path) -> list[Path]:
    """Copy result files and their samples, below the folder of each run, and nothing else; returns the copies.

    Samples are compressed, and what runs were asked alike is written once, into a file `questions_*`; absolute paths in
    results become the name of the file or folder, and what lm-eval notes of the machine is left out. The same results
    give the same bytes.

    Raises UsageError: no results are there, a file is damaged, or `out` can't be written.
    """
    written = []
    for folder in paths:
        results = matching([folder], RESULTS) if folder.is_dir() else []
        if not results:
            raise UsageError(f"no results in {folder}: name folders that 'pcc-bench run' or 'eval' wrote")
        for path in results:
            target = out / folder.name / path.parent.relative_to(folder)
            run = read_run(path)  # what no report could read is not published
            state = {key: _publishable(value) for key, value in read_json(path).items() if key not in MACHINE}
            written.append(target / path.name)
            write_text(written[-1], json.dumps(state, separators=(",", ":"), allow_nan=False) + "\n")
            for task in run.tasks.values():
                if task.samples is not None:
                    _ = task.rows  # reads and checks them
                    _pack_samples(task.samples, target, out / folder.name, written)
        if (mark := folder / "suite.json").is_file():  # tells a report which table the runs belong to
            written.append(out / folder.name / mark.name)
            write_text(written[-1], read_text(mark))
    return written


def _pack_samples(path: Path, target: Path, shared: Path, written: list[Path]) -> None:
    """Write the answers of a file of samples into one folder and the questions, unless written before, into another."""
    asked, answers = [], []
    for sample in samples(path):
        question = {key: sample.pop(key) for key in ASKED if key in sample}
        asked.append(json.dumps({"doc_id": sample["doc_id"], **question}, ensure_ascii=False))
        answers.append(json.dumps(sample, ensure_ascii=False))
    digest = hashlib.sha256("\n".join(asked).encode()).hexdigest()[:12]
    name = path.name.removesuffix(path.suffix if path.suffix in COMPRESSED else "")
    task = re.sub(r"[^\w.,=-]", "-", name.removeprefix("samples_").rpartition("_")[0])[:150]
    questions = shared / f"questions_{task}_{digest}.jsonl.xz"
    files = {questions: asked, target / f"{name}.xz": [json.dumps({QUESTIONS: questions.name}), *answers]}
    for file in [file for file in files if file not in written]:
        content = lzma.compress("".join(f"{line}\n" for line in files[file]).encode())
        with replaced(file) as part:
            part.write_bytes(content)
        written.append(file)


def _publishable(value: Any) -> Any:
    """A value without absolute paths, and with null for what is no number in JSON."""
    if isinstance(value, dict):
        return {_publishable(key): _publishable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_publishable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str) and "\n" not in value:
        for kind in (PurePosixPath, PureWindowsPath):
            if kind(value).is_absolute() and len(kind(value).parts) > 1:
                return kind(value).name
    return value
