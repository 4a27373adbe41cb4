"""What a report says of each run, in one table: its method, how it was set, and where its numbers come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pcc_bench.core.texttable import TextTable
from pcc_bench.results.files import Reported
from pcc_bench.results.rows import COMPRESSION
from pcc_bench.results.run import Run


def runs_table(runs: Sequence[Run], names: Mapping[str, str]) -> TextTable:
    """A line a run, a column a fact that any of them states.

    Args:
        runs: In the order of the lines.
        names: Run's id -> what it is called.
    """
    facts = [method_facts(run) | source_facts(run) for run in runs]
    columns = tuple(dict.fromkeys(name for line in facts for name in line))
    rows = [(names[run.id], *(line.get(name, "") for name in columns)) for run, line in zip(runs, facts, strict=True)]
    return TextTable(("run", *columns), tuple(rows)).without_empty_columns()


def method_facts(run: Run) -> dict[str, str]:
    """What a run's method is and how it was set."""
    reported = run.reported or Reported()
    can = reported.capabilities
    memory = "" if can.get("soft") is None else "vectors (soft)" if can["soft"] else "text (hard)"
    return {
        "method": run.method,
        "memory": memory,
        "reads the question": _yes(can.get("query_aware")),
        "brings its decoder": _yes(can.get("owns_decoder")),
        "requested rate": f"{run.rate:g}x" if run.rate else "",
        "achieved rate": _achieved(run),
        "control": run.control or "",
        "checkpoint": run.checkpoint,
        "decoder": run.decoder,
        "parameters": f"{run.parameters:,}" if run.parameters else "",
        "dtype": run.dtype,
        "options": ", ".join(f"{key}={value}" for key, value in sorted(reported.options.items())),
        "overflow": reported.overflow or "",
    }


def _achieved(run: Run) -> str:
    known = sorted(task.scores[COMPRESSION] for task in run.tasks.values() if COMPRESSION in task.scores)
    return "" if not known else f"{known[0]:.2f}x" + (f" to {known[-1]:.2f}x, by task" if known[-1] > known[0] else "")


def _yes(value: Any) -> str:
    return {True: "yes", False: "no"}.get(value, "")


def source_facts(run: Run) -> dict[str, str]:
    """Where a run's numbers come from."""
    prints = run.fingerprints
    rows = {name: task.population.fingerprint or "" for name, task in run.tasks.items()}
    return {
        "ended": run.date,
        "seeds": " ".join(str(seed) for seed in run.seeds if seed is not None),
        "id": run.id,
        "file": run.place,
        "checkpoint's hash": prints.get("checkpoint") or "",
        "decoder's hash": prints.get("decoder_weights") or "",
        "code": " ".join(part for part in (prints.get("code"), run.versions.get("code")) if part),
        "rows": ", ".join(f"{name} {mark}" for name, mark in rows.items() if mark),
        "lm-eval": run.versions.get("lm-eval", ""),
        "transformers": run.versions.get("transformers", ""),
    }
