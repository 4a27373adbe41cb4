"""Results made fit to be published: samples compressed, no paths and nothing about the machine."""

from __future__ import annotations

import json
import lzma
import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from pcc_bench.core.documents import COMPRESSED, read_json, replaced, write_text
from pcc_bench.core.errors import UsageError
from pcc_bench.results.files import RESULTS, matching
from pcc_bench.results.reading import read_run

MACHINE = ("pretty_env_info", "git_hash", "upper_git_hash")  # what lm-eval says of where it ran


def pack(paths: Sequence[Path], out: Path) -> list[Path]:
    """Copy result files and their samples, below the folder of each run, and nothing else.

    Absolute paths in results become the name of the file or folder; the same results give the same bytes.

    Args:
        paths: Folders that `pcc-bench run` or `eval` wrote.
        out: Where the copies go.

    Returns:
        The files written.

    Raises:
        UsageError: No results are there, a file is damaged, or `out` can't be written.
    """
    written = []
    for folder in paths:
        results = matching([folder], RESULTS)
        if not results:
            raise UsageError(f"no results in {folder}: name folders that 'pcc-bench run' or 'eval' wrote")
        for path in results:
            written += _pack_run(path, out / folder.name / path.parent.relative_to(folder))
        if (mark := folder / "suite.json").is_file():  # tells a report which table the runs belong to
            written.append(_write(out / folder.name / mark.name, mark.read_bytes()))
    return written


def _pack_run(path: Path, target: Path) -> list[Path]:
    run = read_run(path)  # what no report could read is not published
    content = {key: _publishable(value) for key, value in read_json(path).items() if key not in MACHINE}
    written = [target / path.name]
    write_text(written[0], json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n")
    for task in run.tasks.values():
        if task.samples is not None:
            _ = task.rows  # reads and checks them
            written.append(_pack_samples(task.samples, target))
    return written


def _pack_samples(path: Path, target: Path) -> Path:
    stem = path.name.removesuffix(path.suffix) if path.suffix in COMPRESSED else path.name
    with COMPRESSED.get(path.suffix, open)(path, "rb") as samples:
        return _write(target / f"{stem}.xz", lzma.compress(samples.read()))


def _write(path: Path, content: bytes) -> Path:
    with replaced(path) as part:
        part.write_bytes(content)
    return path


def _publishable(value: Any) -> Any:
    """A value without absolute paths, and with null for what is no number in JSON."""
    if isinstance(value, dict):
        return {_publishable(key): _publishable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_publishable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str) and "\n" not in value:
        for kind in (PurePosixPath, PureWindowsPath):
            if kind(value).is_absolute() and len(kind(value).parts) > 1:
                return kind(value).name
    return value
