"""Result files as they lie on disk: lm-eval's `results_*.json` with `samples_*.jsonl[.gz|.xz]` beside them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pcc_bench.core.documents import COMPRESSED
from pcc_bench.core.errors import UsageError

RESULTS = "results_*.json"
MEASURED = (RESULTS, "log.jsonl", "cost_*.jsonl")


def matching(paths: Iterable[Path], pattern: str) -> list[Path]:
    """Files of a pattern in folders at any depth, and the paths that are such files; each once, in a fixed order."""
    files: dict[Path, None] = {}
    for path in paths:
        inside = sorted(path.rglob(pattern), key=lambda file: (file.name, file)) if path.is_dir() else [path]
        files |= dict.fromkeys(file for file in inside if file.match(pattern))
    return list(files)


def result_files(paths: Iterable[Path]) -> list[Path]:
    """Result files, those of each folder in the order they were made.

    Raises:
        UsageError: A path is missing, or has none.
    """
    files: list[Path] = []
    for path in paths:
        inside = matching([path], RESULTS) if path.is_dir() else [path]
        if not inside or not path.exists():
            raise UsageError(f"no results at {path}: give a results_*.json, or a folder that 'pcc-bench eval' wrote")
        files += inside
    return list(dict.fromkeys(files))


def check_measured(path: Path) -> None:
    """Raises `UsageError` where a folder or file holds nothing that was measured."""
    if not any(matching([path], pattern) for pattern in MEASURED):
        raise UsageError(
            f"no results at {path}: give a results_*.json, or a folder that 'pcc-bench eval', 'run', 'train' or "
            "'cost' wrote"
        )


def samples_file(results: Path, task: str) -> Path | None:
    """The samples of a task beside a result file, compressed or not; None where none were logged.

    Names are compared with those in the folder, so that no task's name ever becomes a path.
    """
    stamp = results.name.removeprefix("results_")
    if stamp == results.name:
        return None
    present = {file.name for file in results.parent.iterdir()}
    wanted = [f"samples_{task}_{stamp}l{end}" for end in ("", *COMPRESSED)]
    return next((results.parent / name for name in wanted if name in present), None)
