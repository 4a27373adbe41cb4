"""Held-out measures over training tokens: the line, what it says of ten times as many, and runs held together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from pcc_bench.core.errors import UsageError
from pcc_bench.reports import report
from pcc_bench.reports.figures import training
from pcc_bench.results.collection import load

RECONSTRUCTION = training.MEASURES["ae_loss"]


def lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(folder: Path, slope: float = -0.1, noise: float = 0.0, recorded: bool = True, shift: float = 0.0) -> Path:
    """A run of two rates, of 100 tokens a step, whose loss is a power of tokens; at 1x until step 20."""
    chance, evaluation, rows = np.random.default_rng(1), [], []
    for step in (0, 10, 20, 40, 80, 160, 320):
        line: dict[str, Any] = {"step": step, **({"tokens_seen": 100 * step} if recorded else {})}
        for rate in (2, 4):
            share = step**slope * 10 ** (noise * chance.normal()) if step > 20 else 1.2
            line[f"ae_loss_{rate}x"] = (9.0 + rate) * share + shift
            nll = [10 * (line[f"ae_loss_{rate}x"] + 0.1 * sign) for sign in (-1, 1)] * 20
            measure = f"ae_loss_{rate}x"
            rows.append({"step": step, "rate": rate, "measure": measure, "nll": nll, "tokens": [10] * 40})
        evaluation.append(line)
    lines(folder / "evaluation.jsonl", evaluation)
    lines(folder / "evaluation-rows.jsonl", rows)
    lines(
        folder / "log.jsonl",
        [{"step": step, "loss": 1.0, "gate": False, "tokens_seen": 100 * step} for step in range(10, 321, 10)],
    )
    phases = [{"until": 20, "rate": 1}, {"rate": 4, "rates": [2, 4]}]
    (folder / "recipe.json").write_text(json.dumps({"name": folder.name, "phases": phases}))
    return folder


def test_a_line_is_the_least_squares_one_and_its_interval_covers() -> None:
    chance = np.random.default_rng(0)
    tokens = [1e3, 2e3, 5e3, 1e4, 3e4]
    inside = 0
    for _ in range(2_000):
        values = [2 - 0.5 * np.log10(t) + 0.1 * chance.normal() for t in tokens]
        line = training.Trend(tokens, values)
        value, low, high = line.at(3e5)
        inside += low <= 2 - 0.5 * np.log10(3e5) + 0.1 * chance.normal() <= high
    reference = scipy.stats.linregress(np.log10(tokens), values)
    assert line.fit.slope == pytest.approx(reference.slope)
    assert value == pytest.approx(reference.intercept + reference.slope * np.log10(3e5))
    assert inside / 2_000 == pytest.approx(0.95, abs=0.015)


def test_a_loss_that_falls_ahead_of_a_straight_line_never_goes_below_zero() -> None:
    line = training.Trend([1e5, 2e5, 4e5, 8e5], [2.0, 1.4, 0.9, 0.6], power=True)
    value, low, high = line.at(1e8)
    assert 0 < low < value < high
    assert training.Trend([1e5, 2e5, 4e5, 8e5], [2.0, 1.4, 0.9, 0.6]).at(1e8)[0] < 0


@pytest.mark.parametrize("recorded", [True, False], ids=["tokens in the evaluation", "tokens in the log alone"])
def test_ten_times_the_tokens(tmp_path: Path, recorded: bool) -> None:
    frame = training.over_tokens(load([run(tmp_path / "one", recorded=recorded)]))
    rows = frame[(frame["run"] == "one 4x") & (frame["measure"] == RECONSTRUCTION)]
    assert rows[rows["part"] == "measured"]["tokens"].tolist() == [1000, 2000, 4000, 8000, 16000, 32000]
    (ahead,) = rows[rows["part"] == "10x"].to_dict("records")
    assert (ahead["tokens"], ahead["points"]) == (320_000, 4)  # the two before the last phase are no part of it
    assert ahead["value"] == pytest.approx(13 * 3200**-0.1)
    assert ahead["low"] == pytest.approx(ahead["value"]) == ahead["high"]
    (said, other) = training.sentences(frame[frame["run"] == "one 4x"])[:1] + training.sentences(frame)[:1]
    assert said.startswith("one 4x, reconstruction (nats a token): 7.30 after 32,000 tokens; 10 times as many would ")
    assert "bring 5.80 [5.80, 5.80] (power law through 4 measurements" in said and other.startswith("one 2x")


def test_noise_widens_the_interval_and_too_few_points_have_no_line(tmp_path: Path) -> None:
    frame = training.over_tokens(load([run(tmp_path / "one", noise=0.02)]))
    for _, ahead in frame[frame["part"] == "10x"].iterrows():
        assert ahead["low"] < ahead["value"] - 0.1 and ahead["high"] > ahead["value"] + 0.1
    path = tmp_path / "one" / "evaluation.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    frame = training.over_tokens(load([tmp_path / "one"]))
    assert set(frame["part"]) == {"measured"} and training.sentences(frame) == []


def test_runs_are_held_together_after_equal_tokens(tmp_path: Path) -> None:
    run(tmp_path / "pooled")
    longer = run(tmp_path / "tokens", shift=1.0)
    frame = training.held_against(load([tmp_path])).set_index("run")
    assert set(frame.index) == {f"{name} {rate}x" for name in ("pooled", "tokens") for rate in (2, 4)}
    row = frame.loc["pooled 4x"]
    assert row["value"] == pytest.approx(13 * 320**-0.1) and row["tokens"] == 32_000
    assert row["low"] < row["value"] < row["high"] < frame.loc["tokens 4x", "low"]
    path = longer / "evaluation-rows.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))  # it was stopped after 16,000 tokens
    assert set(training.held_against(load([tmp_path]))["tokens"]) == {16_000}


def test_runs_on_other_rows_are_not_held_together(tmp_path: Path) -> None:
    path = run(tmp_path / "one") / "evaluation-rows.jsonl"
    run(tmp_path / "other")
    path.write_text(path.read_text().replace("[10, 10,", "[11, 10,"))
    assert training.held_against(load([tmp_path])).empty
    path.write_text('{"step": 0, "measure": "ae_loss_4x", "nll": [1.0], "tokens": [1, 2]}\n')
    with pytest.raises(UsageError, match=r"evaluation-rows\.jsonl, line 1: 1 losses of 2 rows"):
        load([tmp_path])


def test_a_report_draws_and_says_it(tmp_path: Path) -> None:
    for name, shift in (("pooled", 0.0), ("tokens", 0.5)):
        run(tmp_path / "runs" / name, noise=0.01, shift=shift)
    made = report.write([tmp_path / "runs"], tmp_path / "report")
    assert sum("10 times as many would bring" in note for note in made.notes) == 4
    assert "10 times as many would bring" in (tmp_path / "report" / "index.html").read_text()
    names = {path.name for path in (tmp_path / "report" / "figures").glob("*.csv")}
    assert {"training.csv", "training-tokens.csv", "training-compared.csv"} <= names
