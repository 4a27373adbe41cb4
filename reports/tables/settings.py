"""Hyper-parameters: of the training runs that were read, and the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pcc_bench.reports import paper
from pcc_bench.reports.table import PAPER, Cell, Column, Row, Table
from pcc_bench.reports.tables.lines import LABELS
from pcc_bench.results.collection import Results, Training

SEPARATOR = " / "  # between the phases of one run


def hyperparameters(results: Results) -> Table:
    """A row a setting, a column a training run, and the paper's two beside them."""
    told = paper.settings()
    runs = {training.name: _flat(training) for training in results.trainings if training.recipe}
    names = list(dict.fromkeys([*told.rows, *(key for flat in runs.values() for key in flat)]))
    published = {LABELS[name]: dict(zip(told.rows, values, strict=True)) for name, values in told.columns.items()}
    columns = [Column(key=name, name=name) for name in runs]
    columns += [Column(key=f"{name}.paper", group="paper", name=name, source=PAPER) for name in published]
    values = [*runs.values(), *published.values()]
    return Table(
        key="hyperparameters",
        title="Hyper-parameters",
        columns=tuple(columns),
        rows=tuple(Row(key=name, label=name, method="") for name in names),
        cells=tuple(tuple(Cell(text=column.get(name)) for column in values) for name in names),
        notes=(f"The paper's settings: {told.source} (certainty {told.certainty}).",),
    )


def _flat(training: Training) -> dict[str, str]:
    """A recipe under the names that the paper's settings have; of phases, each phase's value."""
    recipe = training.recipe
    optimisation, phases = recipe.get("optimisation", {}), recipe.get("phases") or [{}]
    told = {
        "optimiser": optimisation.get("optimizer"),
        "schedule": optimisation.get("schedule"),
        "learning rate": optimisation.get("learning_rate"),
        "batch": optimisation.get("batch_size"),
        "warm-up steps": optimisation.get("warmup_steps"),
        "gradient norm": optimisation.get("max_grad_norm"),
        "weight decay": optimisation.get("weight_decay"),
        "steps": optimisation.get("steps"),
        "epochs": optimisation.get("epochs"),
        "precision": optimisation.get("precision"),
        "trained": " and ".join(recipe.get("train") or ()),
        "LoRA rank": recipe.get("lora_rank") or None,
        "rate": _over_phases(phases, "rate"),
        "segment length": _over_phases(phases, "segment_length"),
        "segments": _over_phases(phases, "segments"),
        "completion": _completion(recipe, phases),
        "started from": recipe.get("start") or recipe.get("encoder"),
        "decoder": recipe.get("decoder"),
        "data": (recipe.get("data") or {}).get("path"),
        "seed": recipe.get("seed"),
    }
    seen = training.log["tokens_seen"].iloc[-1] if "tokens_seen" in training.log else None
    told["tokens seen"] = None if seen is None else f"{int(seen):,}"
    return {key: str(value) for key, value in told.items() if value not in (None, "")}


def _over_phases(phases: list[Mapping[str, Any]], key: str) -> str | None:
    values = [str(phase[key]) for phase in phases if key in phase]
    return SEPARATOR.join(values if len(set(values)) > 1 else values[:1]) or None


def _completion(recipe: Mapping[str, Any], phases: list[Mapping[str, Any]]) -> str | None:
    objective = (recipe.get("objective") or {}).get("completion")
    values = [phase["completion"] if phase.get("completion") is not None else objective for phase in phases]
    told = [str(value) for value in values if value is not None]
    return SEPARATOR.join(told if len(set(told)) > 1 else told[:1]) or None
