"""`pcc-bench lab ship`: copy what ships of a build into the package."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from pcc_bench.core.errors import UsageError
from pcc_bench.core.shipped import PRETRAINED, SHIPPED
from pcc_bench.lab.build import read_card
from pcc_bench.lab.parts import identity

LIMIT = 36 * 2**20  # bytes of all parts that ship


def ship(source: Path, target: Path, names: Sequence[str] = ()) -> int:
    """Copy finished parts that ship, each without the checkpoint before its fine-tuning.

    Args:
        source: A folder of `build`.
        target: Where to; what is there of a part is replaced, other parts stay.
        names: Parts; all of `SHIPPED` where empty.

    Returns:
        Bytes of all files in the target.

    Raises:
        UsageError: A part that is no part of `SHIPPED`, that is not finished, or of another recipe; more than `LIMIT`.
            Nothing is copied then.
    """
    names = names or SHIPPED
    for name in names:
        _check(source, name)
    others = [path for path in _files(target) if path.relative_to(target).parts[0] not in names]
    size = _size([*others, *(path for name in names for path in _files(source / name) if not _is_left(path))])
    if size > LIMIT:
        raise UsageError(
            f"{target} would hold {size / 2**20:.1f} MiB, more than the {LIMIT / 2**20:.0f} that may ship: "
            "take a part out of SHIPPED in pcc_bench/core/shipped.py"
        )
    for name in names:
        shutil.rmtree(target / name, ignore_errors=True)
        shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns(PRETRAINED))
    return size


def _check(source: Path, name: str) -> None:
    if name not in SHIPPED:
        raise UsageError(f"the lab's part '{name}' does not ship; {', '.join(SHIPPED)} do")
    card = read_card(source, name)
    if card is None:
        raise UsageError(f"{source} has no finished {name}: 'pcc-bench lab build {name} --output {source}' makes it")
    if card["identity"] != identity(name):
        raise UsageError(f"{source / name} was made by another recipe or for another world: build it with --again")


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _is_left(path: Path) -> bool:
    return path.parent.name == PRETRAINED


def _size(paths: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in paths)
