"""Which rows of two runs are compared: the same number and the same content, and nothing missing without a word."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pcc_bench.errors import UsageError
from pcc_bench.gate.policy import Policy, Stage
from pcc_bench.gate.runs import Run, TaskRun

Selection = Mapping[str, frozenset[int]]


@dataclass(frozen=True)
class Matched:
    """The common rows of one task.

    Attributes:
        task: Its name.
        baseline: The baseline's record.
        candidate: The candidate's record.
        pairs: Positions of the same row in both, baseline first.
        problems: Why the candidate can't pass whatever its scores are.
    """

    task: str
    baseline: TaskRun
    candidate: TaskRun
    pairs: tuple[tuple[int, int], ...]
    problems: tuple[str, ...]


def select(baseline: Run, policy: Policy, stage: Stage) -> Selection:
    """The rows of a look: a seeded choice that does not depend on their order and contains that of every earlier look.

    Args:
        baseline: Its rows are chosen from.
        policy: `pool` says whether `stage.rows` counts over all tasks that are gated or over each.
        stage: The look.

    Returns:
        Row numbers by gated task.
    """
    gated = {name: task for name, task in baseline.tasks.items() if policy.gates(name)}
    if stage.rows is None:
        return {name: frozenset(task.rows) for name, task in gated.items()}
    units = [list(gated)] if policy.pool else [[name] for name in gated]
    chosen: dict[str, set[int]] = {name: set() for name in gated}
    for unit in units:
        rows = [(_rank(policy.seed, name, row), name, row) for name in unit for row in gated[name].rows]
        for _, name, row in sorted(rows)[: stage.rows]:
            chosen[name].add(row)
    return {name: frozenset(rows) for name, rows in chosen.items()}


def match(task: str, candidate: TaskRun, baseline: TaskRun, wanted: Iterable[int]) -> Matched:
    """Pair the rows of a task.

    Args:
        task: Its name.
        candidate: The run under test.
        baseline: What it is compared with.
        wanted: Numbers of the rows of this look.

    Raises:
        UsageError: The runs followed different protocols, or asked different rows altogether.
    """
    for what, value in baseline.asked.items():
        if candidate.asked.get(what) != value:
            raise UsageError(
                f"{task} was run in different ways: {what} is {candidate.asked.get(what)} in the candidate and {value} "
                "in the baseline; repeat one of them with the other's settings"
            )
    theirs = {row: (position, candidate.hashes[position]) for position, row in enumerate(candidate.rows)}
    mine = {row: (position, baseline.hashes[position]) for position, row in enumerate(baseline.rows)}
    common = [row for row in mine if row in theirs]
    same = {row for row in common if mine[row][1] == theirs[row][1]}
    if not common:
        raise UsageError(f"candidate and baseline have no row of {task} in common: they scored different parts of it")
    if not same:
        raise UsageError(
            f"candidate and baseline were run on different data: none of the {len(common)} rows of {task} that both "
            "scored has the same content and prompt; use the same data source, or freeze a new baseline"
        )
    chosen = set(wanted)
    changed = len(common) - len(same)
    missing = sorted(chosen - set(theirs))
    other = len(set(theirs) - set(mine))
    problems = [
        f"the population changed: {changed} of {len(common)} common rows have another content or prompt"
        if changed
        else "",
        f"the candidate lacks {len(missing)} of {len(chosen)} rows (first: row {missing[0]})" if missing else "",
        f"the population changed: the candidate has {other} rows that the baseline has not" if other else "",
        f"the population changed: its fingerprint is {candidate.fingerprint}, the baseline's {baseline.fingerprint}"
        if candidate.fingerprint != baseline.fingerprint
        else "",
    ]
    pairs = tuple((mine[row][0], theirs[row][0]) for row in sorted(same & chosen))
    if not pairs:
        raise UsageError(f"no row of {task} that this stage asks for is in the candidate: run the rows of the stage")
    return Matched(task, baseline, candidate, pairs, tuple(filter(None, problems)))


def _rank(seed: int, task: str, row: int) -> bytes:
    return hashlib.sha256(f"{seed}:{task}:{row}".encode()).digest()
