"""The task of GSM8K; importing it makes its filter known to lm-eval."""

from __future__ import annotations

from pcc_bench.tasks.gsm8k import extract
from pcc_bench.tasks.icl.task import IclTask

__all__ = ["WorkedTask", "extract"]


class WorkedTask(IclTask):
    """Solutions are generated, and their numbers compared; `extract` registers the filter that finds them."""
