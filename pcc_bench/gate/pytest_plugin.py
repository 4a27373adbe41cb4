"""A pytest plug-in: the gate's comparisons as tests, one a task and metric.

pytest --pcc-candidate results/new --pcc-baseline baseline.json.xz -m pcc_gate
"""

from pathlib import Path
from typing import Any

import pytest

MARKER = "pcc_gate"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pcc-bench")
    group.addoption("--pcc-candidate", metavar="RESULTS", help="results under test: one test a task and metric")
    group.addoption("--pcc-baseline", metavar="RESULTS", help="what they are compared with: results or a frozen file")
    group.addoption("--pcc-policy", metavar="FILE", help="the gate's policy (YAML)")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and refuse half a comparison."""
    config.addinivalue_line("markers", f"{MARKER}: comparisons of pcc-bench's gate (--pcc-candidate, --pcc-baseline)")
    given = [config.getoption(name) for name in ("--pcc-candidate", "--pcc-baseline")]
    if any(given) and not all(given):
        raise pytest.UsageError("--pcc-candidate and --pcc-baseline are given together or not at all")


@pytest.hookimpl(tryfirst=True)  # before -m and -k choose among the tests
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    candidate = config.getoption("--pcc-candidate")
    if not candidate:
        return
    from pcc_bench.core.errors import UsageError
    from pcc_bench.gate.compare import compare
    from pcc_bench.gate.policy import Policy
    from pcc_bench.results.frozen import load

    policy = config.getoption("--pcc-policy")
    try:
        rules = Policy.read(Path(policy) if policy else None)
        verdict = compare(load(Path(candidate)), load(Path(config.getoption("--pcc-baseline"))), rules)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    stops = rules.inconclusive == "stop"
    for line in verdict.comparisons:
        name = f"{line.task}::{line.metric}"
        items.append(GateItem.from_parent(session, name=name, nodeid=f"pcc-gate::{name}", line=line, stops=stops))


class GateItem(pytest.Item):
    """One comparison as a test: reported lines are skipped with their numbers, inconclusive ones as the policy says."""

    def __init__(self, *, line: Any, stops: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.line, self.stops = line, stops
        self.add_marker(MARKER)

    def runtest(self) -> None:
        from pcc_bench.gate.result import FAIL, INCONCLUSIVE, REPORTED, describe

        mark, sentence = self.line.verdict, f"{self.line.verdict}: {describe(self.line)}"
        if mark == FAIL or (mark == INCONCLUSIVE and self.stops):
            pytest.fail(sentence, pytrace=False)
        if mark in (INCONCLUSIVE, REPORTED):
            pytest.skip(sentence)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"pcc-gate::{self.name}"
