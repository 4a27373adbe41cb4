"""Rows of PersonaChat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pcc_bench.tasks.msc.rows import ASSISTANT, session


def read(row: Mapping[str, Any]) -> dict[str, Any]:
    """A dialogue after the persona of the one who responds."""
    return session(row, f"Persona of {ASSISTANT}: {' '.join(row['persona'])}")
