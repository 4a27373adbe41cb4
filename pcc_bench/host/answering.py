"""From a batch of jobs to answers: generation or log-likelihoods by the decoder, as lm-eval's `hf` would do them.

Prompts that begin alike are decoded one after another; keys and values of the beginning are computed for the first of
them, kept, and copied for each. Answers are those of decoding every prompt whole, but for float rounding.
"""

import inspect
import json
import time
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.models.utils_hf import stop_sequences_criteria
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from pcc_bench.core.compressor import Compressor
from pcc_bench.core.decoder import Decoder, now
from pcc_bench.core.errors import UsageError, memory_errors
from pcc_bench.core.generation import ReadPrefix, autocast_for, generate, keep_logits, left_pad, positions_of, score
from pcc_bench.core.plan import Plan, common_dtype, common_length, positions, realise
from pcc_bench.host.planning import Job, Request
from pcc_bench.host.responses import Answer, Response, Score
from pcc_bench.host.serving import Engine, sampling

SHORTEST = 32  # positions that are worth a forward of their own
PLAIN = {"until", "max_gen_toks", "max_new_tokens", "min_new_tokens", "do_sample", "temperature", "top_k", "top_p"}
PLAIN |= {"repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "sequence_bias", "forced_eos_token_id"}
PLAIN |= {"suppress_tokens", "begin_suppress_tokens", "exponential_decay_length_penalty"}

KeysValues = list[tuple[torch.Tensor, torch.Tensor]]  # of each layer: [1, heads, length, size of a head]


def can_reuse(decoder: Decoder) -> bool:
    """Does the decoder attend to all before, at positions it is told? Then keys and values can be copied."""
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
    """Jobs that share a beginning, with it, side by side; and the others; longest first. `alike`: contexts, or ()."""
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


@dataclass(eq=False)
class PrefixReader:
    """Lets the decoder read the heads of batches of jobs; the last one is kept for the batch that follows."""

    decoder: Decoder
    last: tuple[Plan, KeysValues] | None = None

    def read(self, batch: Sequence[Job], dtype: torch.dtype | None) -> tuple[ReadPrefix, list[int]]:
        """What the decoder knows after a batch's heads, and how many positions of each job others had computed."""
        heads = [job.head for job in batch if job.head is not None]
        known = {} if self.last is None else {id(self.last[0]): self.last[1]}
        missing = list({id(head): head for head in heads if id(head) not in known}.values())
        known |= zip(map(id, missing), self._prefill(missing, dtype) if missing else [], strict=True)
        new, spared = set(map(id, missing)), []
        for head in heads:  # all of a head is spared, but for the first job with a head just computed
            spared.append(0 if id(head) in new else head.length)
            new.discard(id(head))
        self.last = (heads[-1], [(keys.clone(), values.clone()) for keys, values in known[id(heads[-1])]])
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
        last = keep_logits(self.decoder, torch.tensor([width - 1], device=self.decoder.device))
        with torch.inference_mode(), autocast_for(self.decoder, inputs.get("inputs_embeds")):
            inputs = {"position_ids": positions_of(inputs["attention_mask"]), **inputs, **last}
            self.decoder.model(**inputs, past_key_values=cache, use_cache=True)
        rows = [(slice(row, row + 1), slice(None), slice(width - head.length, None)) for row, head in enumerate(heads)]
        layers: Sequence[Any] = cache.layers
        return [[(layer.keys[row], layer.values[row]) for layer in layers] for row in rows]


@dataclass(eq=False)
class Answering:
    """Runs batches of jobs by lm-eval's model `lm`, whose tokenizer, stop rules and precision hold, or an engine."""

    lm: HFLM
    compressor: Compressor
    engine: Engine | None = None
    reuse_prefix: bool = False  # let the decoder read what several prompts begin with once

    def __post_init__(self) -> None:
        self.reader = PrefixReader(self.compressor.decoder)

    def batches(self, requests: Sequence[Request], jobs: Sequence[Job]) -> Iterator[list[Job]]:
        """Jobs that are decoded together: same arguments, longest first; those that share a beginning side by side."""
        ropes, of_memories = self.compressor.decoder.ropes, self.compressor.layout.memory_position
        groups: dict[tuple[str, int, Hashable], list[Job]] = {}  # the last: what the rotations let decode together
        for job in jobs:
            request = requests[job.index]
            argument = "" if isinstance(request.argument, str) else json.dumps(request.argument, sort_keys=True)
            new = max(0, request.new_tokens(self.lm.max_gen_toks) - 1)
            groups.setdefault((argument, new, ropes.company(job.span(of_memories), new)), []).append(job)
        for (_, new, _), group in groups.items():
            if self.lm.batch_size == "auto":
                self.lm.batch_size_per_gpu = self.lm._detect_batch_size()
            size = int(self.lm.batch_size)
            stays = all(ropes.stay(job.span(of_memories) + new) for job in group)  # beginnings rotate as they do alone
            reuse = self.reuse_prefix and stays and fits(requests[group[0].index].argument)
            asked = (requests[job.index] for job in group)  # alike: their contexts, or else the whole prompt
            for part in share(group, [request.sources or (str(request.prompt),) if reuse else () for request in asked]):
                yield from (part[start : start + size] for start in range(0, len(part), size))
        self.reader.last = None

    def run(self, kind: str, batch: Sequence[Job], arguments: Any) -> list[Answer]:
        """Answer jobs with the same arguments, all of them with heads or none; `kind` is lm-eval's request type."""
        what = f"decoding {len(batch)} prompts of up to {max(job.length for job in batch)} positions"
        mixed = self.lm.mixed_precision_dtype
        cast = torch.autocast(self.lm.device.type, dtype=mixed, enabled=mixed is not None)
        with memory_errors(what, "lower batch_size"), cast:
            return self._generate(batch, arguments) if kind == "generate_until" else self._score(batch)

    def _generate(self, batch: Sequence[Job], arguments: dict[str, Any]) -> list[Answer]:
        options: dict[str, Any] = dict(normalize_gen_kwargs(arguments, self.lm.max_gen_toks))
        limit = options.pop("max_gen_toks")
        ends = self.lm.tok_decode(self.lm.eot_token_id, skip_special_tokens=False)
        until = handle_stop_sequences(options.pop("until", None), eos=ends)
        if not options.get("do_sample"):
            options = {name: value for name, value in options.items() if name != "temperature"} | {"do_sample": False}
        stops = [text for text in until if text != ends]  # the end of sequence ends a row by its id
        prompts, prefix, spared, seconds = self._prepared(batch)
        places, layout = self._positions(batch), self.compressor.layout
        if self.engine is not None:  # states no seconds of its own
            if places is not None:
                problem = f"{self.compressor.name} gives memories positions of their own, which vLLM can't be told"
                raise UsageError(f"{problem}: run it without backend=")
            start = time.perf_counter()
            rows = self.engine.generate(prompts, sampling(self.compressor, limit, stops, options))
            share = {"served_seconds": (time.perf_counter() - start) / len(batch)}
        else:
            read = 0 if isinstance(prompts[0], torch.Tensor) else max(map(len, prompts))
            if read and prefix is not None:
                read += prefix.width
            criteria = stop_sequences_criteria(self.lm.tokenizer, stops, read, len(prompts)) if stops else None
            ends_and_bans = layout.stop_token_ids, layout.suppressed_token_ids
            out = generate(self.compressor.decoder, prompts, limit, *ends_and_bans, criteria, places, prefix, **options)
            rows, prefill = out.ids, (out.prefill_seconds + seconds) / len(batch)
            share = {"prefill_seconds": prefill, "decode_seconds": out.decode_seconds / len(batch)}
        return [
            Response(self._text(ids, until), {**job.record, **share, **kept, "new_tokens": len(ids)})
            for job, ids, kept in zip(batch, rows, spared, strict=True)
        ]

    def _score(self, batch: Sequence[Job]) -> list[Answer]:
        prompts, prefix, spared, seconds = self._prepared(batch)
        continuations, dtype = [job.continuation for job in batch], self.lm.softmax_dtype
        out = score(self.compressor.decoder, prompts, continuations, dtype, self._positions(batch), prefix)
        share = {"prefill_seconds": (out.seconds + seconds) / len(batch), "decode_seconds": 0.0, "new_tokens": 0}
        return [
            Score(logprob, greedy, {**job.record, **share, **kept, "scored_tokens": len(job.continuation)})
            for job, logprob, greedy, kept in zip(batch, out.logprobs, out.greedy, spared, strict=True)
        ]

    def _prepared(self, batch: Sequence[Job]) -> tuple[Sequence[Any], ReadPrefix | None, list[dict[str, int]], float]:
        """Inputs of a batch behind what its jobs share; that, once read; what it spared each job; seconds it took."""
        decoder = self.compressor.decoder
        plans = [job.plan for job in batch]
        dtype = common_dtype(plans, decoder)
        if batch[0].head is None:
            return realise(plans, decoder, dtype), None, [{} for _ in batch], 0.0
        start = now(decoder.device)
        prefix, spared = self.reader.read(batch, dtype)
        seconds = now(decoder.device) - start
        tails = [plan.split(length)[1] for plan, length in zip(plans, prefix.lengths, strict=True)]
        return realise(tails, decoder, dtype), prefix, [{"reused_positions": n} for n in spared], seconds

    def _positions(self, batch: Sequence[Job]) -> list[list[int]] | None:
        ids = positions([job.plan for job in batch], self.compressor.layout.memory_position)
        heads = [0 if job.head is None else job.head.length for job in batch]
        return None if ids is None else [row[head:] for row, head in zip(ids, heads, strict=True)]

    def _text(self, ids: list[int], until: list[str]) -> str:
        think_end, text = self.lm.think_end_token, self.lm.tok_decode(ids)
        if isinstance(think_end, int) and think_end in ids:  # what stands behind the last one
            text = self.lm.tok_decode(ids[len(ids) - ids[::-1].index(think_end) :]).lstrip()
        return str(postprocess_generated_text(text, until, think_end if isinstance(think_end, str) else None))
