"""One lm-eval model over any compressor.

It is lm-eval's HF model (batching, chat templates, dtype, device_map, data parallelism are as its users know them) with
three things of its own: prompts are encoded around memories, log-likelihoods and generation take input vectors where a
memory is one, and every answer carries its accounting.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from tqdm import tqdm

from pcc_bench.core import provenance, registry, shipped
from pcc_bench.core.context import Prompt, as_prompt, check_chat
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.documents import checked
from pcc_bench.core.errors import UsageError, foreign, print_usage_errors_plainly
from pcc_bench.core.processors import set_by_decoder
from pcc_bench.core.provenance import SCHEMA_VERSION
from pcc_bench.host import prefixes, verdict
from pcc_bench.host.answering import Answering
from pcc_bench.host.arguments import (
    SPEED_ONLY,
    RunnerOptions,
    check_choices,
    default_checkpoint,
    joined,
    load_decoder,
    parse_arguments,
    split_options,
)
from pcc_bench.host.generation_options import typed
from pcc_bench.host.memories import MemoryBook, Source, gather, waves, wrong_partners
from pcc_bench.host.planning import Job, Planner, Request
from pcc_bench.host.prompts import PromptEncoder
from pcc_bench.host.responses import Answer, Response, ResponseCache, Score
from pcc_bench.host.serving.engines import Engine, engine
from pcc_bench.host.store.precision import EXACT
from pcc_bench.host.store.store import COUNTS, MemoryStore

logger = logging.getLogger(__name__)
CPU_BATCH = 8  # of batch_size=auto: a CPU has no memory of its own to fill


class CompressedLM(HFLM):  # type: ignore[misc]
    """An lm-eval model whose contexts go through a compressor; `method` names it (see `pcc_bench.core.registry`).

    Args:
        pretrained: The compressor's checkpoint, or the decoder for methods without weights. Folder or hub id.
        decoder: The decoder, where it is not the one the checkpoint records.
        control: `wrong_memory`: each prompt reads the memory of another context of similar length (soft methods).
        control_seed: Seed of that choice.
        overflow: Prompts longer than the decoder's window: `error`, `skip` (the row is left out of the scores and
            counted) or `truncate` (contexts are cut at their end and compressed again; counted).
        allow_special_tokens_in_text: Let data spell special tokens, as lm-eval's `hf` does.
        memory_gb: Memories kept for later questions; older ones are forgotten beyond it.
        reuse_prefix: Let the decoder read what several prompts begin with once (a context's memory, its text).
        memory_store: Folder that keeps memories for other runs (`pcc_bench.host.store`).
        memory_store_dtype: How exactly: `exact`, or slots before the converter as float32, bfloat16, float16 or int8.
        memory_store_gib: Most GiB of it; the memories not used for longest are deleted. Without it, no limit.
        backend: Who decodes: `vllm` in this process, or the address of a vLLM server. Without it, transformers.
        backend_memory: Share of the device's memory for vLLM in this process.
        device: As in lm-eval; CPU where no GPU is there.
        **kwargs: The method's own options (rate, boundaries, ...), and everything lm-eval's `hf` takes (dtype,
            batch_size, max_length, parallelize, trust_remote_code, ...).

    Raises:
        UsageError: Anything that does not fit, in one sentence.
    """

    method: ClassVar[str]

    def __init__(
        self,
        pretrained: str = "",
        decoder: str | None = None,
        *,
        control: str | None = None,
        control_seed: int = 0,
        overflow: str = "error",
        allow_special_tokens_in_text: bool = False,
        memory_gb: float = 4.0,
        reuse_prefix: bool = True,
        memory_store: str | None = None,
        memory_store_dtype: str = EXACT,
        memory_store_gib: float | None = None,
        backend: str | None = None,
        backend_memory: float = 0.5,
        device: str | None = None,
        **kwargs: Any,
    ) -> None:
        print_usage_errors_plainly()
        kind = registry.get(self.method)
        options, hf_arguments = split_options(kind, {**kwargs, **({"device": device} if device else {})})
        hf_arguments.pop("device", None)
        given = {"control": control, "control_seed": control_seed, "overflow": overflow, "memory_gb": memory_gb}
        given |= {"allow_special_tokens_in_text": allow_special_tokens_in_text, "reuse_prefix": reuse_prefix}
        given |= {"memory_store": memory_store, "memory_store_dtype": memory_store_dtype}
        given |= {"memory_store_gib": memory_store_gib, "pretrained": pretrained, "decoder": decoder}
        given |= {"backend": backend, "backend_memory": backend_memory}
        own = checked(RunnerOptions, given, "model_args")
        pretrained, decoder = own.pretrained, own.decoder
        pretrained = default_checkpoint(kind, {"pretrained": pretrained, "decoder": decoder}) or pretrained
        check_choices(kind, pretrained, own.control)
        name = kind.decoder_path(pretrained, decoder)
        load_decoder(super().__init__, name, device, hf_arguments)
        self._join_processes()
        self.frozen = Decoder(self.model, self.tokenizer, name)
        self.frozen.check_runs()
        self.compressor = kind.load(pretrained, self.frozen, **options)
        self.compressor.source = pretrained
        self.encoder = PromptEncoder(
            self.frozen, self.compressor, hf_arguments.get("add_bos_token"), own.allow_special_tokens_in_text
        )
        self.engine = self._engine(own, shipped.located(name))
        self.answering = Answering(self, self.compressor, self.engine)
        bound = self.compressor.layout.memory_position is not None or self.engine is not None
        self.reuse_prefix = own.reuse_prefix and not bound and prefixes.can_reuse(self.frozen)
        store = None
        if own.memory_store:
            store = MemoryStore(Path(own.memory_store), self.compressor, own.memory_store_dtype, own.memory_store_gib)
        self.book = MemoryBook(self.compressor, self.rank, self.world_size, int(own.memory_gb * 2**30), store)
        self.planner = Planner(self.encoder, self.book, own.overflow)
        self.control = own.control
        self.control_seed = own.control_seed
        self.counts: Counter[str] = Counter()
        self.skipped: dict[str, list[int]] = {}
        verdict.clear()
        self._settings = {
            "method": self.method,
            "options": self.compressor.options(),
            "control": own.control,
            "control_seed": own.control_seed if own.control else None,
            "overflow": own.overflow,
            "memory_store_dtype": own.memory_store_dtype if own.memory_store else None,
            "backend": self.engine.describe() if self.engine else None,
            "allow_special_tokens_in_text": own.allow_special_tokens_in_text,
            "add_bos_token": hf_arguments.get("add_bos_token"),
            "max_length": self.max_length,
            "decoder_arguments": {key: str(value) for key, value in hf_arguments.items() if key not in SPEED_ONLY},
        }
        self._responses: ResponseCache | None = None

    # ------------------------------------------------------------------------------------------------------------------
    # lm-eval's interface

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> Self:
        """As `create_from_arg_obj`, from `key=value,key=value`."""
        return cls.create_from_arg_obj(parse_arguments(arg_string), additional_config)

    @classmethod
    def create_from_arg_obj(cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None) -> Self:
        """The model of `--model_args` and of lm-eval's options beside it.

        Raises:
            UsageError: An argument that is given in both ways, or is none.
        """
        print_usage_errors_plainly()
        return cls(**joined(arg_dict, additional_config))

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer prompts; each answer is a `Response` with its accounting."""
        return self._answer("generate_until", requests, disable_tqdm)  # type: ignore[return-value]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Score continuations; each answer is a `Score` with its accounting."""
        self._check_scores(requests)
        if self.enable_thinking:
            raise UsageError("enable_thinking=True has no meaning for log-likelihood tasks: leave it out")
        return self._answer("loglikelihood", requests, disable_tqdm)  # type: ignore[return-value]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Score whole texts: only where a method leaves them alone (`full-context`).

        Raises:
            UsageError: The method compresses, and such a request has no context to compress.
        """
        self._check_scores(requests)
        if not self.compressor.scores_whole_text:
            task = requests[0].task_name if requests else "a task"
            raise UsageError(
                f"{task} scores whole texts (loglikelihood_rolling), which leaves {self.method} no context to "
                "compress: run it with full-context or hf, or use a task that scores a continuation"
            )
        scores: list[float] = super().loglikelihood_rolling(requests, disable_tqdm)
        return scores

    def _check_scores(self, requests: Sequence[Instance]) -> None:
        """See that log-likelihoods can be had where they are asked for."""
        if self.engine is not None and requests:
            raise UsageError(
                f"{requests[0].task_name} asks for log-likelihoods, which vLLM does not give behind input vectors: run "
                "it without backend=, or choose tasks that generate"
            )

    def _engine(self, own: RunnerOptions, decoder: str) -> Engine | None:
        """Who decodes in the place of transformers; its window is ours where it is smaller."""
        if own.backend is None:
            return None
        if self.compressor.owns_decoder and not own.backend.startswith("http"):
            raise UsageError(
                f"{self.method} puts weights of its own into the decoder, which backend=vllm does not load"
            )
        dtype = str(self.frozen.dtype).removeprefix("torch.")
        decoding = engine(own.backend, decoder, dtype, self.max_length, own.backend_memory)
        self._max_length = min(self.max_length, decoding.describe().get("max_model_len") or self.max_length)
        return decoding

    def set_cache_hook(self, cache_hook: Any) -> None:
        """Use the file of lm-eval's `--use_cache` for our own cache of answers.

        lm-eval's key has neither the model nor the marks in it, so its own table is diverted into a temporary one
        that starts empty and ends with the run.
        """
        if cache_hook.dbdict is None:
            return
        self._responses = ResponseCache(Path(cache_hook.dbdict.filename), self.fingerprint())
        cache_hook.dbdict.tablename = "unused"
        cache_hook.dbdict.conn.execute("CREATE TEMP TABLE unused (key TEXT PRIMARY KEY, value BLOB)")
        cache_hook.dbdict.conn.commit()

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """As lm-eval's; a template that can't be applied, or loses what is marked, is one sentence."""
        where = f"the chat template of '{self.frozen.name}'"
        with foreign(f"{where} can't be applied"):
            text = str(super().apply_chat_template(chat_history, add_generation_prompt))
        check_chat([turn["content"] for turn in chat_history], text, where)
        return text

    def get_model_info(self) -> dict[str, Any]:
        """lm-eval's description of the model, with ours under `pcc_bench`; it goes into `results_*.json`."""
        return {**super().get_model_info(), "pcc_bench": self.describe()}

    # ------------------------------------------------------------------------------------------------------------------
    # Provenance

    def fingerprint(self) -> str:
        """Hash of all that decides an answer besides the request itself."""
        weights = [self.compressor.fingerprint(), self.frozen.weights_fingerprint, str(self.frozen.dtype)]
        return provenance.digest([self._settings, weights, provenance.code()])

    def describe(self) -> dict[str, Any]:
        """What ran and what it cost: fingerprints, settings, counts."""
        kind = type(self.compressor)
        return {
            "schema_version": SCHEMA_VERSION,
            **self._settings,
            "label": self.compressor.label or self.method,
            "requested_rate": self.compressor.rate,
            "capabilities": {
                "soft": kind.soft,
                "query_aware": self.compressor.query_aware,
                "owns_decoder": kind.owns_decoder,
            },
            "decoder": self.frozen.name,
            "generation_config": set_by_decoder(self.frozen),
            "fingerprints": {
                "checkpoint": self.compressor.weights_fingerprint(),
                "compressor": self.compressor.fingerprint(),
                "decoder": self.frozen.fingerprint,
                "decoder_weights": self.frozen.weights_fingerprint,
                "code": provenance.code(),
            },
            "processes": self.world_size,
            "reuse_prefix": self.reuse_prefix,
            "compressions": self.book.compressions,
            "compress_seconds": self.book.seconds,
            "memory_store": self._store_report(),
            "counts": dict(self.counts),
            "skipped": self.skipped,
        }

    def _store_report(self) -> dict[str, Any] | None:
        """What the memory store did in this run, over all processes."""
        if self.book.store is None:
            return None
        return {**{name: self.book.stored[name] for name in COUNTS}, "trouble": self.book.trouble}

    # ------------------------------------------------------------------------------------------------------------------
    # From requests to answers

    def _answer(self, kind: str, instances: list[Instance], quiet: bool) -> list[Answer]:
        quiet = quiet or self.rank != 0
        requests = self._requests(kind, instances)
        answers = [self._cached(request) for request in requests]
        pending = [index for index, answer in enumerate(answers) if answer is None]
        groups = {group for share in self._gather([requests[i].sources for i in pending]) for group in share}
        title = f"{self.method}: {kind}"
        with tqdm(total=len(requests), initial=len(requests) - len(pending), desc=title, disable=quiet) as progress:
            for wave in waves(groups):
                self.book.fill({source for group in wave for source in group}, quiet)
                jobs = self._jobs(kind, requests, [i for i in pending if requests[i].sources in wave], answers)
                for batch in self._batches(requests, jobs):
                    done = self.answering.run(kind, batch, requests[batch[0].index].argument)
                    self._keep([(requests[job.index], answer) for job, answer in zip(batch, done, strict=True)])
                    for job, answer in zip(batch, done, strict=True):
                        answers[job.index] = answer
                    progress.update(len(batch))
                self.book.trim()
        self._count(requests, [answer for answer in answers if answer is not None])
        return [answer for answer in answers if answer is not None]

    def _requests(self, kind: str, instances: list[Instance]) -> list[Request]:
        prompts = [as_prompt(instance.args[0]) for instance in instances]
        arguments = _arguments(kind, instances)
        partners = self._partners(prompts)
        requests = []
        for instance, prompt, argument in zip(instances, prompts, arguments, strict=True):
            read = tuple(partners.get(context, context) for context in prompt.contexts)
            key = self._key(kind, prompt, argument, read)
            task, row = str(instance.task_name), int(instance.doc_id or 0)
            query = prompt.query if self.compressor.query_aware else ""
            request = Request(prompt, argument, read, task, row, key, query)
            if self.compressor.query_aware and read and not query.strip():
                raise UsageError(
                    f"{request.where} asks no question beside its context, and {self.method} compresses for a "
                    "question: use a task that has one, marked with pcc_bench.core.context.literal()"
                )
            if any(not context.strip() for context in prompt.contexts):
                raise UsageError(f"{request.where} has an empty context: there is nothing to compress; remove the row")
            requests.append(request)
        return requests

    def _key(self, kind: str, prompt: Prompt, argument: Any, read: tuple[str, ...]) -> str:
        """Key in the cache of answers; sampled answers are not cached, or all repeats of a row would be the same."""
        sampled = isinstance(argument, dict) and argument.get("do_sample", False)
        return self._responses.key(kind, prompt, argument, read) if self._responses and not sampled else ""

    def _partners(self, prompts: Sequence[Prompt]) -> dict[str, str]:
        if self.control != "wrong_memory":
            return {}
        mine = {context for prompt in prompts for context in prompt.contexts}
        return wrong_partners(set().union(*self._gather(mine)), self.control_seed)

    def _jobs(
        self, kind: str, requests: Sequence[Request], indices: Iterable[int], answers: list[Answer | None]
    ) -> list[Job]:
        """Plans of requests; those skipped for their length are answered at once."""
        jobs = []
        for index in indices:
            job = self.planner.job(requests[index], index, self._room(kind, requests[index]), self.max_length)
            if job is None:
                answers[index] = self._skip(kind, requests[index])
            else:
                jobs.append(job)
        return jobs

    def _room(self, kind: str, request: Request) -> int:
        """Positions a prompt (and continuation) may take."""
        if kind == "loglikelihood":
            return int(self.max_length) + 1  # the last token of the continuation is never read
        limit = normalize_gen_kwargs(request.argument, self.max_gen_toks)["max_gen_toks"]
        return int(self.max_length) - int(limit)

    def _batches(self, requests: Sequence[Request], jobs: Sequence[Job]) -> Iterator[list[Job]]:
        """Jobs that are decoded together: same arguments, longest first; those that share a beginning side by side."""
        groups: dict[str, list[Job]] = {}
        for job in jobs:
            argument = requests[job.index].argument
            groups.setdefault("" if isinstance(argument, str) else json.dumps(argument, sort_keys=True), []).append(job)
        for group in groups.values():
            argument = requests[group[0].index].argument
            size = self._batch_size()
            for side, stays in self._sides(group, argument):
                reuse = self.reuse_prefix and stays and prefixes.fits(argument)
                alike = [_alike(requests[job.index]) if reuse else () for job in side]
                for part in prefixes.share(side, alike):
                    yield from (part[start : start + size] for start in range(0, len(part), size))
        self.answering.reader.forget()

    def _sides(self, jobs: Sequence[Job], argument: Any) -> Iterator[tuple[list[Job], bool]]:
        """Jobs that the decoder's rotations let decode together, and whether their beginnings rotate as they do."""
        new = 0
        if not isinstance(argument, str):
            new = max(0, int(normalize_gen_kwargs(argument, self.max_gen_toks)["max_gen_toks"]) - 1)
        sides: dict[Hashable, list[Job]] = {}
        for job in jobs:
            sides.setdefault(self.frozen.ropes.company(self.answering.span(job), new), []).append(job)
        for side in sides.values():
            yield side, all(self.frozen.ropes.stay(self.answering.span(job) + new) for job in side)

    def _batch_size(self) -> int:
        if self.batch_size == "auto":
            self.batch_size_per_gpu = self._detect_batch_size()
        return int(self.batch_size)

    def _detect_batch_size(self, requests: Sequence[Any] | None = None, pos: int = 0) -> int:
        """As lm-eval, which looks for the largest batch of longest prompts a GPU holds; a CPU has no such limit."""
        if self.device.type == "cpu":
            logger.info("batch_size=auto is %d on a CPU", CPU_BATCH)
            return CPU_BATCH
        size: int = super()._detect_batch_size(requests, pos)
        return size

    def _skip(self, kind: str, request: Request) -> Answer:
        record = {"skipped": True, "reason": "longer than the decoder's window"}
        answer: Answer = Response("", record) if kind == "generate_until" else Score(float("nan"), False, record)
        self._keep([(request, answer)])
        return answer

    def _cached(self, request: Request) -> Answer | None:
        return self._responses.get(request.key) if self._responses and request.key else None

    def _keep(self, answers: Sequence[tuple[Request, Answer]]) -> None:
        if self._responses:
            self._responses.put((request.key, answer) for request, answer in answers if request.key)

    def _count(self, requests: Sequence[Request], answers: Sequence[Answer]) -> None:
        """Add this call to the run's counts, over all processes (lm-eval's padding of the shorter ones included)."""
        counts: Counter[str] = Counter(requests=len(requests))
        skipped: dict[str, list[int]] = {}
        asked: dict[str, set[int]] = {}
        seen: set[Source] = set()
        for request, answer in zip(requests, answers, strict=True):
            record = answer.record
            asked.setdefault(request.task, set()).add(request.row)
            if record.get("skipped"):
                skipped.setdefault(request.task, []).append(request.row)
            counts["cached"] += bool(record.get("cached"))
            counts["prefixes_reused"] += bool(record.get("reused_positions"))
            counts["without_context"] += not request.read
            counts["truncated"] += bool(record.get("truncated_bytes"))
            counts["contexts"] += len(request.read)
            counts["memories_reused"] += sum(source in seen for source in request.sources)
            seen.update(request.sources)
        for share, rows, all_rows in self._gather((counts, skipped, asked)):
            self.counts += share
            verdict.note(all_rows, rows)
            for task, indices in rows.items():
                self.skipped[task] = sorted({*self.skipped.get(task, []), *indices})
        self.counts["skipped"] = sum(map(len, self.skipped.values()))

    # ------------------------------------------------------------------------------------------------------------------
    # Processes

    def _join_processes(self) -> None:
        """Data parallelism wherever accelerate started several processes (lm-eval does it on several GPUs only)."""
        accelerator = getattr(self, "accelerator", None)
        if accelerator is not None and accelerator.num_processes > 1:
            self._rank = accelerator.process_index
            self._world_size = accelerator.num_processes

    def _gather(self, value: Any) -> list[Any]:
        return gather(value, self.world_size)


def _arguments(kind: str, instances: Sequence[Instance]) -> list[Any]:
    """The continuations of requests, or the arguments of their generations, each in its type."""
    if kind == "loglikelihood":
        return [instance.args[1] for instance in instances]
    distinct: dict[str, Any] = {}
    names = [json.dumps(instance.args[1], default=str) for instance in instances]
    for name, instance in zip(names, instances, strict=True):
        if name not in distinct:
            distinct[name] = typed(instance.args[1], f"generation_kwargs of {instance.task_name}")
    return [distinct[name] for name in names]


def _alike(request: Request) -> tuple[object, ...]:
    """What requests that begin alike have in common: their contexts, or else the whole prompt."""
    return request.sources or (str(request.prompt),)
