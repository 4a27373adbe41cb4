"""Where a number comes from: hashes of code and settings."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import pcc_bench

SCHEMA_VERSION = 1  # of what we add to lm-eval's result files


def digest(state: Any) -> str:
    """A short hash of plain data, independent of the order of keys."""
    return hashlib.sha256(json.dumps(state, sort_keys=True, default=str).encode()).hexdigest()[:16]


@cache
def code() -> str:
    """A short hash of this package's source files: two runs with the same one ran the same code."""
    hashed = hashlib.sha256()
    roots = [Path(path) for path in pcc_bench.__path__]
    files = {path.relative_to(root).as_posix(): path for root in roots for path in _sources(root)}
    for name in sorted(files):
        hashed.update(name.encode() + files[name].read_bytes())
    return hashed.hexdigest()[:16]


def _sources(root: Path) -> list[Path]:
    """Python and YAML files of the package's folders, in an installed package and in a checkout."""
    inside = root if root.name == "pcc_bench" else None
    folders = [inside] if inside else [root / name for name in ("model", "baselines", "tasks", "reports")]
    found = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".yaml")]
    return [path for path in found if "__pycache__" not in path.parts]
