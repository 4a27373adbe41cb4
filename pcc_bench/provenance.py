"""Where a number comes from: hashes of code and settings."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import pcc_bench


def digest(state: Any) -> str:
    """A short hash of plain data, independent of the order of keys."""
    return hashlib.sha256(json.dumps(state, sort_keys=True, default=str).encode()).hexdigest()[:16]


@cache
def code() -> str:
    """A short hash of this package's source files: two runs with the same one ran the same code."""
    package, *checkout = [Path(path) for path in pcc_bench.__path__]
    # Installed, everything lies in the package; in a checkout the sub-packages lie beside it. The names are the same.
    folders = [package, *(root / name for root in checkout for name in ("model", "baselines", "tasks", "reports"))]
    files = {_name(path, package, checkout): path for folder in folders for path in _sources(folder)}
    hashed = hashlib.sha256()
    for name in sorted(files):
        hashed.update(name.encode() + files[name].read_bytes())
    return hashed.hexdigest()[:16]


def _name(path: Path, package: Path, checkout: list[Path]) -> str:
    root = package if path.is_relative_to(package) else checkout[0]
    return path.relative_to(root).as_posix()


def _sources(folder: Path) -> list[Path]:
    """Python and YAML files of a folder."""
    found = [path for path in folder.rglob("*") if path.suffix in (".py", ".yaml")]
    return [path for path in found if "__pycache__" not in path.parts]
