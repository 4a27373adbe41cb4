"""`pcc-bench report` and `pcc-bench compare`: files, readers, mistakes, tables inside a README."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from command import lm_eval_run
from result_files import POPULATION
from written_results import questions, right, write

from pcc_bench import cli, stats
from pcc_bench.cli import terminal
from pcc_bench.core.errors import UsageError
from pcc_bench.reports import compare, render, report
from pcc_bench.results.collection import load
from pcc_bench.results.reading import read_answers

ROOT = Path(__file__).parent.parent
START = "<!-- report:table2 -->\n"


def said(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit status and what was printed by `pcc-bench`."""
    try:
        cli.main([str(word) for word in words])
    except SystemExit as end:
        out = capsys.readouterr()
        return int(end.code or 0), out.out + out.err
    raise AssertionError("the command line always ends by an exit")


# ---------------------------------------------------------------- the command


def test_a_real_run_becomes_a_report(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method, model in (("pcc", "pcc"), ("no-context", "llama")):
        arguments = ["--model", method, "--tasks", "pcc_squad", "--limit", "8", "--batch_size", "8"]
        lm_eval_run(tmp_path / "in" / method, *arguments, "--model_args", f"pretrained={models / model},dtype=float32",
                    "--metadata", '{"population": "all"}')  # fmt: skip
    status, text = said(capsys, "report", tmp_path / "in", "-o", tmp_path / "out")
    assert status == 0, text
    assert "tables: table2" in text
    made = (tmp_path / "out" / "tables" / "table2.md").read_text("utf-8")
    assert "| PCC-Lite 4x " in made
    assert "SQuAD: 8 rows on" in made
    for name in ("table2.md", "table2.tex", "table2.csv", "all.tex"):
        assert (tmp_path / "out" / "tables" / name).stat().st_size
    assert (tmp_path / "out" / "index.html").is_file()
    answer = next(one for one in read_answers(load([tmp_path / "in"]).runs[0].tasks["pcc_squad"]) if one.row == 3)
    assert answer.question.endswith("?")
    assert answer.references
    assert answer.context not in answer.question


def test_published_values_alone_make_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = said(capsys, "report", "--paper", "-o", tmp_path)
    assert (status, "tables: table2, table3, table4" in text) == (0, True)
    assert "69.55 (B)" in (tmp_path / "tables" / "table3.md").read_text("utf-8")


def test_without_arguments_the_shipped_results_are_reported_or_their_lack_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text = said(capsys, "report", "-o", tmp_path)
    try:
        report.shipped()
    except UsageError as error:
        assert (status, str(error) in text) == (2, True)
    else:
        assert (status, "table2" in text) == (0, True)


# ---------------------------------------------------------------- readers


def test_compressed_samples_read_as_plain_ones(tmp_path: Path) -> None:
    for name, zipped in (("plain", False), ("zipped", True)):
        write(tmp_path / name, "pcc", questions(0.5), 4.0, zipped=zipped)
    plain, zipped = (report.BUILDERS["table2"](load([tmp_path / name])).cells for name in ("plain", "zipped"))
    assert plain == zipped


def test_of_a_run_made_twice_the_newest_is_shown_and_said(tmp_path: Path) -> None:
    write(tmp_path / "b", "pcc", {"pcc_squad": {"f1": right(0.1, 40, 0)}}, 4.0, stamp="2026-01-01", date=1.8e9)
    new = {"pcc_squad": {"f1": right(0.9, 40, 0)}}
    write(tmp_path / "a", "pcc", new, 4.0, stamp="2026-02-01", date=1.9e9)
    loaded = load([tmp_path])
    (run,) = loaded.runs
    assert run.tasks["pcc_squad"].scores["f1"] == pytest.approx(np.mean(new["pcc_squad"]["f1"]))
    (note,) = loaded.notes
    assert "a/results_2026-02-01.json is shown, " in note
    assert "b/results_2026-01-01.json is older and left out" in note


def test_older_results_are_read_and_newer_ones_refused(tmp_path: Path) -> None:
    write(tmp_path / "old", "pcc", questions(0.5), 4.0, schema_version=0)
    assert load([tmp_path / "old"]).runs[0].reported.schema_version == 0
    path = write(tmp_path / "new", "pcc", questions(0.5), 4.0, schema_version=99)
    with pytest.raises(UsageError, match=f"{path} has schema version 99.*update it"):
        load([tmp_path / "new"])


def test_without_samples_there_are_lm_evals_errors_and_a_sentence(tmp_path: Path) -> None:
    write(tmp_path, "pcc", {"pcc_squad": {"f1": right(0.5, 40, 0)}}, 4.0, samples=False)
    made = report.BUILDERS["table2"](load([tmp_path]))
    cell = made.cell("PCC 4x", "squad.f1")
    assert cell.low == pytest.approx(cell.value - 1.96)  # a standard error of 0.01
    assert any(note.startswith("No samples of pcc-4x-checkpoint") for note in made.notes)


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (lambda folder: folder.mkdir(), "no results at"),
        (lambda folder: None, "no results at"),
        (lambda folder: (folder.mkdir(), (folder / "results_x.json").write_text("{", "utf-8")), "is not valid JSON"),
        (lambda folder: write(folder, "pcc", {"else": {"acc": [1.0, 0.0]}}, 4.0), ""),
    ],
    ids=["empty", "missing", "half", "other tasks"],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], prepare: object, sentence: str
) -> None:
    assert callable(prepare)
    prepare(tmp_path / "in")
    status, text = said(capsys, "report", tmp_path / "in", "-o", tmp_path / "out")
    assert "Traceback" not in text
    assert (status, sentence in text) == (2 if sentence else 0, True)
    assert not sentence or len(text.splitlines()) == 1


