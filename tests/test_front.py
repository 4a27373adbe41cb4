"""What a user meets first: help, lists and tables at the width of a terminal, defaults, names, equal runs, Ctrl-C."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from written_results import questions, write

from pcc_bench import cli
from pcc_bench.cli.terminal import show
from pcc_bench.core import registry, shipped
from pcc_bench.core.errors import UsageError
from pcc_bench.core.texttable import TextTable
from pcc_bench.gate.compare import judge
from pcc_bench.gate.policy import Policy, Rule
from pcc_bench.gate.scores import Scores
from pcc_bench.host import inventory
from pcc_bench.host.arguments import default_checkpoint
from pcc_bench.suite import runner
from pcc_bench.suite.spec import Settings, Suite

ANSI = re.compile(r"\x1b\[[0-9;]*m")
VERBS = sorted(
    command.name or command.callback.__name__.rstrip("_") for command in cli.app.registered_commands if command.callback
)


VERBS += [
    f"{group.name or group.typer_instance.info.name} {command.name or command.callback.__name__}"
    for group in cli.app.registered_groups
    for command in group.typer_instance.registered_commands
    if command.callback
]


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_fits_a_hundred_columns(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERMINAL_WIDTH", "100")
    with pytest.raises(SystemExit):
        cli.main([*verb.split(), "--help"])
    lines = ANSI.sub("", capsys.readouterr().out).splitlines()
    assert len(lines) > 5
    for line in lines:
        assert len(line) <= 100
        assert not line.startswith("\u2502") or line.rstrip().endswith("\u2502"), line  # a row has both borders


def test_help_has_the_verbs_in_the_order_of_a_learner(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    lines = [line.strip("\u2502 ").split(" ")[0] for line in ANSI.sub("", capsys.readouterr().out).splitlines()]
    places = [lines.index(verb) for _, verb, *_ in cli.VERBS]
    assert places == sorted(places)
    assert {line for line in lines if line in (verb for _, verb, *_ in cli.VERBS)} == {
        verb.split()[0] for verb in VERBS
    }


@pytest.mark.parametrize("kind", sorted(inventory.LISTS))
def test_lists_fit_a_hundred_columns(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = inventory.LISTS[kind]()
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    show(table)
    out = ANSI.sub("", capsys.readouterr().out)
    assert all(len(line) <= 100 for line in out.splitlines())
    names = [row[0] for row in table.rows]
    assert all(name in out for name in names), "a name is broken over two lines"


@pytest.mark.parametrize("words", ["lab ls", "lab table", "lab findings", "gate", "cost"])
def test_tables_of_verbs_fit_a_hundred_columns(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    arguments = words.split()
    if words == "gate":
        for name in ("a", "b"):
            write(tmp_path / name, "pcc", questions(0.5), 4.0)
        arguments += [str(tmp_path / "a"), "--against", str(tmp_path / "b")]
    elif words == "cost":
        arguments += [
            "--predict",
            "--random-weights",
            "tiny",
            "--context",
            "64",
            "--device-peak",
            "9",
            "--bandwidth",
            "9",
        ]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    with contextlib.suppress(SystemExit):
        cli.main(arguments)
    out = ANSI.sub("", capsys.readouterr().out)
    rows = [line for line in out.splitlines() if line.startswith("  ")]
    assert len(rows) > 3, out
    assert all(len(line) <= 100 for line in rows)
    assert "| " not in out, "Markdown is for pipes"


def test_help_takes_less_than_half_a_second_of_processor_time() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "pcc_bench.cli", "run", "--help"], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    coverage = 2 if "COVERAGE_RUN" in os.environ else 1
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5 * coverage


def test_validate_has_the_options_and_the_defaults_of_eval() -> None:
    options = {name: p.default for name, p in inspect.signature(cli.evaluate).parameters.items()}
    same = {name: p.default for name, p in inspect.signature(cli.validate).parameters.items()}
    required = {name for name, default in options.items() if default is inspect.Parameter.empty}
    assert required == {"tasks", "output"}
    assert {n: d for n, d in same.items() if n not in required} == {
        n: d for n, d in options.items() if n not in required
    }
    assert same.keys() == options.keys()


@pytest.mark.parametrize("name", sorted(registry.METHODS))
def test_a_method_starts_with_what_ships(name: str) -> None:
    kind = registry.get(name)
    default = default_checkpoint(kind, {})
    if name == "pisco":
        assert default is None
        return
    assert default is not None
    assert Path(shipped.located(kind.decoder_path(default, None))).is_dir()
    assert default_checkpoint(kind, {"pretrained": "mine"}) is None


def test_a_decoder_alone_names_a_run_of_a_method_without_weights() -> None:
    assert default_checkpoint(registry.get("bm25-context"), {"decoder": "some/llm"}) == "some/llm"
    assert default_checkpoint(registry.get("pcc"), {"decoder": "some/llm"}) == shipped.DEFAULT


def test_only_takes_the_labels_of_reports(tmp_path: Path) -> None:
    cells = Suite.read("lab-table2").plan(tmp_path, Settings(), None)
    for pattern, label in {
        "PCC-Lite 4x": "PCC 4x",
        "BM25 context 16x": "bm25 context 16x",
    }.items():
        assert [cell.label for cell in runner.choose(cells, pattern)] == [label]
    with pytest.raises(UsageError, match="did you mean 'PCC 4x'"):
        runner.choose(cells, "PCC 4y")


def test_equal_runs_are_told_how_many_rows_are_missing() -> None:
    import numpy as np

    def line(rows: int) -> str:
        equal = np.resize([0.0, 1.0], rows)
        contexts = [("t", row) for row in range(rows)]
        scores = Scores("t", "f1", Rule(absolute=0.0), True, 1, equal, equal.copy(), contexts)
        (found,) = judge([scores], Policy(), 0.05)
        return found.reason

    said = re.fullmatch(r"identical in all 60 rows; too few to rule out 1 point: ([\d,]+) more", line(60))
    assert said is not None
    more = int(said[1].replace(",", ""))
    assert line(60 + more) == "a drop beyond the rule is ruled out"
    assert line(59 + more).endswith(": 1 more")


def test_a_stopped_run_says_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", stopped)
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "lab-table2", "--output", str(tmp_path / "out"), "--only", "full context", "--limit", "2"])
    assert ended.value.code == 130
    said = capsys.readouterr().err
    assert "stopped: 0 of 15 cells are done, 0 answers are kept" in said and "the same command goes on" in said


def test_a_narrow_table_keeps_its_legend() -> None:
    table = TextTable(("a", "b"), (("1", "2"),), legend={"a": "on a", "b": "on b"}).with_columns(["b"])
    assert (table.columns, table.rows, table.sentences()) == (("b",), (("2",),), ["on b"])
