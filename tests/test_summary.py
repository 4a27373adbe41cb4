"""The table of result files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from result_files import Task, write_run

from pcc_bench.core.errors import UsageError
from pcc_bench.core.texttable import TextTable
from pcc_bench.reports.compare import summarise


def result(folder: Path, name: str = "pcc", **changes: Any) -> Path:
    """A result file as lm-eval writes it, with two logged samples."""
    population = {"kept": 8, "rows_read": 10, "fingerprint": "f00", "protocol": "strict", "population": "paper"}
    scores = {"exact_match": 0.5, "exact_match_stderr": 0.25, "f1": 0.625, "compression": 2.5}
    ours = {"method": name, "requested_rate": 4.0, "skipped": {"t": [7]}, **changes.pop("pcc_bench", {})}
    seconds = {"compress_seconds": 1.0, "prefill_seconds": 0.5, "decode_seconds": 0.25}
    records = [{"source_tokens": 10, "slots": 2, "boundary": 2}, {"source_tokens": 90, "slots": 8, "boundary": 2}]
    lines = [
        {"doc_id": row, "doc": {}, "metrics": [], "compression": record | seconds} for row, record in enumerate(records)
    ]
    task = Task(
        scores | {"compression_stderr": "N/A"}, lines, population={**population, **changes.pop("population", {})}
    )
    path = write_run(folder, {"t": task}, ours, **{"model_name": "some/where", **changes})
    state = json.loads(path.read_text("utf-8"))
    state["results"]["g"] = {"f1,none": 0.625}  # of a group
    path.write_text(json.dumps(state), "utf-8")
    return path


def cells(table: TextTable) -> dict[str, str]:
    return dict(zip(table.columns, table.rows[0], strict=True))


def test_a_line_states_scores_and_costs(tmp_path: Path) -> None:
    assert cells(summarise([result(tmp_path)])) == {
        "method": "pcc",
        "model": "where",
        "task": "t",
        "n": "2 (1 skipped)",
        "EM": "50.0 ± 25.0",
        "F1": "62.5",
        "rate": "4.00x",
        "achieved": "2.50x",
        "slots only": "10.00x",  # (10 + 90) / (2 + 8); the mean of the ratios would be 8.1
        "kept": "8 of 10",
        "s/row": "1.750",
    }


def test_folders_are_searched_and_groups_left_out(tmp_path: Path) -> None:
    for name in ("pcc", "no-context"):
        result(tmp_path / name, name)
    table = summarise([tmp_path / "pcc", tmp_path / "no-context"])
    assert [row[0] for row in table.rows] == ["pcc", "no-context"]


def test_a_control_is_named(tmp_path: Path) -> None:
    table = summarise([result(tmp_path, pcc_bench={"control": "wrong_memory"})])
    assert cells(table)["method"] == "pcc (wrong_memory)"


def test_a_model_of_lm_eval_has_scores_only(tmp_path: Path) -> None:
    table = summarise([result(tmp_path, config={"model": "hf"}, configs={"t": {}})])
    assert (cells(table)["method"], "rate" in table.columns, "kept" in table.columns) == ("hf", False, False)
    assert not any(note.startswith("rate:") for note in table.notes)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"population": {"fingerprint": "bar"}}, "data fingerprint"),
        ({"population": {"protocol": "official"}}, "protocol"),
        ({"population": {"population": "all"}}, "population"),
        ({"n-shot": {"t": 3}}, "number of shots"),
        ({"versions": {"t": 2}}, "task version"),
        ({"pcc_bench": {"skipped": {}}}, "number of rows"),
    ],
)
def test_answers_to_different_questions_are_not_mixed(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    one, other = result(tmp_path / "one"), result(tmp_path / "other", **changes)
    with pytest.raises(UsageError, match=f"other.*one.*{what} of t is"):
        summarise([one, other])


def test_files_that_are_no_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results at"):
        summarise([tmp_path])
    with pytest.raises(UsageError, match="no results at"):
        summarise([tmp_path / "nothing.json"])
    (tmp_path / "results_x.json").write_text("[]", "utf-8")
    with pytest.raises(UsageError, match="not a result file of lm-eval"):
        summarise([tmp_path])


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="schema version 99"):
        summarise([result(tmp_path, pcc_bench={"schema_version": 99})])


def test_markdown_is_aligned() -> None:
    table = TextTable(("a", "long"), (("x", ""), ("yyy", "z")), ("A note.",))
    assert table.markdown().splitlines() == [
        "| a   | long |",
        "|-----|------|",
        "| x   |      |",
        "| yyy | z    |",
        "",
        "A note.",
    ]
