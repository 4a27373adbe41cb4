"""The memory encoder: a causal language model that reads a segment followed by memory tokens.

The last hidden states at the memory tokens, after the final norm, are the slots (paper section 3; compressor of the
official model.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.activations import NewGELUActivation

from pcc_bench.errors import UsageError
from pcc_bench.model.config import MEMORY_TOKENS, Padding, PccConfig, Slots

# A CPU is fastest while activations stay in its caches (benchmarks/throughput.py), a GPU when its forwards are large.
BATCH_TOKENS = {"cpu": 1_280}
MEMORY_TOKEN_NAMES = tuple(f"<mem_{index}>" for index in range(MEMORY_TOKENS))


@dataclass(frozen=True)
class Segment:
    """One encoder input: `ids` of the text, followed by the first `slots` memory tokens."""

    context: int
    ids: list[int]
    slots: int

    def __len__(self) -> int:
        return len(self.ids) + self.slots


class Encoder(nn.Module):
    """Body of a causal LM (no vocabulary head: its logits are never used; official quirk Q8) with its tokenizer.

    Args:
        model: What holds the weights: the body itself, or a peft model around a causal LM.
        tokenizer: Has the 64 memory tokens.
        config: Segment length, slots, padding.
        batch_tokens: Most tokens (padding included) in one forward; by default `BATCH_TOKENS` of the device.

    Raises:
        UsageError: The tokenizer lacks memory tokens, or a segment does not fit the model's positions.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        config: PccConfig,
        batch_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.model = fuse_gelu(model)
        self.tokenizer = tokenizer
        self.config = config
        self.batch_tokens = batch_tokens
        self.memory_ids = memory_token_ids(tokenizer)
        self.check_positions(config)

    @property
    def body(self) -> PreTrainedModel:
        """The transformer without a vocabulary head; its output is taken after the final norm."""
        model: Any = self.model
        body: PreTrainedModel = (model.get_base_model() if hasattr(model, "get_base_model") else model).base_model
        return body

    @property
    def hidden_size(self) -> int:
        """Width of a slot before the converter."""
        size: int = self.body.config.hidden_size
        return size

    @property
    def pad_id(self) -> int:
        """The id the official code pads with: unk for GPT-2, the first reserved token for Llama-3."""
        reserved = self.tokenizer.get_vocab().get("<|reserved_special_token_0|>")
        for candidate in (self.tokenizer.pad_token_id, reserved, self.tokenizer.unk_token_id):
            if candidate is not None:
                return int(candidate)
        return int(self.tokenizer.eos_token_id or 0)

    def tokenize(self, contexts: Sequence[str]) -> list[list[int]]:
        """Contexts in the encoder's tokens; text that looks like a special token stays text (official quirk Q9)."""
        if not contexts:
            return []
        encoded = self.tokenizer(
            list(contexts), add_special_tokens=self.config.encoder_bos, split_special_tokens=True, verbose=False
        )
        return [list(ids) for ids in encoded["input_ids"]]

    def segments(self, contexts: Sequence[Sequence[int]]) -> list[Segment]:
        """Cut tokenized contexts into segments, contexts in order and segments in order within each."""
        if self.config.padding is Padding.ATTENDED:
            longest = max((len(ids) for ids in contexts), default=0)
            contexts = [[*ids, *[self.pad_id] * (longest - len(ids))] for ids in contexts]
        length = self.config.segment_length
        return [
            Segment(index, piece, self._slots(len(piece)))
            for index, ids in enumerate(contexts)
            for start in range(0, len(ids), length)
            if (piece := list(ids[start : start + length]))
        ]

    def forward(self, segments: Sequence[Segment]) -> list[torch.Tensor]:
        """Encode segments in few large forwards, sorted by length.

        Returns:
            For each segment, in the order given, its slots: [segment.slots, hidden size].
        """
        slots: list[torch.Tensor | None] = [None] * len(segments)
        for batch in self._batches(segments):
            hidden = self.body(input_ids=self._stack([segments[i] for i in batch]), use_cache=False).last_hidden_state
            for row, i in enumerate(batch):
                start = len(segments[i].ids)
                slots[i] = hidden[row, start : start + segments[i].slots]
        return [tensor for tensor in slots if tensor is not None]

    def _slots(self, tokens: int) -> int:
        if self.config.slots is Slots.PROPORTIONAL:
            return -(-tokens // self.config.rate)
        return self.config.slots_per_segment

    def _batches(self, segments: Sequence[Segment]) -> Iterator[list[int]]:
        """Indices of segments, longest first, so that a batch is full of segments of nearly one length."""
        order = sorted(range(len(segments)), key=lambda i: len(segments[i]), reverse=True)
        budget = self.batch_tokens or BATCH_TOKENS.get(self.body.device.type, 16_384)
        start = 0
        while start < len(order):
            size = max(1, budget // len(segments[order[start]]))
            yield order[start : start + size]
            start += size

    def _stack(self, segments: Sequence[Segment]) -> torch.Tensor:
        """Input ids [batch, longest], filled up on the right.

        Attention is causal: what stands behind a segment's memory tokens can't reach them, so that no mask is needed
        and any id will do.
        """
        width = max(len(segment) for segment in segments)
        ids = torch.full((len(segments), width), self.memory_ids[0], dtype=torch.long)
        for row, segment in enumerate(segments):
            ids[row, : len(segment)] = torch.tensor(segment.ids + self.memory_ids[: segment.slots])
        return ids.to(self.body.device)

    def check_positions(self, config: PccConfig) -> None:
        """See that a segment fits the model.

        Raises:
            UsageError: It does not.
        """
        limit = getattr(self.body.config, "max_position_embeddings", None)
        needed = config.segment_length + config.slots_per_segment
        if limit is not None and needed > limit:
            raise UsageError(
                f"segments of {config.segment_length} tokens with {config.slots_per_segment} memory tokens "
                f"need {needed} positions, the encoder has {limit}: use a shorter segment_length"
            )


def fuse_gelu(model: nn.Module) -> nn.Module:
    """Let torch compute GPT-2's GELU (tanh approximation) in one kernel; transformers spells it out in eight.

    The function is the same; results differ by float rounding.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
    return model


def memory_token_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of `<mem_0>`..`<mem_63>`.

    Raises:
        UsageError: The tokenizer does not have them as single tokens.
    """
    vocabulary = tokenizer.get_vocab()
    missing = [name for name in MEMORY_TOKEN_NAMES if name not in vocabulary]
    if missing:
        raise UsageError(
            f"the encoder's tokenizer ({tokenizer.name_or_path}) lacks {len(missing)} of the {MEMORY_TOKENS} memory "
            f"tokens ({missing[0]} first): it is not a PCC encoder's; 'pcc-bench init' makes one from a plain model"
        )
    return [vocabulary[name] for name in MEMORY_TOKEN_NAMES]
