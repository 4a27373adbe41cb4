"""Figures: pure functions of frames in one style; `draw_all` draws those that results have data for."""

from pcc_bench.reports.figures.draw import draw_all
from pcc_bench.reports.figures.files import Figure

__all__ = ["Figure", "draw_all"]
