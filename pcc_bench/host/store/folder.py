"""Files by key in one folder, shared by processes: whole or not there, with a size limit.

Every file is written beside its place, synchronised and moved over it, so that neither a second writer nor a kill
leaves half of one under its name. What stands in a file is its reader's to check.
"""

import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pcc_bench.core import documents
from pcc_bench.core.errors import UsageError

FORMAT = 1  # of the folder and of its files; another one is refused
MARKER = "pcc_bench_store.json"
ENTRY = ".safetensors"
PART = ".part"  # ends the name of a file that is being written
ABANDONED_SECONDS = 3600  # a part of this age has lost its writer


class Entry(NamedTuple):
    """A file of the folder: when it was last used, its bytes, its place."""

    used: int
    size: int
    path: Path


class StoreFolder:
    """A folder of files by key, made if missing; beyond `max_bytes` those not used for longest are deleted."""

    def __init__(self, root: Path, max_bytes: int | None = None) -> None:
        self.root = root
        self.max_bytes = max_bytes
        try:
            root.mkdir(parents=True, exist_ok=True)
            marker = root / MARKER
            if not marker.exists():
                if any(not path.name.endswith(PART) for path in root.iterdir()) and not marker.exists():
                    raise UsageError(f"{root} holds other files and is no memory store: give a new or an empty folder")
                write_whole(marker, json.dumps({"format": FORMAT}).encode())
            form: object = "unknown"
            with suppress(UsageError, AttributeError):
                form = documents.read_json(marker).get("format", form)
            if form != FORMAT:
                raise UsageError(
                    f"memory store {root} has format {form}, this version keeps {FORMAT}: give another folder"
                )
            write_whole(root / f"probe-{secrets.token_hex(8)}", b"").unlink()
        except OSError as error:
            raise UsageError(
                f"memory store {root} can't be written ({error.strerror}): give a folder that can, or run without one"
            ) from None

    def read(self, key: str) -> bytes | None:
        """The file of a key, None where there is none; from now on it is the one used last."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        with suppress(OSError):  # another user's file can't be marked as used, or it was deleted just now
            os.utime(path)
        return data

    def write(self, key: str, data: bytes) -> None:
        """Put a file under a key, over the one that may be there; OSError: what was there stays."""
        path = self._path(key)
        path.parent.mkdir(exist_ok=True)
        write_whole(path, data)

    def some(self, count: int) -> list[Path]:
        return [entry.path for entry in islice(self._files(ENTRY), count)]

    def trim(self) -> int:
        """Delete parts that lost their writers, and files until the rest fits `max_bytes`; returns how many files."""
        if self.max_bytes is None:
            return 0
        now = time.time_ns()
        for part in self._files(PART):
            if now - part.used > ABANDONED_SECONDS * 10**9:
                part.path.unlink(missing_ok=True)
        entries = sorted(self._files(ENTRY))
        size = sum(entry.size for entry in entries)
        deleted = 0
        for entry in entries:
            if size <= self.max_bytes:
                break
            entry.path.unlink(missing_ok=True)
            size -= entry.size
            deleted += 1
        return deleted

    def _path(self, key: str) -> Path:
        return self.root / key[:2] / (key + ENTRY)

    def _files(self, suffix: str) -> Iterator[Entry]:
        """Files of ours only: whatever else somebody put into the folder is left alone."""
        for path in self.root.glob(f"[0-9a-f][0-9a-f]/*{suffix}"):
            try:
                state = path.lstat()
            except FileNotFoundError:  # another process deleted or renamed it
                continue
            yield Entry(state.st_mtime_ns, state.st_size, path)


def write_whole(path: Path, data: bytes) -> Path:
    """Write a file that is there whole or not at all, even after a power cut."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}{PART}")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return path
