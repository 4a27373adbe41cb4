"""pcc_bench: context compression for LLMs, and the benchmark around it."""

__version__ = "0.1.0"
