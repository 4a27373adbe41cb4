"""Labels of classification rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def label_of(value: Any, options: Sequence[str]) -> int:
    """A label as an option's number; data sets have numbers or truth values.

    Raises:
        ValueError: It is no option's number.
    """
    if not isinstance(value, int) or not 0 <= value < len(options):
        named = ", ".join(f"{number} ({option})" for number, option in enumerate(options))
        raise ValueError(f"label {value!r} is outside the set {named}")
    return int(value)
