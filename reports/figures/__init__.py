"""Figures: pure functions of frames in one style; `draw_all` draws those that results have data for."""

from pcc_bench.reports.figures.draw import Figure, draw_all

__all__ = ["Figure", "draw_all"]
