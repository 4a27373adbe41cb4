"""Rows of Multi-Session Chat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pcc_bench.tasks.hpd.sessions import checked

USER, ASSISTANT = "User", "Assistant"


def read(row: Mapping[str, Any]) -> dict[str, Any]:
    """A session of two speakers; the last turn is the response.

    The personas of the row are summaries of the earlier sessions: they are left out, for demonstrations to tell.
    """
    return session(row, "")


def session(row: Mapping[str, Any], scene: str) -> dict[str, Any]:
    """A dialogue of pairs (user, assistant) whose last assistant turn is the response."""
    pairs = [zip((USER, ASSISTANT), pair, strict=True) for pair in row["dialogue"]]
    turns = [f"{name}: {text.strip()}" for pair in pairs for name, text in pair]
    return checked(
        {
            "id": str(row["id"]),
            "role": ASSISTANT,
            "who": str(row["id"]),
            "scene": scene,
            "turns": turns[:-1],
            "response": turns[-1].removeprefix(f"{ASSISTANT}: ") if turns else "",
            "negatives": [],
            "position": [],
        }
    )
