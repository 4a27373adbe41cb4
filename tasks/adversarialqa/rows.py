"""Rows of AdversarialQA, which have SQuAD's format."""

from pcc_bench.tasks.squad.rows import read

__all__ = ["read"]
