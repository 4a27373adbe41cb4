"""What we add to lm-eval's result files: the account of each answer, and hashes of the code and settings behind it."""

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import NotRequired, TypedDict

from pcc_bench import FOLDERS, HOME, PACKAGE, __version__

PACKAGES = ("lm_eval", "torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "safetensors", "numpy")
SCHEMA_VERSION = 1  # in `config.pcc_bench.schema_version` of results_*.json


class SampleRecord(TypedDict):
    """The accounting of one answer: key `compression` of a line of `samples_*.jsonl`.

    Ratios are tokens of the context under the decoder's tokenizer per position of the decoder's input. Seconds are the
    answer's share of its batch; those of compressing are the same for all answers that share a memory.
    """

    contexts: int
    source_tokens: int  # the decoder's tokenizer, no special tokens
    compressor_tokens: int  # as the compressor reads them
    source_bytes: int
    slots: int
    boundary: int
    ratio_slots: float | None  # without boundary vectors; None where nothing is left of the context
    ratio: float | None  # with them
    bytes_per_position: float | None
    prompt_positions: int
    truncated_bytes: int
    compress_seconds: float
    prefill_seconds: NotRequired[float]
    decode_seconds: NotRequired[float]
    served_seconds: NotRequired[float]  # prefill and decoding by another engine (`backend=`), its queue included
    new_tokens: NotRequired[int]
    scored_tokens: NotRequired[int]  # of the continuation, blanks at the prompt's end among them; a log-likelihood's
    reused_positions: NotRequired[int]  # of the prompt, read once for several answers and not for this one
    cached: NotRequired[bool]  # answered by an earlier call; its seconds are that call's


@cache
def code() -> str:
    """A short hash of this package's source files: two runs with the same one ran the same code."""
    files = {}
    for home, folder in ((PACKAGE, "."), *((HOME, name) for name in FOLDERS)):
        for path in (home / folder).rglob("*"):
            if path.suffix in (".py", ".yaml") and "__pycache__" not in path.parts:
                files[path.relative_to(home).as_posix()] = path.read_bytes()
    return hashlib.sha256(b"".join(name.encode() + files[name] for name in sorted(files))).hexdigest()[:16]


def versions() -> dict[str, str | None]:
    return {"pcc_bench": __version__, **{name: installed(name) for name in PACKAGES}}


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
