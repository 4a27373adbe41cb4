"""GGUF files as plain model folders (safetensors, tokenizer, chat template), converted once into the user's cache.

transformers reads GGUF slowly, into a model that it refuses to save. A folder appears in the cache whole, with its
manifest; a lock keeps two processes from making the same one. torch is imported only to convert.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from pcc_bench.core.documents import Strict, checked, read_json, write_text, writing
from pcc_bench.core.errors import UsageError, first_line, foreign, memory_errors

LIBRARY = "gguf==0.19.0"  # the version all this was tested with
MANIFEST = "source.json"
FORMAT = 1  # of a converted folder; another one is made again
CACHE = "PCC_BENCH_CACHE"
MAKE_ROOM = f"make room, or set {CACHE} to a folder that has some"
MEMORY = "end other programs, or use a larger machine"


class GgufFile(NamedTuple):
    name: str  # for messages
    pieces: tuple[Path, ...]  # its files, in the order in which they are joined; one where it is whole
    key: str  # tells it from what an older conversion was made of
    sha256: str = ""  # what its hash must be; "" for a file of the user's
    packages: tuple[str, ...] = ()  # what it was installed with
    licence: str = ""  # of the weights, where known
    remedy: str = "copy it again"  # how to get it again

    @property
    def file(self) -> str:
        return self.pieces[0].name if len(self.pieces) == 1 else self.pieces[0].stem


class ModelFile(Strict):  # of a converted folder
    bytes: int
    modified: int
    sha256: str


class Manifest(Strict):  # where a converted folder comes from and what lies in it
    format: int
    key: str
    packages: tuple[str, ...]
    file: str
    sha256: str
    licence: str
    converted_with: str
    files: dict[str, ModelFile]


def cache() -> Path:
    """The folder of converted decoders: in `PCC_BENCH_CACHE`, else in `pcc-bench` in `XDG_CACHE_HOME` or `~/.cache`."""
    place = Path(os.environ.get(CACHE) or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "pcc-bench")
    return place.expanduser() / "decoders"


def of_file(path: Path) -> Path:
    """The folder made of a GGUF file of the user's; a file that has changed since is converted again."""
    path = path.resolve()
    stat = path.stat()
    key = hashlib.sha256(f"{path} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()
    place = cache() / f"{path.stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    return place if intact(place, key) else convert(GgufFile(str(path), (path,), key), place)


def intact(place: Path, key: str) -> bool:
    """Is there a folder made of this source, each file as it was written (by its time; else, in a copy, its hash)?"""
    try:
        manifest = checked(Manifest, read_json(place / MANIFEST), str(place / MANIFEST))
        pairs = [(place / name, file) for name, file in manifest.files.items()]
        whole = all(path.stat().st_size == file.bytes for path, file in pairs) and all(
            path.stat().st_mtime_ns == file.modified or _sha256(path) == file.sha256 for path, file in pairs
        )
    except (UsageError, OSError):
        return False
    return whole and manifest.format == FORMAT and manifest.key == key


def convert(source: GgufFile, place: Path) -> Path:
    if importlib.util.find_spec("gguf") is None:
        missing = f"and the library that reads it is missing: pip install {LIBRARY}"
        raise UsageError(f"'{source.name}' is a GGUF file, {missing}")
    lock, part = (place.with_name(f".{place.name}.{end}") for end in ("lock", f"{os.getpid()}.part"))
    held = FileLock(lock)
    with writing(place, MAKE_ROOM):
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            held.acquire(timeout=0)
        except Timeout:
            sys.stderr.write(f"pcc-bench: another process is converting {source.name}: waiting for it\n")
            held.acquire()
    try:
        if intact(place, source.key):  # by another process, while this one waited
            return place
        sys.stderr.write(f"pcc-bench: converting {source.name} into {place}, once\n")
        for stale in place.parent.glob(f".{place.name}.*.part"):
            shutil.rmtree(stale, ignore_errors=True)
        file = source.pieces[0]
        with writing(place, MAKE_ROOM):
            part.mkdir()
            if len(source.pieces) > 1:
                file = part / source.file
                with file.open("wb") as out:
                    out.writelines(piece.read_bytes() for piece in source.pieces)
        try:
            sha256 = _sha256(file)
        except OSError as error:
            raise UsageError(f"{file} can't be read ({error.strerror}): check its permissions") from None
        if source.sha256 and sha256 != source.sha256:
            problem = f"damaged or another version (its SHA-256 is not that of {source.packages[0]})"
            raise UsageError(f"'{source.name}': the installed {source.file} is {problem}: {source.remedy}")
        config, model, tokenizer = read_gguf(file, source.name, source.remedy)
        with writing(place, MAKE_ROOM), memory_errors(f"converting {source.name}", MEMORY):
            save_plain(config, model, tokenizer, part)
            if file.parent == part:
                file.unlink()
            write_text(part / MANIFEST, manifest_of(part, source, sha256).model_dump_json(indent=1) + "\n")
            if place.exists():
                shutil.rmtree(place)
            part.rename(place)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        held.release()
    return place


def manifest_of(folder: Path, source: GgufFile, sha256: str) -> Manifest:
    files = {
        path.name: ModelFile(bytes=path.stat().st_size, modified=path.stat().st_mtime_ns, sha256=_sha256(path))
        for path in sorted(folder.iterdir())
    }
    known: dict[str, Any] = {name: getattr(source, name) for name in ("key", "packages", "file", "licence")}
    version = f"transformers {importlib.metadata.version('transformers')}"
    return Manifest(**known, format=FORMAT, sha256=sha256, converted_with=version, files=files)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_gguf(file: Path, name: str, remedy: str) -> tuple[Any, Any, Any]:
    """Configuration, causal LM (float32) and tokenizer of a file that the user calls `name`."""
    import torch  # with transformers seconds, which most commands do without
    import transformers
    from gguf import GGUFReader

    try:  # the reader and numpy raise whatever a damaged file leads to, an IndexError as well as a MemoryError
        fields = GGUFReader(file).fields
        architecture = fields["general.architecture"].contents()
        pre_tokenizer = fields["tokenizer.ggml.pre"].contents() if "tokenizer.ggml.pre" in fields else None
    except Exception as error:
        raise UsageError(f"'{name}': {file.name} is damaged or not GGUF ({first_line(error)}): {remedy}") from None
    where: dict[str, Any] = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    reader: Any = transformers.AutoModelForCausalLM
    version = f"transformers {transformers.__version__}"
    sentence = f"'{name}': {version} does not read this GGUF file, architecture '{architecture}'"
    with foreign(sentence, "use the model's safetensors, or another model"), memory_errors(f"reading {name}", MEMORY):
        config = transformers.AutoConfig.from_pretrained(**where)
        model, loading = reader.from_pretrained(**where, dtype=torch.float32, output_loading_info=True)
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(**where)
    if missing := sorted(loading["missing_keys"]):
        raise UsageError(f"'{name}': {file.name} lacks {len(missing)} tensors ({missing[0]} first): {remedy}")
    if pre_tokenizer == "smollm":
        split_digits(tokenizer)
    return config, model, tokenizer


def save_plain(config: Any, model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model that was read from GGUF, in the smallest dtype that loses nothing, with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM

    state = model.state_dict()
    dtype = exact_dtype(state)
    with torch.device("meta"):  # transformers refuses to save the model itself, whose configuration says "quantized"
        plain: Any = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict({key: value.to(dtype) for key, value in state.items()}, assign=True)
    plain.tie_weights()
    plain.config.dtype = dtype
    plain.generation_config = model.generation_config
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def exact_dtype(state: dict[str, Any]) -> Any:
    import torch

    for dtype in (torch.bfloat16, torch.float16):
        if all(bool((value.to(dtype).float() == value.float()).all()) for value in state.values()):
            return dtype
    return torch.float32


def split_digits(tokenizer: Any) -> None:
    """Give a tokenizer SmolLM's pre-tokenizer, which transformers' GGUF reader lacks: a digit is a piece of its own."""
    from tokenizers import pre_tokenizers

    digits, rest = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, rest])
