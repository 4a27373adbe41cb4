"""A pytest plug-in: the gate's comparisons as tests, one a task and metric.

    pytest --pcc-candidate results/new --pcc-baseline baseline.json.xz -m pcc_gate

Nothing of the gate is imported unless both options are given.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pcc_bench.gate.result import Comparison

MARKER = "pcc_gate"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
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
    """Add a test for each comparison."""
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
    for line in verdict.comparisons:
        name = f"{line.task}::{line.metric}"
        items.append(
            GateItem.from_parent(
                session, name=name, nodeid=f"pcc-gate::{name}", line=line, stops=rules.inconclusive == "stop"
            )
        )


class GateFailed(Exception):
    """A comparison that turns the build red."""


class GateItem(pytest.Item):
    """One comparison as a test: reported lines are skipped with their numbers, inconclusive ones as the policy says."""

    def __init__(self, *, line: Comparison, stops: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.line = line
        self.stops = stops
        self.add_marker(MARKER)

    def runtest(self) -> None:
        """Pass, skip or fail, with the comparison in one sentence."""
        from pcc_bench.gate.result import FAIL, INCONCLUSIVE, REPORTED, describe

        if self.line.verdict == FAIL or (self.line.verdict == INCONCLUSIVE and self.stops):
            raise GateFailed(f"{self.line.verdict}: {describe(self.line)}")
        if self.line.verdict in (INCONCLUSIVE, REPORTED):
            pytest.skip(f"{self.line.verdict}: {describe(self.line)}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The sentence alone."""
        if isinstance(excinfo.value, GateFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """What pytest prints as the test's place."""
        return self.path, None, f"pcc-gate::{self.name}"
