"""Real rows that ship: a data folder by name."""

from __future__ import annotations

from pathlib import Path

REAL = "real"  # `data=real`


def real_folder() -> Path:
    """100 real SQuAD rows on 40 paragraphs (CC BY-SA 4.0; see its README)."""
    return Path(__file__).parent / "real"
