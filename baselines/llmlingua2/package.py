"""The `llmlingua` package's `PromptCompressor` as LLMLingua-2, without its constructor.

That constructor (0.2.2) downloads a tokenizer from OpenAI to count GPT-3.5's tokens, knows its two model families by
their hub names only, lets a checkpoint bring code, and sets the seeds of Python, NumPy and torch. All that follows is
the package's own code, called unchanged. Imports `llmlingua`.
"""

from __future__ import annotations

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

from pcc_bench.baselines.token_classifier.classifier import classifier_digest, read_classifier
from pcc_bench.core.checkpoint_files import check_folder
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
        """Ids without special tokens; look-alikes of special tokens are ordinary characters."""
        if (ids := self.known.get(text)) is None:
            ids = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
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
    """A `PromptCompressor` for LLMLingua-2 that opens a folder with one of `FAMILIES`, and nothing else.

    `counter` counts tokens where the package would with GPT-3.5's tokenizer; `batch` chunks are read in a forward.
    """

    def __init__(self, folder: Path, counter: Any, device: str, batch: int) -> None:
        self.model_name = family_of(folder)
        self.use_llmlingua2 = True
        self.retrieval_model = None
        self.retrieval_model_name = None
        self.open_api_config: dict[str, Any] = {}
        self.cache_bos_num = 10
        self.prefix_bos_num = 100
        self.oai_tokenizer = counter
        with untouched_randomness():
            self.load_model(str(folder), device)
            rows = self.model.get_input_embeddings().weight.shape[0]
            self.init_llmlingua2(max_batch_size=batch, max_force_token=FORCED)
        self.has_forced_rows = rows >= len(self.tokenizer)
        self.model.eval().requires_grad_(False)
        self.tokenizer.model_max_length = int(1e30)  # it is asked for whole texts, which the package then cuts

    def load_model(self, model_name: str, device_map: str, model_config: Any = None) -> None:
        """As the package's, which draws tensors that a folder lacks or has in another shape at random."""
        dtype = "auto" if device_map == "cuda" else torch.float32
        self.device = device_map
        self.model, self.tokenizer = read_classifier(Path(model_name), dtype, device_map=device_map)
        self.tokenizer.padding_side = "left"
        self.tokenizer.pad_token_id = self.model.config.pad_token_id or self.tokenizer.eos_token_id
        self.context_idxs: list[int] = []
        self.max_position_embeddings = self.model.config.max_position_embeddings

    def digest(self) -> str:
        """A short hash of the classifier's weights."""
        return classifier_digest(self.model_name, self.model)


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
