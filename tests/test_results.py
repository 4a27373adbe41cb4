"""One reading of results: what makes runs another experiment, what is refused at the door, what a name can't do."""

from __future__ import annotations

import copy
import csv
import io
import json
import lzma
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from test_gate import answers, qa, run_folder
from written_results import questions, write

from pcc_bench import cli
from pcc_bench.cli import terminal
from pcc_bench.core import texttable
from pcc_bench.core.errors import UsageError
from pcc_bench.core.texttable import TextTable
from pcc_bench.gate.compare import compare
from pcc_bench.gate.policy import Policy
from pcc_bench.gate.result import Comparison, Verdict, append_summary, junit, markdown, workflow_commands
from pcc_bench.reports import compare as comparing
from pcc_bench.reports import render, report
from pcc_bench.results.collection import load as load_results
from pcc_bench.results.frozen import SUFFIX, freeze, load
from pcc_bench.results.run import difference

STAMP = "2026-01-01T00-00-00"
EVIL = "a|b\n::error::owned <img src=x> [x](http://y) \x1b[31m\x00 $\\input{x}"


def said(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit status and error of `pcc-bench`."""
    capsys.readouterr()
    try:
        cli.main([str(word) for word in words])
    except SystemExit as ended:
        return int(ended.code or 0), capsys.readouterr().err
    return 0, capsys.readouterr().err


def changed(path: Path, change: Callable[[Any], None]) -> Path:
    state = json.loads(path.read_text("utf-8"))
    change(state)
    path.write_text(json.dumps(state), "utf-8")
    return path


def rows_of(folder: Path) -> Path:
    return next(folder.glob("samples_*"))


# ---------------------------------------------------------------- protocol


PROTOCOLS: dict[str, Callable[[Any], None]] = {
    "task version": lambda data: data["versions"].update(t=2.0),
    "population": lambda data: data["configs"]["t"]["metadata"]["population"].update(population="paper"),
    "prompt": lambda data: data["configs"]["t"]["metadata"]["population"].update(prompt="chat"),
    "number of shots": lambda data: data["n-shot"].update(t=2),
    "examples as turns": lambda data: data.update(fewshot_as_multiturn=True),
    "chat template": lambda data: data.update(chat_template_sha="c0ffee"),
    "system instruction": lambda data: data.update(system_instruction_sha="c0ffee"),
    "decoding": lambda data: data["configs"]["t"].update(generation_kwargs={"until": [], "temperature": 1.0}),
    "decoder": lambda data: data["config"]["pcc_bench"].update(fingerprints={"decoder_weights": "other"}),
    "dtype": lambda data: data["config"].update(model_dtype="torch.bfloat16"),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_what_the_gate_refuses_is_another_run_in_the_report(tmp_path: Path, name: str) -> None:
    """The same protocol everywhere: nothing is "run twice" that the gate calls another experiment."""
    scores = {"t": {"scores": qa(answers(20))}}
    one = run_folder(tmp_path / "one", scores)
    other = changed(run_folder(tmp_path / "other", scores), PROTOCOLS[name])
    tasks = [load(path).tasks["t"] for path in (one, other)]
    found = difference(tasks[0].protocol, tasks[1].protocol)
    assert found is not None and found[0] == name
    with pytest.raises(UsageError, match=f"t was run in different ways: {name} is"):
        compare(load(other), load(one), Policy())
    loaded = load_results([tmp_path])
    assert (len(loaded.runs), loaded.notes) == (2, ())


def test_the_same_run_made_twice_is_still_said(tmp_path: Path) -> None:
    for name in ("one", "other"):
        run_folder(tmp_path / name, {"t": {"scores": qa(answers(20))}})
    loaded = load_results([tmp_path])
    assert len(loaded.runs) == 1
    assert "was run twice" in loaded.notes[0]


def test_an_older_baseline_is_read_and_what_it_does_not_record_is_said(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", {"t": {"scores": qa(answers(200))}})
    state = json.loads(lzma.decompress(freeze(load(run))))
    state["schema_version"] = 1
    known = ("protocol", "number of shots", "task version", "decoding", "chat template", "system instruction")
    state["tasks"]["t"]["asked"] = {name: state["tasks"]["t"]["asked"][name] for name in known}
    old = tmp_path / f"old{SUFFIX}"
    old.write_bytes(lzma.compress(json.dumps(state).encode()))
    verdict = compare(load(run), load(old), Policy())
    assert verdict.status == 0
    assert any("only one run records it: data source, decoder, dtype" in note for note in verdict.notes)


# ---------------------------------------------------------------- rows


def test_rows_that_stand_twice_are_refused_in_files_and_baselines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = qa(answers(200)), qa(answers(200) * 0)
    base = run_folder(tmp_path / "base", {"t": {"scores": good}})
    twice = run_folder(tmp_path / "twice", {"t": {"scores": bad}})
    with rows_of(tmp_path / "twice").open("a") as lines:
        lines.write(rows_of(tmp_path / "base").read_text())
    hashed = run_folder(tmp_path / "hashed", {"t": {"scores": good}})
    line = json.loads(rows_of(tmp_path / "hashed").read_text().splitlines()[0])
    with rows_of(tmp_path / "hashed").open("a") as lines:
        lines.write(json.dumps({**line, "doc_hash": "another", "filter": "second"}) + "\n")
    state = json.loads(lzma.decompress(freeze(load(base))))
    state["tasks"]["t"]["rows"][1] = state["tasks"]["t"]["rows"][0]
    frozen = tmp_path / f"twice{SUFFIX}"
    frozen.write_bytes(lzma.compress(json.dumps(state).encode()))
    for words, says in (
        (("gate", twice, "--against", base), "has row 0 twice"),
        (("gate", base, "--against", twice), "has row 0 twice"),
        (("baseline", "freeze", twice, "-o", tmp_path / f"x{SUFFIX}"), "has row 0 twice"),
        (("compare", base, twice), "has row 0 twice"),
        (("gate", base, "--against", hashed), "has row 0 with two contents"),
        (("gate", base, "--against", frozen), "a row is there twice"),
    ):
        status, error = said(capsys, *words)
        assert (status, says in error, error.count("\n")) == (2, True, 1), error


def test_packing_a_packed_folder_keeps_its_samples(tmp_path: Path) -> None:
    from pcc_bench.reports.report import pack

    write(tmp_path / "run", "no-context", {"pcc_squad": {"f1": [0.0, 1.0]}})
    first = pack([tmp_path / "run"], tmp_path / "one")
    second = pack([tmp_path / "one" / "run"], tmp_path / "two")
    assert [path.name for path in first] == [path.name for path in second]
    assert "NaN" not in first[0].read_text() and '"compression,none":null' in first[0].read_text()
    assert report.tables(load_results([tmp_path / "two"]))[0].measured


# ---------------------------------------------------------------- rules that can't be switched off


def test_a_baseline_that_lacks_accounts_fails_where_a_rule_is_spelled_out(tmp_path: Path) -> None:
    bare = run_folder(tmp_path / "bare", {"t": {"scores": qa(answers(200))}})
    lines = [json.loads(line) for line in rows_of(tmp_path / "bare").read_text().splitlines()]
    text = "\n".join(json.dumps({key: value for key, value in line.items() if key != "compression"}) for line in lines)
    rows_of(tmp_path / "bare").write_text(text)
    explicit = Policy.model_validate({"costs": {"ratio": {"tolerance": 0.02}, "memory": {"at_most": 1.0}}})
    verdict = compare(load(bare), load(bare), explicit)
    failed = {line.metric: line.reason for line in verdict.comparisons if line.verdict == "fail"}
    assert set(failed) == {"ratio", "memory"}
    assert "the baseline keeps no account" in failed["ratio"]
    default = compare(load(bare), load(bare), Policy())  # a model of lm-eval keeps none
    assert default.status == 0
    assert sum("is not compared: the baseline keeps no account" in note for note in default.notes) == 2
    del lines[3]["compression"]  # one row without one is no such model
    rows_of(tmp_path / "bare").write_text("\n".join(map(json.dumps, lines)))
    verdict = compare(load(bare), load(bare), Policy())
    assert {line.metric for line in verdict.comparisons if line.verdict == "fail"} == {"ratio", "memory"}


def test_nothing_compared_is_no_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = run_folder(tmp_path / "base", {"t": {"scores": qa(answers(200))}})
    state = json.loads(lzma.decompress(freeze(load(base))))
    for name, tasks in (("none", {}), ("empty", {"t": {**state["tasks"]["t"], "rows": []}})):
        path = tmp_path / f"{name}{SUFFIX}"
        path.write_bytes(lzma.compress(json.dumps({**state, "tasks": tasks}).encode()))
        assert said(capsys, "gate", base, "--against", path)[0] == 2
    with pytest.raises(UsageError, match="a pass would say nothing"):
        compare(load(base), replace(load(base), tasks={}), Policy())
    policy = Policy.model_validate({"costs": {"records": {"counts_at_most": 1.1}}})
    reasons = [line.reason for line in compare(load(base), load(base), policy).comparisons if line.verdict == "fail"]
    assert reasons == ["the policy has a rule on records of cost, and neither baseline nor --reference has any"]


def test_scores_in_another_unit_do_not_pass(tmp_path: Path) -> None:
    share = run_folder(tmp_path / "share", {"t": {"scores": qa(answers(200))}})
    points = run_folder(tmp_path / "points", {"t": {"scores": qa(answers(200) * 100)}})
    verdict = compare(load(points), load(share), Policy())
    assert verdict.status == 1
    assert "the rule's scale is 1" in verdict.comparisons[0].reason
    with pytest.raises(UsageError, match="give the rule the 'scale'"):
        compare(load(share), load(points), Policy())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, [1], {"a": 1}])
def test_an_aggregate_that_is_no_finite_number_is_one_sentence(tmp_path: Path, value: Any) -> None:
    path = write(tmp_path, "pcc", {"pcc_squad": {"f1": [0.0, 1.0, 1.0]}}, 4.0)
    changed(path, lambda data: data["results"]["pcc_squad"].update({"f1,none": value}))
    with pytest.raises(UsageError, match=r"f1 of pcc_squad is .*not a finite number"):
        load_results([tmp_path])


def test_an_old_file_may_say_nan_for_a_ratio_of_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, "no-context", questions(0.5))
    assert "NaN" in path.read_text()
    (run,) = load_results([tmp_path]).runs
    assert "compression" not in run.tasks["pcc_squad"].scores


def test_a_row_that_is_not_finite_stops_a_report(tmp_path: Path) -> None:
    write(tmp_path, "pcc", {"pcc_squad": {"f1": [0.0, 1.0, 1.0, 1.0]}}, 4.0)
    path = rows_of(tmp_path)
    path.write_text(path.read_text().replace('"f1": 0.0', '"f1": Infinity', 1))
    with pytest.raises(UsageError, match=r"f1 of pcc_squad .*1 scores are not finite numbers \(first in row 0\)"):
        report.write([tmp_path], tmp_path / "out")


# ---------------------------------------------------------------- names that others chose


def verdict_on(name: str) -> Verdict:
    line = Comparison(task=name, metric=name, verdict="fail", reason=f"a reason with {name}")
    run = {"method": name, "model": name, "requested_rate": None, "fingerprints": {}}
    return Verdict(
        verdict="fail", status=1, stage=None, last=True, rows=1, rows_in_all=1, candidate=run, baseline=run,
        comparisons=(line,), notes=(f"::error::{name}",), policy={},
    )  # fmt: skip


def test_names_in_workflow_commands() -> None:
    (only,) = workflow_commands(verdict_on(EVIL)).splitlines()
    assert only.startswith("::error title=") and only.count("::error") == 2  # the second is a part of the message
    assert ",owned" not in only and "\x1b" not in only


def test_names_in_summaries_of_github(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "missing" / "summary.md"))
    assert append_summary(verdict_on(EVIL)) == ""
    text = (tmp_path / "missing" / "summary.md").read_text("utf-8")
    assert not [line for line in text.splitlines() if line.startswith("::")]
    assert "<img" not in text and "](" not in text and "\x1b" not in text
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "file" / "summary.md"))
    assert "the verdict is as printed" in append_summary(verdict_on(EVIL))


def test_names_in_markdown_tables() -> None:
    heading, _, row = TextTable(("name", "value"), ((EVIL, "<0.001"),)).markdown().splitlines()
    assert len(row) == len(heading)
    assert "a\\|b" in row and "<img" not in row and "](" not in row
    assert "| <0.001 |" in row  # no tag
    assert texttable.markdown_cell(r"a\|b") == r"a\\\|b"  # the backslash before it does not undo the escape


def test_names_in_junit() -> None:
    root = ElementTree.fromstring(junit(verdict_on(EVIL)))
    assert root[0][0].get("name") == texttable.visible(EVIL)
    assert "\\x1b" in texttable.visible(EVIL) and "\\x00" in texttable.visible(EVIL)


def test_names_in_latex() -> None:
    assert texttable.latex("a_b & $\\input{x}$\n\n%") == r"a\_b \& \$\textbackslash{}input\{x\}\$  \%"


def test_names_in_csv_files() -> None:
    assert [texttable.csv_cell(text) for text in ("=1+1", "@x", "-", "a", "a\nb")] == ["'=1+1", "'@x", "-", "a", "a b"]


def test_an_evil_name_goes_through_a_whole_report(tmp_path: Path) -> None:
    write(tmp_path / "in", "pcc", questions(0.5, 12), 4.0, decoder=EVIL, checkpoint=f"=x{EVIL}")
    write(tmp_path / "in" / "b", EVIL, questions(0.5, 12), 4.0, checkpoint="other")
    made = report.write([tmp_path / "in"], tmp_path / "out")
    table = made.tables[0]
    for text in (render.markdown(table), render.brief(table), (tmp_path / "out" / "index.html").read_text("utf-8")):
        assert "<img" not in text and "\n::" not in text and "\x00" not in text and "\x1b" not in text
    cells = list(csv.reader(io.StringIO(render.as_csv(table))))
    assert len({len(line) for line in cells}) == 1
    assert "\\input{" not in render.latex(table)


def test_a_task_whose_name_is_a_path_has_no_samples(tmp_path: Path) -> None:
    path = write(tmp_path / "in", "pcc", {"pcc_squad": {"f1": [0.0, 1.0]}}, 4.0)
    name = "../x/y"
    for part in ("results", "configs"):
        changed(path, lambda data, part=part: data[part].update({name: data[part]["pcc_squad"]}))
    assert load_results([tmp_path / "in"]).runs[0].tasks[name].samples is None


# ---------------------------------------------------------------- files are written whole


def test_a_full_disk_leaves_the_old_baseline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = run_folder(tmp_path / "base", {"t": {"scores": qa(answers(20))}})
    file = tmp_path / f"b{SUFFIX}"
    assert said(capsys, "baseline", "freeze", base, "-o", file)[0] == 0
    before = file.read_bytes()

    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as half:
            half.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    status, error = said(capsys, "baseline", "freeze", base, "-o", file)
    assert (status, "No space left" in error, error.count("\n")) == (2, True, 1)
    assert file.read_bytes() == before
    assert not list(tmp_path.glob(".*.part"))


def test_markers_that_ask_for_nothing_known_are_one_sentence() -> None:
    text = "<!-- report:a -->\nold\n<!-- /report -->\n<!-- report:b -->\nold\n<!-- /report -->\n"
    assert terminal.filled(text, "report", {"a": "new", "b": "new\n"}).count("new") == 2
    assert terminal.filled(text, "report", {"a": "new"}, partly=True).count("old") == 1
    with pytest.raises(UsageError, match="asks for the table 'b'"):
        terminal.filled(text, "report", {"a": "new"})
    with pytest.raises(UsageError, match="there is no '<!-- run:a -->'"):
        terminal.filled(text, "run", {"a": "new"})


# ---------------------------------------------------------------- foreign shapes


STRANGE: tuple[Any, ...] = (None, True, -1, 0, 10**400, 1.5, float("nan"), float("inf"), "", "x", EVIL, "\ud800")
STRANGE += ([], [1], [[1.0, 2]], {}, {"a": 1})


def places(state: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of a document, containers included."""
    inside = state.items() if isinstance(state, dict) else enumerate(state[:3]) if isinstance(state, list) else ()
    return [path, *(place for key, value in inside for place in places(value, (*path, key)))]


def mutated(state: Any, rng: random.Random) -> Any:
    """A document with one value replaced by a strange one, removed, doubled, or under an evil name."""
    made = copy.deepcopy(state)
    *way, last = rng.choice([place for place in places(made) if place])
    parent = made
    for key in way:
        parent = parent[key]
    kind = rng.random()
    if kind < 0.7 or not isinstance(parent, dict):
        parent[last] = rng.choice(STRANGE)
    elif kind < 0.85:
        del parent[last]
    else:
        parent[EVIL] = parent.pop(last)
    return made


def damaged_text(text: str, rng: random.Random) -> bytes:
    """A file cut somewhere, with bytes that are no text, or nested without end."""
    at = rng.randrange(len(text))
    return rng.choice([text[:at].encode(), text[:at].encode() + b"\xff\x00" + text[at:].encode(), b"[" * 100_000, b""])


def attempt(action: Callable[[], str]) -> tuple[str, bool]:
    """What went wrong ("" for an answer or a sentence of one line), and whether it was refused."""
    try:
        text = action()
    except UsageError as error:
        return "", bool(str(error))
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200], False
    return ("a line that GitHub takes for a command" if "\n::" in text else ""), False


