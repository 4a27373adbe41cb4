"""The regression gate: is this checkpoint worse than the one before, by more than chance?"""
