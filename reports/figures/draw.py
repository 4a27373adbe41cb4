"""All figures of a report."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.figure
import pandas as pd

from pcc_bench.reports import learning
from pcc_bench.reports.figures import cost, errors, frames, needle, pairs, rates, ratios, recorded, training, words
from pcc_bench.reports.figures.files import Figure, save
from pcc_bench.reports.table import Column, Table
from pcc_bench.results.collection import Results

POSITIONS = "decoder positions a question"
LEAST = 2  # points: one alone is a number and no figure


@dataclass(frozen=True)
class Plan:
    """A figure before it is drawn.

    Attributes:
        key: Name of its files.
        title: One line.
        frame: What it shows.
        draw: The frame's figure.
        alt: The frame in words.
    """

    key: str
    title: str
    frame: pd.DataFrame
    draw: Callable[[pd.DataFrame], matplotlib.figure.Figure]
    alt: Callable[[pd.DataFrame], str]


def draw_all(results: Results, tables: Sequence[Table], out: Path) -> list[Figure]:
    """Draw every figure that the results have data for.

    Args:
        results: What was read.
        tables: What was made of it.
        out: Folder of the files, made where it is missing.

    Returns:
        The figures, in the order of a report.
    """
    drawn = []
    for plan in plans(results, tables):
        if len(plan.frame) >= LEAST:
            drawn.append(save(plan.draw, plan.frame, plan.key, plan.title, plan.alt(plan.frame), out))
    return drawn


def plans(results: Results, tables: Sequence[Table]) -> Iterator[Plan]:
    """All figures, also those without data."""
    by_key = {table.key: table for table in tables}
    if "table2" in by_key:
        yield from _answers(results, by_key["table2"])
    if "pretraining" in by_key:
        yield from _reconstruction(by_key["pretraining"])
    yield Plan(
        "training", "Training: held-out text", frames.training(results), training.curves,
        lambda frame: " ".join(
            f"{str(measure).replace(chr(10), ' ')}: {words.over(rows, 'run', 'step', 'value', 'step {:g}', 2)}"
            for measure, rows in frame.groupby("measure", sort=False)
        ),
    )  # fmt: skip
    yield Plan(
        "training-tokens", "Training: held-out rows over tokens", learning.over_tokens(results), training.over_tokens,
        lambda frame: " ".join(learning.sentences(frame)) or words.over(frame, "run", "tokens", "value", digits=2),
    )  # fmt: skip
    yield Plan(
        "training-compared", "Training: runs after equal tokens", learning.held_against(results), training.held_against,
        lambda frame: words.listed(frame.replace("\n", " ", regex=True), "run", "measure", "value", 2),
    )  # fmt: skip
    yield Plan(
        "memory", "Peak memory over the input's length", frames.memory(results), cost.memory,
        lambda frame: "Gigabytes. " + words.over(frame, "series", "tokens", "gigabytes", "{:g} tokens"),
    )  # fmt: skip
    for task in frames.NEEDLES:
        yield Plan(
            task.removeprefix("pcc_"), f"Needles found, by depth and length ({task})", frames.needles(results, task),
            needle.heat_map,
            lambda frame: "Least and greatest share of a cell. " + words.spread(frame, "method", "value", 2),
        )  # fmt: skip
    yield Plan(
        "errors", "What a reconstruction gets wrong, by class of word", frames.errors(results), errors.classes,
        lambda frame: "Percent. " + words.listed(frame, "method", "kind", "value"),
    )  # fmt: skip
    yield Plan(
        "reconstruction-and-answers", "Contexts reconstructed, and the questions on them",
        frames.pairs(results, "token_accuracy", "f1"),
        lambda frame: pairs.reconstruction_and_answers(frame, "token accuracy", "F1"),
        lambda frame: "Mean F1. " + words.spread(frame, "method", "answers", 2),
    )  # fmt: skip
    yield Plan(
        "ratios", "Requested and achieved compression", frames.ratios(results), ratios.achieved,
        lambda frame: "Achieved, least to greatest. " + words.spread(frame, "run", "ratio", 2),
    )  # fmt: skip


def _answers(results: Results, table: Table) -> Iterator[Plan]:
    """Quality over rate and over cost, of the table's headline and of each set."""
    measured = {key for key in (column.key for column in table.columns) if len(frames.scores(table, [key]))}
    sets = [column for column in table.columns if column.name == "F1" and column.key in measured]
    head = next((column for column in sets if column.key == table.headline or len(sets) == 1), None)
    if head is not None:
        yield _over_rate("answers", "Answers over compression", table, head)
        yield _over_cost(table, head, "positions", frames.quality_and_positions(results, table, head.key), POSITIONS)
        for phase, mode in itertools.product(recorded.PHASES, recorded.MODES):
            kind = f"{recorded.PHASES[phase].key}-{mode}"
            yield _over_cost(table, head, kind, *recorded.quality_and_time(results, table, head.key, phase, mode))
    parts = [column.key for column in sets if head is None or column.key != head.key]
    if len(parts) > 1:
        frame = frames.scores(table, parts).drop(columns="runs")
        yield Plan(
            "answers-by-set", "Answers over compression, by data set", _with_rates(frame),
            lambda frame: rates.by_set(frame, "F1 (%)"),
            lambda frame: " ".join(
                f"{name}: {words.over(rows, 'method', 'rate', 'value', '{:.3g}x')}"
                for name, rows in frame.groupby("set", sort=False)
            ),
        )  # fmt: skip


def _reconstruction(table: Table) -> Iterator[Plan]:
    for column in table.columns:
        if column.name.startswith("BLEU") and not column.source:
            yield _over_rate("reconstruction", "Reconstruction over compression", table, column)
            return


def _over_rate(key: str, title: str, table: Table, column: Column) -> Plan:
    return Plan(
        key,
        title,
        _with_rates(frames.scores(table, [column.key]).drop(columns="runs")),
        lambda frame: rates.against_rate(frame, axis_label(column)),
        lambda frame: words.over(frame, "method", "rate", "value", "{:.3g}x"),
    )


def _over_cost(table: Table, column: Column, kind: str, frame: pd.DataFrame, axis: str) -> Plan:
    return Plan(
        f"answers-{kind}",
        f"Answers over {axis.replace(chr(10), ', ')}",
        frame,
        lambda frame: cost.pareto(frame, axis_label(column), axis),
        lambda frame: words.over(frame, "method", "cost", "value"),
    )


def _with_rates(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame, or nothing of it where fewer than two lines of the table have a rate."""
    points = frame.dropna(subset="rate")[["method", "requested"]].drop_duplicates()
    return frame if len(points) >= LEAST else frame.iloc[:0]


def axis_label(column: Column) -> str:
    """What an axis says of a column."""
    return column.heading + (f" ({column.unit})" if column.unit else "")
