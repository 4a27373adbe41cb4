"""Lines and columns of a table before they have cells: which runs make a line, which scores fill a column."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from pcc_bench.reports import measure
from pcc_bench.reports.measure import Measure
from pcc_bench.reports.table import PERCENT, Better, Cell, Column, Role, Row
from pcc_bench.results.run import Run, TaskRun, check_one_table

FULL, NONE, TUNED = "full-context", "no-context", "tuned-context"
LABELS = {
    FULL: "full context",
    TUNED: "tuned context",
    NONE: "no context",
    "truncated-context": "truncated context",
    "random-context": "random context",
    "bm25-context": "BM25 context",
    "llmlingua2": "LLMLingua-2",
    "autocompressor": "AutoCompressor",
    "icae": "ICAE",
    "cocom": "COCOM",
    "pisco": "PISCO",
    "pcc": "PCC",
    "pcc-lite": "PCC-Lite",
    "pcc-large": "PCC-Large",
    "pcc-pooled": "PCC pooled",
    "composed": "composed",
    "be": "BE token",
}
# Read in the frame of a tuned 1x checkpoint.
TUNED_TEXT = ("truncated-context", "random-context", "bm25-context", "llmlingua2", NONE)
LABELS |= {f"{method}-tuned": f"{LABELS[method]}, tuned" for method in TUNED_TEXT}
RANKS = {method: place for place, method in enumerate(LABELS)}  # of methods in print
OURS = ("pcc-lite", "pcc-large", "pcc-pooled", "pcc")
ROLES: tuple[Role, ...] = ("ceiling", "method", "floor")  # from the top of a table down


@dataclass(frozen=True)
class Line:
    """A line of a table before it has cells."""

    row: Row  # what it will be in the table
    runs: tuple[Run, ...]  # what it is measured on; several where they differ in seeds or tasks only
    tasks: frozenset[str]  # the tasks it takes from them

    def under(self, **names: str) -> Self:
        """The same line, with other names in its row."""
        return replace(self, row=self.row.model_copy(update=names))

    def results(self) -> Iterator[tuple[Run, TaskRun]]:
        """Its runs, each with those of the line's tasks that it has."""
        return ((run, task) for run in self.runs for task in run.tasks.values() if task.name in self.tasks)


def family(run: Run) -> str:
    """The method; for PCC also which encoder: as the result file says, or (of old ones) the checkpoint's name tells."""
    options = run.reported.options if run.reported else {}
    if run.method == "composed" and run.reported:
        first = options.get("first")
        return f"{first}-tuned" if options.get("rate") == 1 and first in TUNED_TEXT else "composed"
    recorded = next((key for key, text in LABELS.items() if run.reported and text == run.reported.label), None)
    if options.get("residual") and recorded in ("pcc-lite", "pcc-large"):
        return TUNED if run.rate == 1 else "pcc-pooled"  # older files: pooled encoders had no label of their own
    if recorded is not None or run.method != "pcc":
        return recorded or run.method
    name = Path(run.checkpoint).name.lower()
    if "large" in name:
        return "pcc-large"
    return "pcc-lite" if "lite" in name or name.startswith("pcc-lab") else "pcc"


def label(method: str, rate: float | None, own: str = "") -> str:
    """What a method at a rate is called in print; `own`: as it calls itself, if it is none of ours."""
    bare = rate is None or method in (FULL, NONE, TUNED, f"{NONE}-tuned")
    return LABELS.get(method, own or method) + ("" if bare else f" {rate:g}x")


def label_of(run: Run) -> str:
    """What a run's method at its rate, under its control, is called in print."""
    name = label(family(run), run.rate, (run.reported and run.reported.label) or "")
    return name + (f" ({run.control.replace('_', ' ')})" if run.control else "")


def role(run: Run) -> Role:
    """Models of lm-eval read everything, as the full context does."""
    if family(run) in (NONE, f"{NONE}-tuned") or run.control:
        return "floor"
    return "ceiling" if family(run) in (FULL, TUNED) or run.reported is None else "method"


