"""Decoding from prompts that are token ids, or vectors where memories stand: batched, left-padded, timed."""

import inspect
import math
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, LogitsProcessorList, StoppingCriteriaList

from pcc_bench.core.decoder import Decoder, now
from pcc_bench.core.processors import FirstTokenClock, over_new_tokens

DecoderInput = list[int] | torch.Tensor  # token ids, or input vectors [length, hidden size]


@dataclass(frozen=True)
class ReadPrefix:  # beginnings of prompts that the decoder has read; the prompts go on behind them
    cache: DynamicCache  # keys and values, rows padded on the left. Decoding adds to it, so it serves once.
    lengths: list[int]  # positions of each row's beginning
    ids: list[list[int]] | None = None  # its token ids, where prompts are token ids

    @property
    def width(self) -> int:
        return max(self.lengths)

    def before(self, inputs: dict[str, torch.Tensor], decoder: Decoder) -> dict[str, Any]:
        """Inputs of `model.generate` that cover beginnings and rest (`left_pad`), as it wants them with a cache."""
        mask = torch.cat([left_mask(self.lengths, decoder.device), inputs["attention_mask"]], dim=1)
        positions = positions_of(mask)
        if "position_ids" in inputs:
            positions[:, self.width :] = inputs["position_ids"]
        covered = {"attention_mask": mask, "position_ids": positions, "past_key_values": self.cache}
        if self.ids is not None:
            ids = left_pad(decoder, self.ids)["input_ids"]
            return {"input_ids": torch.cat([ids, inputs["input_ids"]], dim=1), **covered}
        vectors = inputs["inputs_embeds"]  # generate() wants the whole and reads what the cache has not
        before = vectors.new_zeros(len(vectors), self.width, vectors.shape[2])
        return {"inputs_embeds": torch.cat([before, vectors], dim=1), **covered}

    def behind(self, lengths: Sequence[int], device: torch.device) -> dict[str, Any]:
        """Inputs of `model` that put rows of some lengths, padded on the right, behind what was read."""
        read = torch.ones(len(lengths), max(lengths), dtype=torch.long, device=device)
        mask = torch.cat([left_mask(self.lengths, device), read], dim=1)
        ends = torch.tensor([before + own for before, own in zip(self.lengths, lengths, strict=True)], device=device)
        # padding repeats the last position of its row: a greater one could change the rotations of them all
        positions = torch.minimum(positions_of(mask)[:, self.width :], ends[:, None] - 1)
        return {"attention_mask": mask, "position_ids": positions, "past_key_values": self.cache}


def left_mask(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    """The mask of rows padded on the left: [batch, longest], 0 where there is padding."""
    rows = [torch.ones(length, dtype=torch.long, device=device) for length in lengths]
    return pad_sequence(rows, batch_first=True, padding_side="left")


def positions_of(mask: torch.Tensor) -> torch.Tensor:
    """Position ids that count what a mask lets through: [batch, length], 0 where there is padding at the start."""
    return (mask.cumsum(1) - 1).clamp_min(0)


class Generated(NamedTuple):
    ids: list[list[int]]  # new token ids of each row, the one that ended it included, padding cut
    prefill_seconds: float  # wall-clock until the logits of the first token, for the batch
    decode_seconds: float  # from there to the end, for the batch


def generate(
    decoder: Decoder,
    prompts: Sequence[DecoderInput],
    max_new_tokens: int,
    stop_token_ids: Sequence[int] = (),
    suppressed_token_ids: Sequence[int] = (),
    stopping_criteria: StoppingCriteriaList | None = None,
    positions: Sequence[Sequence[int]] | None = None,
    prefix: ReadPrefix | None = None,
    **options: Any,
) -> Generated:
    """Decode one batch; greedy unless `options` (of `model.generate`, see `pcc_bench.core.processors`) say otherwise.

    `prompts` are all token ids, or all input vectors [length, hidden size]. `stop_token_ids` end a row besides the
    decoder's own; `positions` are those of each prompt, where they do not count from 0, and new tokens count on from
    the last. `prefix` stands before the prompts and was read already; `positions` are then of what is behind it.
    """
    decoder.ropes.forget(decoder.model)
    inputs: dict[str, Any] = left_pad(decoder, prompts, positions)
    if prefix is not None:
        inputs = prefix.before(inputs, decoder)
    ends = sorted(end_token_ids(decoder, stop_token_ids))
    prompt_length = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
    processors, options = over_new_tokens(decoder, options, prompt_length, max_new_tokens, ends, suppressed_token_ids)
    clock = FirstTokenClock(decoder)
    start = now(decoder.device)
    vectors = inputs.get("inputs_embeds")
    with torch.inference_mode(), autocast_for(decoder, vectors), decoder.ropes.rereading(decoder.model, vectors):
        out = decoder.model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            eos_token_id=ends or None,
            pad_token_id=pad_token_id(decoder),
            logits_processor=LogitsProcessorList([clock, *processors]),
            stopping_criteria=stopping_criteria,
            use_cache=True,
            **{"do_sample": False, **options},
        )
    end = now(decoder.device)
    rows = [cut_after(row, ends) for row in out[:, prompt_length:].tolist()]
    return Generated(rows, clock.first - start, end - clock.first)


class Scored(NamedTuple):
    logprobs: list[float]  # sum over the tokens of each continuation
    greedy: list[bool]  # whether greedy decoding gives it
    seconds: float  # wall-clock of the batch


