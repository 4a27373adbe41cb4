"""Which rows of two runs are compared: the same number and the same content, and nothing missing without a word."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pcc_bench.core.errors import UsageError
from pcc_bench.gate.policy import Policy, Stage
from pcc_bench.results.rows import Numbers
from pcc_bench.results.run import DATA, Run, TaskRun, difference

Selection = Mapping[str, frozenset[int]]


@dataclass(frozen=True, eq=False)
class Matched:
    """The common rows of one task.

    Attributes:
        task: Its name.
        baseline: The baseline's record.
        candidate: The candidate's record.
        pairs: Positions of the same rows in both, `[rows]` each, baseline first.
        problems: Why the candidate can't pass whatever its scores are.
    """

    task: str
    baseline: TaskRun
    candidate: TaskRun
    pairs: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
    problems: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pairs[0])

    def both(self, metric: str) -> tuple[Numbers, Numbers]:
        """The scores of the common rows, nan where a run has none: `[rows]` each, baseline first."""
        sides = zip((self.baseline, self.candidate), self.pairs, strict=True)
        before, after = (run.rows.scores[metric][place] for run, place in sides)
        return before, after


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
        return {name: frozenset(task.rows.number.tolist()) for name, task in gated.items()}
    units = [list(gated)] if policy.pool else [[name] for name in gated]
    chosen: dict[str, set[int]] = {name: set() for name in gated}
    for unit in units:
        rows = [(_rank(policy.seed, name, row), name, row) for name in unit for row in gated[name].rows.number.tolist()]
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
    wrong = difference(candidate.protocol, baseline.protocol, DATA)
    if wrong:
        raise UsageError(
            f"{task} was run in different ways: {wrong.name} is {wrong.first} in the candidate and {wrong.second} in "
            "the baseline; repeat one of them with the other's settings"
        )
    mine, theirs = baseline.rows, candidate.rows
    assert mine.content is not None and theirs.content is not None  # `load` has seen to it
    common, i, j = np.intersect1d(mine.number, theirs.number, assume_unique=True, return_indices=True)
    if not len(common):
        raise UsageError(f"candidate and baseline have no row of {task} in common: they scored different parts of it")
    same = mine.content[i] == theirs.content[j]
    if not same.any():
        raise UsageError(
            f"candidate and baseline were run on different data: none of the {len(common)} rows of {task} that both "
            "scored has the same content and prompt; use the same data source, or freeze a new baseline"
        )
    chosen = np.array(sorted(wanted), np.int64)
    changed = int((~same).sum())
    missing = np.setdiff1d(chosen, theirs.number, assume_unique=True)
    other = len(theirs) - len(common)
    prints = [one.population.fingerprint for one in (candidate, baseline)]
    problems = [
        f"the population changed: {changed} of {len(common)} common rows have another content or prompt"
        if changed
        else "",
        f"the candidate lacks {len(missing)} of {len(chosen)} rows (first: row {missing[0]})" if len(missing) else "",
        f"the population changed: the candidate has {other} rows that the baseline has not" if other else "",
        f"the population changed: its fingerprint is {prints[0]}, the baseline's {prints[1]}"
        if prints[0] != prints[1]
        else "",
    ]
    compared = same & np.isin(common, chosen)
    if not compared.any():
        raise UsageError(f"no row of {task} that this stage asks for is in the candidate: run the rows of the stage")
    return Matched(task, baseline, candidate, (i[compared], j[compared]), tuple(filter(None, problems)))


def _rank(seed: int, task: str, row: int) -> bytes:
    return hashlib.sha256(f"{seed}:{task}:{row}".encode()).digest()