def test_mutated_result_folders_and_baselines_end_in_a_sentence(tmp_path: Path) -> None:
    """400 mutations of a result file, its samples and a frozen baseline: no traceback in gate, compare and freeze."""
    base = run_folder(tmp_path / "base", {"t": {"scores": qa(answers(6))}})
    source = run_folder(tmp_path / "source", {"t": {"scores": qa(answers(6))}}).parent
    results = json.loads((source / f"results_{STAMP}.json").read_text())
    lines = rows_of(source).read_text().splitlines()
    good = load(base)
    frozen = json.loads(lzma.decompress(freeze(good)))
    rng, failures, refused = random.Random(17), [], 0
    target, baseline = tmp_path / "target", tmp_path / f"mutated{SUFFIX}"
    target.mkdir()
    for number in range(400):
        what = number % 4
        (target / f"results_{STAMP}.json").write_text(json.dumps(mutated(results, rng) if what == 0 else results))
        samples = list(lines)
        if what == 1:
            samples[rng.randrange(6)] = json.dumps(mutated(json.loads(lines[rng.randrange(6)]), rng))
        content = "\n".join(samples).encode()
        if what == 3:
            content = damaged_text("\n".join(lines), rng)
        (target / rows_of(source).name).write_bytes(content)
        baseline.write_bytes(
            lzma.compress(json.dumps(mutated(frozen, rng) if what == 2 else frozen).encode(), preset=0)
        )
        place = baseline if what == 2 else target
        for action in (
            lambda place=place: markdown(compare(good, load(place), Policy())),
            lambda place=place: junit(compare(load(place), good, Policy())),
            lambda place=place: compare(load(place), good, Policy()).model_dump_json(),
            lambda place=place: str(len(freeze(load(place)))),
            lambda: comparing.table(*comparing.compare(base, target)).markdown(),
        ):
            wrong, no = attempt(action)
            refused += no
            if wrong:
                failures.append((number, wrong))
    assert not failures, failures[:10]
    assert refused > 300  # they do reach the doors


def test_mutated_result_folders_are_reported_or_refused(tmp_path: Path) -> None:
    """60 mutations of a whole report's input: tables, page and figures, or a sentence."""
    rng, failures = random.Random(4), []
    path = write(tmp_path / "in", "pcc", questions(0.5, 6), 4.0)
    results, lines = json.loads(path.read_text()), rows_of(tmp_path / "in").read_text().splitlines()
    for number in range(60):
        path.write_text(json.dumps(mutated(results, rng) if number % 2 else results))
        samples = list(lines)
        if not number % 2:
            samples[0] = json.dumps(mutated(json.loads(lines[0]), rng))
        rows_of(tmp_path / "in").write_text("\n".join(samples))
        try:
            loaded = load_results([tmp_path / "in"])
            for table in report.tables(loaded):
                _ = render.markdown(table), render.latex(table), render.as_csv(table)
            _ = page_of(loaded)
        except UsageError:
            continue
        except Exception as error:
            failures.append((number, f"{type(error).__name__}: {error}"[:200]))
    assert not failures, failures[:10]


def page_of(loaded: Any) -> str:
    from pcc_bench.reports import page

    return page.render(loaded, report.tables(loaded), ())