def score(
    decoder: Decoder,
    prompts: Sequence[DecoderInput],
    continuations: Sequence[Sequence[int]],
    softmax_dtype: torch.dtype | None = None,
    positions: Sequence[Sequence[int]] | None = None,
    prefix: ReadPrefix | None = None,
) -> Scored:
    """Log-likelihood of each continuation after its prompt, in one forward.

    Rows are padded on the right, where causal attention does not look, so no mask is used (as in lm-eval's `hf`). Only
    positions that predict a continuation go through the vocabulary head. `positions`, `prefix`: as in `generate`.
    """
    decoder.ropes.forget(decoder.model)
    start = now(decoder.device)
    lengths = [len(prompt) + len(ids) - 1 for prompt, ids in zip(prompts, continuations, strict=True)]
    first = min(len(prompt) for prompt in prompts) - 1
    with torch.inference_mode():
        rows: list[DecoderInput] = [  # the last token is predicted and never read
            torch.cat([prompt, decoder.embed(ids[:-1]).to(prompt.dtype)])
            if isinstance(prompt, torch.Tensor)
            else [*prompt, *ids[:-1]]
            for prompt, ids in zip(prompts, continuations, strict=True)
        ]
        inputs: dict[str, Any] = padded(decoder, rows, "right")
        if prefix is not None:
            inputs |= prefix.behind(lengths, decoder.device)
        if positions is not None:
            inputs["position_ids"] = continued(positions, lengths).to(decoder.device)
            # without a mask transformers takes ids that leap for several sequences packed into one row
            inputs.setdefault("attention_mask", torch.ones_like(inputs["position_ids"]))
        with autocast_for(decoder, inputs.get("inputs_embeds")):
            scored = torch.arange(first, max(lengths), device=decoder.device)
            logits = decoder.model(**inputs, use_cache=prefix is not None, **keep_logits(decoder, scored)).logits
        logits = logits[:, -len(scored) :]
        logprobs, greedy = [], []
        for row, ids in enumerate(continuations):
            begin = lengths[row] - len(ids) - first
            predicted = torch.log_softmax(logits[row, begin : begin + len(ids)], dim=-1, dtype=softmax_dtype)
            targets = torch.tensor(ids, device=decoder.device)
            logprobs.append(float(predicted.gather(1, targets[:, None]).sum()))
            greedy.append(bool((predicted.argmax(-1) == targets).all()))
    if not all(map(math.isfinite, logprobs)):
        raise decoder.not_finite("log-likelihoods")
    return Scored(logprobs, greedy, now(decoder.device) - start)


def continued(positions: Sequence[Sequence[int]], lengths: Sequence[int]) -> torch.Tensor:
    """Position ids of prompts, counting on over their continuations: [batch, longest], 0 where there is padding."""
    rows = []
    for known, length in zip(positions, lengths, strict=True):
        following = max(known, default=-1) + 1
        rows.append(torch.tensor([*known, *range(following, following + length - len(known))], dtype=torch.long))
    return pad_sequence(rows, batch_first=True)


def keep_logits(decoder: Decoder, positions: torch.Tensor) -> dict[str, torch.Tensor]:
    """Models that can are asked for the logits of some positions only."""
    can = "logits_to_keep" in inspect.signature(decoder.model.forward).parameters
    return {"logits_to_keep": positions} if can else {}


def left_pad(
    decoder: Decoder, prompts: Sequence[DecoderInput], positions: Sequence[Sequence[int]] | None = None
) -> dict[str, torch.Tensor]:
    """Left-padded inputs of `model.generate`: ids or vectors, mask, and position ids where `positions` gives them."""
    inputs = padded(decoder, prompts, "left")
    inputs["attention_mask"] = left_mask([len(prompt) for prompt in prompts], decoder.device)
    if positions is not None:
        rows = [torch.tensor(ids, dtype=torch.long, device=decoder.device) for ids in positions]
        inputs["position_ids"] = pad_sequence(rows, batch_first=True, padding_side="left")
    return inputs


def padded(decoder: Decoder, rows: Sequence[DecoderInput], side: str) -> dict[str, torch.Tensor]:
    """`input_ids` [batch, longest], or `inputs_embeds` [batch, longest, hidden size] where rows are vectors."""
    name, fill, dtype = "input_ids", pad_token_id(decoder), torch.long
    if isinstance(rows[0], torch.Tensor):
        name, fill, dtype = "inputs_embeds", 0, rows[0].dtype
    tensors = [torch.as_tensor(row, dtype=dtype, device=decoder.device) for row in rows]
    return {name: pad_sequence(tensors, batch_first=True, padding_value=fill, padding_side=side)}


def autocast_for(decoder: Decoder, vectors: torch.Tensor | None) -> AbstractContextManager[Any]:
    """Autocast where the memory is kept wider than the decoder's weights (official: float32 memory, bf16 decoder)."""
    if vectors is None or vectors.dtype == decoder.dtype:
        return nullcontext()
    return torch.autocast(decoder.device.type, dtype=decoder.dtype)


def end_token_ids(decoder: Decoder, more: Sequence[int] = ()) -> set[int]:
    """Ids that end an answer: the model's, the tokenizer's, and `more`."""
    configured = decoder.model.generation_config.eos_token_id if decoder.model.generation_config else None
    ends = set(configured) if isinstance(configured, list) else {configured}
    return {int(end) for end in {*ends, decoder.tokenizer.eos_token_id, *more} if end is not None}


def pad_token_id(decoder: Decoder) -> int:
    """The tokenizer's padding id, or any id where it has none: padding is always masked."""
    return int(decoder.tokenizer.pad_token_id or decoder.tokenizer.eos_token_id or 0)


def cut_after(ids: list[int], ends: Collection[int]) -> list[int]:
    """A row of a batch up to and with its first end token; what follows is padding."""
    return ids[: 1 + next((place for place, token in enumerate(ids) if token in ends), len(ids))]
