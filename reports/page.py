"""The report as one HTML page: no network, no framework, everything inside; it can be mailed."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pcc_bench.core import texttable
from pcc_bench.core.documents import write_text
from pcc_bench.reports.figures import Figure
from pcc_bench.reports.figures.frames import in_order, names
from pcc_bench.reports.figures.style import GRID, INK, PAPER, THEMES
from pcc_bench.reports.page_tables import table_view
from pcc_bench.reports.table import Table
from pcc_bench.reports.words import runs_table, sentences
from pcc_bench.results.collection import Results
from pcc_bench.results.reading import read_answers
from pcc_bench.results.run import Run

TITLE = "pcc_bench report"
HERO = "answers"  # the figure that stands first, where it was drawn


def write(results: Results, tables: Sequence[Table], figures: Sequence[Figure], out: Path) -> Path:
    """Write `index.html` into a folder, with tables and figures in their order."""
    path = out / "index.html"
    write_text(path, render(results, tables, figures))
    return path


def render(results: Results, tables: Sequence[Table], figures: Sequence[Figure]) -> str:
    """The page. Whatever comes from results is escaped; only our own script may run, and nothing is loaded."""
    drawn = {figure.key: figure_view(figure) for figure in figures}
    tasks = [task for run in results.runs for task in run.tasks.values()]
    sources = sorted({task.population.source for task in tasks if task.population.source})
    decoders = sorted({name for run in results.runs if (name := Path(run.decoder).name)})
    parts = [f"data: {', '.join(sources)}" if sources else "", f"decoder: {', '.join(decoders)}" if decoders else ""]
    counts = {
        "runs": len(results.runs),
        "methods": len({run.method for run in results.runs}),
        "tasks": len({task.name for task in tasks}),
        "scored rows": sum(task.scored for task in tasks),
        "training logs": len(results.trainings),
    }
    view = {
        "title": TITLE,
        "subtitle": "; ".join(filter(None, parts)) or "published numbers only",
        "counts": ", ".join(f"{count:,} {name}" for name, count in counts.items() if count),
        "sentences": sentences(tables),
        "notes": results.notes,
        "hero": drawn.pop(HERO, None),
        "tables": [table_view(table) for table in tables],
        "figures": list(drawn.values()),
        "browser": embed(results),
        "runs": runs_table(in_order(results.runs), names(results.runs)),
    }
    environment = Environment(
        loader=PackageLoader("pcc_bench.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: texttable.visible(value) if type(value) is str else value,  # no control characters
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script, style = (
        environment.loader.get_source(environment, name)[0]  # type: ignore[union-attr]
        for name in ("report.js", "report.css")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html").render(
        view=view, script=Markup(script), style=themes() + Markup(style), script_hash=f"sha256-{digest}"
    )  # fmt: skip


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
    data = base64.b64encode(figure.file(".csv").read_bytes()).decode()
    image = Markup('<svg role="img" aria-label="{}"').format(texttable.visible(f"{figure.title}. {figure.alt}"))
    vectors = {key: figure.file(end).read_text("utf-8") for key, end in (("page", "-page.svg"), ("column", ".svg"))}
    page, column = (
        Markup(inline_svg(text, f"{figure.key}-{key}").replace("<svg", image, 1)) for key, text in vectors.items()
    )
    return FigureView(figure.key, figure.title, figure.alt, page, column, f"data:text/csv;base64,{data}")


def inline_svg(text: str, key: str) -> str:
    """A vector file as an element of the page: ids of its own, the page's colours, no size of its own."""
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{key}-", text)
    for side in ("height", "width"):
        text = re.sub(rf'(<svg[^>]*?) {side}="[^"]*"', r"\1", text, count=1)
    for colour, variable in PAGE_COLOURS.items():
        text = text.replace(colour, variable)
    return text


