"""Where a number comes from: hashes of code and settings."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any

from pcc_bench import FOLDERS, HOME, PACKAGE


def digest(state: Any) -> str:
    """A short hash of plain data, independent of the order of keys."""
    return hashlib.sha256(json.dumps(state, sort_keys=True, default=str).encode()).hexdigest()[:16]


@cache
def code() -> str:
    """A short hash of this package's source files: two runs with the same one ran the same code."""
    files = {}
    for home, folder in ((PACKAGE, "."), *((HOME, name) for name in FOLDERS)):
        for path in (home / folder).rglob("*"):
            if path.suffix in (".py", ".yaml") and "__pycache__" not in path.parts:
                files[path.relative_to(home).as_posix()] = path.read_bytes()
    return hashlib.sha256(b"".join(name.encode() + files[name] for name in sorted(files))).hexdigest()[:16]
