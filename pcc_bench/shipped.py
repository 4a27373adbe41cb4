"""Models that ship inside the package: the lab's, by name."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "lab" / "models"
CARD = "part.json"
PRETRAINED = "pretrained"  # folder of a compressor as it was before fine-tuning, in its own
DEFAULT = "pcc-lab-4x"  # the checkpoint of `--model pcc` where none is named, in a package that ships it


def find(name: str) -> Path | None:
    """Folder of a shipped model (`pcc-lab-4x`, `pcc-lab-4x/pretrained`); None where there is none of that name."""
    part, _, stage = name.partition("/")
    folder = FOLDER / part / stage
    return folder if part and stage in ("", PRETRAINED) and (folder / "config.json").is_file() else None


def names() -> list[str]:
    """All shipped models."""
    return sorted(path.parent.name for path in FOLDER.glob("*/config.json"))


def located(name: str) -> str:
    """A shipped model's folder for its name; any other name as it is. A folder here of that name comes first."""
    folder = None if Path(name).is_dir() else find(name)
    return str(folder) if folder else name


def is_part(name: str) -> bool:
    """Is this a model of the lab, shipped or built by the user?"""
    folder = Path(located(name))
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
