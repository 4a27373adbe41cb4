"""Memories on disk: safetensors, never pickles, with all that is needed to answer from one without its compressor."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field
from safetensors import safe_open
from safetensors.torch import save_file

from pcc_bench.core.checkpoint_files import check_weights
from pcc_bench.core.compressor import Compressor, Frame, Layout, Memory
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.documents import checked, is_file, is_folder, parse_json, replaced
from pcc_bench.core.errors import UsageError, foreign
from pcc_bench.core.shipped import variants

VECTORS_VERSION = 1  # of files that hold vectors; raised when an old reader could not read a new file
TEXT_VERSION = 2  # of files that hold text
SCHEMA_VERSION = 3  # of files whose vectors have positions of their own
KEY = "pcc_bench_memory"  # of the header among the file's metadata
# Fields that the header shares with the memory, and with the layout.
COUNTS: tuple[str, ...] = ("source_tokens", "compressor_tokens", "source_bytes", "slots", "boundary", "seconds")
COUNTS += ("truncated_bytes", "positions")
LAYOUT = ("starts_with_bos", "memory_position", "stop_token_ids", "suppressed_token_ids")
Natural = Annotated[int, Field(ge=0)]


class Header(BaseModel, frozen=True):  # what a memory file says about its vectors, or the text itself
    schema_version: int = VECTORS_VERSION  # of this header
    method: str  # the method that made it
    compressor: str  # fingerprint of the compressor, weights and options
    decoder: str  # fingerprint of the only decoder that can read it
    decoder_name: str  # where that decoder came from
    tokenizer: str  # name of the tokenizer behind `source_tokens`: the decoder's
    rate: float | None = Field(gt=0, allow_inf_nan=False)  # requested rate, source tokens per slot
    options: dict[str, Any]  # the method's options, boundary policy included
    starts_with_bos: bool | None  # whether BOS stands before it in the decoder's input
    stop_token_ids: tuple[Natural, ...]  # ids that end an answer besides the decoder's own
    suppressed_token_ids: tuple[Natural, ...]  # ids an answer may not contain
    opening: tuple[Natural, ...] = ()  # of the layout's frame, as the following; vectors of `closing` are a tensor
    closing: tuple[Natural, ...] = ()
    lead: str = ""
    memory_position: Natural | None = None  # as in `Layout`
    positions: tuple[Natural, ...] | None = None  # as in `Memory`
    checkpoint: str = ""  # what made it, as the user named it (a folder here: its whole path)
    text: str | None = None  # the shortened text of a hard method, which has no vectors
    source_tokens: Natural  # as in `Memory`, and so are the following
    compressor_tokens: Natural
    source_bytes: Natural
    slots: Natural
    boundary: Natural
    truncated_bytes: Natural = 0
    seconds: float = Field(ge=0, allow_inf_nan=False)


@dataclass(frozen=True, eq=False)
class SavedMemory:  # read from a file, with what stands for the compressor that made it
    header: Header  # what the file says
    memory: Memory
    layout: Layout  # how it stands in the decoder's input
    decoder: Decoder  # reads it
    name: str  # of the method that made it
    soft: bool  # is it vectors?

    def fingerprint(self) -> str:
        return self.header.compressor


Reader = Compressor | SavedMemory  # who says how memories are read: what makes them, or the file they were saved in


def save(memory: Memory, reader: Reader, path: Path) -> None:
    """Write a memory that `reader` made, or the file it was read from; the file appears whole or not at all."""
    decoder, layout = reader.decoder, reader.layout
    closing = layout.frame.closing
    if isinstance(reader, SavedMemory):
        header = reader.header
    else:
        version = VECTORS_VERSION if memory.positions is None else SCHEMA_VERSION
        source = reader.source
        header = Header(
            schema_version=version if memory.text is None else TEXT_VERSION,
            checkpoint=str(Path(source).resolve()) if source and is_folder(source) else source,
            text=memory.text,
            method=reader.name,
            compressor=reader.fingerprint(),
            decoder=decoder.fingerprint,
            decoder_name=decoder.name,
            tokenizer=decoder.tokenizer.name_or_path,
            rate=reader.rate,
            options=reader.options(),
            opening=tuple(layout.frame.opening),
            closing=() if isinstance(closing, torch.Tensor) else tuple(closing),
            lead=layout.frame.lead,
            **{name: getattr(layout, name) for name in LAYOUT},
            **{name: getattr(memory, name) for name in COUNTS},
        )
    tensors = {} if memory.vectors is None else {"memory": memory.vectors.contiguous()}
    if tensors and isinstance(closing, torch.Tensor):
        tensors["closing"] = closing.cpu().contiguous()
    with replaced(path) as part:
        save_file(tensors, part, metadata={KEY: header.model_dump_json()})


def load(path: Path, decoder: Decoder) -> SavedMemory:
    """Read a memory for the decoder it was made for; for another one, or damaged, it is a UsageError."""
    header, vectors, closing = _read(path)
    if header.decoder != decoder.fingerprint:
        origin = f"{path} was made for the decoder '{header.decoder_name}' (fingerprint {header.decoder})"
        other = f"not for '{decoder.name}' ({decoder.fingerprint}){variants(header.decoder_name, decoder.name)}"
        raise UsageError(f"{origin}, {other}: use that one, or compress the text again")
    for what, tensor in (("memory", vectors), ("closing", closing)):
        if tensor is not None and (tensor.dim() != 2 or tensor.shape[1] != decoder.hidden_size):
            shape = f"{what} has shape {list(tensor.shape)}, the decoder's width is {decoder.hidden_size}"
            raise UsageError(f"{path} is damaged: {shape}")
    rows = len(decoder.embedding.weight)
    for what in ("opening", "closing"):
        if wrong := [token for token in getattr(header, what) if token >= rows]:
            raise UsageError(f"{path} is damaged: {what} has the token {wrong[0]}, the decoder has {rows:,}")
    try:
        memory = Memory(**{name: getattr(header, name) for name in COUNTS}, vectors=vectors, text=header.text)
    except ValueError as error:
        raise UsageError(f"{path} is damaged: {error}; compress the text again") from None
    frame = Frame(header.opening, header.closing if closing is None else closing, header.lead)
    layout = Layout(frame=frame, **{name: getattr(header, name) for name in LAYOUT})
    return SavedMemory(header, memory, layout, decoder, header.method, header.text is None)


def header(path: Path) -> Header:
    return _read(path)[0]


def _read(path: Path) -> tuple[Header, torch.Tensor | None, torch.Tensor | None]:
    if not is_file(path):
        raise UsageError(f"no memory file {path}: 'pcc-bench compress' makes one")
    damaged = foreign(f"{path} is damaged or not safetensors", "compress the text again")
    with damaged, safe_open(path, framework="pt") as file:
        metadata, names = file.metadata() or {}, list(file.keys())
        vectors, closing = (file.get_tensor(name) if name in names else None for name in ("memory", "closing"))
    if KEY not in metadata:
        raise UsageError(f"{path} is a safetensors file but no memory: 'pcc-bench compress' makes those")
    state = parse_json(metadata[KEY], f"the header of {path}")
    version = state.get("schema_version") if isinstance(state, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UsageError(f"{path} has schema version {version}, this pcc-bench reads up to {SCHEMA_VERSION}: update it")
    header = checked(Header, state, f"{path} is damaged")
    if (vectors is None) == (header.text is None):
        raise UsageError(f"{path} is damaged: a memory is either vectors or text")
    if vectors is None:
        return header, None, None
    check_weights({"memory": vectors} | ({} if closing is None else {"closing": closing}), str(path))
    if vectors.dim() != 2 or len(vectors) != header.slots + header.boundary:
        raise UsageError(f"{path} is damaged: its vectors are not the {header.slots} + {header.boundary} it counts")
    return header, vectors, closing