def test_an_output_folder_that_cant_be_written_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("a file", "utf-8")
    status, text = said(capsys, "report", "--paper", "-o", tmp_path / "out")
    assert (status, "choose another folder" in text, len(text.splitlines())) == (2, True, 1)


# ---------------------------------------------------------------- compare


def pair(folder: Path, a: Sequence[float], b: Sequence[float], per_context: int = 1) -> list[compare.RowComparison]:
    for name, scores in (("a", a), ("b", b)):
        write(
            folder / name, "pcc", {"pcc_squad": {"exact_match": scores}}, 4.0, f"ckpt-{name}", per_context=per_context
        )
    return compare.compare(folder / "a", folder / "b")[0]


def test_a_comparison_is_paired(tmp_path: Path) -> None:
    a = right(0.5, 200, 0)
    b = [1.0 if row % 20 == 0 else score for row, score in enumerate(a)]
    (one,) = pair(tmp_path, a, b)
    gained = int(np.sum(np.array(b) > np.array(a)))
    assert one.b - one.a == pytest.approx(100 * gained / 200)
    assert one.mcnemar == pytest.approx(scipy.stats.binomtest(gained, gained).pvalue)
    assert one.p == pytest.approx(one.mcnemar)  # all sign patterns are gone through
    assert 0 < one.low < one.b - one.a < one.high
    assert (one.holm, one.better) == (one.p, "B" if one.p < 0.05 else "")


def test_rows_on_one_context_are_not_independent(tmp_path: Path) -> None:
    a, b = [0.0] * 60, [1.0] * 30 + [0.0] * 30
    (rows,) = pair(tmp_path / "rows", a, b)
    (contexts,) = pair(tmp_path / "contexts", a, b, per_context=30)
    assert rows.p < 0.001
    assert (contexts.p, contexts.contexts, contexts.mcnemar) == (1.0, 2, None)


def test_comparisons_are_adjusted_for_being_several(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 50)):
        write(tmp_path / name, "pcc", questions(0.5, 100, seed), 4.0, f"ckpt-{name}")
    found, _ = compare.compare(tmp_path / "a", tmp_path / "b")
    assert len(found) == 12
    assert [one.holm for one in found] == pytest.approx(stats.holm([one.p for one in found]).tolist())


