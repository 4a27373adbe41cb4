"""Results fit to be published: everything a report reads, and nothing about the machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_results import make

from pcc_bench.core.errors import UsageError
from pcc_bench.reports.report import pack, tables
from pcc_bench.results.collection import load


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = make(tmp_path / "results", rows=8, methods=["full", "none", "lite-4"])
    for path in folder.rglob("results_*.json"):
        made = json.loads(path.read_text())
        made |= {"pretty_env_info": "OS: Debian\n", "git_hash": "9f8e7d"}
        made["config"]["home"] = {"/home/me/models/decoder": ["C:\\models\\decoder", "a / b", "/"]}
        path.write_text(json.dumps(made))
    return folder


def test_a_packed_run_has_no_paths_and_no_machine(results: Path, tmp_path: Path) -> None:
    written = pack([results], tmp_path / "packed")
    text = "".join(path.read_text() for path in written if path.suffix == ".json")
    assert "/home/me" not in text and "Debian" not in text and "9f8e7d" not in text
    config = json.loads(next(path for path in written if path.suffix == ".json").read_text())["config"]
    assert config["home"] == {"decoder": ["decoder", "a / b", "/"]}


def test_a_report_of_packed_results_is_the_report_of_the_results(results: Path, tmp_path: Path) -> None:
    pack([results], tmp_path / "packed")
    before, after = (tables(load([folder])) for folder in (results, tmp_path / "packed" / "results"))
    assert [table.key for table in after] == [table.key for table in before]
    assert [table.cells for table in after] == [table.cells for table in before]


def test_a_packed_suite_is_still_told_from_others(results: Path, tmp_path: Path) -> None:
    (results / "suite.json").write_text('{"suite": "my-ablations"}')
    pack([results], tmp_path / "packed")
    before, after = (load([folder]).runs for folder in (results, tmp_path / "packed"))
    assert [run.labels for run in after] == [run.labels for run in before]
    assert {name for run in after for name in run.labels} == {"my-ablations"}


def test_packing_twice_gives_the_same_bytes(results: Path, tmp_path: Path) -> None:
    first, second = (pack([results], tmp_path / name) for name in ("first", "second"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_folder_without_results_and_a_damaged_file_are_one_sentence(results: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no results in"):
        pack([tmp_path / "empty"], tmp_path / "packed")
    next(results.rglob("results_*.json")).write_text("{")
    with pytest.raises(UsageError, match="is not valid JSON"):
        pack([results], tmp_path / "packed")
