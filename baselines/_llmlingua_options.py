"""LLMLingua-2's options, and how the authors' package is opened with them."""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pcc_bench.decoder import Decoder
from pcc_bench.errors import UsageError
from pcc_bench.model.files import resolve

if TYPE_CHECKING:
    from pcc_bench.baselines._llmlingua_package import Counter, LocalPromptCompressor

Counting = Literal["decoder", "cl100k"]
ESCAPES = {r"\n": "\n", r"\t": "\t", r"\c": ","}  # lm-eval ends an argument at a comma


def open_package(pretrained: str, decoder: Decoder, counting: str, chunk_batch: int) -> LocalPromptCompressor:
    """The package's compressor over the weights of a folder or hub id.

    Raises:
        UsageError: The package, the weights or GPT-3.5's tokenizer are missing.
    """
    try:
        module = importlib.import_module("pcc_bench.baselines._llmlingua_package")
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("llmlingua", "tiktoken", "nltk"):
            raise
        raise UsageError(
            "--model llmlingua2 needs the package llmlingua: run pip install 'pcc-bench[llmlingua]'"
        ) from None
    counter = _counter(counting, decoder, module)
    package: LocalPromptCompressor = module.LocalPromptCompressor(
        resolve(pretrained), counter, str(decoder.device), chunk_batch
    )
    return package


def check_target(rate: float | None, target: int | None) -> int | None:
    """The number of tokens to leave, if it is one.

    Raises:
        UsageError: It is none, or a rate is given too.
    """
    if target is None:
        return None
    if rate is not None:
        raise UsageError(f"llmlingua2: rate={rate} and target_tokens={target} exclude each other: pass one of them")
    if isinstance(target, bool) or not isinstance(target, int) or target < 1:
        raise UsageError(f"llmlingua2: target_tokens={target} is no number of tokens: pass target_tokens=64 or so")
    return target


def words_of(given: Sequence[str] | str) -> list[str]:
    """Forced words as a list, or as `--model_args` give them."""
    if not isinstance(given, list | tuple):
        given = str(given).split()
    words = []
    for word in map(str, given):
        for escape, character in ESCAPES.items():
            word = word.replace(escape, character)
        words.append(word)
    return words


def look_alikes(tokens: Iterable[str]) -> re.Pattern[str]:
    """Matches the first character of every special token in a text, of overlapping ones too."""
    words = sorted({token for token in tokens if len(token) > 1}, key=len, reverse=True)
    return re.compile(f"(?=(?:{'|'.join(map(re.escape, words))}))(.)", re.DOTALL)


def _counter(counting: str, decoder: Decoder, module: Any) -> Counter:
    if counting == "decoder":
        counter: Counter = module.PlainCounter(decoder.tokenizer)
        return counter
    if counting != "cl100k":
        raise UsageError(f"llmlingua2: counting={counting} is unknown: pass counting=decoder or counting=cl100k")
    try:
        gpt: Counter = module.GptCounter()
    except Exception as error:  # whatever the network does
        raise UsageError(
            f"counting=cl100k needs GPT-3.5's tokenizer, which can't be downloaded ({type(error).__name__}): put its "
            "file into the folder TIKTOKEN_CACHE_DIR, or pass counting=decoder"
        ) from None
    return gpt


def digest(package: LocalPromptCompressor) -> str:
    """A short hash of the classifier's weights."""
    whole = hashlib.sha256(package.model_name.encode())
    for name, parameter in package.model.named_parameters():
        whole.update(name.encode() + parameter.detach().flatten()[:64].float().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()[:16]
