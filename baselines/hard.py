"""What the hard methods share: shorter text with its accounting, and budgets counted in the decoder's tokens."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForTokenClassification, PreTrainedTokenizerBase

from pcc_bench.core import shipped
from pcc_bench.core.architecture import check_finite
from pcc_bench.core.checkpoint_files import load_tokenizer, pretrained
from pcc_bench.core.compressor import Compressor, Memory
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError

ESCAPES = {r"\n": "\n", r"\t": "\t", r"\c": ","}  # lm-eval ends an argument at a comma


class HardCompressor(Compressor):
    """A method whose memory is shorter text: a subclass says which text is kept."""

    soft = False
    default = shipped.DECODER

    def shorten(self, context: str) -> str:
        """The text the decoder reads in place of `context`."""
        raise NotImplementedError

    def compress(self, contexts: Sequence[str]) -> list[Memory]:
        """Shorten each context; its tokens are counted in the decoder's tokenizer."""
        start = time.perf_counter()
        kept = [self.shorten(context) for context in contexts]
        return self.account(contexts, kept, time.perf_counter() - start)

    def account(
        self, contexts: Sequence[str], kept: Sequence[str], seconds: float, read: Sequence[int] | None = None
    ) -> list[Memory]:
        """Memories of shortened texts.

        Args:
            contexts: The contexts.
            kept: What is left of each.
            seconds: What all of them took together.
            read: Tokens of each context under the method's own tokenizer; the decoder's where it has none.
        """
        counts = self.decoder.count_tokens([*contexts, *kept])
        sources, slots = counts[: len(contexts)], counts[len(contexts) :]
        return [
            Memory(
                source_tokens=source,
                compressor_tokens=own,
                source_bytes=len(context.encode()),
                slots=size,
                seconds=seconds / len(contexts),
                text=text,
            )
            for context, text, source, size, own in zip(contexts, kept, sources, slots, read or sources, strict=True)
        ]


class ClassifierCompressor(HardCompressor):
    """A hard method whose model is not the decoder, and whose budget is a rate or a number of tokens.

    Args:
        decoder: Any decoder; it reads text.
        rate: Source tokens per kept token; 2 where there is no target.
        target_tokens: Tokens to leave of each context, whatever its length; in place of a rate.

    Raises:
        UsageError: One of them is none, or both are given.
    """

    default = "llmlingua2-lab"

    def __init__(self, decoder: Decoder, rate: float | None, target_tokens: int | None) -> None:
        super().__init__(decoder)
        self.target_tokens = _check_target(self.name, rate, target_tokens)
        self.rate = check_rate(self.name, 2 if rate is None else rate) if target_tokens is None else None

    @classmethod
    def decoder_path(cls, pretrained: str, decoder: str | None) -> str:
        """The classifier knows no decoder: it has to be named, unless it is the lab's."""
        if not decoder and pretrained == cls.default:
            return shipped.DECODER
        if not decoder:
            raise UsageError(f"--model {cls.name} needs model_args decoder=<folder or hub id> beside pretrained=")
        return decoder


def check_rate(method: str, rate: float) -> float:
    """The rate, where it is one.

    Raises:
        UsageError: It is below 1, or not a number.
    """
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not rate > 0:
        raise UsageError(f"{method}: rate={rate} is not a rate (source tokens per kept token): pass rate=4 (or 16 ...)")
    if rate < 1:
        raise UsageError(f"{method}: rate={rate} would lengthen the context: pass rate=4 (or 16 ...)")
    return float(rate)


def _check_target(method: str, rate: float | None, target: int | None) -> int | None:
    if target is None:
        return None
    if rate is not None:
        raise UsageError(f"{method}: rate={rate} and target_tokens={target} exclude each other: pass one of them")
    if isinstance(target, bool) or not isinstance(target, int) or target < 1:
        raise UsageError(f"{method}: target_tokens={target} is no number of tokens: pass target_tokens=64 or so")
    return target


def words_of(given: Sequence[str] | str) -> list[str]:
    """Forced words as a list, or as `--model_args` give them: blanks between them, some characters escaped."""
    if not isinstance(given, list | tuple):
        given = str(given).split()
    words = []
    for word in map(str, given):
        for escape, character in ESCAPES.items():
            word = word.replace(escape, character)
        words.append(word)
    return words


def read_classifier(folder: Path, dtype: torch.dtype | str, **options: Any) -> tuple[Any, PreTrainedTokenizerBase]:
    """The token classification model of a folder, with all its tensors finite, and its tokenizer.

    Raises:
        UsageError: One of them can't be read, or tensors are lost or not finite.
    """
    tokenizer = load_tokenizer(folder)
    model = pretrained(AutoModelForTokenClassification, folder, dtype, **options)
    check_finite(model.named_parameters(), f"the token classifier {folder}")
    return model, tokenizer


def classifier_digest(name: str, model: torch.nn.Module) -> str:
    """A short hash of a classifier's weights, and of a name that says how they are read."""
    whole = hashlib.sha256(name.encode())
    for key, parameter in model.named_parameters():
        whole.update(key.encode() + parameter.detach().flatten()[:64].float().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()[:16]


def budget(tokens: int, rate: float) -> int:
    """Tokens that a compressor of a rate would leave of so many; at least one."""
    return max(1, int(tokens / rate))


def token_spans(decoder: Decoder, text: str) -> np.ndarray:
    """Where the decoder's tokens lie in a text: characters [start, end), [tokens, 2].

    A character of several bytes may be cut into several tokens; each of them spans the whole character.
    """
    encoded = decoder.tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
    )
    return np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
