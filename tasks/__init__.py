"""Data sets as lm-eval tasks: one folder each, with its YAML and the small pure function that reads its rows."""
