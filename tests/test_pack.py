"""Results fit to be published: everything a report reads, and nothing about the machine."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest
from made_results import make

from pcc_bench.core.errors import UsageError
from pcc_bench.reports.report import pack, tables
from pcc_bench.results.collection import load
from pcc_bench.results.rows import samples


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


def test_packed_samples_are_the_samples_and_their_questions_are_written_once(results: Path, tmp_path: Path) -> None:
    written = pack([results], tmp_path / "packed")
    whole = sorted(results.rglob("samples_*"))
    packed = [tmp_path / "packed" / "results" / f"{path.relative_to(results)}.xz" for path in whole]
    assert [list(samples(path)) for path in packed] == [list(samples(path)) for path in whole]
    assert sorted(path for path in written if "questions_" in path.name) == sorted(tmp_path.rglob("questions_*"))
    tasks = {path.name.rpartition("_")[0] for path in whole}
    assert len(list(tmp_path.rglob("questions_*"))) == len(tasks) < len(whole) // 2
    again = pack([tmp_path / "packed" / "results"], tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written]


def test_packed_answers_without_their_questions_are_one_sentence(results: Path, tmp_path: Path) -> None:
    pack([results], tmp_path)
    file = next(path for path in (tmp_path / "results").rglob("samples_*") if "squad" in path.name)
    questions = next(path for path in (tmp_path / "results").glob("questions_*") if "squad" in path.name)
    head, *answers = lzma.decompress(file.read_bytes()).splitlines(keepends=True)
    for lines in (
        [head, *answers[1:]],
        [head, *answers[:-1]],
        [head, *reversed(answers)],
        [head, b"1\n", *answers[1:]],
    ):
        file.write_bytes(lzma.compress(b"".join(lines)))
        with pytest.raises(UsageError, match=r"not the row that questions_.* has in that place"):
            list(samples(file))
    for name in (
        "../questions_x",
        "questions_../x",
        "/etc/passwd",
        ["questions_x"],
        "questions_" + "x" * 300,
        questions.name,
    ):
        file.write_bytes(lzma.compress(json.dumps({"questions": name}).encode()))
        questions.unlink(missing_ok=True)
        with pytest.raises(UsageError, match="copy the packed folder whole"):
            list(samples(file))


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
