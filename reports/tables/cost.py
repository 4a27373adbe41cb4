"""What reading a context costs, by method, rate, length and batch."""

from __future__ import annotations

import pandas as pd

from pcc_bench.reports import paper
from pcc_bench.reports.table import Cell, Column, Row, Table
from pcc_bench.reports.tables.lines import FULL, LABELS, label
from pcc_bench.results.collection import Results

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
    columns = _columns(frame) if len(frame) else []
    rows, cells = [], []
    if len(frame):
        for number, (_, point) in enumerate(frame.groupby(POINT, sort=True, dropna=False)):
            rows.append(_row(number, point.iloc[0]))
            cells.append([_cell(point, column.key) for column in columns] + [Cell()])
    columns.append(Column(key=SAVED, group="memory", name="saved (GB)", digits=2, better="higher"))
    for known in paper.cells("cost"):
        name = f"{label(known.method, known.rate)}, {known.shown} tokens"
        rows.append(Row(key=f"published {name}", label=name, method=known.method, rate=known.rate))
        cells.append([Cell()] * (len(columns) - 1) + [Cell(paper=known.published)])
    return Table(
        key="cost",
        title="Cost of a context",
        columns=tuple(columns),
        rows=tuple(rows),
        cells=tuple(map(tuple, cells)),
        notes=(NOTE,) if len(frame) else (),
    )


def _columns(frame: pd.DataFrame) -> list[Column]:
    made = []
    for phase, name in PHASES.items():
        for reuse in sorted(set(frame.loc[frame["phase"] == phase, "reuse"])):
            times = f", {reuse} questions" if reuse > 1 else ""
            made.append(Column(key=f"{phase}.{reuse}", group="ms", name=name + times, unit="ms", better="lower"))
    for key, (name, unit, _) in BYTES.items():
        if frame[key].notna().any():
            made.append(Column(key=key, group=unit, name=name, unit=unit, digits=2, better="lower"))
    return made


def _row(number: int, point: pd.Series) -> Row:
    rate = None if pd.isna(point["rate"]) else float(point["rate"])
    encoder = f" ({point['encoder']})" if point["encoder"] else ""
    told = " (predicted)" if point["predicted"] else ""
    size = f"{point['batch']} x {point['context_tokens']:,} tokens"
    name = f"{label(point['method'], rate)}{encoder} on {point['decoder']}, {size}, {point['mode']}, {point['device']}"
    return Row(
        key=f"point {number}",
        label=name + told,
        method=str(point["method"]) if point["method"] in LABELS else "",
        rate=rate,
        role="ceiling" if point["method"] == FULL else "method",
        decoder=str(point["decoder"]),
    )


def _cell(point: pd.DataFrame, key: str) -> Cell:
    """The newest measurement of a phase, or the most memory over the phases."""
    if key in BYTES:
        known = point[key].dropna()
        return Cell(value=float(known.max()) / BYTES[key][2]) if len(known) else Cell()
    phase, _, reuse = key.partition(".")
    found = point[(point["phase"] == phase) & (point["reuse"] == int(reuse))]
    if not len(found):
        return Cell()
    newest = found.iloc[-1]
    return Cell(value=1000 * float(newest["median_s"]), n=int(newest["repeats"]) or None)
