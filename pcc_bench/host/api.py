"""Compression in Python: `from pcc_bench import ContextCompressor`; for transformers the pipeline of the same.

An answer is the one that `lm_eval --model METHOD` gives for context and question. What the user got wrong is a
`UsageError` of one sentence.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, overload

from transformers import AutoModelForCausalLM, Pipeline, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pipelines import PIPELINE_REGISTRY

from pcc_bench.core import memory_file, shipped
from pcc_bench.core.compressor import Compressor
from pcc_bench.core.context import Kind, Part, Prompt
from pcc_bench.core.documents import is_unicode
from pcc_bench.core.errors import UsageError
from pcc_bench.core.plan import PromptEncoder
from pcc_bench.core.questions import OFFICIAL
from pcc_bench.host.compressing import SEPARATOR, ContextMemory, continued, open_compressor, quiet
from pcc_bench.host.memories import CHUNK_CHARACTERS, MemoryBook, Source

TASK = "compressed-text-generation"  # of `transformers.pipeline`


class ContextCompressor:
    """A compression method with its decoder; see `from_pretrained`."""

    def __init__(self, compressor: Compressor) -> None:
        self.compressor = compressor

    @classmethod
    def from_pretrained(
        cls,
        pretrained: str,
        method: str | None = None,
        decoder: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        **options: Any,
    ) -> Self:
        """Load a compressor and the decoder that reads its memories.

        Args:
            pretrained: A shipped checkpoint (`pcc-bench ls models`), folder or hub id; the decoder itself for methods
                without weights (`full-context`, `bm25-context`, ...).
            method: A method (`pcc-bench ls methods`); by default what the checkpoint's files tell, else `pcc`.
            decoder: Where it is not the one the checkpoint records.
            device: cpu, cuda, ...; `auto` is a GPU where there is one.
            dtype: float32, bfloat16 or float16; `auto` is that of the decoder's files.
            **options: The method's own (rate, boundaries, ...).
        """
        name = method or shipped.method_of(pretrained) or "pcc"
        with quiet():
            return cls(open_compressor(pretrained, decoder, device, dtype, options, name))

    @property
    def model(self) -> PreTrainedModel:
        """The decoder, for a plain `generate`."""
        model: PreTrainedModel = self.compressor.decoder.model
        return model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The decoder's tokenizer."""
        return self.compressor.decoder.tokenizer

    @overload
    def compress(self, texts: str, query: str | None = None) -> ContextMemory: ...  # type: ignore[overload-overlap]

    @overload
    def compress(self, texts: Sequence[str], query: str | Sequence[str] | None = None) -> list[ContextMemory]: ...

    def compress(
        self, texts: str | Sequence[str], query: str | Sequence[str] | None = None
    ) -> ContextMemory | list[ContextMemory]:
        """Compress one text or several, none of them empty; long lists show a progress bar.

        `query` is what a query-aware method compresses for: one question for all texts, or one for each.
        """
        contexts = [texts] if isinstance(texts, str) else list(texts)
        queries = [query or ""] * len(contexts) if query is None or isinstance(query, str) else list(query)
        self.check_queries(queries)
        if len(queries) != len(contexts):
            raise UsageError(f"{len(contexts)} texts have {len(queries)} questions: pass one for each, or one for all")
        for number, context in enumerate(contexts, 1):
            if not context.strip() or not is_unicode(context):
                raise UsageError(f"text {number} of {len(contexts)} is empty, or half of a surrogate pair is in it")
        sources = [Source(context, question) for context, question in zip(contexts, queries, strict=True)]
        book = MemoryBook(self.compressor)
        book.fill(sources, quiet=sum(map(len, contexts)) <= CHUNK_CHARACTERS)
        memories = [ContextMemory(book[source], self.compressor) for source in sources]
        return memories[0] if isinstance(texts, str) else memories

    def load_memory(self, path: str | Path) -> ContextMemory:
        """Read a memory that was saved before; UsageError if it is damaged or was made for another decoder."""
        stored = memory_file.load(Path(path), self.compressor.decoder)
        return ContextMemory(stored.memory, stored)

    def generate(
        self,
        parts: Sequence[ContextMemory | str],
        max_new_tokens: int = 30,
        until: Sequence[str] = (),
        allow_special_tokens_in_text: bool = False,
        **options: Any,
    ) -> str:
        """Continue memories (of one compressor) and texts, in the order given.

        Args:
            parts: What the decoder reads; BOS and what the method was trained to read around it are added.
            max_new_tokens: Most new tokens; prompt and answer must fit the decoder's window.
            until: Texts that end the answer.
            allow_special_tokens_in_text: Let texts spell special tokens (a chat template's); else they are characters.
            **options: Those of `model.generate` (streamer, do_sample, temperature, ...). A streamer gets the tokens
                of a text prompt first: make it with `skip_prompt=True`.
        """
        if isinstance(parts, str | ContextMemory) or not parts:
            raise UsageError("generate() reads a list of memories and texts: pass [memory, 'Question: ...']")
        memories = [part for part in parts if isinstance(part, ContextMemory)]
        reader = memories[0].compressor if memories else self.compressor
        if any(memory.compressor.fingerprint() != reader.fingerprint() for memory in memories):
            raise UsageError("these memories were made by different compressors: a prompt reads those of one")
        prompt = Prompt(
            Part("", Kind.CONTEXT, SEPARATOR) if isinstance(part, ContextMemory) else Part(part, Kind.LITERAL)
            for part in parts
        )
        encoder = PromptEncoder(reader, allow_special=allow_special_tokens_in_text)
        plan = encoder.encode(prompt, [memory.memory for memory in memories])
        return continued(reader, plan, max_new_tokens, until, options)

    def check_queries(self, queries: Sequence[str]) -> None:
        name, query_aware = self.compressor.name, self.compressor.query_aware
        if query_aware and not all(query.strip() for query in queries):
            raise UsageError(f"{name} compresses for a question: pass query")
        if any(queries) and not query_aware:
            raise UsageError(f"{name} compresses without a question: leave query out, and ask the memory")