def test_a_lower_perplexity_is_better(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, nll in (("a", 2.0), ("b", 1.5)):
        rows = [[float(-10 * (nll + rng.normal(0, 0.1))), 10] for _ in range(40)]
        write(tmp_path / name, "pcc", {"pcc_hpd_1_memory": {"perplexity": rows}}, 4.0, f"ckpt-{name}")
    ((one,), _) = compare.compare(tmp_path / "a", tmp_path / "b")
    assert one.better == "B"
    assert one.low < one.b - one.a < one.high < 0


def test_rows_without_a_partner_are_left_out_and_said(tmp_path: Path) -> None:
    write(tmp_path / "a", "pcc", {"pcc_squad": {"f1": right(0.5, 40, 0)}}, 4.0)
    write(tmp_path / "b", "pcc", {"pcc_squad": {"f1": right(0.5, 30, 1)}}, 16.0)
    (one,), notes = compare.compare(tmp_path / "a", tmp_path / "b")
    assert one.n == 30
    assert notes == ["pcc_squad: 10 rows of A and 0 of B have no partner in the other and are left out."]


def test_what_cant_be_compared_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write(tmp_path / "a", "pcc", questions(0.5), 4.0)
    other = {**POPULATION, "population": "all"}
    b = write(tmp_path / "b", "pcc", questions(0.5), 16.0, population=other)
    bare = write(tmp_path / "bare", "pcc", questions(0.5), 16.0, samples=False)
    cases = [
        ((a, b), "population of pcc_squad is paper in the first and all in the second"),
        ((a, bare), f"no samples of pcc_squad beside {bare}"),
        ((a, a, "--metric", "rougeL"), "no common scores of rows for rougeL: there are pcc_squad: exact_match, f1"),
        ((a, tmp_path / "nothing"), "no results at"),
        ((tmp_path, a), "holds two runs of pcc_squad"),
    ]
    for words, sentence in cases:
        status, text = said(capsys, "compare", *words)
        assert (status, sentence in text, "Traceback" in text) == (2, True, False), text


def test_the_command_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write(tmp_path / "a", "pcc", questions(0.2), 4.0)
    b = write(tmp_path / "b", "pcc", questions(0.8, seed=50), 16.0)
    status, text = said(capsys, "compare", a, b, "--metric", "f1")
    assert status == 0
    assert "| pcc_squad " in text
    assert text.count("| B ") >= 1


# ---------------------------------------------------------------- tables inside a README


def test_tables_are_renewed_between_markers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in", "pcc", questions(0.5), 4.0)
    page = tmp_path / "README.md"
    page.write_text(f"before\n\n{START}stale\n<!-- /report -->\n\nafter\n", "utf-8")
    words = ("report", tmp_path / "in", "-o", tmp_path / "out", "--into", page)
    assert f"renewed: {page}" in said(capsys, *words)[1]
    text = page.read_text("utf-8")
    assert text.startswith(f"before\n\n{START}|")
    assert text.endswith("<!-- /report -->\n\nafter\n")
    assert "stale" not in text
    assert "paper" not in text.split(START)[1].splitlines()[0]  # our numbers alone
    assert f"up to date: {page}" in said(capsys, *words)[1]


def test_a_marker_without_a_table_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in", "pcc", questions(0.5), 4.0)
    page = tmp_path / "README.md"
    for text, sentence in (
        (START.replace("2", "9") + "<!-- /report -->", "asks for the table 'table9'"),
        ("x", "add the"),
    ):
        page.write_text(text, "utf-8")
        status, told = said(capsys, "report", tmp_path / "in", "-o", tmp_path / "out", "--into", page)
        assert (status, sentence in told) == (2, True)


def test_the_projects_readme_is_what_the_shipped_results_say() -> None:
    try:
        shipped = report.shipped()
    except UsageError:
        pytest.skip("the lab's results are not in the package yet: there is nothing to renew the README from")
    text = (ROOT / "docs" / "results.md").read_text("utf-8")
    assert START in text, "docs/results.md shows no table of the shipped results"
    tables = {table.key: render.brief(table) for table in report.tables(load([shipped]))}
    assert terminal.filled(text, "report", tables) == text, "run: pcc-bench report -o report --into docs/results.md"


def test_every_line_of_a_readme_table_was_measured(tmp_path: Path) -> None:
    write(tmp_path, "pcc", questions(0.5), 4.0)
    text = render.brief(report.BUILDERS["table2"](load([tmp_path])))
    assert "BenchPress" not in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 3
    assert json.dumps(lines).count("PCC 4x") == 1
