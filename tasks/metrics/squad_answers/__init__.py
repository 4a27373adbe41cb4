"""Exact match, F1 and substring accuracy of short answers."""
