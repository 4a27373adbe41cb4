"""What a model's name means: a folder, a GGUF file, a model that ships with the package, one of the pretrained ones."""

from __future__ import annotations

import re
from pathlib import Path

from pcc_bench.core import converted, pretrained, registry
from pcc_bench.core.documents import is_file, is_folder, read_json
from pcc_bench.core.errors import UsageError

FOLDER = Path(__file__).parents[1] / "lab" / "models"
CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"  # trained for pretrained decoders
CARD = "part.json"
PRETRAINED = "pretrained"  # folder of a compressor as it was before fine-tuning, in its own; never ships, for its size
GGUF = ".gguf"
DECODER = "lab-llama"  # that of the lab's compressors, and of methods without weights where none is named
DEFAULT = "pcc-lab-4x"  # the checkpoint of `--model pcc` where none is named, in a package that ships it
SHIPPED = (  # 'pcc-bench lab ship' takes these parts of a build
    "lab-llama",
    "pcc-lab-4x",
    "pcc-lab-16x",
    "icae-lab-4x",
    "cocom-lab-4x",
    "autocompressor-lab-4x",
    "llmlingua2-lab",
)
_LIKE_A_PART = re.compile(rf"(lab-[a-z0-9-]+|[a-z0-9]+-lab(?:-[a-z0-9-]+)?)(/{PRETRAINED})?")


def find(name: str) -> Path | None:
    """Folder of a shipped model (`pcc-lab-4x`); None where there is none of that name."""
    if not name or "/" in name:
        return None
    return next((parent / name for parent in (FOLDER, CHECKPOINTS) if is_file(parent / name / "config.json")), None)


def names() -> list[str]:
    """All shipped models."""
    return sorted(path.parent.name for parent in (FOLDER, CHECKPOINTS) for path in parent.glob("*/config.json"))


def located(name: str, gguf_file: str | None = None) -> str:
    """The folder that a model's name means; the name itself where it is a hub id.

    In this order: a folder here, a GGUF file here (its converted folder), a model that ships, a pretrained one
    (`pretrained.TABLE`).

    Args:
        name: As the user or a checkpoint gives it.
        gguf_file: A GGUF file in the folder or hub repository `name`: lm-eval's argument of that name.

    Raises:
        UsageError: A file that is missing or can't be read, a pretrained model that can't be had, or a part of the lab
            that does not ship; says how to get it.
    """
    if gguf_file:
        name = _in_repository(name, gguf_file)
    if is_folder(name):
        return name
    if Path(name).suffix == GGUF:
        if not is_file(name):
            raise UsageError(f"there is no GGUF file {name}: check the path")
        return str(converted.of_file(Path(name)))
    if name in pretrained.TABLE:
        return str(pretrained.folder(name))
    if folder := find(name):
        return str(folder)
    if like := _LIKE_A_PART.fullmatch(name):
        raise UsageError(
            f"'{name}' does not ship with the package: 'pcc-bench lab build {like[1]} --output lab' makes it "
            f"('pcc-bench lab ls' lists the parts), and then it is named lab/{name}"
        )
    return name


def beside(name: str, folder: Path) -> str:
    """How a checkpoint in `folder` means the name of another model: one beside it comes first."""
    near = folder / name
    return str(near.resolve()) if is_folder(near) or (near.suffix == GGUF and is_file(near)) else name


def _in_repository(name: str, gguf_file: str) -> str:
    if Path(name).is_dir():
        return str(Path(name) / gguf_file)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return str(hf_hub_download(name, gguf_file))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"gguf_file={gguf_file}: '{name}' is no folder here, and the file could not be fetched from the hub "
            f"({first}): check the name and the network"
        ) from None


def method_of(name: str) -> str | None:
    """The method that reads a checkpoint, by its `config.json`; None where that does not tell, or is not here."""
    path = Path(located(name)) / "config.json"
    config = read_json(path) if is_file(path) else None
    if not isinstance(config, dict):
        return None
    if config.get("model_type") == "COCOM":
        return "pisco" if config.get("training_form") == "both_separately" else "cocom"
    if "summary_length" in config:
        return "autocompressor"
    if any(str(name).endswith("ForTokenClassification") for name in config.get("architectures") or ()):
        return "llmlingua2"
    if (own := str(config.get("model_type"))) in registry.METHODS:  # our format of a method names it
        return own
    return "pcc" if "pcc_bench" in config else None


def is_part(name: str) -> bool:
    """Is this a model of the lab, shipped or built by the user?"""
    folder = Path(name if is_folder(name) else find(name) or name)
    return is_file(folder / CARD) or (folder.name == PRETRAINED and is_file(folder.parent / CARD))
