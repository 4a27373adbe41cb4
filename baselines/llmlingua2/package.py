"""The `llmlingua` package's `PromptCompressor` as LLMLingua-2, without its constructor.

That constructor (0.2.2) downloads a tokenizer from OpenAI to count GPT-3.5's tokens, knows its two model families by
their hub names only, lets a checkpoint bring code, and sets the seeds of Python, NumPy and torch. All that follows is
the package's own code, called unchanged. Imports `llmlingua`.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tiktoken
import torch
from llmlingua import PromptCompressor
from transformers import AutoConfig, PreTrainedTokenizerBase

from pcc_bench.baselines.token_classifier.classifier import read_classifier
from pcc_bench.core.checkpoint_files import check_folder
from pcc_bench.core.decoder import plain_tokens
from pcc_bench.core.errors import UsageError, foreign

# The package asks the model's name whether it reads one or the other; a folder may be called anything.
FAMILIES = {"xlm-roberta": "xlm-roberta-large", "bert": "bert-base-multilingual-cased"}
FORCED = 100  # rows of the published vocabularies for forced words that are no token


class PlainCounter:
    """A tokenizer of transformers as the package's counter; words come again and again, so their ids are stored."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        if (ids := self.known.get(text)) is None:
            (ids,) = plain_tokens(self.tokenizer, [text])["input_ids"]
            if len(text) < 64:
                self.known[text] = ids
        return ids


def counter_of(counting: str, tokenizer: PreTrainedTokenizerBase) -> Any:
    """What counts tokens: the decoder's tokenizer, or GPT-3.5's (`cl100k`), which is downloaded; has `encode`."""
    if counting == "decoder":
        return PlainCounter(tokenizer)
    try:
        encoding = tiktoken.encoding_for_model("gpt-3.5-turbo")
    except Exception as error:  # whatever the network does
        raise UsageError(
            f"counting=cl100k needs GPT-3.5's tokenizer, which can't be downloaded ({type(error).__name__}): put its "
            "file into the folder TIKTOKEN_CACHE_DIR, or pass counting=decoder"
        ) from None
    # `<|endoftext|>` in a text is ordinary characters, where tiktoken alone would refuse it.
    return SimpleNamespace(encode=partial(encoding.encode, disallowed_special=()))


class LocalPromptCompressor(PromptCompressor):  # type: ignore[misc]
    """LLMLingua-2 in a folder with one of `FAMILIES`; `counter` counts tokens in place of GPT-3.5's tokenizer."""

    def __init__(self, folder: Path, counter: Any, device: str, batch: int) -> None:
        # What LLMLingua-2 reads of the package's attributes; those of LLMLingua-1 and LongLLMLingua are left out.
        self.model_name, self.use_llmlingua2, self.oai_tokenizer, self.device = family_of(folder), True, counter, device
        with untouched_randomness():
            dtype = "auto" if device == "cuda" else torch.float32
            self.model, self.tokenizer = read_classifier(folder, dtype, device_map=device)
            self.tokenizer.padding_side = "left"
            self.tokenizer.pad_token_id = self.model.config.pad_token_id or self.tokenizer.eos_token_id
            rows = self.model.get_input_embeddings().weight.shape[0]
            self.init_llmlingua2(max_batch_size=batch, max_force_token=FORCED)
        self.has_forced_rows = rows >= len(self.tokenizer)
        self.model.eval().requires_grad_(False)
        self.tokenizer.model_max_length = int(1e30)  # it is asked for whole texts, which the package then cuts


def family_of(folder: Path) -> str:
    """The name by which the package knows the kind of classifier in a folder; others are refused."""
    check_folder(folder)
    with foreign(f"{folder} is no LLMLingua-2 classifier"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    heads = config.architectures or []
    if config.model_type not in FAMILIES or not any("ForTokenClassification" in head for head in heads):
        raise UsageError(
            f"{folder} holds {' '.join(heads) or 'a ' + config.model_type}, not a classifier of LLMLingua-2 "
            "(XLMRobertaForTokenClassification or BertForTokenClassification): pass "
            "pretrained=microsoft/llmlingua-2-xlm-roberta-large-meetingbank or a folder with such weights"
        )
    if config.num_labels != 2:
        raise UsageError(f"{folder} tells {config.num_labels} labels apart; LLMLingua-2 has two: drop and keep")
    return FAMILIES[config.model_type]


@contextmanager
def untouched_randomness() -> Iterator[None]:
    """Leave the seeds, and torch's choice of cuDNN kernels, as they were."""
    python, numpy, hashing = random.getstate(), np.random.get_state(), os.environ.get("PYTHONHASHSEED")  # noqa: NPY002
    cudnn = torch.backends.cudnn
    kernels = cudnn.deterministic, cudnn.benchmark
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        cudnn.deterministic, cudnn.benchmark = kernels
        os.environ.pop("PYTHONHASHSEED", None)
        if hashing is not None:
            os.environ["PYTHONHASHSEED"] = hashing
