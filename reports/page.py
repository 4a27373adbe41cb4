"""The report as one HTML page: no network, no framework, everything inside; it can be mailed."""

import base64
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pcc_bench.core import texttable
from pcc_bench.core.documents import write_text
from pcc_bench.reports.figures import Figure
from pcc_bench.reports.figures.frames import named
from pcc_bench.reports.figures.style import GRID, INK, PAPER, THEMES
from pcc_bench.reports.page_tables import table_view
from pcc_bench.reports.table import Table
from pcc_bench.reports.words import runs_table, sentences
from pcc_bench.results.collection import Results
from pcc_bench.results.reading import read_answers
from pcc_bench.results.run import Run

TEMPLATES = Path(__file__).parent / "templates"


def write(results: Results, tables: Sequence[Table], figures: Sequence[Figure], out: Path) -> Path:
    """Write `index.html` into a folder, with tables and figures in their order."""
    path = out / "index.html"
    write_text(path, render(results, tables, figures))
    return path


def render(results: Results, tables: Sequence[Table], figures: Sequence[Figure]) -> str:
    """The page. Whatever comes from results is escaped; only our own script may run, and nothing is loaded."""
    drawn, (samples, rows) = {figure.key: figure_view(figure) for figure in figures}, embed(results)
    tasks = [task for run in results.runs for task in run.tasks.values()]
    sources = sorted({task.population.source for task in tasks if task.population.source})
    decoders = sorted({name for run in results.runs if (name := Path(run.decoder).name)})
    parts = [f"{what}: {', '.join(of)}" for what, of in (("data", sources), ("decoder", decoders)) if of]
    counts = {
        "runs": len(results.runs),
        "methods": len({run.method for run in results.runs}),
        "tasks": len({task.name for task in tasks}),
        "scored rows": sum(task.scored for task in tasks),
        "training logs": len(results.trainings),
    }
    view = {
        "title": "pcc_bench report",
        "subtitle": "; ".join(parts) or "published numbers only",
        "counts": ", ".join(f"{count:,} {name}" for name, count in counts.items() if count),
        "sentences": sentences(tables),
        "notes": results.notes,
        "hero": drawn.pop("answers", None),
        "tables": list(map(table_view, tables)),
        "figures": list(drawn.values()),
        "samples": samples,
        "rows": rows,
        # without any `<`, so that no text in it can end the element it stands in
        "json": Markup(json.dumps(samples, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")),
        "runs": runs_table(named(results.runs)),
    }
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: texttable.visible(value) if type(value) is str else value,  # no control characters
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script, style = ((TEMPLATES / name).read_text("utf-8") for name in ("report.js", "report.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html").render(
        view=view, script=Markup(script), style=themes() + Markup(style), script_hash=f"sha256-{digest}"
    )  # fmt: skip


# The page's colours change with the reader's: a figure's ink, grid, paper and lines go with them.
_SERIES = {light: f"var(--series-{light.removeprefix('#')})" for light in THEMES}
PAGE_COLOURS = {INK: "var(--figure-ink)", GRID: "var(--figure-grid)", PAPER: "var(--card)", **_SERIES}


def figure_view(figure: Figure) -> dict[str, str]:
    """A figure with its data and vectors inside: `page` for a window, `column` for a phone."""
    data = base64.b64encode(figure.file(".csv").read_bytes()).decode()
    view = {"key": figure.key, "title": figure.title, "alt": figure.alt, "csv": f"data:text/csv;base64,{data}"}
    image = Markup('<svg role="img" aria-label="{}"').format(texttable.visible(f"{figure.title}. {figure.alt}"))
    for kind, end in (("page", "-page.svg"), ("column", ".svg")):
        vector = inline_svg(figure.file(end).read_text("utf-8"), f"{figure.key}-{kind}")
        view[kind] = Markup(vector.replace("<svg", image, 1))
    return view


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


ROWS = 40  # of a task
CHARACTERS = 4_000_000  # of all contexts: a page that can be mailed


def embed(results: Results, rows: int = ROWS, characters: int = CHARACTERS) -> tuple[dict[str, Any], str]:
    """What the page shows: `runs`, `contexts` and `tasks`, for its script; and how much of all rows that is, in words.

    At most so many rows of each task, and characters of all contexts together: a task whose share of the characters is
    used up shows fewer rows.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    runs = named(results.runs)
    for run, _ in runs:
        for task in (task for task in run.tasks.values() if task.samples):
            groups.setdefault((task.name, task.population.fingerprint or ""), []).append(run)

    def has_no_answers(group: tuple[tuple[str, str], list[Run]]) -> bool:
        return not any("f1" in run.tasks[group[0][0]].scores for run in group[1])

    several = Counter(name for name, _ in groups)
    contexts: dict[str, int] = {}
    tasks, counts = [], []
    for (name, fingerprint), having in sorted(groups.items(), key=has_no_answers):  # those with short answers first
        shown = _rows(results, having, name, rows, contexts, characters // len(groups))
        if shown:
            title = name if several[name] == 1 else f"{name} (rows {fingerprint or 'of lm-eval'})"
            tasks.append({"name": title, "rows": shown})
            scored = max(run.tasks[name].scored for run in having)
            counts.append(f"{len(shown):,} of {scored:,} rows of {title}")
    what = "They are the first rows of each task; all rows are in the files of samples."
    data = {"runs": {run.id: name for run, name in runs}, "contexts": list(contexts), "tasks": tasks}
    return data, f"On this page: {', '.join(counts)}. {what}"


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
