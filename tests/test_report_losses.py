"""What is lost, and who is told from whom: kinds of answers, distances to a segment border, comparisons by row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from written_results import right, write

from pcc_bench.reports import report
from pcc_bench.reports.tables.losses import answer_kind, answer_span, border_distance
from pcc_bench.results.collection import load
from pcc_bench.results.reading import Answer

ANSWER = Answer(row=0, context="", question="", references=(), answer="", scores={})


@pytest.mark.parametrize(
    ("question", "reference", "kind"),
    [
        ("How many chairs does Jack Turner have?", "79", "number"),
        ("How many?", "three", "number"),
        ("When was he born?", "28 April 1958", "date"),
        ("When?", "1976", "date"),
        ("What was paid?", "1,976 pounds", "number"),
        ("In which city does Rose live?", "Prague", "place"),
        ("Where does she work?", "the old mill", "place"),
        ("Who is the cousin of Jack?", "the pilot", "name"),
        ("What is the company?", "Bank of England", "name"),
        ("What is her favourite food?", "pizza", "other"),
        ("What?", "", "other"),
    ],
)
def test_answers_have_a_kind(question: str, reference: str, kind: str) -> None:
    assert answer_kind(replace(ANSWER, question=question, references=(reference,))) == kind


def test_an_answer_stands_where_its_words_stand_once() -> None:
    text = "He had 4 cats in 1994, and Ann had two."
    assert answer_span(text, ("4",)) == (7, 8)  # the 4 of 1994 is no answer
    assert answer_span(text, ("had",)) is None  # twice
    assert answer_span(text, ("dogs",)) is None
    assert answer_span(text, ("dogs", "ann")) == (27, 30)  # another reference


def test_the_distance_to_a_border_is_counted_in_tokens() -> None:
    offsets = [(i, i + 1) for i in range(10)]  # a token a character; segments of 4 end before tokens 4 and 8
    distances = [border_distance(offsets, (place, place + 1), 4) for place in range(10)]
    assert distances == [4, 3, 2, 1, 1, 2, 2, 1, 1, 2]
    assert border_distance(offsets, (3, 5), 4) == 0  # across
    assert border_distance(offsets[:4], (0, 1), 4) is None  # one segment
    assert border_distance(offsets, (20, 21), 4) is None


def test_kinds_add_up_to_the_rows_and_their_scores(tmp_path: Path) -> None:
    scores = right(0.6, 40, 0)
    write(tmp_path, "pcc", {"pcc_squad": {"f1": scores}}, 4.0)
    table = report.BUILDERS["kinds"](load([tmp_path]))
    (cells,) = table.cells
    assert sum(cell.n or 0 for cell in cells) == 40
    number = cells[[column.name for column in table.columns].index("number")]
    assert (number.n, number.value) == (40, pytest.approx(100 * np.mean(scores)))  # the references are "answer 7"


def test_the_shipped_rows_are_all_in_a_kind_and_those_without_a_border_are_counted() -> None:
    results = load([report.shipped() / "lab-table2"])
    kinds = report.BUILDERS["kinds"](results)
    assert {sum(cell.n or 0 for cell in line) for line in kinds.cells} == {800}
    borders = report.BUILDERS["borders"](results)
    assert {row.method for row in borders.rows} == {"autocompressor", "cocom", "pcc-lite", "pcc-large"}
    assert {sum(cell.n or 0 for cell in line) for line in borders.cells} == {800 - 210 - 12}
    left = [note for note in borders.notes if note.startswith("Left out")]
    assert [note.partition(" of ")[0].rpartition(" ")[2] for note in left] == ["210", "12"]


def test_a_comparison_counts_wins_losses_and_ties(tmp_path: Path) -> None:
    one, other = right(0.7, 200, 0), right(0.5, 200, 1)
    write(tmp_path / "pcc", "pcc", {"pcc_squad": {"f1": one}}, 4.0, "x/pcc-lite-4x")
    write(tmp_path / "icae", "icae", {"pcc_squad": {"f1": other}}, 4.0)
    write(tmp_path / "far", "icae", {"pcc_squad": {"f1": other}}, 16.0)  # of another rate, and alone there
    table = report.BUILDERS["comparisons"](load([tmp_path]))
    assert [row.label for row in table.rows] == ["PCC-Lite 4x less ICAE 4x"]
    difference, wins, losses, ties, detectable, _ = table.cells[0]
    gaps = np.array(one) - np.array(other)
    assert difference.value == pytest.approx(100 * gaps.mean())
    assert [cell.value for cell in (wins, losses, ties)] == [(gaps > 0).sum(), (gaps < 0).sum(), (gaps == 0).sum()]
    assert difference.low < difference.value < difference.high
    # half the interval is 1.97 errors wide; a difference of 1.97 + 0.84 of them is found in 80 % of all samples
    assert detectable.value == pytest.approx((difference.high - difference.low) / 2 * (1.97 + 0.84) / 1.97, rel=0.02)
    assert difference.best
