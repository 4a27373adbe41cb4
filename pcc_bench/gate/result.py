"""What the gate finds, one comparison a line and the verdict over all: for people, GitHub and other build servers."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal
from xml.etree import ElementTree

from pcc_bench.core import texttable
from pcc_bench.core.documents import Strict
from pcc_bench.core.texttable import TextTable

Mark = Literal["pass", "fail", "inconclusive", "reported"]
PASS: Final = "pass"
FAIL: Final = "fail"
INCONCLUSIVE: Final = "inconclusive"
REPORTED: Final = "reported"
UNIT = "cost records"  # the task of a comparison of records of cost


class Comparison(Strict):
    """One metric or cost of one task, or of all tasks pooled."""

    task: str
    metric: str  # or `rows`; `ratio`, `speed`, `memory`; of records of cost `points`, counts and seconds
    verdict: Mark  # `reported` where it does not count
    reason: str  # one sentence
    rule: str = ""  # the rule in words; "" where there is none
    scale: float = 1.0  # range of one row's score; scores with 1 are shown in points of 100
    n: int = 0  # rows compared
    contexts: int = 0  # contexts they are on
    baseline: float | None = None
    candidate: float | None = None
    difference: float | None = None  # candidate less baseline
    interval: tuple[float, float] | None = None  # 95 % confidence interval of the difference
    p: float | None = None  # one-sided p-value of "no drop beyond the rule"
    p_adjusted: float | None = None  # the same, adjusted for several comparisons (Holm); None where it does not count
    detectable: float | None = None  # the smallest drop found with the policy's power at this look
    wins: tuple[int, int, int] | None = None  # rows that got better, worse and neither
    checks: Mapping[str, Any] = {}  # second opinions: bootstrap interval, permutation and McNemar p-values


class Verdict(Strict):
    schema_version: int = 1
    verdict: Mark  # `fail` if anything that counts fails, else `inconclusive` if anything that counts is, else `pass`
    status: Literal[0, 1, 3]  # of the command; 1 regression, 3 inconclusive: the policy says so, or more stages follow
    stage: str | None  # name of the look; None for a single one
    last: bool  # no further look follows
    rows: int  # rows compared at this look, all tasks that count
    rows_in_all: int  # rows of the baseline, all tasks that count
    candidate: Mapping[str, Any]
    baseline: Mapping[str, Any]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]  # sentences about what was left out
    policy: Mapping[str, Any]  # as it was applied


SCORES = ("baseline", "candidate", "difference", "95 % interval")
COLUMNS = ("task", "metric", "verdict", *SCORES, "n", "finds", "p", "why")
NOTES = (
    "Scores and differences in points of 100; ratio, speed (tokens/s), memory (positions), cost records as they are.",
    "finds: the smallest drop that this comparison finds with the policy's power at its error rate.",
    "p: of no drop beyond the rule, one-sided; adjusted for several comparisons where the line counts.",
)
MARKS: dict[str, str] = {FAIL: "FAIL", REPORTED: "-"}
COSTS = ("ratio", "speed", "memory")


def table(verdict: Verdict) -> TextTable:
    rows = []
    for line in verdict.comparisons:
        p = line.p if line.p_adjusted is None else line.p_adjusted
        scores = (_score(line.baseline, line), _score(line.candidate, line), _score(line.difference, line, "+"))
        interval = "" if line.interval is None else " to ".join(_score(end, line, "+") for end in line.interval)
        counts = (f"{line.n:,}" if line.n else "", _score(line.detectable, line), "" if p is None else f"{p:.2g}")
        mark = MARKS.get(line.verdict, line.verdict)
        rows.append((line.task, line.metric, mark, *scores, interval, *counts, line.reason))
    return TextTable(COLUMNS, tuple(rows), (*NOTES, *verdict.notes)).without_empty_columns()


def headline(verdict: Verdict) -> str:
    stage = f" at stage {verdict.stage}" if verdict.stage else ""
    what = "inconclusive" if verdict.verdict == INCONCLUSIVE else verdict.verdict.upper()
    go_on = ": go on with the next stage" if verdict.status == 3 and not verdict.last else ""
    saved = verdict.rows_in_all - verdict.rows
    spared = f" ({saved:,} saved)" if saved > 0 and not verdict.last and not go_on else ""
    return f"gate: {what}{stage}{go_on} ({verdict.rows:,} of {verdict.rows_in_all:,} rows{spared})"


def above(verdict: Verdict) -> str:
    def ran(name: Mapping[str, Any]) -> str:
        rate = f" {name['requested_rate']:g}x" if name.get("requested_rate") else ""
        weights = dict(name.get("fingerprints", {})).get("checkpoint")
        return f"{name.get('method')} {name.get('model')}{rate}" + (f" ({weights})" if weights else "")

    sides = f"candidate: {ran(verdict.candidate)}; baseline: {ran(verdict.baseline)}"
    return f"**{headline(verdict)}**\n\n{texttable.markdown(sides)}"


def markdown(verdict: Verdict) -> str:
    return f"{above(verdict)}\n\n{table(verdict).markdown()}"


def workflow_commands(verdict: Verdict) -> str:
    """GitHub workflow commands: an error for each failure, a warning for each inconclusive line."""
    kinds: dict[str, str] = {FAIL: "error", INCONCLUSIVE: "warning"}
    lines = []
    for line in verdict.comparisons:
        if line.verdict in kinds:
            title = texttable.workflow_property(f"{line.task} {line.metric}: {line.verdict}")
            lines.append(f"::{kinds[line.verdict]} title={title}::{texttable.workflow_message(_sentence(line))}")
    return "\n".join(lines)


def junit(verdict: Verdict) -> str:
    """JUnit XML: a test case a line, skipped where it does not count."""
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(root, "testsuite", name="pcc-bench gate")
    counts = {"tests": len(verdict.comparisons), "failures": 0, "errors": 0, "skipped": 0}
    for line in verdict.comparisons:
        names = {"classname": f"pcc_bench.gate.{texttable.visible(line.task)}", "name": texttable.visible(line.metric)}
        case = ElementTree.SubElement(suite, "testcase", names)
        says = texttable.visible(_sentence(line))
        if line.verdict == FAIL or (line.verdict == INCONCLUSIVE and verdict.status == 3):
            counts["failures"] += 1
            ElementTree.SubElement(case, "failure", type=line.verdict, message=says)
        elif line.verdict in (INCONCLUSIVE, REPORTED):
            counts["skipped"] += 1
            ElementTree.SubElement(case, "skipped", message=says)
        else:
            ElementTree.SubElement(case, "system-out").text = says
    suite.attrib.update({name: str(count) for name, count in counts.items()})
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def append_summary(verdict: Verdict) -> str:
    """Append the table to the step's summary, in GitHub Actions; returns a sentence where that is not possible."""
    if not (place := os.environ.get("GITHUB_STEP_SUMMARY")):
        return ""
    try:
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        with Path(place).open("a", encoding="utf-8", errors="backslashreplace") as summary:
            summary.write(markdown(verdict) + "\n")
        return ""
    except OSError as error:
        return f"the step's summary {place} can't be written ({error.strerror}); the verdict is as printed"


def describe(line: Comparison) -> str:
    return texttable.visible(f"{line.task} {line.metric}: {_sentence(line)}")


def _sentence(line: Comparison) -> str:
    if line.difference is None:
        return line.reason
    ends = "" if line.interval is None else f" [{', '.join(_score(end, line, '+') for end in line.interval)}]"
    change = f"{_score(line.baseline, line)} -> {_score(line.candidate, line)}"
    rule = f"; rule: {line.rule}" if line.rule else ""
    return f"{line.reason}: {change}, difference {_score(line.difference, line, '+')}{ends}, n {line.n}{rule}"


def _score(value: float | None, line: Comparison, sign: str = "") -> str:
    if value is None:
        return ""
    if line.metric in COSTS or line.task == UNIT or line.scale != 1:
        return f"{value:{sign}.4g}"
    return f"{100 * value:{sign}.2f}"
