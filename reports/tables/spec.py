"""Columns before they have cells, and the scores that fill them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pcc_bench.reports import measure
from pcc_bench.reports.measure import Measure
from pcc_bench.reports.metrics import PERCENT
from pcc_bench.reports.table import Better, Cell, Column


@dataclass(frozen=True)
class Spec:
    """A column before it has cells.

    Attributes:
        key: As in `Column`.
        group: As in `Column`.
        name: As in `Column`.
        metric: As in lm-eval's results.
        tasks: A tuple a part; the score is the mean over the parts. Each names tasks of which a line has one.
        dataset: As in `paper.Known`.
        shown: As in `paper.Known`.
        better: As in `Column`.
        digits: As in `Column`.
        detail: As in `Column`.
    """

    key: str
    group: str
    name: str
    metric: str
    tasks: tuple[tuple[str, ...], ...]
    dataset: str
    shown: str = ""
    better: Better = "higher"
    digits: int = 1
    detail: bool = False

    @property
    def column(self) -> Column:
        """What it is in the table."""
        unit = "%" if self.metric in PERCENT else ""
        return Column(
            key=self.key,
            group=self.group,
            name=self.name,
            unit=unit,
            digits=self.digits,
            better=self.better,
            detail=self.detail,
        )


@dataclass(frozen=True)
class Score:
    """One cell's measurement: a measure a part."""

    parts: tuple[Measure, ...]

    @property
    def value(self) -> float:
        """The plain mean over the parts, in the table's unit."""
        return float(np.mean([part.value for part in self.parts]))

    def interval(self) -> tuple[float, float] | None:
        """Its 95 % interval; None where it can't be said."""
        if len(self.parts) == 1:
            return self.parts[0].interval()
        known = measure.combined([part.estimate() for part in self.parts])
        return None if known is None else self.parts[0].ends(known)

    def cell(self) -> Cell:
        """Value, interval and counts."""
        low, high = self.interval() or (None, None)
        contexts = [part.contexts for part in self.parts if part.contexts is not None]
        positions = sum(part.positions for part in self.parts)
        return Cell(
            value=self.value,
            low=low,
            high=high,
            n=sum(part.n for part in self.parts),
            contexts=sum(contexts) if len(contexts) == len(self.parts) else None,
            seeds=max(part.seeds for part in self.parts),
            ratio=sum(part.tokens for part in self.parts) / positions if positions else None,
        )