class CompressedTextGenerationPipeline(Pipeline):
    """`transformers.pipeline("compressed-text-generation", model=pcc)`: each context is compressed once, then asked.

    Importing `ContextCompressor` from `pcc_bench`, which `model` is one of, registers the task. Called with a context
    or several, and `question=` or `questions=`; `max_new_tokens`, `prompt` and the options of `model.generate` go to
    `ContextMemory.answer`. Returns a dictionary for each context: `answer` or `answers`, and `ratio`, as achieved.
    """

    _load_processor = _load_tokenizer = _load_feature_extractor = False  # type: ignore[assignment]
    _load_image_processor = _load_video_processor = False  # type: ignore[assignment]

    def __init__(self, model: ContextCompressor, **kwargs: Any) -> None:
        if not isinstance(model, ContextCompressor):
            raise UsageError(f"pipeline('{TASK}') takes model=ContextCompressor.from_pretrained(...)")
        self.pcc = model
        super().__init__(**{**kwargs, "model": model.model, "tokenizer": model.tokenizer, "device": model.model.device})

    def _sanitize_parameters(
        self,
        question: str | None = None,
        questions: Sequence[str] | None = None,
        max_new_tokens: int = 30,
        prompt: str = OFFICIAL,
        **options: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if question is not None and questions is not None:
            raise UsageError("pass question= or questions=, not both")
        asked = list(questions or ()) if question is None else [question]
        forward = {"asked": asked, "answering": (max_new_tokens, prompt), "options": options}
        return {}, forward, {"one": questions is None}

    def preprocess(self, context: str) -> dict[str, Any]:  # type: ignore[override]
        return {"context": context}

    def _forward(  # type: ignore[override]
        self, inputs: Mapping[str, Any], asked: Sequence[str], answering: tuple[int, str], options: Mapping[str, Any]
    ) -> dict[str, Any]:
        if not asked:
            raise UsageError("a context without a question has no answer: pass question= or questions=")
        context = inputs["context"]
        if self.pcc.compressor.query_aware:
            memories = self.pcc.compress([context] * len(asked), query=list(asked))
        else:
            memories = [self.pcc.compress(context)] * len(asked)
        pairs = zip(memories, asked, strict=True)
        answers = [memory.answer(question, *answering, **options) for memory, question in pairs]
        return {"answers": answers, "ratio": memories[0].ratio}

    def postprocess(self, outputs: Mapping[str, Any], one: bool) -> dict[str, Any]:  # type: ignore[override]
        return {"answer": outputs["answers"][0], "ratio": outputs["ratio"]} if one else dict(outputs)


PIPELINE_REGISTRY.register_pipeline(
    TASK, pipeline_class=CompressedTextGenerationPipeline, pt_model=AutoModelForCausalLM
)
