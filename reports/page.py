"""The report as one HTML page: no network, no framework, everything inside; it can be mailed."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pcc_bench.core import texttable
from pcc_bench.core.documents import write_text
from pcc_bench.core.texttable import TextTable
from pcc_bench.reports import words
from pcc_bench.reports.browser import Browser, embed
from pcc_bench.reports.figures import Figure
from pcc_bench.reports.figures.frames import in_order, names
from pcc_bench.reports.figures.style import GRID, INK, PAPER, THEMES
from pcc_bench.reports.page_tables import TableView, table_view
from pcc_bench.reports.table import Table
from pcc_bench.reports.words import runs_table
from pcc_bench.results.collection import Results
from pcc_bench.results.run import Run

TITLE = "pcc_bench report"
HERO = "answers"  # the figure that stands first, where it was drawn


@dataclass(frozen=True)
class View:
    """All that the template prints."""

    title: str
    subtitle: str  # data and decoders
    counts: str  # what was measured, in one line
    sentences: tuple[str, ...]  # what the numbers say
    notes: tuple[str, ...]  # what the reader must know
    hero: FigureView | None  # the first figure; None where there is none
    tables: tuple[TableView, ...]  # in the order of the page
    figures: tuple[FigureView, ...]  # all others
    browser: Browser
    runs: TextTable  # methods and provenance, a line a run


def write(results: Results, tables: Sequence[Table], figures: Sequence[Figure], out: Path) -> Path:
    """Write `index.html`.

    Args:
        results: What was read.
        tables: In the order of the page.
        figures: As drawn.
        out: Folder, made where it is missing.

    Returns:
        The page.

    Raises:
        UsageError: The folder can't be written to.
    """
    path = out / "index.html"
    write_text(path, render(view(results, tables, figures)))
    return path


def view(results: Results, tables: Sequence[Table], figures: Sequence[Figure]) -> View:
    """Everything the page says, as text."""
    drawn = {figure.key: figure_view(figure) for figure in figures}
    hero = drawn.pop(HERO, None)
    return View(
        title=TITLE,
        subtitle=_subtitle(results.runs),
        counts=_counts(results),
        sentences=words.sentences(tables),
        notes=results.notes,
        hero=hero,
        tables=tuple(table_view(table) for table in tables),
        figures=tuple(drawn.values()),
        browser=embed(results),
        runs=runs_table(in_order(results.runs), names(results.runs)),
    )


def render(shown: View) -> str:
    """The page. Whatever comes from results is escaped; only our own script may run, and nothing is loaded."""
    script, style = _template("report.js"), themes() + Markup(_template("report.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _environment().get_template("report.html").render(
        view=shown, script=Markup(script), style=style, script_hash=f"sha256-{digest}"
    )  # fmt: skip


@cache
def _environment() -> Environment:
    loader = PackageLoader("pcc_bench.reports", "templates")
    return Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: texttable.visible(value) if type(value) is str else value,  # no control characters
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _template(name: str) -> str:
    return _environment().loader.get_source(_environment(), name)[0]  # type: ignore[union-attr]


def _subtitle(runs: Sequence[Run]) -> str:
    sources = _distinct(task.population.source for run in runs for task in run.tasks.values())
    decoders = _distinct(Path(run.decoder).name for run in runs)
    parts = [f"data: {', '.join(sources)}" if sources else "", f"decoder: {', '.join(decoders)}" if decoders else ""]
    return "; ".join(part for part in parts if part) or "published numbers only"


def _counts(results: Results) -> str:
    tasks = [task for run in results.runs for task in run.tasks.values()]
    counts = {
        "runs": len(results.runs),
        "methods": len({run.method for run in results.runs}),
        "tasks": len({task.name for task in tasks}),
        "scored rows": sum(task.scored for task in tasks),
        "training logs": len(results.trainings),
    }
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)


def _distinct(values: Iterable[Any]) -> list[str]:
    return sorted({str(value) for value in values if value})


# The page's colours change with the reader's: a figure's ink, grid, paper and lines go with them.
_SERIES = {light: f"var(--series-{light.removeprefix('#')})" for light in THEMES}
PAGE_COLOURS = {INK: "var(--figure-ink)", GRID: "var(--figure-grid)", PAPER: "var(--card)", **_SERIES}


@dataclass(frozen=True)
class FigureView:
    """A figure with its vectors and data inside."""

    key: str
    title: str
    alt: str  # what it shows, in words
    page: Markup  # for a window
    column: Markup  # for a phone
    csv: str  # its data, as an address


def figure_view(figure: Figure) -> FigureView:
    """A figure with its files inside."""
    data = base64.b64encode(figure.csv.read_bytes()).decode()
    page, column = (
        _named(inline_svg(path.read_text(encoding="utf-8"), f"{figure.key}-{kind}"), figure)
        for kind, path in (("page", figure.page), ("column", figure.svg))
    )
    return FigureView(figure.key, figure.title, figure.alt, page, column, f"data:text/csv;base64,{data}")


def _named(svg: str, figure: Figure) -> Markup:
    image = Markup('<svg role="img" aria-label="{}"').format(texttable.visible(f"{figure.title}. {figure.alt}"))
    return Markup(svg.replace("<svg", image, 1))


def inline_svg(text: str, key: str) -> str:
    """A vector file as an element of the page: ids of its own, the page's colours, no size of its own."""
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{key}-", text)
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )
    for colour, variable in PAGE_COLOURS.items():
        text = text.replace(colour, variable)
    return text


def themes() -> Markup:
    """The style sheet's variables of methods' colours, for light and for dark pages."""
    light, dark = (
        " ".join(f"--series-{key.removeprefix('#')}: {pair[place]};" for key, pair in _pairs()) for place in (0, 1)
    )
    return Markup(f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n")


def _pairs() -> list[tuple[str, tuple[str, str]]]:
    return [(light, (light, dark)) for light, dark in THEMES.items()]
