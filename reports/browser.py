"""Samples for the page: the first rows of each task, what every run answered, and how many are left out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from markupsafe import Markup

from pcc_bench.reports.figures.frames import in_order, names
from pcc_bench.results.collection import Results
from pcc_bench.results.reading import Answer, read_answers
from pcc_bench.results.run import Run

ROWS = 40  # of a task
CHARACTERS = 4_000_000  # of all contexts: a page that can be mailed


@dataclass(frozen=True)
class Shown:
    """What the page holds of a task."""

    name: str
    shown: int  # rows on the page
    rows: int  # rows that were scored


@dataclass(frozen=True)
class Browser:
    """The embedded samples."""

    tasks: tuple[Shown, ...]  # those with samples
    data: dict[str, Any]  # `runs`, `contexts` and `tasks`, for the page's script

    @property
    def json(self) -> Markup:
        """The data as JSON without any `<`, so that no text in it can end the element it stands in."""
        return Markup(json.dumps(self.data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"))

    @property
    def told(self) -> str:
        """What is on the page and what is not."""
        parts = ", ".join(f"{task.shown:,} of {task.rows:,} rows of {task.name}" for task in self.tasks)
        return f"On this page: {parts}. They are the first rows of each task; all rows are in the files of samples."


def embed(results: Results, rows: int = ROWS, characters: int = CHARACTERS) -> Browser:
    """Choose what the page shows.

    Args:
        results: Everything that was read.
        rows: At most so many of each task.
        characters: Of the contexts of all tasks together; a task whose share is used up shows fewer rows.
    """
    runs, called = in_order(results.runs), names(results.runs)
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        for task in (task for task in run.tasks.values() if task.samples):
            groups.setdefault((task.name, task.population.fingerprint or ""), []).append(run)
    groups = dict(sorted(groups.items(), key=lambda group: not _asks(group[0][0], group[1])))  # questions come first
    several = Counter(name for name, _ in groups)
    contexts: dict[str, int] = {}
    tasks, data = [], []
    for (task_name, fingerprint), having in groups.items():
        name = task_name if several[task_name] == 1 else f"{task_name} (rows {fingerprint or 'of lm-eval'})"
        shown = _rows(results, having, task_name, rows, contexts, characters // len(groups))
        if shown:
            tasks.append(Shown(name, len(shown), max(run.tasks[task_name].scored for run in having)))
            data.append({"name": name, "rows": shown})
    told = {run.id: called[run.id] for run in runs}
    return Browser(tuple(tasks), {"runs": told, "contexts": list(contexts), "tasks": data})


def _asks(task: str, runs: Sequence[Run]) -> bool:
    """Are a task's rows questions with short answers?"""
    return any("f1" in run.tasks[task].scores for run in runs)


def _rows(
    results: Results, runs: Sequence[Run], task: str, count: int, contexts: dict[str, int], room: int
) -> list[dict[str, Any]]:
    """The first rows of a task, with the answers of all its runs; new contexts are added to `contexts`."""
    found: dict[int, dict[str, Any]] = {}
    for run in runs:
        accounts = results.frame(run, task).set_index("row")
        for answer in islice(read_answers(run.tasks[task]), count):
            if answer.row not in found:
                room -= 0 if answer.context in contexts else len(answer.context)
                if room < 0 or run is not runs[0]:
                    continue
                found[answer.row] = _row(answer, contexts)
            memory = _memory(accounts.loc[answer.row].to_dict())
            scores = {key: round(value, 4) for key, value in answer.scores.items()}
            shown = {"run": run.id, "text": answer.answer, "scores": scores, "memory": memory}
            found[answer.row]["answers"].append(shown)
    return [found[row] for row in sorted(found)]


def _row(answer: Answer, contexts: dict[str, int]) -> dict[str, Any]:
    return {
        "row": answer.row,
        "context": contexts.setdefault(answer.context, len(contexts)),
        "question": answer.question,
        "references": list(answer.references),
        "answers": [],
    }


def _memory(account: Mapping[Hashable, Any]) -> str:
    """What became of the context, in words; "" without an account."""
    source, slots, boundary = (account.get(key) for key in ("source_tokens", "slots", "boundary"))
    if source is None or slots is None or boundary is None or source != source:
        return ""
    positions = slots + boundary
    said = f"{source:,.0f} tokens to {positions:,.0f} positions"
    return f"{said} ({source / positions:.2f}x)" if positions else f"{source:,.0f} tokens to nothing"
