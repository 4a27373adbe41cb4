"""Results of lm-eval, read once and in one way: by the gate, the comparison, the report, suites, demo and `pack`."""
