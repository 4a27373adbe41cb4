"""The memories of a compressor, kept in a folder: what is there is read, what is missing is made and put there.

A file is found by a hash of all that decides its memory, and is checked before it is used; a damaged one is replaced.
It is written beside its place and moved over it, so that neither a second writer nor a kill leaves half of one.
"""

import json
import os
import secrets
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from pcc_bench.core import documents
from pcc_bench.core.checkpoint_files import is_finite
from pcc_bench.core.compressor import Compressor, Memory, RawMemory
from pcc_bench.core.documents import PART
from pcc_bench.core.errors import UsageError
from pcc_bench.host.store import entry
from pcc_bench.host.store.entry import EXACT, PRECISIONS

FORMAT = 1  # of the folder and of its files; another one is refused
MARKER = "pcc_bench_store.json"
ENTRY = ".safetensors"
ABANDONED_SECONDS = 3600  # a part of this age has lost its writer
ENCODING = 1  # raised when a change of our code gives other memories for the same weights, options and text
LOOKED_AT = 64  # files of a store that is opened, to see whether it is another checkpoint's
# Damaged ones are missed too; unwritten: made and used, but the folder took no file.
COUNTS = ("hits", "misses", "damaged", "written", "unwritten", "evicted")


class StoredFile(NamedTuple):  # a file of the folder
    used: int  # when, last
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
                what = f"memory store {root} has format {form}, this version keeps {FORMAT}"
                raise UsageError(f"{what}: give another folder")
            write_whole(root / f"probe-{secrets.token_hex(8)}", b"").unlink()
        except OSError as error:
            problem = f"memory store {root} can't be written ({error.strerror})"
            raise UsageError(f"{problem}: give a folder that can, or run without one") from None

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

    def trim(self) -> int:
        """Delete parts that lost their writers, and files until the rest fits `max_bytes`; returns how many files."""
        if self.max_bytes is None:
            return 0
        now = time.time_ns()
        for part in self.files(PART):
            if now - part.used > ABANDONED_SECONDS * 10**9:
                part.path.unlink(missing_ok=True)
        entries = sorted(self.files(ENTRY))
        size = sum(file.size for file in entries)
        deleted = 0
        while size > self.max_bytes:
            entries[deleted].path.unlink(missing_ok=True)
            size -= entries[deleted].size
            deleted += 1
        return deleted

    def _path(self, key: str) -> Path:
        return self.root / key[:2] / (key + ENTRY)

    def files(self, suffix: str) -> Iterator[StoredFile]:
        """Files of ours only: whatever else somebody put into the folder is left alone."""
        for path in self.root.glob(f"[0-9a-f][0-9a-f]/*{suffix}"):
            try:
                state = path.lstat()
            except FileNotFoundError:  # another process deleted or renamed it
                continue
            yield StoredFile(state.st_mtime_ns, state.st_size, path)


def write_whole(path: Path, data: bytes) -> Path:
    """Write a file that is there whole or not at all, even after a power cut."""
    with documents.beside(path) as part, part.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return path


