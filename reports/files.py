"""Result files as they lie on disk: lm-eval's `results_*.json`, `samples_*.jsonl[.gz|.xz]`, and other JSON lines."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pcc_bench.errors import UsageError
from pcc_bench.records import SCHEMA_VERSION

OPENERS: Mapping[str, Callable[..., Any]] = {"": open, ".xz": lzma.open, ".gz": gzip.open}  # what a name ends in


def found(paths: Iterable[Path], pattern: str) -> list[Path]:
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
        inside = found([path], "results_*.json") if path.is_dir() else [path]
        if not inside or not path.exists():
            raise UsageError(f"no results at {path}: give a results_*.json, or a folder that 'pcc-bench eval' wrote")
        files += inside
    return list(dict.fromkeys(files))


def read_result(path: Path) -> dict[str, Any]:
    """A result file, of this version or an older one.

    Raises:
        UsageError: It is not a result file, or from a newer version.
    """
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        tasks_of(data)
        version = data["config"].get("pcc_bench", {}).get("schema_version", 0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is not a result file of lm-eval ({type(error).__name__}: {error})") from None
    if version > SCHEMA_VERSION:
        raise UsageError(f"{path} has schema version {version}, this pcc-bench reads up to {SCHEMA_VERSION}: update it")
    return data


def tasks_of(data: Mapping[str, Any]) -> list[str]:
    """The tasks of a result file, groups left out."""
    return [task for task in data["results"] if task in data["configs"]]


def samples_file(results: Path, task: str) -> Path | None:
    """The samples of a task beside a result file, compressed or not; None where none were logged."""
    plain = results.with_name(results.name.replace("results_", f"samples_{task}_", 1) + "l")
    return next((path for path in (plain.with_name(plain.name + end) for end in OPENERS) if path.is_file()), None)


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines, compressed or not.

    Raises:
        UsageError: It can't be read, or a line is cut or no object.
    """
    number = 1
    try:
        with OPENERS.get(path.suffix, open)(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                value = json.loads(line)
                if not isinstance(value, dict):
                    raise ValueError("it is no JSON object")
                yield value
                number += 1
    except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
        raise UsageError(f"{path} is cut or damaged in line {number} ({error}): repeat the run that wrote it") from None


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UsageError: The file is none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read ({error}): repeat the run that wrote it") from None
    return value
