"""Models that ship inside the package: the lab's, by name."""

from __future__ import annotations

import re
from pathlib import Path

from pcc_bench.errors import UsageError

FOLDER = Path(__file__).parent / "lab" / "models"
CARD = "part.json"
PRETRAINED = "pretrained"  # folder of a compressor as it was before fine-tuning, in its own; never ships, for its size
DEFAULT = "pcc-lab-4x"  # the checkpoint of `--model pcc` where none is named, in a package that ships it
SHIPPED = (  # 'pcc-bench lab ship' takes these parts of a build
    "lab-llama",
    "lab-mistral",
    "lab-qwen2",
    "lab-phi3",
    "pcc-lab-4x",
    "pcc-lab-16x",
    "pcc-lab-64x",
    "pcc-lab-large-4x",
    "pcc-lab-large-16x",
    "icae-lab-4x",
    "cocom-lab-4x",
    "autocompressor-lab-4x",
    "llmlingua2-lab",
)
_LIKE_A_PART = re.compile(rf"(lab-[a-z0-9-]+|[a-z0-9]+-lab(?:-[a-z0-9-]+)?)(/{PRETRAINED})?")


def find(name: str) -> Path | None:
    """Folder of a shipped model (`pcc-lab-4x`); None where there is none of that name."""
    folder = FOLDER / name
    return folder if name and "/" not in name and (folder / "config.json").is_file() else None


def names() -> list[str]:
    """All shipped models."""
    return sorted(path.parent.name for path in FOLDER.glob("*/config.json"))


def located(name: str) -> str:
    """A shipped model's folder for its name; any other name as it is. A folder here of that name comes first.

    Raises:
        UsageError: A part of the lab that does not ship; says how to make it.
    """
    folder = None if Path(name).is_dir() else find(name)
    if folder is None and not Path(name).is_dir() and (like := _LIKE_A_PART.fullmatch(name)):
        raise UsageError(
            f"'{name}' does not ship with the package: 'pcc-bench lab build {like[1]} --output lab' makes it "
            f"('pcc-bench lab ls' lists the parts), and then it is named lab/{name}"
        )
    return str(folder) if folder else name


def is_part(name: str) -> bool:
    """Is this a model of the lab, shipped or built by the user?"""
    folder = Path(name if Path(name).is_dir() else find(name) or name)
    return (folder / CARD).is_file() or (folder.name == PRETRAINED and (folder.parent / CARD).is_file())


class _Source:
    """Where the tasks' rows come from when nobody says it."""

    name = "hub"


def default_source() -> str:
    """`lab` once a model of the lab was loaded, else `hub`."""
    return _Source.name


def note_model(*names: str) -> None:
    """Remember whether the model that was just loaded is one of the lab's, which knows nothing of real data."""
    _Source.name = "lab" if any(name and is_part(name) for name in names) else "hub"
