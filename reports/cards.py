"""What a report says of each run: of its method, and of where its numbers come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pcc_bench.results.rows import COMPRESSION
from pcc_bench.results.run import Run
from pcc_bench.results.shapes import Reported


@dataclass(frozen=True)
class Card:
    """What is known of a run: of its method, or of where its numbers come from."""

    title: str
    facts: tuple[tuple[str, str], ...]


def method_facts(run: Run) -> tuple[tuple[str, str], ...]:
    """What a run's method is and how it was set."""
    told = run.reported or Reported()
    can = told.capabilities
    memory = "" if can.get("soft") is None else "vectors (soft)" if can["soft"] else "text (hard)"
    facts = {
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
        "options": ", ".join(f"{key}={value}" for key, value in sorted(told.options.items())),
        "overflow": told.overflow or "",
    }
    return tuple((name, value) for name, value in facts.items() if value)


def _achieved(run: Run) -> str:
    known = sorted(task.scores[COMPRESSION] for task in run.tasks.values() if COMPRESSION in task.scores)
    return "" if not known else f"{known[0]:.2f}x" + (f" to {known[-1]:.2f}x, by task" if known[-1] > known[0] else "")


def _yes(value: Any) -> str:
    return {True: "yes", False: "no"}.get(value, "")


def source_facts(run: Run) -> tuple[tuple[str, str], ...]:
    """Where a run's numbers come from."""
    prints = run.fingerprints
    rows = {name: task.population.fingerprint or "" for name, task in run.tasks.items()}
    facts = {
        "run": run.id,
        "file": run.place,
        "ended": run.date,
        "checkpoint": " ".join(part for part in (run.checkpoint, prints.get("checkpoint")) if part),
        "decoder": " ".join(part for part in (run.decoder, prints.get("decoder_weights")) if part),
        "code": " ".join(part for part in (prints.get("code"), run.versions.get("code")) if part),
        "rows": ", ".join(f"{name} {mark}" for name, mark in rows.items() if mark),
        "seeds": " ".join(str(seed) for seed in run.seeds if seed is not None),
        "lm-eval": run.versions.get("lm-eval", ""),
        "transformers": run.versions.get("transformers", ""),
    }
    return tuple((name, value) for name, value in facts.items() if value)
