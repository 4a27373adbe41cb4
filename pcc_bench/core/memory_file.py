"""Memories on disk: safetensors, never pickles, with all that is needed to answer from one without its compressor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pcc_bench.core.compressor import Compressor, Frame, Memory
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.documents import checked, is_file, is_folder, parse_json, replaced
from pcc_bench.core.errors import UsageError
from pcc_bench.core.pretrained import variants
from pcc_bench.core.tensors import check_weights

VECTORS_VERSION = 1  # of files that hold vectors; raised when an old reader could not read a new file
TEXT_VERSION = 2  # of files that hold text
SCHEMA_VERSION = 3  # of files whose vectors have positions of their own
KEY = "pcc_bench_memory"  # of the header among the file's metadata
Natural = Annotated[int, Field(ge=0)]


class Header(BaseModel):
    """What a memory file says about its vectors, or the text itself.

    Attributes:
        schema_version: Of this header.
        method: The method that made it.
        compressor: Fingerprint of the compressor, weights and options.
        decoder: Fingerprint of the only decoder that can read it.
        decoder_name: Where that decoder came from.
        tokenizer: Name of the tokenizer behind `source_tokens`: the decoder's.
        rate: Requested rate, source tokens per slot.
        options: The method's options, boundary policy included.
        starts_with_bos: Whether BOS stands before it in the decoder's input.
        stop_token_ids: Ids that end an answer besides the decoder's own.
        suppressed_token_ids: Ids an answer may not contain.
        opening: Of the method's frame, and so are `closing` (where it is no vectors; those are a tensor beside the
            memory) and `lead`.
        memory_position: As in `Compressor`.
        positions: As in `Memory`.
        checkpoint: What made it, as the user named it (a folder here: its whole path).
        text: The shortened text of a hard method, which has no vectors.
        source_tokens: As in `Memory`, and so are the following.
    """

    model_config = ConfigDict(frozen=True)

    schema_version: int = VECTORS_VERSION
    method: str
    compressor: str
    decoder: str
    decoder_name: str
    tokenizer: str
    rate: float | None = Field(gt=0, allow_inf_nan=False)
    options: dict[str, Any]
    starts_with_bos: bool | None
    stop_token_ids: tuple[Natural, ...]
    suppressed_token_ids: tuple[Natural, ...]
    opening: tuple[Natural, ...] = ()
    closing: tuple[Natural, ...] = ()
    lead: str = ""
    memory_position: Natural | None = None
    positions: tuple[Natural, ...] | None = None
    checkpoint: str = ""
    text: str | None = None
    source_tokens: Natural
    compressor_tokens: Natural
    source_bytes: Natural
    slots: Natural
    boundary: Natural
    truncated_bytes: Natural = 0
    seconds: float = Field(ge=0, allow_inf_nan=False)


class StoredMemory(Compressor):
    """A memory read from a file, in the place of the compressor that made it.

    Args:
        header: Its description.
        vectors: [slots + boundary, hidden size of the decoder]; None where the header has the text.
        decoder: Reads it.
        closing: [n, hidden size of the decoder], where vectors stand between prompt and answer.
    """

    name = "memory-file"
    soft = True
    summary = "one memory, read from a file"

    def __init__(
        self, header: Header, vectors: torch.Tensor | None, decoder: Decoder, closing: torch.Tensor | None = None
    ) -> None:
        super().__init__(decoder)
        self.header = header
        self._frame = Frame(header.opening, header.closing if closing is None else closing, header.lead)
        self.rate = header.rate
        counts = (
            "source_tokens",
            "compressor_tokens",
            "source_bytes",
            "slots",
            "boundary",
            "seconds",
            "truncated_bytes",
            "positions",
        )
        state = {name: getattr(header, name) for name in counts}
        try:
            self.memory = Memory(**state, vectors=vectors, text=header.text)
        except ValueError as error:
            raise UsageError(f"a memory file is damaged: {error}; compress the text again") from None

    @classmethod
    def load(cls, pretrained: str, decoder: Decoder) -> StoredMemory:
        """Read a memory file; see `load`."""
        header, vectors, closing = _read(Path(pretrained))
        if header.decoder != decoder.fingerprint:
            different = variants(header.decoder_name, decoder.name)
            raise UsageError(
                f"{pretrained} was made for the decoder '{header.decoder_name}' (fingerprint {header.decoder}), not "
                f"for '{decoder.name}' ({decoder.fingerprint}){different}: use that one, or compress the text again"
            )
        _check_fits(pretrained, header, {"memory": vectors, "closing": closing}, decoder)
        return (cls if header.text is None else StoredText)(header, vectors, decoder, closing)

    def compress(self, contexts: Sequence[str]) -> list[Memory]:
        """The stored memory, whatever the context: its text is not in the file."""
        return [self.memory for _ in contexts]

    def options(self) -> dict[str, Any]:
        """Those it was made with."""
        return self.header.options

    def fingerprint(self) -> str:
        """That of the compressor that made it."""
        return self.header.compressor

    @property
    def starts_with_bos(self) -> bool | None:
        """As the method that made it wants it."""
        return self.header.starts_with_bos

    def frame(self, templated: bool) -> Frame:
        """As the method that made it wants it; under a chat template no method has one."""
        return Frame() if templated else self._frame

    @property
    def memory_position(self) -> int | None:
        """As the method that made it wants it."""
        return self.header.memory_position

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """As the method that made it wants it."""
        return self.header.stop_token_ids

    @property
    def suppressed_token_ids(self) -> tuple[int, ...]:
        """As the method that made it wants it."""
        return self.header.suppressed_token_ids


class StoredText(StoredMemory):
    """The same for a hard method, whose memory is text."""

    soft = False


def save(memory: Memory, compressor: Compressor, path: Path) -> None:
    """Write a memory; the file appears whole or not at all.

    Raises:
        UsageError: The folder can't be written.
    """
    tensors = {} if memory.vectors is None else {"memory": memory.vectors.contiguous()} | _closing(compressor)
    header = _header(memory, compressor)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as part:
            save_file(tensors, part, metadata={KEY: header.model_dump_json()})
    except (OSError, SafetensorError) as error:
        raise UsageError(f"can't write {path} ({error}): choose another place with --output") from None


def load(path: Path, decoder: Decoder) -> StoredMemory:
    """Read a memory for the decoder it was made for.

    Raises:
        UsageError: No such file, a damaged one, one of a newer version, or one made for another decoder.
    """
    return StoredMemory.load(str(path), decoder)


def header(path: Path) -> Header:
    """What a memory file says about itself, without a decoder.

    Raises:
        UsageError: As in `load`.
    """
    return _read(path)[0]


def _header(memory: Memory, compressor: Compressor) -> Header:
    decoder, frame = compressor.decoder, compressor.frame(templated=False)
    source = compressor.source
    return Header(
        schema_version=_version(memory),
        checkpoint=str(Path(source).resolve()) if source and is_folder(source) else source,
        text=memory.text,
        method=compressor.name,
        compressor=compressor.fingerprint(),
        decoder=decoder.fingerprint,
        decoder_name=decoder.name,
        tokenizer=decoder.tokenizer.name_or_path,
        rate=compressor.rate,
        options=compressor.options(),
        starts_with_bos=compressor.starts_with_bos,
        stop_token_ids=compressor.stop_token_ids,
        suppressed_token_ids=compressor.suppressed_token_ids,
        opening=tuple(frame.opening),
        closing=() if isinstance(frame.closing, torch.Tensor) else tuple(frame.closing),
        lead=frame.lead,
        memory_position=compressor.memory_position,
        positions=memory.positions,
        source_tokens=memory.source_tokens,
        compressor_tokens=memory.compressor_tokens,
        source_bytes=memory.source_bytes,
        slots=memory.slots,
        boundary=memory.boundary,
        truncated_bytes=memory.truncated_bytes,
        seconds=memory.seconds,
    )


def _version(memory: Memory) -> int:
    if memory.text is not None:
        return TEXT_VERSION
    return VECTORS_VERSION if memory.positions is None else SCHEMA_VERSION


def _closing(compressor: Compressor) -> dict[str, torch.Tensor]:
    """Vectors between prompt and answer, where a method has some there."""
    closing = compressor.frame(templated=False).closing
    return {"closing": closing.cpu().contiguous()} if isinstance(closing, torch.Tensor) else {}


# Reading


def _read(path: Path) -> tuple[Header, torch.Tensor | None, torch.Tensor | None]:
    if not is_file(path):
        raise UsageError(f"no memory file {path}: 'pcc-bench compress' makes one")
    try:
        with safe_open(path, framework="pt") as file:
            metadata, names = file.metadata() or {}, list(file.keys())
            vectors, closing = (file.get_tensor(name) if name in names else None for name in ("memory", "closing"))
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path} is damaged or not safetensors ({error}): compress the text again") from None
    if KEY not in metadata:
        raise UsageError(f"{path} is a safetensors file but no memory: 'pcc-bench compress' makes those")
    header = _parse(metadata[KEY], path)
    if (vectors is None) == (header.text is None):
        raise UsageError(f"{path} is damaged: a memory is either vectors or text")
    if vectors is None:
        return header, None, None
    check_weights({"memory": vectors} | ({} if closing is None else {"closing": closing}), str(path))
    if vectors.dim() != 2 or len(vectors) != header.slots + header.boundary:
        raise UsageError(f"{path} is damaged: its vectors are not the {header.slots} + {header.boundary} it counts")
    return header, vectors, closing


def _check_fits(name: str, header: Header, tensors: Mapping[str, torch.Tensor | None], decoder: Decoder) -> None:
    """See that vectors have the decoder's width, and that ids are rows of its embedding."""
    for what, tensor in tensors.items():
        if tensor is not None and (tensor.dim() != 2 or tensor.shape[1] != decoder.hidden_size):
            shape = list(tensor.shape)
            raise UsageError(
                f"{name} is damaged: {what} has shape {shape}, the decoder's width is {decoder.hidden_size}"
            )
    rows = len(decoder.embedding.weight)
    for what in ("opening", "closing"):
        if wrong := [token for token in getattr(header, what) if token >= rows]:
            raise UsageError(f"{name} is damaged: {what} has the token {wrong[0]}, the decoder has {rows:,}")


def _parse(text: str, path: Path) -> Header:
    state = parse_json(text, f"the header of {path}")
    version = state.get("schema_version") if isinstance(state, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UsageError(f"{path} has schema version {version}, this pcc-bench reads up to {SCHEMA_VERSION}: update it")
    return checked(Header, state, f"{path} is damaged")
