"""Figures: pure functions of frames in one style; `draw_all` draws those that results have data for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.figure
import pandas as pd
from pandas import DataFrame

from pcc_bench.core import texttable
from pcc_bench.core.documents import replaced, write_text
from pcc_bench.reports.figures import frames, tasks, tradeoffs, training
from pcc_bench.reports.figures.style import COLUMN, PAGE, applied, drawn_for
from pcc_bench.reports.table import Column, Table
from pcc_bench.results.collection import Results

FORMATS = ("svg", "pdf", "png")


@dataclass(frozen=True)
class Figure:
    """A figure that was written."""

    key: str
    title: str
    alt: str  # what it shows, for readers who can't see it
    svg: Path  # vector, text as shapes
    pdf: Path  # vector, for LaTeX
    png: Path  # 300 dots an inch
    csv: Path
    page: Path  # vector, for a window: wider, its text larger


def save(
    draw: Callable[[DataFrame], matplotlib.figure.Figure], frame: DataFrame, key: str, title: str, alt: str, out: Path
) -> Figure:
    """Write `draw` of a frame in all formats, and the data beside it; the same data gives the same bytes."""
    paths = {kind: out / f"{key}.{kind}" for kind in (*FORMATS, "csv")}
    wide = out / f"{key}-page.svg"
    no_date = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    for sheet, files in ((COLUMN, [paths[kind] for kind in FORMATS]), (PAGE, [wide])):
        with drawn_for(sheet), applied():
            drawn = draw(frame)
            drawn.draw_without_rendering()
            drawn.set_layout_engine("none")  # it is laid out now, and once is enough
            for path in files:
                kind = path.suffix.removeprefix(".")
                with replaced(path) as part:
                    drawn.savefig(part, format=kind, metadata=no_date[kind])
    safe = frame.map(lambda value: texttable.csv_cell(value) if isinstance(value, str) else value)
    write_text(paths["csv"], safe.to_csv(index=False, lineterminator="\n"))
    return Figure(key, title, alt, paths["svg"], paths["pdf"], paths["png"], paths["csv"], wide)


def series_in_words(frame: pd.DataFrame, series: str, x: str, y: str, at: str = "{:.3g}", digits: int = 1) -> str:
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


def spread_in_words(frame: pd.DataFrame, series: str, y: str, digits: int = 1) -> str:
    """A sentence a series: its least and greatest value."""
    ends = frame.groupby(series, sort=False)[y].agg(["min", "max"])
    return " ".join(f"{name}: {low:.{digits}f} to {high:.{digits}f}." for name, low, high in ends.itertuples())


def kinds_in_words(frame: pd.DataFrame, series: str, kind: str, y: str, digits: int = 1) -> str:
    """A sentence a series: the value of each kind."""
    return " ".join(
        f"{name}: " + ", ".join(f"{row[kind]} {row[y]:.{digits}f}" for _, row in rows.iterrows()) + "."
        for name, rows in frame.groupby(series, sort=False)
    )


POSITIONS = "decoder positions a question"
LEAST = 2  # points: one alone is a number and no figure


@dataclass(frozen=True)
class Plan:
    """A figure before it is drawn."""

    key: str
    title: str
    frame: pd.DataFrame
    draw: Callable[[pd.DataFrame], matplotlib.figure.Figure]
    alt: Callable[[pd.DataFrame], str]  # the frame in words


def draw_all(results: Results, tables: Sequence[Table], out: Path) -> list[Figure]:
    """Draw every figure that the results have data for, in the order of a report."""
    return [
        save(plan.draw, plan.frame, plan.key, plan.title, plan.alt(plan.frame), out)
        for plan in plans(results, tables)
        if len(plan.frame) >= LEAST
    ]


def plans(results: Results, tables: Sequence[Table]) -> Iterator[Plan]:
    """All figures, also those without data."""
    by_key = {table.key: table for table in tables}
    if "table2" in by_key:
        yield from _answers(results, by_key["table2"])
    if "pretraining" in by_key:
        for column in [c for c in by_key["pretraining"].columns if c.name.startswith("BLEU") and not c.source][:1]:
            yield _over_rate("reconstruction", "Reconstruction over compression", by_key["pretraining"], column)
    yield Plan(
        "training", "Training: held-out text", training.over_steps(results), training.curves,
        lambda frame: " ".join(
            f"{str(measure).replace(chr(10), ' ')}: {series_in_words(rows, 'run', 'step', 'value', 'step {:g}', 2)}"
            for measure, rows in frame.groupby("measure", sort=False)
        ),
    )  # fmt: skip
    yield Plan(
        "training-tokens", "Training: held-out rows over tokens", training.over_tokens(results),
        training.curves_over_tokens,
        lambda frame: " ".join(training.sentences(frame)) or series_in_words(frame, "run", "tokens", "value", digits=2),
    )  # fmt: skip
    yield Plan(
        "training-compared", "Training: runs after equal tokens", training.held_against(results),
        training.losses_compared,
        lambda frame: kinds_in_words(frame.replace("\n", " ", regex=True), "run", "measure", "value", 2),
    )  # fmt: skip
    yield Plan(
        "memory", "Peak memory over the input's length", frames.memory(results), tradeoffs.memory,
        lambda frame: "Gigabytes. " + series_in_words(frame, "series", "tokens", "gigabytes", "{:g} tokens"),
    )  # fmt: skip
    for task in frames.NEEDLES:
        yield Plan(
            task.removeprefix("pcc_"), f"Needles found, by depth and length ({task})", frames.needles(results, task),
            tasks.heat_map,
            lambda frame: "Least and greatest share of a cell. " + spread_in_words(frame, "method", "value", 2),
        )  # fmt: skip
    yield Plan(
        "errors", "What a reconstruction gets wrong, by class of word", frames.errors(results), tasks.classes,
        lambda frame: "Percent. " + kinds_in_words(frame, "method", "kind", "value"),
    )  # fmt: skip
    yield Plan(
        "reconstruction-and-answers", "Contexts reconstructed, and the questions on them",
        frames.pairs(results, "token_accuracy", "f1"),
        lambda frame: tasks.reconstruction_and_answers(frame, "token accuracy", "F1"),
        lambda frame: "Mean F1. " + spread_in_words(frame, "method", "answers", 2),
    )  # fmt: skip
    yield Plan(
        "ratios", "Requested and achieved compression", frames.ratios(results), tasks.achieved,
        lambda frame: "Achieved, least to greatest. " + spread_in_words(frame, "run", "ratio", 2),
    )  # fmt: skip


def _answers(results: Results, table: Table) -> Iterator[Plan]:
    """Quality over rate and over cost, of the table's headline and of each set."""
    measured = {key for key in (column.key for column in table.columns) if len(frames.scores(table, [key]))}
    sets = [column for column in table.columns if column.name == "F1" and column.key in measured]
    head = next((column for column in sets if column.key == table.headline or len(sets) == 1), None)
    if head is not None:
        yield _over_rate("answers", "Answers over compression", table, head)
        yield _over_cost(table, head, "positions", frames.quality_and_positions(results, table, head.key), POSITIONS)
        for phase, mode in itertools.product(frames.PHASES, frames.MODES):
            kind = f"{frames.PHASES[phase].key}-{mode}"
            yield _over_cost(table, head, kind, *frames.quality_and_time(results, table, head.key, phase, mode))
    parts = [column.key for column in sets if head is None or column.key != head.key]
    if len(parts) > 1:
        frame = frames.scores(table, parts).drop(columns="runs")
        yield Plan(
            "answers-by-set", "Answers over compression, by data set", _with_rates(frame),
            lambda frame: tradeoffs.by_set(frame, "F1 (%)"),
            lambda frame: " ".join(
                f"{name}: {series_in_words(rows, 'method', 'rate', 'value', '{:.3g}x')}"
                for name, rows in frame.groupby("set", sort=False)
            ),
        )  # fmt: skip


def _over_rate(key: str, title: str, table: Table, column: Column) -> Plan:
    return Plan(
        key,
        title,
        _with_rates(frames.scores(table, [column.key]).drop(columns="runs")),
        lambda frame: tradeoffs.against_rate(frame, axis_label(column)),
        lambda frame: series_in_words(frame, "method", "rate", "value", "{:.3g}x"),
    )


def _over_cost(table: Table, column: Column, kind: str, frame: pd.DataFrame, axis: str) -> Plan:
    return Plan(
        f"answers-{kind}",
        f"Answers over {axis.replace(chr(10), ', ')}",
        frame,
        lambda frame: tradeoffs.pareto(frame, axis_label(column), axis),
        lambda frame: series_in_words(frame, "method", "cost", "value"),
    )


def _with_rates(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame, or nothing of it where fewer than two lines of the table have a rate."""
    points = frame.dropna(subset="rate")[["method", "requested"]].drop_duplicates()
    return frame if len(points) >= LEAST else frame.iloc[:0]


def axis_label(column: Column) -> str:
    """What an axis says of a column."""
    return column.heading + (f" ({column.unit})" if column.unit else "")
