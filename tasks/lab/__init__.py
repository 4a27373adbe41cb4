"""The lab: a small generated world that stands in for the real data sets, in their row formats."""

from pcc_bench.tasks.lab.passages import lesson
from pcc_bench.tasks.lab.rows import DATASETS, SPLITS, row, rows
from pcc_bench.tasks.lab.world import VERSION

__all__ = ["DATASETS", "SPLITS", "VERSION", "lesson", "row", "rows"]
