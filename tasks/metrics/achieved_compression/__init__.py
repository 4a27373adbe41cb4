"""Compression that a population achieved."""
