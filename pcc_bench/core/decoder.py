"""The frozen decoder: a causal LM of transformers with its tokenizer, and the little the methods ask of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pcc_bench.core.context import check_chat
from pcc_bench.core.errors import UsageError, foreign
from pcc_bench.core.ropes import Ropes
from pcc_bench.core.tensors import check_finite


class Decoder:
    """A causal LM, read-only here.

    Args:
        model: Any causal LM of transformers. It is put into evaluation mode and its parameters are frozen.
        tokenizer: Its tokenizer.
        name: Where it came from, for messages and results.

    Raises:
        UsageError: One of its parameters holds NaN or infinity (a pass over all of them; not those without values, on
            the `meta` device).
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str = "") -> None:
        check_finite(model.named_parameters(), f"the decoder '{name or type(model).__name__}'")
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name or str(getattr(model.config, "_name_or_path", ""))
        self.adapted = ""

    @property
    def device(self) -> torch.device:
        """Where its input vectors live."""
        return self.embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of its weights."""
        return self.embedding.weight.dtype

    @property
    def embedding(self) -> torch.nn.Embedding:
        """Its input embedding."""
        return cast(torch.nn.Embedding, self.model.get_input_embeddings())

    @property
    def hidden_size(self) -> int:
        """Width of an input vector (the embedding's, which is what a memory must match)."""
        return self.embedding.weight.shape[1]

    @property
    def bos(self) -> list[int]:
        """Beginning of sequence, as ids; none where the decoder has no such token."""
        return [] if self.tokenizer.bos_token_id is None else [int(self.tokenizer.bos_token_id)]

    @cached_property
    def ropes(self) -> Ropes:
        """What of its rotations depends on the length of a sequence."""
        return Ropes.of(self.model)

    def check_runs(self) -> None:
        """See that it runs: what is wrong with a configuration may show in the first forward only.

        Raises:
            UsageError: It does not.
        """
        with foreign(f"the decoder '{self.name}' does not run"), torch.inference_mode():
            vectors = self.embed([0])[None]
            logits = self.model(inputs_embeds=vectors, use_cache=False).logits
            if logits.dim() != 3:
                raise UsageError(f"the decoder '{self.name}' gives logits of shape {list(logits.shape)}")

    def adapt(self, weights: str) -> None:
        """Note that a method has put weights of its own into the model: from then on it is another decoder.

        Args:
            weights: A hash of them; part of `fingerprint`.
        """
        self.adapted = weights
        self.model.eval().requires_grad_(False)
        for cached in ("fingerprint", "weights_fingerprint"):
            self.__dict__.pop(cached, None)

    def embed(self, ids: Sequence[int]) -> torch.Tensor:
        """Input vectors of token ids: [n] -> [n, hidden size]."""
        return cast(torch.Tensor, self.embedding(torch.tensor(ids, dtype=torch.long, device=self.device)))

    def chat(self, turns: Sequence[Mapping[str, str]], **ends: Any) -> str:
        """Turns (`role`, `content`) in the tokenizer's chat template, as text.

        Raises:
            UsageError: The template is none, asks for what its sandbox refuses, or does not say what the turns say.
        """
        where = f"the chat template of '{self.name}'"
        with foreign(f"{where} can't be applied"):
            text = str(self.tokenizer.apply_chat_template(list(turns), tokenize=False, **ends))  # type: ignore[arg-type]
        check_chat([turn["content"] for turn in turns], text, where)
        return text

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, no special tokens added, look-alikes of special tokens read as ordinary characters."""
        if not texts:
            return []
        encoded = self.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)
        return [len(ids) for ids in encoded["input_ids"]]

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of the architecture's sizes and of the first 256 rows of the input embedding.

        The rows are rounded to bfloat16, so that one decoder has one fingerprint whether it is loaded in float32 or
        bfloat16; tokens added at the end of the vocabulary (memory boundaries) do not change it, weights that a method
        put in (`adapt`) do.
        """
        config = self.model.config
        sample = self.embedding.weight.detach()[:256].to(torch.bfloat16).cpu().contiguous()
        sizes = [config.model_type, config.hidden_size, config.num_hidden_layers]
        digest = hashlib.sha256(repr(sizes).encode())
        digest.update(sample.view(torch.int16).numpy().tobytes() + self.adapted.encode())
        return digest.hexdigest()[:16]

    @cached_property
    def weights_fingerprint(self) -> str:
        """A short hash of the first values of every parameter: tells fine-tunes and adapters apart, as loaded."""
        digest = hashlib.sha256()
        for name, parameter in self.model.named_parameters():
            sample = parameter.detach().flatten()[:64].float().cpu().contiguous()
            digest.update(name.encode() + sample.numpy().tobytes())
        return digest.hexdigest()[:16]