class MemoryStore:
    """A folder of memories for one compressor; any number of processes and compressors may share the folder.

    `exact` keeps the memory as the decoder reads it; the other `PRECISIONS` keep slots before the converter, and then
    memories read through the store are those of that precision from the first time on. Beyond `gib` GiB of files, those
    not used for longest are deleted.
    """

    def __init__(self, path: Path, compressor: Compressor, precision: str = EXACT, gib: float | None = None) -> None:
        if precision not in PRECISIONS:
            raise UsageError(f"memory_store_dtype={precision} is unknown: pass one of {', '.join(PRECISIONS)}")
        if precision != EXACT and not compressor.has_converter:
            problem = f"memory_store_dtype={precision} keeps slots before a converter, and {compressor.name} has none"
            raise UsageError(f"{problem}: pass {EXACT}, or leave it out")
        if compressor.depends_on_batch:
            problem = "makes memories that depend on the texts compressed beside them (padding=attended)"
            remedy = "leave out memory_store, or that option"
            raise UsageError(f"{compressor.name} with these options {problem}: {remedy}")
        self.compressor = compressor
        self.precision = precision
        self.counts: Counter[str] = Counter()  # of `COUNTS`, since it was last emptied
        self.trouble = ""  # why a file could not be written last, "" if all could
        decoder = compressor.decoder
        reader = [decoder.fingerprint, decoder.weights_fingerprint, str(decoder.dtype)]
        tokenizers = [tokenizer_fingerprint(tokenizer) for tokenizer in compressor.tokenizers]
        state = [ENCODING, compressor.fingerprint(), reader, tokenizers, precision]
        self._maker = documents.digest(state, 64)  # of all that decides a memory besides its text and question
        self._folder = StoreFolder(path, None if gib is None else int(gib * 2**30))
        makers = [entry.maker(file.path) for file in islice(self._folder.files(ENTRY), LOOKED_AT)]
        if makers and not {self._maker, ""} & set(makers):
            others = f"other checkpoints or options (none of {len(makers)} memories looked at fits)"
            remedy = "what is missing is made anew and kept beside them"
            warnings.warn(f"memory store {path} was made for {others}: {remedy}", stacklevel=2)

    def key(self, context: str, query: str = "") -> str:
        """Hash of all that decides a memory: code, compressor, decoder, dtype, precision, text and question."""
        return documents.digest([self._maker, context, query if self.compressor.query_aware else ""], 64)

    def compress(self, contexts: Sequence[str], queries: Sequence[str]) -> list[Memory]:
        """The memory of each context (none twice with one question), read where it is there, in seconds of reading."""
        keys = [self.key(context, query) for context, query in zip(contexts, queries, strict=True)]
        memories = {key: memory for key in keys if (memory := self._read(key)) is not None}
        missing = [index for index, key in enumerate(keys) if key not in memories]
        if not missing:
            return [memories[key] for key in keys]
        texts, questions = [contexts[i] for i in missing], [queries[i] for i in missing]
        fresh: list[Memory | RawMemory]
        if self.precision == EXACT:
            fresh = [*compress(self.compressor, texts, questions)]
        else:
            fresh = [*(raw := self.compressor.compress_raw(texts))]
            _check_finite(self.compressor, [memory.slots for memory in raw])
        for index, new in zip(missing, fresh, strict=True):
            key = keys[index]
            data = entry.write(key, self._maker, new, self.precision)
            try:
                self._folder.write(key, data)
                self.counts["written"] += 1
            except OSError as error:
                self.counts["unwritten"] += 1
                self.trouble = str(error)
            # as a later run will read it
            memories[key] = new if isinstance(new, Memory) else self._converted(entry.read(data, key))
        self.counts["evicted"] += self._folder.trim()
        return [memories[key] for key in keys]

    def _read(self, key: str) -> Memory | None:
        start = time.perf_counter()
        try:
            data = self._folder.read(key)
            if data is None:
                self.counts["misses"] += 1
                return None
            memory = entry.read(data, key)
            if isinstance(memory, RawMemory) != (self.precision != EXACT):
                raise entry.DamagedError("it was written in another precision")
            if isinstance(memory, Memory) and memory.text is not None and self.compressor.soft:
                raise entry.DamagedError("it is text, and the method reads vectors")
            converted = self._converted(memory)
            if converted.vectors is not None and converted.vectors.shape[1] != self.compressor.decoder.hidden_size:
                raise entry.DamagedError("it has another width than the decoder")
        except torch.OutOfMemoryError:
            raise
        except (OSError, entry.DamagedError, RuntimeError):  # torch's, where slots are not as wide as the converter
            self.counts["damaged"] += 1
            return None
        self.counts["hits"] += 1
        return replace(converted, seconds=time.perf_counter() - start)

    def _converted(self, memory: Memory | RawMemory) -> Memory:
        return self.compressor.convert(memory) if isinstance(memory, RawMemory) else memory


def compress(
    compressor: Compressor, contexts: Sequence[str], queries: Sequence[str], store: MemoryStore | None = None
) -> list[Memory]:
    """The memory of each context, for its question where the method is query-aware; all values finite."""
    if store is not None:
        return store.compress(contexts, queries)
    memories = compressor.compress_for(contexts, queries) if compressor.query_aware else compressor.compress(contexts)
    _check_finite(compressor, [memory.vectors for memory in memories if memory.vectors is not None])
    return memories


def _check_finite(compressor: Compressor, tensors: Iterable[torch.Tensor]) -> None:
    if not all(map(is_finite, tensors)):
        problem = "makes memories with values that are not finite numbers (NaN or infinity), which say nothing"
        origin = f"{compressor.name} ({compressor.source or 'its checkpoint'})"
        raise UsageError(f"{origin} {problem}: use another checkpoint, or dtype=float32")


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of how a tokenizer cuts text; padding and truncation, which calls leave behind in it, do not count."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state: dict[str, Any] = {"vocabulary": tokenizer.get_vocab()} if backend is None else json.loads(backend.to_str())
    return documents.digest({name: value for name, value in state.items() if name not in ("padding", "truncation")}, 64)
