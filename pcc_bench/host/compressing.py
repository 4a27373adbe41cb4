"""From a text to a memory, outside lm-eval: what `pcc-bench compress` does."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from pcc_bench.core import registry
from pcc_bench.core.compressor import Compressor, Memory
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.documents import parse_yaml
from pcc_bench.core.errors import UsageError, memory_errors
from pcc_bench.host.store.store import MemoryStore
from pcc_bench.host.store.store import compress as compressed
from pcc_bench.model.init import open_decoder

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def read_input(file: Path | None, text: str | None) -> str:
    """The text to compress, from a file, standard input (`-`) or the command line.

    Raises:
        UsageError: None or several are given, the file can't be read, is not UTF-8 or is empty.
    """
    if (file is None) == (text is None):
        raise UsageError("give either a file (- for standard input) or --text")
    if text is not None:
        if not is_unicode(text):
            raise UsageError("--text holds half of a surrogate pair, or bytes that are not UTF-8: give a UTF-8 file")
        return _not_empty(text, "--text")
    assert file is not None
    if str(file) == "-":
        return decode(sys.stdin.buffer.read(), "standard input")
    try:
        return decode(file.read_bytes(), str(file))
    except OSError as error:
        raise UsageError(f"{file} can't be read ({error.strerror}): check the path") from None


def is_unicode(text: str) -> bool:
    """Can the text be written as UTF-8? Half of a surrogate pair can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def decode(data: bytes, where: str) -> str:
    """The text of a file that is to be compressed.

    Raises:
        UsageError: It is not UTF-8, or empty; the message names the byte and its offset.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = error.start + len(data) - len(error.object)  # "utf-8-sig" counts from behind a byte order mark
        raise UsageError(
            f"{where} is not UTF-8 text: byte 0x{data[start]:02x} at offset {start}; save it as UTF-8"
        ) from None
    return _not_empty(text, where)


def open_compressor(
    pretrained: str,
    decoder: str | None,
    device: str | None,
    dtype: str,
    options: Mapping[str, Any],
    method: str = "pcc",
) -> Compressor:
    """Load a method's checkpoint and its decoder outside lm-eval.

    Args:
        pretrained: The checkpoint, folder or hub id; the decoder of a method without weights.
        decoder: Its decoder, where it is not the one recorded.
        device: Where to; None or `auto`: a GPU where there is one.
        dtype: float32, bfloat16 or float16; `auto`: that of the decoder's files.
        options: The method's own.
        method: Its name.

    Raises:
        UsageError: Anything that does not fit.
    """
    kind = registry.get(method)
    check_options(kind, options)
    options = registry.typed(kind, options, "the options given")
    frozen = open_decoder_on(kind.decoder_path(pretrained, decoder), device, dtype)
    compressor = kind.load(pretrained, frozen, **options)
    compressor.source = pretrained
    return compressor


def open_decoder_on(name: str, device: str | None, dtype: str) -> Decoder:
    """Load a decoder and move it to a device; arguments as in `open_compressor`.

    Raises:
        UsageError: It can't be found, read or held, or there is no such device.
    """
    if dtype not in ("auto", *DTYPES):
        raise UsageError(f"dtype {dtype} is unknown{registry.suggest(dtype, ['auto', *DTYPES])}")
    if device in (None, "auto"):
        device = "cuda" if torch.cuda.is_available() else "cpu"
    frozen = open_decoder(name, DTYPES.get(dtype, dtype))
    try:
        with memory_errors(f"moving the decoder to {device}", "use a smaller dtype, or device cpu"):
            frozen.model.to(device)
    except (RuntimeError, AssertionError) as error:  # no such device
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"device {device} can't be used ({first[:120]}): pass cpu") from None
    return frozen


def compress(text: str, compressor: Compressor, store: MemoryStore | None = None, query: str = "") -> Memory:
    """The memory of one text, for a question where the method compresses for one, from a store where it is there.

    Raises:
        UsageError: There is not enough memory for it, or no room in the store.
    """
    with memory_errors("compressing the text", "use a smaller --dtype, --device cpu, or a shorter text"):
        (memory,) = compressed(compressor, [text], [query]) if store is None else store.compress([text], [query])
    if store is not None and store.trouble:
        raise UsageError(f"the memory store could not keep the memory ({store.trouble}): make room, or use another one")
    return memory


def counts(memory: Memory, compressor: Compressor) -> dict[str, str]:
    """What a memory holds and what it cost."""
    ratios = [f"{ratio:.2f}x" if ratio else "-" for ratio in (memory.ratio, memory.ratio_slots)]
    return {
        "source tokens (decoder's tokenizer)": f"{memory.source_tokens:,}",
        "source tokens (compressor's tokenizer)": f"{memory.compressor_tokens:,}",
        "source bytes (UTF-8)": f"{memory.source_bytes:,}",
        "slots": f"{memory.slots:,}",
        "boundary vectors": f"{memory.boundary:,}",
        "requested rate": f"{compressor.rate:g}x" if compressor.rate else "-",
        "achieved, boundary vectors counted": ratios[0],
        "achieved, slots only": ratios[1],
        "seconds": f"{memory.seconds:.3f}",
    }


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of transformers inside the block."""
    was_on = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            enable_progress_bar()


def _not_empty(text: str, where: str) -> str:
    if not text.strip():
        raise UsageError(f"{where} is empty: there is nothing to compress")
    return text


def check_options(kind: type[Compressor], options: Iterable[str]) -> None:
    """See that a method has options of these names.

    Raises:
        UsageError: It has not; the message suggests the nearest name.
    """
    known = [name for name in inspect.signature(kind.load).parameters if name not in ("pretrained", "decoder")]
    for name in options:
        if name not in known:
            raise UsageError(f"option {name}: {kind.name} has no such option{registry.suggest(name, known)}")


def parse_options(words: Sequence[str]) -> dict[str, Any]:
    """Options of a method, as `name=value` each; numbers and true/false are read as such.

    Raises:
        UsageError: A word is no such pair.
    """
    options: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--option {word} is not name=value")
        options[name] = parse_yaml(value, f"--option {name}")
    return options
