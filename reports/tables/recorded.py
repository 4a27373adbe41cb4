"""What was recorded beside the scores: the cost of a context, and hyper-parameters of training runs."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from pcc_bench.reports.table import PAPER, Cell, Column, Role, Row, Table
from pcc_bench.reports.tables import FULL, LABELS, label
from pcc_bench.reports.tables.build import paper_data, published
from pcc_bench.results.collection import Results, Training

POINT = ["method", "encoder", "decoder", "rate", "context_tokens", "batch", "mode", "device", "dtype", "predicted"]
PHASES = {"compress": "compress", "prefill": "prefill", "decode": "decode", "ttft": "first token", "total": "total"}
BYTES = {
    "peak_device_bytes": ("peak", "GiB", 2**30),
    "kv_bytes": ("KV cache", "MiB", 2**20),
    "memory_bytes": ("stored", "MiB", 2**20),
}
SAVED = "memory.saved_gb"
NOTE = "Seconds are medians of the whole batch, n repeats; a total is per question, with so many questions a context."


def cost(results: Results) -> Table:
    """A row a point, a column a phase and a kind of memory; the paper's one known saving beside them."""
    frame = results.cost
    columns: list[Column] = []
    rows, cells = [], []
    if len(frame):
        for phase, name in PHASES.items():
            for reuse in sorted(set(frame.loc[frame["phase"] == phase, "reuse"])):
                times = f", {reuse} questions" if reuse > 1 else ""
                columns.append(Column(key=f"{phase}.{reuse}", group="ms", name=name + times, unit="ms", better="lower"))
        for key, (name, unit, _) in BYTES.items():
            if frame[key].notna().any():
                columns.append(Column(key=key, group=unit, name=name, unit=unit, digits=2, better="lower"))
        for number, (_, records) in enumerate(frame.groupby(POINT, sort=True, dropna=False)):
            point = records.iloc[0]
            method, rate = str(point["method"]), None if pd.isna(point["rate"]) else float(point["rate"])
            name = label(method, rate) + (f" ({point['encoder']})" if point["encoder"] else "")
            name += f" on {point['decoder']}, {point['batch']} x {point['context_tokens']:,} tokens, {point['mode']}"
            name += f", {point['device']}" + (" (predicted)" if point["predicted"] else "")
            role: Role = "ceiling" if method == FULL else "method"
            known, decoder = method if method in LABELS else "", str(point["decoder"])
            row = Row(key=f"point {number}", label=name, method=known, rate=rate, role=role, decoder=decoder)
            rows.append(row)
            cells.append([*(_cell(records, column.key) for column in columns), Cell()])
    columns.append(Column(key=SAVED, group="memory", name="saved (GB)", digits=2, better="higher"))
    for paper in published("cost"):
        name = f"{label(paper.method, paper.rate)}, {paper.shown} tokens"
        rows.append(Row(key=f"published {name}", label=name, method=paper.method, rate=paper.rate))
        cells.append([Cell()] * (len(columns) - 1) + [Cell(paper=paper.published)])
    return Table(
        key="cost",
        title="Cost of a context",
        columns=tuple(columns),
        rows=tuple(rows),
        cells=tuple(map(tuple, cells)),
        notes=(NOTE,) if len(frame) else (),
    )


def _cell(point: pd.DataFrame, key: str) -> Cell:
    """The newest measurement of a phase, or the most memory over the phases."""
    if key in BYTES:
        known = point[key].dropna()
        return Cell(value=float(known.max()) / BYTES[key][2]) if len(known) else Cell()
    phase, _, reuse = key.partition(".")
    repeats = point[(point["phase"] == phase) & (point["reuse"] == int(reuse))]
    newest = repeats.iloc[-1] if len(repeats) else None
    return Cell() if newest is None else Cell(value=1000 * float(newest["median_s"]), n=int(newest["repeats"]) or None)


SEPARATOR = " / "  # between the phases of one run


def hyperparameters(results: Results) -> Table:
    """A row a setting, a column a training run, and the paper's two beside them."""
    settings = dict(paper_data()["settings"])  # method -> values; and what they are
    source, certainty, headings = (settings.pop(key) for key in ("source", "certainty", "rows"))
    runs = {training.name: _flat(training) for training in results.trainings if training.recipe}
    names = list(dict.fromkeys([*headings, *(key for flat in runs.values() for key in flat)]))
    papers = {LABELS[name]: dict(zip(headings, values, strict=True)) for name, values in settings.items()}
    columns = [Column(key=name, name=name) for name in runs]
    columns += [Column(key=f"{name}.paper", group="paper", name=name, source=PAPER) for name in papers]
    values = [*runs.values(), *papers.values()]
    return Table(
        key="hyperparameters",
        title="Hyper-parameters",
        columns=tuple(columns),
        rows=tuple(Row(key=name, label=name, method="") for name in names),
        cells=tuple(tuple(Cell(text=column.get(name)) for column in values) for name in names),
        notes=(f"The paper's settings: {source} (certainty {certainty}).",),
    )


def _flat(training: Training) -> dict[str, str]:
    """A recipe under the names that the paper's settings have; of phases, each phase's value."""
    recipe = training.recipe
    optimisation, phases = recipe.get("optimisation", {}), recipe.get("phases") or [{}]
    objective = (recipe.get("objective") or {}).get("completion")

    def over_phases(values: Iterable[Any]) -> str | None:
        known = [str(value) for value in values if value is not None]
        return SEPARATOR.join(known if len(set(known)) > 1 else known[:1]) or None

    same = {"optimiser": "optimizer", "schedule": "schedule", "learning rate": "learning_rate", "batch": "batch_size"}
    same |= {"warm-up steps": "warmup_steps", "gradient norm": "max_grad_norm", "weight decay": "weight_decay"}
    same |= {"steps": "steps", "epochs": "epochs", "precision": "precision"}
    seen = training.log["tokens_seen"].iloc[-1] if "tokens_seen" in training.log else None
    values = {
        **{name: optimisation.get(key) for name, key in same.items()},
        "trained": " and ".join(recipe.get("train") or ()),
        "LoRA rank": recipe.get("lora_rank") or None,
        "rate": over_phases(phase.get("rate") for phase in phases),
        "segment length": over_phases(phase.get("segment_length") for phase in phases),
        "segments": over_phases(phase.get("segments") for phase in phases),
        "completion": over_phases(objective if (own := phase.get("completion")) is None else own for phase in phases),
        "started from": recipe.get("start") or recipe.get("encoder"),
        "decoder": recipe.get("decoder"),
        "data": (recipe.get("data") or {}).get("path"),
        "seed": recipe.get("seed"),
        "tokens seen": None if seen is None else f"{int(seen):,}",
    }
    return {key: str(value) for key, value in values.items() if value not in (None, "")}
