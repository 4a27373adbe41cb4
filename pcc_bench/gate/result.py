"""What the gate finds: one comparison a line, and the verdict over all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

Mark = Literal["pass", "fail", "inconclusive", "reported"]
PASS: Final = "pass"
FAIL: Final = "fail"
INCONCLUSIVE: Final = "inconclusive"
REPORTED: Final = "reported"
VERDICT_VERSION = 1


class Comparison(BaseModel):
    """One metric or cost of one task, or of all tasks pooled.

    Attributes:
        task: The task, or `pooled`.
        metric: The metric; `rows` for the rows themselves; for costs `ratio`, `speed` and `memory`, and of
            records of cost `points`, counts and seconds.
        verdict: `reported` where it does not count.
        reason: One sentence.
        rule: The rule in words; "" where there is none.
        scale: Range of one row's score; scores with 1 are shown in points of 100.
        n: Rows compared.
        contexts: Contexts they are on.
        baseline: Its score.
        candidate: Its score.
        difference: Candidate less baseline.
        interval: 95 % confidence interval of the difference.
        p: One-sided p-value of "no drop beyond the rule".
        p_adjusted: The same, adjusted for several comparisons (Holm); None where it does not count.
        detectable: The smallest drop found with the policy's power at this look.
        wins: Rows that got better, worse and neither.
        checks: Second opinions that do not decide: bootstrap interval, permutation and McNemar p-values.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    metric: str
    verdict: Mark
    reason: str
    rule: str = ""
    scale: float = 1.0
    n: int = 0
    contexts: int = 0
    baseline: float | None = None
    candidate: float | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    p_adjusted: float | None = None
    detectable: float | None = None
    wins: tuple[int, int, int] | None = None
    checks: Mapping[str, Any] = {}


class Verdict(BaseModel):
    """The whole answer of the gate.

    Attributes:
        schema_version: Of this record.
        verdict: `fail` if anything that counts fails, else `inconclusive` if anything that counts is, else `pass`.
        status: Exit status: 0, 1 (regression) or 3 (inconclusive: the policy says so, or it is not the last stage).
        stage: Name of the look; None for a single one.
        last: No further look follows.
        rows: Rows compared at this look, all tasks that count.
        rows_in_all: Rows of the baseline, all tasks that count.
        candidate: What ran.
        baseline: What it is compared with.
        comparisons: Line by line.
        notes: Sentences about what was left out.
        policy: As it was applied.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = VERDICT_VERSION
    verdict: Mark
    status: Literal[0, 1, 3]
    stage: str | None
    last: bool
    rows: int
    rows_in_all: int
    candidate: Mapping[str, Any]
    baseline: Mapping[str, Any]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]
    policy: Mapping[str, Any]
