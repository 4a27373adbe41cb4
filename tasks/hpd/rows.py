"""Rows of Harry Potter Dialogue."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pcc_bench.tasks.hpd.sessions import checked

ROLE = "Harry"  # whose responses the data set has; a row may say otherwise in a column `role`


def read(row: Mapping[str, Any]) -> dict[str, Any]:
    """A session; its column names may be spelled with capitals, blanks or hyphens."""
    plain = {re.sub(r"[ -]", "_", key.strip().lower()): value for key, value in row.items()}
    role = str(plain.get("role", ROLE))
    scene = " ".join(_texts(plain["scene"])).strip()
    return checked(
        {
            "id": str(plain.get("id", "")),
            "role": role,
            "who": role,
            "scene": f"Scene: {scene}" if scene else "",
            "turns": _texts(plain["dialogue"]),
            "response": _said(_texts(plain["positive_response"])[0], role),
            "negatives": [_said(text, role) for text in _texts(plain["negative_responses"])],
            "position": [int(number) for number in re.findall(r"\d+", str(plain["position"]))],
        }
    )


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _said(response: str, role: str) -> str:
    """A response without the role's name before it."""
    return response.removeprefix(f"{role}:").strip()
