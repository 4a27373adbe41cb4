"""The paper's tables, a builder each: results in, a table out; None where there is nothing to show."""