def grouped(runs: Iterable[Run], tasks: Collection[str], name: Callable[[Run], str] | None = None) -> list[Line]:
    """A line for every setting that has such tasks; its seeds are averaged. `name`: by default method and rate."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        if any(task in tasks for task in run.tasks):
            groups.setdefault(run.setting, []).append(run)
    lines = []
    for group in groups.values():
        run, method, kind = group[-1], family(group[-1]), role(group[-1])
        text = (name(run) if name else "") or label_of(run)
        rate = run.rate if kind == "method" or run.control else None
        ids = tuple(run.id for run in group)
        row = Row(key=text, label=text, method=method, rate=rate, role=kind, decoder=run.decoder, runs=ids)
        lines.append(Line(row, tuple(group), frozenset(task for run in group for task in run.tasks if task in tasks)))

    def place(line: Line) -> tuple[int, float, int, str]:
        """Ceilings first and floors last; methods by rate, then in a fixed order."""
        row = line.row
        return ROLES.index(row.role), row.rate or 0.0, RANKS.get(row.method, len(RANKS)), row.label

    return sorted(lines, key=place)


def distinct(lines: Sequence[Line], apart: Callable[[Run], str] = lambda run: "") -> list[Line]:
    """Lines with labels of their own: decoders are named where there are several, then checkpoints, then files.

    Raises UsageError: lines answer different questions; runs for which `apart` differs are not compared.
    """
    check_one_table((result for line in lines for result in line.results()), apart)
    if len({line.row.decoder for line in lines}) > 1:
        lines = [line.under(label=f"{line.row.label}, {Path(line.row.decoder).name}") for line in lines]
    for name in ("checkpoint", "place"):
        counts = Counter(line.row.label for line in lines)
        longer = [f"{line.row.label}, {getattr(line.runs[0], name)}" for line in lines]
        pairs = zip(lines, longer, strict=True)
        lines = [line.under(label=text) if counts[line.row.label] > 1 else line for line, text in pairs]
    return [line.under(key=line.row.label) for line in lines]


@dataclass(frozen=True)
class Spec:
    """A column before it has cells."""

    key: str  # begins with the data set, as in `build.Known`
    group: str
    name: str
    metric: str
    tasks: tuple[tuple[str, ...], ...]  # each names tasks of which a line has one; the score is the mean over all
    shown: str = ""  # as in `build.Known`
    better: Better = "higher"
    digits: int = 1
    detail: bool = False

    @property
    def column(self) -> Column:
        shared = {name: getattr(self, name) for name in ("key", "group", "name", "digits", "better", "detail")}
        return Column(**shared, unit="%" if self.metric in PERCENT else "")

    def measured(self, line: Line) -> list[Measure]:
        """What a line has of each of `tasks`; nothing where one was not measured."""
        names = [next((task for task in names if task in line.tasks), "") for names in self.tasks]
        parts = [measure.measure(line.runs, name, self.metric) for name in names]
        return [part for part in parts if part is not None] if None not in parts else []


def cell_of(parts: Sequence[Measure]) -> Cell:
    """The plain mean of measures, with its 95 % interval and counts; an empty cell of none."""
    if not parts:
        return Cell()
    known = measure.combined([part.estimate() for part in parts])
    ends = parts[0].interval() if len(parts) == 1 else parts[0].ends(known) if known else None
    low, high = ends or (None, None)
    contexts = [part.contexts for part in parts if part.contexts is not None]
    positions = sum(part.positions for part in parts)
    return Cell(
        value=float(np.mean([part.value for part in parts])),
        low=low,
        high=high,
        n=sum(part.n for part in parts),
        contexts=sum(contexts) if len(contexts) == len(parts) else None,
        seeds=max(part.seeds for part in parts),
        ratio=sum(part.tokens for part in parts) / positions if positions else None,
    )
