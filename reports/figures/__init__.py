"""Figures: pure functions of frames, one style, and the frames of results."""
