"""Lines and columns of a table before they have cells: which runs make a line, which scores fill a column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pcc_bench.reports import measure
from pcc_bench.reports.measure import Measure
from pcc_bench.reports.table import PERCENT, Better, Cell, Column, Role, Row
from pcc_bench.results.run import Run, check_one_table

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
ORDER = tuple(LABELS)
OURS = ("pcc-lite", "pcc-large", "pcc-pooled", "pcc")
ROLES: tuple[Role, ...] = ("ceiling", "method", "floor")  # from the top of a table down


@dataclass(frozen=True)
class Line:
    """A line of a table before it has cells."""

    row: Row  # what it will be in the table
    runs: tuple[Run, ...]  # what it is measured on; several where they differ in seeds or tasks only
    tasks: frozenset[str]  # the tasks it takes from them


def family(run: Run) -> str:
    """The method; for PCC also which encoder: as the result file says, or (of old ones) the checkpoint's name tells."""
    if run.method == "composed" and run.reported:
        first, at_1x = run.reported.options.get("first"), run.reported.options.get("rate") == 1
        return f"{first}-tuned" if at_1x and first in TUNED_TEXT else "composed"
    recorded = next((key for key, text in LABELS.items() if run.reported and text == run.reported.label), None)
    if run.reported and run.reported.options.get("residual") and recorded in ("pcc-lite", "pcc-large"):
        return TUNED if run.rate == 1 else "pcc-pooled"  # older files: pooled encoders had no label of their own
    if recorded is not None:
        return recorded
    name = Path(run.checkpoint).name.lower()
    if run.method != "pcc":
        return run.method
    if "large" in name:
        return "pcc-large"
    return "pcc-lite" if "lite" in name or name.startswith("pcc-lab") else "pcc"


def label(method: str, rate: float | None, control: str | None = None) -> str:
    """What a method at a rate, under a control, is called in print."""
    bare = rate is None or method in (FULL, NONE, TUNED, f"{NONE}-tuned")
    name = LABELS.get(method, method) + ("" if bare else f" {rate:g}x")
    return name + (f" ({control.replace('_', ' ')})" if control else "")


def rank(method: str) -> int:
    """Its place among methods in print."""
    return ORDER.index(method) if method in ORDER else len(ORDER)


def role(run: Run) -> Role:
    """Models of lm-eval read everything, as the full context does."""
    if family(run) in (NONE, f"{NONE}-tuned") or run.control:
        return "floor"
    return "ceiling" if family(run) in (FULL, TUNED) or run.reported is None else "method"


def measured_lines(
    runs: Iterable[Run], tasks: Callable[[str], bool], name: Callable[[Run], str] | None = None
) -> list[Line]:
    """A line for every setting that has such tasks; its seeds are averaged. `name`: by default method and rate."""
    return distinct(grouped(runs, tasks, name))


def grouped(runs: Iterable[Run], tasks: Callable[[str], bool], name: Callable[[Run], str] | None = None) -> list[Line]:
    """As `measured_lines`, with labels that may be the same."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        if any(map(tasks, run.tasks)):
            groups.setdefault(run.setting, []).append(run)
    lines = []
    for group in groups.values():
        run, method, kind = group[-1], family(group[-1]), role(group[-1])
        text = (name(run) if name else "") or label(method, run.rate, run.control)
        rate = run.rate if kind == "method" or run.control else None
        ids = tuple(run.id for run in group)
        row = Row(key=text, label=text, method=method, rate=rate, role=kind, decoder=run.decoder, runs=ids)
        lines.append(Line(row, tuple(group), frozenset(task for run in group for task in run.tasks if tasks(task))))

    def place(line: Line) -> tuple[int, float, int, str]:
        """Ceilings first and floors last; methods by rate, then in a fixed order."""
        row = line.row
        return ROLES.index(row.role), row.rate or 0.0, rank(row.method), row.label

    return sorted(lines, key=place)


def distinct(lines: Sequence[Line]) -> list[Line]:
    """Lines with labels of their own: decoders are named where there are several, then checkpoints, then files."""

    def named(line: Line, more: str) -> Line:
        return replace(line, row=line.row.model_copy(update={"label": f"{line.row.label}, {more}"}))

    if len({line.row.decoder for line in lines}) > 1:
        lines = [named(line, Path(line.row.decoder).name) for line in lines]
    for name in ("checkpoint", "place"):
        counts = Counter(line.row.label for line in lines)
        lines = [named(line, getattr(line.runs[0], name)) if counts[line.row.label] > 1 else line for line in lines]
    return [replace(line, row=line.row.model_copy(update={"key": line.row.label})) for line in lines]


def check_comparable(lines: Iterable[Line], apart: Callable[[Run], str] = lambda run: "") -> None:
    """Raises `UsageError` where lines answer different questions; runs for which `apart` differs are not compared."""
    runs = ((run, line) for line in lines for run in line.runs)
    tasks = ((run, task) for run, line in runs for task in run.tasks.values() if task.name in line.tasks)
    check_one_table(tasks, apart)


@dataclass(frozen=True)
class Spec:
    """A column before it has cells."""

    key: str
    group: str
    name: str
    metric: str
    # a tuple a part; the score is the mean over the parts. Each names tasks of which a line has one.
    tasks: tuple[tuple[str, ...], ...]
    dataset: str  # as in `paper.Known`
    shown: str = ""  # as in `paper.Known`
    better: Better = "higher"
    digits: int = 1
    detail: bool = False

    @property
    def column(self) -> Column:
        """What it is in the table."""
        shared = {name: getattr(self, name) for name in ("key", "group", "name", "digits", "better", "detail")}
        return Column(**shared, unit="%" if self.metric in PERCENT else "")


@dataclass(frozen=True)
class Score:
    """One cell's measurement: a measure a part."""

    parts: tuple[Measure, ...]

    @classmethod
    def of(cls, line: Line, spec: Spec) -> Score | None:
        """The score of a line; None where a part of it was not measured."""
        tasks = [next((task for task in names if task in line.tasks), None) for names in spec.tasks]
        parts = [measure.measure(line.runs, task, spec.metric) if task else None for task in tasks]
        known = tuple(part for part in parts if part is not None)
        return cls(known) if len(known) == len(parts) else None

    @property
    def value(self) -> float:
        """The plain mean over the parts, in the table's unit."""
        return float(np.mean([part.value for part in self.parts]))

    def interval(self) -> tuple[float, float] | None:
        """Its 95 % interval; None where it can't be said."""
        if len(self.parts) == 1:
            return self.parts[0].interval()
        known = measure.combined([part.estimate() for part in self.parts])
        return None if known is None else self.parts[0].ends(known)

    def cell(self) -> Cell:
        """Value, interval and counts."""
        low, high = self.interval() or (None, None)
        contexts = [part.contexts for part in self.parts if part.contexts is not None]
        positions = sum(part.positions for part in self.parts)
        return Cell(
            value=self.value,
            low=low,
            high=high,
            n=sum(part.n for part in self.parts),
            contexts=sum(contexts) if len(contexts) == len(self.parts) else None,
            seeds=max(part.seeds for part in self.parts),
            ratio=sum(part.tokens for part in self.parts) / positions if positions else None,
        )
