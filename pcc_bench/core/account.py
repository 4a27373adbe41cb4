"""What we add to lm-eval's result files, field by field."""

from __future__ import annotations

from typing import NotRequired, TypedDict

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
