"""One lm-eval model over any compressor: lm-eval's `hf`, with prompts that are encoded around memories."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tqdm import tqdm

from pcc_bench.core import provenance, registry, shipped
from pcc_bench.core.context import as_prompt, chat_text
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.documents import checked, digest
from pcc_bench.core.errors import UsageError, print_usage_errors_plainly
from pcc_bench.core.plan import PromptEncoder
from pcc_bench.core.processors import set_by_decoder
from pcc_bench.host import answering, arguments, responses
from pcc_bench.host.answering import Answering
from pcc_bench.host.memories import MemoryBook, gather, waves, wrong_partners
from pcc_bench.host.planning import Planner, read_requests, tally
from pcc_bench.host.responses import Answer, ResponseCache
from pcc_bench.host.serving import Engine, InProcess, Server
from pcc_bench.host.store.store import COUNTS, MemoryStore

logger = logging.getLogger(__name__)
CPU_BATCH = 8  # of batch_size=auto: a CPU has no memory of its own to fill


class CompressedLM(HFLM):  # type: ignore[misc]
    """An lm-eval model whose contexts go through a compressor; `method` names it (see `pcc_bench.core.registry`).

    `pretrained` is the compressor's checkpoint, or the decoder for methods without weights. `kwargs` are those of
    `RunnerOptions`, the method's own options (rate, boundaries, ...), and everything lm-eval's `hf` takes.
    """

    method: ClassVar[str]

    def __init__(
        self, pretrained: str = "", decoder: str | None = None, *, device: str | None = None, **kwargs: Any
    ) -> None:
        print_usage_errors_plainly()
        kind = registry.get(self.method)
        given = {name: kwargs.pop(name) for name in arguments.RunnerOptions.model_fields if name in kwargs}
        options, hf = arguments.split_options(kind, kwargs | ({"device": device} if device else {}))
        hf.pop("device", None)
        own = checked(arguments.RunnerOptions, {**given, "pretrained": pretrained, "decoder": decoder}, "model_args")
        decoder, pretrained = own.decoder, arguments.default_checkpoint(kind, vars(own)) or own.pretrained
        arguments.check_choices(kind, pretrained, own.control)
        name = kind.decoder_path(pretrained, decoder)
        arguments.load_decoder(super().__init__, name, device, hf)
        accelerator = getattr(self, "accelerator", None)
        if accelerator is not None and accelerator.num_processes > 1:  # lm-eval joins them on several GPUs only
            self._rank, self._world_size = accelerator.process_index, accelerator.num_processes
        self.frozen = Decoder(self.model, self.tokenizer, name)
        self.frozen.check_runs()
        self.compressor = kind.load(pretrained, self.frozen, **options)
        self.compressor.source = pretrained
        bos = hf.get("add_bos_token")
        self.encoder = PromptEncoder(self.compressor, bos, own.allow_special_tokens_in_text)
        self.engine = self._engine(own, shipped.located(name))
        bound = self.compressor.layout.memory_position is not None or self.engine is not None
        self.reuse_prefix = own.reuse_prefix and not bound and answering.can_reuse(self.frozen)
        self.answering = Answering(self, self.compressor, self.engine, self.reuse_prefix)
        store = None
        if own.memory_store:
            store = MemoryStore(Path(own.memory_store), self.compressor, own.memory_store_dtype, own.memory_store_gib)
        self.book = MemoryBook(self.compressor, self.rank, self.world_size, int(own.memory_gb * 2**30), store)
        self.planner = Planner(self.encoder, self.book, own.overflow)
        self.tally = responses.latest = responses.Tally()
        self._responses: ResponseCache | None = None
        self._settings = {
            "method": self.method,
            "options": self.compressor.options(),
            "control": own.control,
            "control_seed": own.control_seed if own.control else None,
            "overflow": own.overflow,
            "memory_store_dtype": own.memory_store_dtype if own.memory_store else None,
            "backend": self.engine.describe() if self.engine else None,
            "allow_special_tokens_in_text": own.allow_special_tokens_in_text,
            "add_bos_token": bos,
            "max_length": self.max_length,
            "decoder_arguments": {key: str(value) for key, value in hf.items() if key not in arguments.SPEED_ONLY},
        }

    def _engine(self, own: arguments.RunnerOptions, decoder: str) -> Engine | None:
        """Who decodes in the place of transformers; its window is ours where it is smaller."""
        if own.backend is None:
            return None
        decoding: Engine
        if own.backend.startswith("http"):
            decoding = Server(own.backend)
        elif self.compressor.owns_decoder:
            raise UsageError(f"{self.method} puts its own weights into the decoder, which backend=vllm does not load")
        else:
            dtype = str(self.frozen.dtype).removeprefix("torch.")
            decoding = InProcess(decoder, dtype, self.max_length, own.backend_memory)
        self._max_length = min(self.max_length, decoding.describe().get("max_model_len") or self.max_length)
        return decoding

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> Self:
        return cls.create_from_arg_obj(arguments.parse_arguments(arg_string), additional_config)

    @classmethod
    def create_from_arg_obj(cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None) -> Self:
        print_usage_errors_plainly()
        return cls(**arguments.joined(arg_dict, additional_config))

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        return self._answer("generate_until", requests, disable_tqdm)  # type: ignore[return-value]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        self._check_scores(requests)
        if self.enable_thinking:
            raise UsageError("enable_thinking=True has no meaning for log-likelihood tasks: leave it out")
        return self._answer("loglikelihood", requests, disable_tqdm)  # type: ignore[return-value]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        self._check_scores(requests)
        if not self.compressor.scores_whole_text:
            task = requests[0].task_name if requests else "a task"
            problem = f"which leaves {self.method} no context to compress"
            remedy = "run it with full-context or hf, or use a task that scores a continuation"
            raise UsageError(f"{task} scores whole texts (loglikelihood_rolling), {problem}: {remedy}")
        scores: list[float] = super().loglikelihood_rolling(requests, disable_tqdm)
        return scores

    def _check_scores(self, requests: Sequence[Instance]) -> None:
        if self.engine is not None and requests:
            problem = "asks for log-likelihoods, which vLLM does not give behind input vectors"
            remedy = "run it without backend=, or choose tasks that generate"
            raise UsageError(f"{requests[0].task_name} {problem}: {remedy}")

    def set_cache_hook(self, cache_hook: Any) -> None:
        """Use the file of `--use_cache` for our own cache; lm-eval's table, whose keys lack the model, is temporary."""
        if cache_hook.dbdict is None:
            return
        self._responses = ResponseCache(Path(cache_hook.dbdict.filename), self.fingerprint())
        cache_hook.dbdict.tablename = "unused"
        cache_hook.dbdict.conn.execute("CREATE TEMP TABLE unused (key TEXT PRIMARY KEY, value BLOB)")
        cache_hook.dbdict.conn.commit()

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        apply = partial(super().apply_chat_template, chat_history, add_generation_prompt)
        return chat_text(chat_history, apply, self.frozen.name)

    def get_model_info(self) -> dict[str, Any]:
        return {**super().get_model_info(), "pcc_bench": self.describe()}

    def _detect_batch_size(self, requests: Sequence[Any] | None = None, pos: int = 0) -> int:
        """As lm-eval, which looks for the largest batch of longest prompts a GPU holds; a CPU has no such limit."""
        if self.device.type == "cpu":
            logger.info("batch_size=auto is %d on a CPU", CPU_BATCH)
            return CPU_BATCH
        size: int = super()._detect_batch_size(requests, pos)
        return size

    def fingerprint(self) -> str:  # of all that decides an answer besides the request itself
        weights = [self.compressor.fingerprint(), self.frozen.weights_fingerprint, str(self.frozen.dtype)]
        return digest([self._settings, weights, provenance.code()])

    def describe(self) -> dict[str, Any]:
        stored = {**{name: self.book.stored[name] for name in COUNTS}, "trouble": self.book.trouble}
        return {
            "schema_version": provenance.SCHEMA_VERSION,
            **self._settings,
            "label": self.compressor.label or self.method,
            "requested_rate": self.compressor.rate,
            "capabilities": {name: getattr(self.compressor, name) for name in ("soft", "query_aware", "owns_decoder")},
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
            "memory_store": stored if self.book.store else None,
            "counts": dict(self.tally.counts),
            "skipped": {task: sorted(rows) for task, rows in self.tally.skipped.items()},
        }

    def _answer(self, kind: str, instances: list[Instance], quiet: bool) -> list[Answer]:
        quiet = quiet or self.rank != 0
        partners: dict[str, str] = {}
        if self._settings["control"] == "wrong_memory":
            mine = {context for instance in instances for context in as_prompt(instance.args[0]).contexts}
            partners = wrong_partners(set().union(*gather(mine, self.world_size)), self._settings["control_seed"])
        cache = self._responses
        requests = read_requests(kind, instances, self.compressor, partners, cache)
        answers = [cache.get(request.key) if cache else None for request in requests]
        pending = [index for index, answer in enumerate(answers) if answer is None]
        sources = [requests[i].sources for i in pending]
        groups = {group for share in gather(sources, self.world_size) for group in share}

        def keep(batch: dict[int, Answer]) -> None:
            for index, answer in batch.items():
                answers[index] = answer
            if cache:
                cache.put((requests[index].key, answer) for index, answer in batch.items())

        old, title = len(requests) - len(pending), f"{self.method}: {kind}"
        with tqdm(total=len(requests), initial=old, desc=title, disable=quiet) as progress:
            for wave in waves(groups):
                self.book.fill({source for group in wave for source in group}, quiet)
                jobs = []
                for index in (i for i in pending if requests[i].sources in wave):
                    job = self.planner.job(requests[index], index, self.max_length, self.max_gen_toks)
                    if job is None:
                        keep({index: responses.skipped(kind)})
                    else:
                        jobs.append(job)
                for batch in self.answering.batches(requests, jobs):
                    done = self.answering.run(kind, batch, requests[batch[0].index].argument)
                    keep({job.index: answer for job, answer in zip(batch, done, strict=True)})
                    progress.update(len(batch))
                self.book.trim()
        given = [answer for answer in answers if answer is not None]
        for share in gather(tally(requests, given), self.world_size):
            self.tally.merge(share)
        return given
