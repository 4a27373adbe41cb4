"""A report: results in, a folder of tables, figures and one page out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from importlib.metadata import entry_points
from pathlib import Path

import pandas as pd

from pcc_bench.core.documents import write_text
from pcc_bench.core.errors import UsageError
from pcc_bench.reports import figures, page, render
from pcc_bench.reports.figures import training
from pcc_bench.reports.table import Table
from pcc_bench.reports.tables import comparisons, losses, quality, recorded
from pcc_bench.results.collection import Results, load
from pcc_bench.results.files import RESULTS, matching

BUILDERS: dict[str, Callable[[Results], Table]] = {
    "table2": quality.table2,
    "comparisons": comparisons.comparisons,
    "kinds": losses.kinds,
    "borders": losses.borders,
    "table3": quality.table3,
    "table4": quality.table4,
    "table5": quality.table5,
    "pretraining": quality.pretraining,
    "ablations": quality.ablations,
    "hyperparameters": recorded.hyperparameters,
    "cost": recorded.cost,
}
PLUGIN_GROUP = "pcc_bench.tables"
ALL_TASKS = "tasks"  # ends the name of suites that ask few rows of every task


@dataclass(frozen=True)
class Report:
    """What was made."""

    tables: tuple[Table, ...]  # in the order of the page
    files: tuple[Path, ...]  # all files, in the order they were written
    notes: tuple[str, ...]  # what the reader must know


def shipped() -> Path:
    """The lab's results that come with the package.

    Raises:
        UsageError: There are none in this version.
    """
    folder = Path(str(resources.files("pcc_bench"))) / "lab" / "results"
    if not matching([folder], RESULTS):
        raise UsageError(
            "no results were given, and this version ships none of the lab's: name folders that 'pcc-bench run' or "
            "'eval' wrote, or pass --paper for the published numbers alone"
        )
    return folder


def tables(results: Results, published: bool = False) -> list[Table]:
    """Every table that something was measured for.

    Args:
        results: What was read.
        published: Also those that only have published values.

    Raises:
        UsageError: Runs do not belong in one table.
    """
    most, shown = without_all_tasks(results), []
    for build in builders().values():
        table = build(most)
        table = table if table.measured else build(results)
        if table.measured or (published and not table.empty):
            shown.append(table)
    return shown


def builders() -> dict[str, Callable[[Results], Table]]:
    """The function of each table: ours, and those of installed plug-ins (entry-point group `pcc_bench.tables`)."""
    plugins = {point.name: point.load() for point in entry_points(group=PLUGIN_GROUP) if point.name not in BUILDERS}
    return BUILDERS | plugins


def without_all_tasks(results: Results) -> Results:
    """The results without suites that ask few rows of every task, where there are others: rows are not mixed."""
    kept = [run for run in results.runs if not run.labels or not all(name.endswith(ALL_TASKS) for name in run.labels)]
    return replace(results, runs=tuple(kept) or results.runs)


def write(paths: Sequence[Path], out: Path, published: bool = False) -> Report:
    """Write the report of results.

    Args:
        paths: Folders and files of results; none: the shipped ones, or with `published` the paper alone.
        out: Folder of the report: `index.html`, `tables/` (Markdown, LaTeX, CSV), `figures/`.
        published: Also tables that only have published values.

    Raises:
        UsageError: There is nothing to report, something can't be read, or the folder can't be written.
    """
    results = read(paths, published)
    results = replace(results, notes=(*results.notes, *training.sentences(training.over_tokens(results))))
    made = tables(results, published)
    if not made and not len(results.runs):
        raise UsageError(f"{', '.join(map(str, paths))}: nothing in it belongs in a table or a figure")
    written = [path for table in made for path in _write_table(table, out / "tables")]
    written.append(_write(out / "tables" / "all.tex", render.document(made)))
    shown = without_all_tasks(results)
    drawn = figures.draw_all(shown, made, out / "figures")
    written += sorted((out / "figures").glob("*")) if drawn else []
    written.append(page.write(shown, made, drawn, out))
    return Report(tuple(made), tuple(written), results.notes)


def read(paths: Sequence[Path], published: bool = False) -> Results:
    """The results of a report; see `write`."""
    if paths or not published:
        return load(paths or [shipped()])
    return Results((), (), pd.DataFrame())


def _write_table(table: Table, folder: Path) -> list[Path]:
    texts = {".md": render.markdown(table), ".tex": render.latex(table), ".csv": render.as_csv(table)}
    return [_write(folder / f"{table.key}{suffix}", text) for suffix, text in texts.items()]


def _write(path: Path, text: str) -> Path:
    write_text(path, text)
    return path
