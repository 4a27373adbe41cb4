"""PCC: configuration, encoder, converter, memory layout, objectives and checkpoints."""

from pcc_bench.model.compressor import PccCompressor
from pcc_bench.model.config import PccConfig
from pcc_bench.model.pcc import PCC

__all__ = ["PCC", "PccCompressor", "PccConfig"]
