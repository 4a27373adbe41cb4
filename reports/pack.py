"""Results made fit to be published: samples compressed, no paths and nothing about the machine."""

from __future__ import annotations

import json
import lzma
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from pcc_bench.errors import UsageError
from pcc_bench.reports import files

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
        found = files.found([folder], "results_*.json")
        if not found:
            raise UsageError(f"no results in {folder}: name folders that 'pcc-bench run' or 'eval' wrote")
        for path in found:
            written += _pack_run(path, out / folder.name / path.parent.relative_to(folder))
        if (mark := folder / "suite.json").is_file():  # tells a report which table the runs belong to
            written.append(out / folder.name / mark.name)
            written[-1].write_bytes(mark.read_bytes())
    return written


def _pack_run(path: Path, target: Path) -> list[Path]:
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        kept = {key: _anonymous(value) for key, value in results.items() if key not in MACHINE}
        target.mkdir(parents=True, exist_ok=True)
        written = [target / path.name]
        written[0].write_text(json.dumps(kept, separators=(",", ":")) + "\n", encoding="utf-8")
        stamp = path.stem.removeprefix("results_")
        for samples in sorted(path.parent.glob(f"samples_*_{stamp}.jsonl")):
            written.append(target / f"{samples.name}.xz")
            written[-1].write_bytes(lzma.compress(samples.read_bytes()))
    except json.JSONDecodeError as error:
        raise UsageError(f"{path} is not valid JSON ({error.msg}): leave it out, or run it again") from None
    except OSError as error:
        raise UsageError(f"can't pack {path} into {target} ({error.strerror})") from None
    return written


def _anonymous(value: Any) -> Any:
    if isinstance(value, dict):
        return {_anonymous(key): _anonymous(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_anonymous(item) for item in value]
    if isinstance(value, str) and "\n" not in value:
        for kind in (PurePosixPath, PureWindowsPath):
            if kind(value).is_absolute() and len(kind(value).parts) > 1:
                return kind(value).name
    return value
