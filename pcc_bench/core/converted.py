"""GGUF files as plain model folders, converted once into the user's cache.

transformers reads GGUF, but slowly, into a model that it refuses to save, and only through arguments that half of our
callers do not have. A folder with `model.safetensors`, tokenizer and chat template is what everything here reads.

The cache is `PCC_BENCH_CACHE`, else `pcc-bench` in `XDG_CACHE_HOME`, else in `~/.cache`. A folder in it is made
beside, its manifest written last, and then renamed, so that it is whole or not there; a lock keeps two processes from
making the same one. torch is imported only where something has to be converted.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError

from pcc_bench.core.documents import checked, read_json, write_text
from pcc_bench.core.errors import UsageError

LIBRARY = "gguf==0.19.0"  # the version all this was tested with
MANIFEST = "source.json"
FORMAT = 1  # of a converted folder; another one is made again
CACHE = "PCC_BENCH_CACHE"


@dataclass(frozen=True)
class Source:
    """A GGUF file to convert.

    Attributes:
        name: For messages.
        pieces: Its files, in the order in which they are joined; one where it is whole.
        key: Tells it from what an older conversion was made of.
        sha256: What its hash must be; "" for a file of the user's.
        packages: What it was installed with.
        licence: Of the weights, where known.
        remedy: How to get it again.
    """

    name: str
    pieces: tuple[Path, ...]
    key: str
    sha256: str = ""
    packages: tuple[str, ...] = ()
    licence: str = ""
    remedy: str = "copy it again"

    @property
    def file(self) -> str:
        """Name of the whole file."""
        return self.pieces[0].name if len(self.pieces) == 1 else self.pieces[0].stem


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    bytes: int
    modified: int
    sha256: str


class _Manifest(BaseModel):
    """Where a converted folder comes from and what lies in it."""

    model_config = ConfigDict(extra="forbid")
    format: int
    key: str
    packages: tuple[str, ...]
    file: str
    sha256: str
    licence: str
    converted_with: str
    files: dict[str, _File]


def cache() -> Path:
    """The folder of converted decoders."""
    base = os.environ.get(CACHE)
    place = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "pcc-bench"
    return place.expanduser() / "decoders"


def of_file(path: Path) -> Path:
    """The folder made of a GGUF file of the user's; a file that has changed since is converted again.

    Raises:
        UsageError: As in `convert`.
    """
    path = path.resolve()
    stat = path.stat()
    key = hashlib.sha256(f"{path} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()
    place = cache() / f"{path.stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    return place if intact(place, key) else convert(Source(str(path), (path,), key), place)


def intact(place: Path, key: str) -> bool:
    """Is there a folder made of the source with this key, every file as it was written?

    A file whose time has changed (a copied or a damaged cache) is compared by its hash.
    """
    try:
        manifest = checked(_Manifest, read_json(place / MANIFEST), str(place / MANIFEST))
        whole = all(_same(place / name, file) for name, file in manifest.files.items())
    except (UsageError, OSError):
        return False
    return whole and manifest.format == FORMAT and manifest.key == key


def convert(source: Source, place: Path) -> Path:
    """Convert a GGUF file into the model folder `place` of the cache.

    Raises:
        UsageError: No library to read it with, a file that is damaged or of an architecture that transformers does
            not read from GGUF, or no room; one sentence.
    """
    _needs_library(source.name)
    with _write_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    with _locked(place, source.name):
        if intact(place, source.key):  # by another process, while this one waited
            return place
        sys.stderr.write(f"pcc-bench: converting {source.name} into {place}, once\n")
        for stale in place.parent.glob(f".{place.name}.*.part"):
            shutil.rmtree(stale, ignore_errors=True)
        part = place.with_name(f".{place.name}.{os.getpid()}.part")
        try:
            with _write_errors(place):
                part.mkdir()
            file = _whole(source, part, place)
            sha256 = _hash(file)
            if source.sha256 and sha256 != source.sha256:
                raise UsageError(
                    f"'{source.name}': the installed {source.file} is damaged or another version (its SHA-256 is not "
                    f"that of {source.packages[0]}): {source.remedy}"
                )
            _write(file, part, place, source)
            with _write_errors(place):
                if file.parent == part:
                    file.unlink()
                _write_manifest(part, source, sha256)
                if place.exists():
                    shutil.rmtree(place)
                part.rename(place)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return place


def _write(file: Path, part: Path, place: Path, source: Source) -> None:
    from pcc_bench.core import gguf  # torch and transformers, which most commands do without

    config, model, tokenizer = gguf.read(file, source.name, source.remedy)
    with _write_errors(place):
        gguf.save(config, model, tokenizer, part)


def _needs_library(name: str) -> None:
    if importlib.util.find_spec("gguf") is None:
        raise UsageError(f"'{name}' is a GGUF file, and the library that reads it is missing: pip install {LIBRARY}")


def _whole(source: Source, part: Path, place: Path) -> Path:
    """The file itself, or its pieces joined in `part`."""
    if len(source.pieces) == 1:
        return source.pieces[0]
    whole = part / source.file
    with _write_errors(place), whole.open("wb") as out:
        for piece in source.pieces:
            with piece.open("rb") as read:
                shutil.copyfileobj(read, out, 2**20)
    return whole


def _hash(file: Path) -> str:
    try:
        return _sha256(file)
    except OSError as error:
        raise UsageError(f"{file} can't be read ({error.strerror}): check its permissions") from None


def _write_manifest(part: Path, source: Source, sha256: str) -> None:
    files = {
        path.name: _File(bytes=path.stat().st_size, modified=path.stat().st_mtime_ns, sha256=_sha256(path))
        for path in sorted(part.iterdir())
    }
    manifest = _Manifest(
        format=FORMAT,
        key=source.key,
        packages=source.packages,
        file=source.file,
        sha256=sha256,
        licence=source.licence,
        converted_with=f"transformers {importlib.metadata.version('transformers')}",
        files=files,
    )
    write_text(part / MANIFEST, manifest.model_dump_json(indent=1) + "\n")


def _same(path: Path, recorded: _File) -> bool:
    stat = path.stat()
    if stat.st_size != recorded.bytes:
        return False
    return stat.st_mtime_ns == recorded.modified or _sha256(path) == recorded.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(place: Path, name: str) -> Iterator[None]:
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    with _write_errors(place):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            sys.stderr.write(f"pcc-bench: another process is converting {name}: waiting for it\n")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _write_errors(place: Path) -> Iterator[None]:
    """Turn a full disk or a folder that can't be written into one sentence."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)[:200]
        raise UsageError(
            f"{place} can't be written ({reason}): make room, or set {CACHE} to a folder that has some"
        ) from None
