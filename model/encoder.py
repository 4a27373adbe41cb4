"""The memory encoder: a causal language model that reads a segment and the memory tokens behind it.

The last hidden states at the memory tokens, after the final norm, are the slots (paper section 3; compressor of the
official model.py). With mean pooling there are no memory tokens, and a slot is the mean of neighbouring hidden states.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.activations import NewGELUActivation

from pcc_bench.core.decoder import Decoder, batches, check_window, plain_tokens
from pcc_bench.core.errors import UsageError
from pcc_bench.model.config import MEMORY_TOKENS, PccConfig

MEMORY_TOKEN_NAMES = tuple(f"<mem_{index}>" for index in range(MEMORY_TOKENS))


@dataclass(frozen=True)
class Segment:
    """One encoder input: `ids` of the text and the first `memory_tokens` memory tokens, which become `slots`."""

    context: int
    ids: list[int]
    slots: int
    memory_tokens: int

    def __len__(self) -> int:
        return len(self.ids) + self.memory_tokens


class Encoder(nn.Module):
    """Body of a causal LM (no vocabulary head: its logits are never used; official quirk Q8) with its tokenizer."""

    def __init__(
        self,
        model: nn.Module,  # the body itself, or a peft model around a causal LM
        tokenizer: PreTrainedTokenizerBase,
        config: PccConfig,
        batch_tokens: int | None = None,  # most tokens (padding included) in one forward; by the device
    ) -> None:
        super().__init__()
        self.model, self.tokenizer, self.config, self.batch_tokens = fuse_gelu(model), tokenizer, config, batch_tokens
        self.memory_ids: list[int] = []
        self.memory_rows: nn.Parameter | None = None  # where the vocabulary is the decoder's
        self.gate = nn.Parameter(torch.zeros(self.hidden_size)) if config.gate else None
        if config.pooling == "memory_tokens":
            if config.encoder.layers is None:
                self.memory_ids = memory_token_ids(tokenizer)
            else:
                self.memory_rows = nn.Parameter(torch.randn(MEMORY_TOKENS, self.hidden_size) * 0.02)
        self.check_positions(config)

    @property
    def body(self) -> PreTrainedModel:
        model: Any = self.model
        body: PreTrainedModel = (model.get_base_model() if hasattr(model, "get_base_model") else model).base_model
        return body

    @property
    def hidden_size(self) -> int:
        return int(self.body.config.hidden_size)

    @property
    def slot_size(self) -> int:
        """Width of a slot before the converter: a hidden state, with `residual` followed by an input vector."""
        residual: int = self.body.get_input_embeddings().weight.shape[1] if self.config.residual else 0  # type: ignore[assignment,index]
        return self.hidden_size + residual

    def tokenize(self, contexts: Sequence[str]) -> list[list[int]]:
        """Contexts in the encoder's tokens; text that looks like a special token stays text (official quirk Q9)."""
        return list(plain_tokens(self.tokenizer, contexts, add_special_tokens=self.config.encoder_bos)["input_ids"])

    def segments(self, contexts: Sequence[Sequence[int]]) -> list[Segment]:
        if self.config.padding == "attended":
            # the official code pads with unk for GPT-2, with the first reserved token for Llama-3
            tokenizer, reserved = self.tokenizer, self.tokenizer.get_vocab().get("<|reserved_special_token_0|>")
            ends = (tokenizer.pad_token_id, reserved, tokenizer.unk_token_id, tokenizer.eos_token_id)
            padding = next((int(token) for token in ends if token is not None), 0)
            longest = max(map(len, contexts), default=0)
            contexts = [[*ids, *[padding] * (longest - len(ids))] for ids in contexts]
        length, full, rate = self.config.segment_length, self.config.slots_per_segment, self.config.rate
        pooled = self.config.pooling == "mean"
        proportional = pooled or self.config.slots == "proportional"
        return [
            Segment(index, piece, slots := -(-len(piece) // rate) if proportional else full, 0 if pooled else slots)
            for index, ids in enumerate(contexts)
            for start in range(0, len(ids), length)
            if (piece := list(ids[start : start + length]))
        ]

    def parts(self, segments: Sequence[Segment], slots: int | None) -> Iterator[list[int]]:
        """Indices of segments that fill whole forwards and have about so many slots; None: all of them."""
        part: list[int] = []
        for batch in batches(list(map(len, segments)), self.body.device, self.batch_tokens):
            part += batch
            if slots is not None and sum(segments[i].slots for i in part) >= slots:
                yield sorted(part)
                part = []
        if part:
            yield sorted(part)

    def forward(self, segments: Sequence[Segment]) -> list[torch.Tensor]:
        """Slots of each segment, [segment.slots, slot size]."""
        slots: dict[int, torch.Tensor] = {}
        for indices in batches(list(map(len, segments)), self.body.device, self.batch_tokens):
            batch = [segments[i] for i in indices]
            inputs = self._inputs(batch)
            hidden = self.body(**inputs, use_cache=False).last_hidden_state
            if self.config.pooling == "mean":
                hidden = self._pool(hidden, inputs["inputs_embeds"], batch)
            for row, i in enumerate(indices):
                start = len(segments[i].ids) if segments[i].memory_tokens else 0
                slots[i] = hidden[row, start : start + segments[i].slots]
        return [slots[i] for i in range(len(segments))]

    def _pool(self, hidden: torch.Tensor, inputs: torch.Tensor, segments: Sequence[Segment]) -> torch.Tensor:
        """Means over `rate` neighbouring tokens, weighted with a gate: [batch, slots of the longest, slot size]."""
        # The last group of a segment may be shorter.
        batch, longest, rate = len(segments), hidden.shape[1], self.config.rate
        lengths = torch.tensor([len(segment.ids) for segment in segments], device=hidden.device)
        mask = torch.arange(longest, device=hidden.device) < lengths[:, None]

        def groups(values: torch.Tensor) -> torch.Tensor:
            padding = (0, 0) * (values.dim() - 2) + (0, -longest % rate)
            return nn.functional.pad(values, padding).view(batch, -1, rate, *values.shape[2:])

        scores = torch.zeros(mask.shape, device=mask.device)
        if self.gate is not None:
            scores = (hidden.float() * self.gate.float()).sum(-1)
        members = groups(mask)
        weights = groups(scores).masked_fill(~members, -torch.inf).softmax(-1)
        weights = torch.where(members, weights, 0)  # a group of nothing but padding has no softmax

        def pool(vectors: torch.Tensor) -> torch.Tensor:
            return torch.einsum("bgr,bgrd->bgd", weights.to(vectors.dtype), groups(vectors))

        if not self.config.residual:
            return pool(hidden)
        scale = weights.square().sum(-1, keepdim=True).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        return torch.cat([pool(hidden), pool(inputs) / scale.to(inputs.dtype)], -1)

    def _inputs(self, segments: Sequence[Segment]) -> dict[str, torch.Tensor]:
        """Input ids [batch, longest], or input vectors [batch, longest, width], filled up on the right."""
        # Attention is causal: what stands behind a segment (and its memory tokens) can't reach it, and needs no mask.
        memory_ids = self.memory_ids or [0] * MEMORY_TOKENS
        lines = [torch.tensor(segment.ids + memory_ids[: segment.memory_tokens]) for segment in segments]
        ids = nn.utils.rnn.pad_sequence(lines, batch_first=True)
        vocabulary = getattr(self.body.config, "vocab_size", None)
        if vocabulary is not None and int(ids.max()) >= vocabulary:
            raise UsageError(
                f"the encoder's tokenizer ({self.tokenizer.name_or_path}) gives the token {int(ids.max())}, the "
                f"encoder has {vocabulary}: they do not belong together"
            )
        ids = ids.to(self.body.device)
        if self.config.encoder.layers is None and self.config.pooling == "memory_tokens":
            return {"input_ids": ids}
        vectors: torch.Tensor = self.body.get_input_embeddings()(ids)
        if self.memory_rows is not None:
            vectors = vectors.clone()
            for row, segment in enumerate(segments):
                rows = self.memory_rows[: segment.memory_tokens].to(vectors.dtype)
                vectors[row, len(segment.ids) : len(segment)] = rows
        return {"inputs_embeds": vectors}

    def check_positions(self, config: PccConfig) -> None:
        memory_tokens = 0 if config.pooling == "mean" else config.slots_per_segment
        what = f"the encoder: a segment of {config.segment_length} tokens with {memory_tokens} memory tokens"
        check_window(self.body.config, config.segment_length + memory_tokens, what, "use a shorter segment_length")


def first_layers_config(decoder: Decoder, layers: int) -> PreTrainedConfig:
    """The configuration of the first layers of a decoder; one that has fewer is a `UsageError`."""
    config = cast(PreTrainedConfig, decoder.model.base_model.config)
    if layers > config.num_hidden_layers:
        raise UsageError(f"the decoder '{decoder.name}' has {config.num_hidden_layers} layers, not {layers}")
    return shallow(config, layers)


def shallow(config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    """The configuration of a model's first layers."""
    first = copy.deepcopy(config)
    first.num_hidden_layers = layers
    if getattr(first, "layer_types", None):
        first.layer_types = first.layer_types[:layers]
    return first


def first_layers(decoder: Decoder, layers: int, dtype: torch.dtype, *, share: bool) -> PreTrainedModel:
    """The first layers of a decoder with its final norm and its input embedding, as a model of its own."""
    # With `share`, the decoder's own tensors where they have that dtype (they must then stay as they are); else copies
    # of all but the embedding.
    whole: Any = decoder.model.base_model
    with init_empty_weights(include_buffers=False):
        body: PreTrainedModel = type(whole)(first_layers_config(decoder, layers))
    body.requires_grad_(False)
    embedding = {id(parameter) for parameter in whole.get_input_embeddings().parameters()}
    names = body.state_dict().keys()
    state = {name: tensor for name, tensor in whole.state_dict(keep_vars=True).items() if name in names}
    for name, tensor in state.items():
        if not (share or id(tensor) in embedding) or tensor.dtype != dtype:
            state[name] = nn.Parameter(tensor.detach().to(dtype, copy=True))
    body.load_state_dict(state, assign=True)
    body.eval()
    return body


def fuse_gelu(model: nn.Module) -> nn.Module:
    """Let torch compute GPT-2's GELU (tanh approximation) in one kernel, not eight; equal up to float rounding."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
    return model


def memory_token_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of `<mem_0>`..`<mem_63>`, each a single token; a `UsageError` where the tokenizer lacks one."""
    vocabulary = tokenizer.get_vocab()
    if missing := [name for name in MEMORY_TOKEN_NAMES if name not in vocabulary]:
        raise UsageError(
            f"the encoder's tokenizer ({tokenizer.name_or_path}) lacks {len(missing)} of the {MEMORY_TOKENS} memory "
            f"tokens ({missing[0]} first): it is not a PCC encoder's; 'pcc-bench init' makes one from a plain model"
        )
    return [vocabulary[name] for name in MEMORY_TOKEN_NAMES]
