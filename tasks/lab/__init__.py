"""The lab: a small generated world that stands in for the real data sets."""
