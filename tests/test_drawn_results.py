"""Results as anyone might write them: drawn row ids, values and names, wherever they are read or printed."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_gate import answers, qa, run_folder
from test_results import attempt, mutated, page_of, rows_of, verdict_on
from written_results import questions, write

from pcc_bench.core import texttable
from pcc_bench.core.errors import UsageError
from pcc_bench.core.texttable import TextTable
from pcc_bench.gate.compare import compare
from pcc_bench.gate.policy import Policy
from pcc_bench.gate.result import append_summary, junit, markdown, workflow_commands
from pcc_bench.reports import report
from pcc_bench.results.collection import load as load_results
from pcc_bench.results.frozen import freeze, load

LATEX_ESCAPES = re.compile(r"\\text(backslash|asciitilde|asciicircum|less|greater|bar)\{\}|\\[&%$#_{}]")
NAMES = st.text(
    st.one_of(st.characters(), st.sampled_from("|`<>&%$#_{}\\~^:,=+-@'\"[]()\n\r\t\x00\x1b\u2028\ud800 ")), max_size=30
)
DRAWN = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


# ---------------------------------------------------------------- row ids and values


@DRAWN
@given(
    st.lists(
        st.one_of(st.integers(-1, 4), st.booleans(), st.floats(), st.none(), st.text(max_size=2)),
        min_size=2,
        max_size=5,
    )
)
@example([0, 0])
@example([0, 0.0])
@example([1, True])
@example([0, "0"])
def test_rows_have_an_id_each_or_are_refused(tmp_path: Path, ids: list[Any]) -> None:
    scores = qa(answers(len(ids)))
    path = run_folder(tmp_path / "run", {"t": {"scores": scores}})
    lines = [json.loads(line) for line in rows_of(path.parent).read_text().splitlines()]
    rows_of(path.parent).write_text(
        "\n".join(json.dumps({**line, "doc_id": i}) for line, i in zip(lines, ids, strict=True))
    )
    proper = all(type(i) is int and i >= 0 for i in ids) and len({*ids}) == len(ids)
    try:
        tasks = load(path).tasks
    except UsageError as error:
        assert not proper and "\n" not in str(error)
    else:
        assert len(tasks["t"].rows) == len(ids) and len({*map(repr, ids)}) == len(ids)


@DRAWN
@given(rng=st.randoms(use_true_random=False), part=st.sampled_from(["results", "samples"]))
def test_no_value_of_a_result_is_a_traceback(tmp_path: Path, rng: Any, part: str) -> None:
    good = run_folder(tmp_path / "good", {"t": {"scores": qa(answers(6))}})
    path = run_folder(tmp_path / "odd", {"t": {"scores": qa(answers(6))}})
    if part == "results":
        path.write_text(json.dumps(mutated(json.loads(path.read_text()), rng)))
    else:
        lines = rows_of(path.parent).read_text().splitlines()
        lines[0] = json.dumps(mutated(json.loads(lines[0]), rng))
        rows_of(path.parent).write_text("\n".join(lines))
    for action in (
        lambda: markdown(compare(load(good), load(path), Policy())),
        lambda: junit(compare(load(path), load(good), Policy())),
        lambda: str(len(freeze(load(path)))),
        lambda: str([table.key for table in report.tables(load_results([path.parent]))]),
    ):
        assert attempt(action)[0] == ""


@pytest.mark.parametrize("value", [10**400, -(10**400), float("inf"), float("nan"), None, [1], {}])
def test_an_aggregate_that_no_double_holds_is_refused(tmp_path: Path, value: Any) -> None:
    path = run_folder(tmp_path, {"t": {"scores": qa(answers(6))}})
    state = json.loads(path.read_text())
    state["results"]["t"]["f1,none"] = value
    path.write_text(json.dumps(state))
    with pytest.raises(UsageError, match=r"f1 of t is .*, not a finite number"):
        load(path)


# ---------------------------------------------------------------- names


@DRAWN
@given(NAMES)
def test_a_name_starts_no_command_and_no_tag_of_github(tmp_path: Path, name: str) -> None:
    (line,) = workflow_commands(verdict_on(name)).splitlines()
    title = line.removeprefix("::error title=").partition("::")[0]
    assert line.startswith("::error title=") and not re.search(r"[,\r\n]|%(?![0-9A-F]{2})", title)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
        assert append_summary(verdict_on(name)) == ""
    text = (tmp_path / "summary.md").read_text("utf-8")
    (tmp_path / "summary.md").unlink()
    assert not re.search(r"(?m)^\s*(::|##\[)|<[A-Za-z/!?]|\]\(|[\x00-\x09\x0b-\x1f\x7f]", text)


@DRAWN
@given(NAMES, NAMES)
def test_a_name_is_one_cell_of_a_markdown_table(name: str, value: str) -> None:
    table = TextTable(("a", "b"), ((name, value), ("x", "y"))).markdown().split("\n")
    assert len(table) == 4
    assert [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in table] == [3, 3, 3, 3]


@DRAWN
@given(NAMES)
def test_a_name_is_xml(name: str) -> None:
    (case,) = ElementTree.fromstring(junit(verdict_on(name)).encode())[0]
    assert case.get("name") == texttable.visible(name)


@DRAWN
@given(NAMES)
def test_a_name_is_no_latex(name: str) -> None:
    assert not re.search(r"[\\&%$#_{}~^<>|]|[\x00-\x1f]", LATEX_ESCAPES.sub("", texttable.latex(name)))


@DRAWN
@given(NAMES)
def test_a_name_is_one_cell_of_a_csv_file_and_no_formula(name: str) -> None:
    target = io.StringIO(newline="")
    csv.writer(target).writerow([texttable.csv_cell(name), "end"])
    ((cell, end),) = csv.reader(io.StringIO(target.getvalue(), newline=""))
    assert end == "end" and (len(cell) < 2 or cell[0] not in "=+-@\t\r")


class Tags(HTMLParser):
    """Counts what a browser would take for elements and their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[str, ...]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, tuple(name for name, _ in attrs)))


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NAMES.filter(lambda name: name.strip()))
@example("</script><script>alert(1)</script>")
@example("\"><img src=x onerror='alert(1)'>")
def test_a_name_is_no_element_of_a_page(tmp_path: Path, name: str) -> None:
    def tags(decoder: str) -> list[Any]:
        write(tmp_path, "pcc", questions(0.5, 4), 4.0, decoder=decoder, checkpoint=decoder)
        return Tags(page_of(load_results([tmp_path]))).seen

    try:
        odd = tags(name)
    except UsageError:
        return
    assert odd == tags("plain")