def themes() -> Markup:
    """The style sheet's variables of methods' colours, for light and for dark pages."""
    light, dark = (
        " ".join(f"--series-{key.removeprefix('#')}: {colour};" for key, colour in zip(THEMES, colours, strict=True))
        for colours in (THEMES.keys(), THEMES.values())
    )
    return Markup(f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n")


# ---------------------------------------------------------------- samples


ROWS = 40  # of a task
CHARACTERS = 4_000_000  # of all contexts: a page that can be mailed


@dataclass(frozen=True)
class Shown:
    """What the page holds of a task."""

    name: str
    shown: int  # rows on the page
    rows: int  # rows that were scored


@dataclass(frozen=True)
class Browser:
    """The embedded samples."""

    tasks: tuple[Shown, ...]  # those with samples
    data: dict[str, Any]  # `runs`, `contexts` and `tasks`, for the page's script

    @property
    def json(self) -> Markup:
        """The data as JSON without any `<`, so that no text in it can end the element it stands in."""
        return Markup(json.dumps(self.data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"))

    @property
    def told(self) -> str:
        """What is on the page and what is not."""
        parts = ", ".join(f"{task.shown:,} of {task.rows:,} rows of {task.name}" for task in self.tasks)
        return f"On this page: {parts}. They are the first rows of each task; all rows are in the files of samples."


def embed(results: Results, rows: int = ROWS, characters: int = CHARACTERS) -> Browser:
    """Choose what the page shows: at most so many rows of each task, and characters of all contexts together.

    A task whose share of the characters is used up shows fewer rows.
    """
    runs, called = in_order(results.runs), names(results.runs)
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        for task in (task for task in run.tasks.values() if task.samples):
            groups.setdefault((task.name, task.population.fingerprint or ""), []).append(run)

    def has_no_answers(group: tuple[tuple[str, str], list[Run]]) -> bool:
        return not any("f1" in run.tasks[group[0][0]].scores for run in group[1])

    groups = dict(sorted(groups.items(), key=has_no_answers))  # questions with short answers come first
    several = Counter(name for name, _ in groups)
    contexts: dict[str, int] = {}
    tasks, data = [], []
    for (task_name, fingerprint), having in groups.items():
        name = task_name if several[task_name] == 1 else f"{task_name} (rows {fingerprint or 'of lm-eval'})"
        shown = _rows(results, having, task_name, rows, contexts, characters // len(groups))
        if shown:
            tasks.append(Shown(name, len(shown), max(run.tasks[task_name].scored for run in having)))
            data.append({"name": name, "rows": shown})
    called = {run.id: called[run.id] for run in runs}
    return Browser(tuple(tasks), {"runs": called, "contexts": list(contexts), "tasks": data})


def _rows(
    results: Results, runs: Sequence[Run], task: str, count: int, contexts: dict[str, int], room: int
) -> list[dict[str, Any]]:
    """The first rows of a task, with the answers of all its runs; new contexts are added to `contexts`."""
    table: dict[int, dict[str, Any]] = {}
    for run in runs:
        accounts = results.frame(run, task).set_index("row")
        for answer in islice(read_answers(run.tasks[task]), count):
            if answer.row not in table:
                room -= 0 if answer.context in contexts else len(answer.context)
                if room < 0 or run is not runs[0]:
                    continue
                table[answer.row] = {
                    "row": answer.row,
                    "context": contexts.setdefault(answer.context, len(contexts)),
                    "question": answer.question,
                    "references": list(answer.references),
                    "answers": [],
                }
            account = accounts.loc[answer.row]
            source, slots, boundary = (account.get(key, math.nan) for key in ("source_tokens", "slots", "boundary"))
            positions, memory = slots + boundary, ""  # what became of the context, in words
            if source == source and positions == positions:
                to = f"{positions:,.0f} positions ({source / positions:.2f}x)" if positions else "nothing"
                memory = f"{source:,.0f} tokens to {to}"
            scores = {key: round(value, 4) for key, value in answer.scores.items()}
            shown = {"run": run.id, "text": answer.answer, "scores": scores, "memory": memory}
            table[answer.row]["answers"].append(shown)
    return [table[row] for row in sorted(table)]
