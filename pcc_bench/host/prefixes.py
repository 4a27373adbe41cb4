"""Prompts that begin alike: their common beginning goes through the decoder once.

Questions on one context share its memory (or its text), and continuations of one prompt share all of it. Jobs that
share a beginning are decoded one after another; keys and values of the beginning are computed for the first of them,
kept, and copied for each. Answers are those of decoding every prompt whole, but for float rounding.
"""

import inspect
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from pcc_bench.core.decoder import Decoder
from pcc_bench.core.generation import ReadPrefix, autocast_for, keep_logits, left_pad, positions_of
from pcc_bench.core.plan import Plan, common_length, positions, realise
from pcc_bench.host.planning import Job

SHORTEST = 32  # positions that are worth a forward of their own
PLAIN = {"until", "max_gen_toks", "max_new_tokens", "min_new_tokens", "do_sample", "temperature", "top_k", "top_p"}
PLAIN |= {"repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "sequence_bias", "forced_eos_token_id"}
PLAIN |= {"suppress_tokens", "begin_suppress_tokens", "exponential_decay_length_penalty"}

KeysValues = list[tuple[torch.Tensor, torch.Tensor]]  # of each layer: [1, heads, length, size of a head]


def can_reuse(decoder: Decoder) -> bool:
    """Does the decoder attend to everything before, at positions it is told? Then keys and values can be copied.

    Where its rotations depend on the length of the whole sequence, up to some length only (`pcc_bench.core.decoder`).
    """
    settings = decoder.model.generation_config
    takes = inspect.signature(decoder.model.forward).parameters
    return (
        all(type(layer) is DynamicLayer for layer in DynamicCache(config=decoder.model.config).layers)
        and {"position_ids", "past_key_values"} <= takes.keys()
        and getattr(settings, "cache_implementation", None) is None
        and getattr(settings, "num_beams", None) in (None, 1)
    )


def fits(arguments: Any) -> bool:
    """Does a generation with these arguments go row by row from left to right? Log-likelihoods (a text) always do."""
    return isinstance(arguments, str) or arguments.keys() <= PLAIN


def share(jobs: Sequence[Job], alike: Iterable[Hashable]) -> tuple[list[Job], list[Job]]:
    """Jobs that share a beginning, with it, side by side; and the others. Both longest first.

    `alike` gives what each job has in common with others: its contexts. () has nothing.
    """
    groups: dict[Hashable, list[Job]] = {}
    for index, (job, key) in enumerate(zip(jobs, alike, strict=True)):
        groups.setdefault(key or index, []).append(job)
    shared: list[list[Job]] = []
    alone: list[Job] = []
    for group in groups.values():
        length = common_length([job.plan for job in group]) if len(group) > 1 else 0
        if length < SHORTEST:
            alone += group
        else:
            head, _ = group[0].plan.split(length)
            jobs_behind = (replace(job, head=head) for job in group)
            shared.append(sorted(jobs_behind, key=lambda job: job.length, reverse=True))
    shared.sort(key=lambda group: group[0].length, reverse=True)
    return [job for group in shared for job in group], sorted(alone, key=lambda job: job.length, reverse=True)


class PrefixReader:
    """Lets the decoder read the heads of batches of jobs; the last one is kept for the batch that follows."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self._kept: tuple[Plan, KeysValues] | None = None

    def forget(self) -> None:
        """Let go of what was kept."""
        self._kept = None

    def read(self, batch: Sequence[Job], dtype: torch.dtype | None) -> tuple[ReadPrefix, list[int]]:
        """What the decoder knows after the heads of a batch; and how many positions of each job others had computed.

        `dtype` is that of the batch's input vectors; None where it reads token ids.
        """
        heads = [job.head for job in batch if job.head is not None]
        known = {} if self._kept is None else {id(self._kept[0]): self._kept[1]}
        missing = list({id(head): head for head in heads if id(head) not in known}.values())
        known |= zip(map(id, missing), self._prefill(missing, dtype) if missing else [], strict=True)
        new, spared = set(map(id, missing)), []
        for head in heads:  # all of a head is spared, but for the first job with a head just computed
            spared.append(0 if id(head) in new else head.length)
            new.discard(id(head))
        self._kept = (heads[-1], [(keys.clone(), values.clone()) for keys, values in known[id(heads[-1])]])
        ids = [head.ids() for head in heads] if dtype is None else None
        lengths = [head.length for head in heads]
        cache = DynamicCache(config=self.decoder.model.config)  # of the batch, rows padded on the left
        with torch.inference_mode():
            for layer in range(len(known[id(heads[0])])):
                keys, values = (
                    torch.cat([pad(known[id(h)][layer][part], (0, 0, max(lengths) - h.length, 0)) for h in heads])
                    for part in (0, 1)
                )
                cache.update(keys, values, layer)
        return ReadPrefix(cache, lengths, ids), spared

    def _prefill(self, heads: Sequence[Plan], dtype: torch.dtype | None) -> list[KeysValues]:
        self.decoder.ropes.forget(self.decoder.model)
        inputs = left_pad(self.decoder, realise(heads, self.decoder, dtype), positions(heads, None))
        cache = DynamicCache(config=self.decoder.model.config)
        width = inputs["attention_mask"].shape[1]
        last = torch.tensor([width - 1], device=self.decoder.device)
        with torch.inference_mode(), autocast_for(self.decoder, inputs.get("inputs_embeds")):
            self.decoder.model(
                **{"position_ids": positions_of(inputs["attention_mask"]), **inputs},
                past_key_values=cache,
                use_cache=True,
                **keep_logits(self.decoder, last),
            )
        rows = [(slice(row, row + 1), slice(None), slice(width - head.length, None)) for row, head in enumerate(heads)]
        layers: Sequence[Any] = cache.layers
        return [[(layer.keys[row], layer.values[row]) for layer in layers] for row in rows]
