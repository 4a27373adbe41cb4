"""Figures: pure functions of frames in one style; `draw_all` draws those that results have data for."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.figure
from pandas import DataFrame

from pcc_bench.core import texttable
from pcc_bench.core.documents import replaced, write_text
from pcc_bench.reports.figures import frames, style, tasks, tradeoffs, training
from pcc_bench.reports.table import Column, Table
from pcc_bench.results.collection import Results

FORMATS: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}  # without dates
Draw = Callable[[DataFrame], matplotlib.figure.Figure]


@dataclass(frozen=True)
class Figure:
    key: str
    title: str
    alt: str  # what it shows, for readers who can't see it
    folder: Path

    def file(self, end: str) -> Path:
        """`.svg` (text as shapes), `.pdf` or `.png` (300 dots an inch); `.csv`; `-page.svg`, for a window."""
        return self.folder / f"{self.key}{end}"


def save(draw: Draw, frame: DataFrame, key: str, title: str, alt: str, out: Path) -> Figure:
    """Write `draw` of a frame in all formats, and the data beside it; the same data gives the same bytes."""
    figure = Figure(key, title, alt, out)
    for sheet, ends in ((style.COLUMN, [f".{kind}" for kind in FORMATS]), (style.PAGE, ["-page.svg"])):
        with style.drawn_for(sheet):
            drawn = draw(frame)
            drawn.draw_without_rendering()
            drawn.set_layout_engine("none")  # it is laid out now, and once is enough
            for end in ends:
                kind = end.rpartition(".")[2]
                with replaced(figure.file(end)) as part:
                    drawn.savefig(part, format=kind, metadata=FORMATS[kind])
    safe = frame.map(lambda value: texttable.csv_cell(value) if isinstance(value, str) else value)
    write_text(figure.file(".csv"), safe.to_csv(index=False, lineterminator="\n"))
    return figure


def series_in_words(frame: DataFrame, series: str, x: str, y: str, at: str = "{:.3g}", digits: int = 1) -> str:
    """A sentence a series: its values in the order of x (nan for a level line), or the first and last of many."""
    sentences = []
    for name, rows in frame.groupby(series, sort=False):
        rows = rows.sort_values(x)
        few = rows if len(rows) <= 6 else rows.iloc[[0, -1]]
        points = [
            f"{value:.{digits}f}" + (f" at {at.format(place)}" if place == place else "")
            for place, value in zip(few[x], few[y], strict=True)
        ]
        sentences.append(f"{name}: {', '.join(points)}.")
    return " ".join(sentences)


def spread_in_words(frame: DataFrame, series: str, y: str) -> str:
    """A sentence a series: its least and greatest value."""
    ends = frame.groupby(series, sort=False)[y].agg(["min", "max"])
    return " ".join(f"{name}: {low:.2f} to {high:.2f}." for name, low, high in ends.itertuples())


def kinds_in_words(frame: DataFrame, series: str, kind: str, y: str, digits: int = 1) -> str:
    """A sentence a series: the value of each kind."""
    return " ".join(
        f"{name}: " + ", ".join(f"{row[kind]} {row[y]:.{digits}f}" for _, row in rows.iterrows()) + "."
        for name, rows in frame.groupby(series, sort=False)
    )


CLOCKS = {"ttft": "first-token", "total": "seconds"}  # phase -> in names of files
LEAST = 2  # points: one alone is a number and no figure


class Drawing(NamedTuple):
    draw: Draw
    frame: DataFrame
    key: str
    title: str
    alt: str


def draw_all(results: Results, tables: Sequence[Table], out: Path) -> list[Figure]:
    """Draw every figure that the results have data for, in the order of a report."""
    return [save(*plan, out) for plan in plans(results, tables) if len(plan.frame) >= LEAST]


def plans(results: Results, tables: Sequence[Table]) -> Iterator[Drawing]:
    """All figures, also those without data."""
    for table in tables:
        if table.key == "table2":
            yield from _answers(results, table)
    for table in tables:
        columns = [column for column in table.columns if column.name.startswith("BLEU") and not column.source]
        if table.key == "pretraining" and columns:
            yield _over_rate("reconstruction", "Reconstruction over compression", table, columns[0])
    frame = training.over_steps(results)
    alt = _by_panel(frame.replace("\n", " ", regex=True), "measure", "run", "step", "step {:g}", 2)
    yield Drawing(training.curves, frame, "training", "Training: held-out text", alt)
    frame = training.over_tokens(results)
    alt = " ".join(training.sentences(frame)) or series_in_words(frame, "run", "tokens", "value", digits=2)
    yield Drawing(training.curves_over_tokens, frame, "training-tokens", "Training: held-out rows over tokens", alt)
    frame = training.held_against(results)
    alt = kinds_in_words(frame.replace("\n", " ", regex=True), "run", "measure", "value", 2)
    yield Drawing(training.losses_compared, frame, "training-compared", "Training: runs after equal tokens", alt)
    frame = frames.memory(results)
    alt = "Gigabytes. " + series_in_words(frame, "series", "tokens", "gigabytes", "{:g} tokens")
    yield Drawing(tradeoffs.memory, frame, "memory", "Peak memory over the input's length", alt)
    for task in frames.NEEDLES:
        frame = frames.needles(results, task)
        alt = "Least and greatest share of a cell. " + spread_in_words(frame, "method", "value")
        title = f"Needles found, by depth and length ({task})"
        yield Drawing(tasks.heat_map, frame, task.removeprefix("pcc_"), title, alt)
    frame = frames.errors(results)
    alt = "Percent. " + kinds_in_words(frame, "method", "kind", "value")
    yield Drawing(tasks.classes, frame, "errors", "What a reconstruction gets wrong, by class of word", alt)
    frame, title = frames.pairs(results), "Contexts reconstructed, and the questions on them"
    alt = "Mean F1. " + spread_in_words(frame, "method", "answers")
    yield Drawing(tasks.reconstruction_and_answers, frame, "reconstruction-and-answers", title, alt)
    frame = frames.ratios(results)
    alt = "Achieved, least to greatest. " + spread_in_words(frame, "run", "ratio")
    yield Drawing(tasks.achieved, frame, "ratios", "Requested and achieved compression", alt)


def _answers(results: Results, table: Table) -> Iterator[Drawing]:
    """Quality over rate and over cost, of the table's headline and of each set."""
    f1 = [column for column in table.columns if column.name == "F1" and len(frames.scores(table, [column.key]))]
    head = next((column for column in f1 if column.key == table.headline or len(f1) == 1), None)
    if head is not None:
        yield _over_rate("answers", "Answers over compression", table, head)
        costs = {"positions": frames.quality_and_positions(results, table, head.key)}
        for (phase, key), mode in itertools.product(CLOCKS.items(), frames.MODES):
            costs[f"{key}-{mode}"] = frames.quality_and_time(results, table, head.key, phase, mode)
        for kind, (frame, axis) in costs.items():
            draw = partial(tradeoffs.pareto, measure=axis_label(head), cost=axis)
            alt = series_in_words(frame, "method", "cost", "value")
            yield Drawing(draw, frame, f"answers-{kind}", f"Answers over {axis.replace(chr(10), ', ')}", alt)
    sets = [column.key for column in f1 if column is not head]
    if len(sets) > 1:
        frame = _with_rates(frames.scores(table, sets))
        alt = _by_panel(frame, "set", "method", "rate", "{:.3g}x", 1)
        draw = partial(tradeoffs.by_set, measure="F1 (%)")
        yield Drawing(draw, frame, "answers-by-set", "Answers over compression, by data set", alt)


def _over_rate(key: str, title: str, table: Table, column: Column) -> Drawing:
    frame = _with_rates(frames.scores(table, [column.key]))
    draw = partial(tradeoffs.against_rate, measure=axis_label(column))
    return Drawing(draw, frame, key, title, series_in_words(frame, "method", "rate", "value", "{:.3g}x"))


def _with_rates(frame: DataFrame) -> DataFrame:
    """The frame, or nothing of it where fewer than two lines of the table have a rate."""
    points = frame.dropna(subset="rate")[["method", "requested"]].drop_duplicates()
    return frame.drop(columns=["runs", "label"]).iloc[: None if len(points) >= LEAST else 0]


def _by_panel(frame: DataFrame, panel: str, series: str, x: str, at: str, digits: int) -> str:
    groups = frame.groupby(panel, sort=False)
    return " ".join(f"{name}: {series_in_words(rows, series, x, 'value', at, digits)}" for name, rows in groups)


def axis_label(column: Column) -> str:
    return column.heading + (f" ({column.unit})" if column.unit else "")
