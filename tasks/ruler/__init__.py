"""RULER's forms on generated text of any length."""
