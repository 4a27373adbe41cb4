"""Perplexity a token and a byte."""
