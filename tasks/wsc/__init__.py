"""WSC: what a pronoun refers to."""
