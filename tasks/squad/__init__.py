"""SQuAD 2.0, answerable questions."""
