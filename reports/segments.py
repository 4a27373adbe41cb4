"""How far an answer is from the joint of two segments of its context, in the encoder's tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from pcc_bench.core import shipped
from pcc_bench.core.documents import is_file
from pcc_bench.reports.answers import Span
from pcc_bench.results.run import Run

Offsets = Sequence[tuple[int, int]]  # characters of each token
LENGTHS = ("segment_length", "document_length")  # options that say how many tokens a segment has
FILE = "tokenizer.json"


def length(run: Run) -> int | None:
    """Tokens of a segment; None where a method reads contexts whole or does not say."""
    options = run.reported.options if run.reported else {}
    known = [options[name] for name in LENGTHS if isinstance(options.get(name), int)]
    return known[0] if known else None


def tokens_of(run: Run) -> Callable[[str], Offsets] | None:
    """What cuts a run's contexts into tokens: the tokenizer of its checkpoint, else of its decoder; None: not here."""
    path = next((path for path in map(_file, (run.checkpoint, run.decoder)) if path is not None), None)
    if path is None:
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    return cache(lambda text: tokenizer.encode(text, add_special_tokens=False).offsets)  # many questions, one context


def _file(name: str) -> Path | None:
    folder = Path(name) if Path(name).is_dir() else shipped.find(name)
    return folder / FILE if folder is not None and is_file(folder / FILE) else None


def distance(offsets: Offsets, answer: Span, segment: int) -> int | None:
    """Tokens from an answer to the nearest joint: 0 across it, 1 beside it; None where the context is one segment."""
    inside = [i for i, (start, end) in enumerate(offsets) if start < answer.end and end > answer.start]
    joints = range(segment, len(offsets), segment)  # each before the token of that number
    if not inside or not joints:
        return None
    first, last = inside[0], inside[-1]
    return min(0 if first < joint <= last else joint - last if joint > last else first - joint + 1 for joint in joints)
