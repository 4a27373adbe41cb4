"""Needles: one fact, or one pair of key and value, somewhere in a long context."""
