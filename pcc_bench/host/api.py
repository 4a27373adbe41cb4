"""Compression in Python: `from pcc_bench import ContextCompressor`.

A thin front over what evaluations use: the method's `Compressor`, `PromptEncoder` for what stands around memories, and
`generation.generate`. An answer is therefore the one that `lm_eval --model METHOD` gives for context and question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, overload

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteriaList, StopStringCriteria

from pcc_bench.core import memory_file, registry, shipped
from pcc_bench.core.compressor import Compressor, Memory
from pcc_bench.core.context import Kind, Part, Prompt, literal, mark
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError, memory_errors
from pcc_bench.core.generation import generate
from pcc_bench.core.layout import Reader
from pcc_bench.core.memory_file import SavedMemory
from pcc_bench.core.plan import Plan, positions, realise
from pcc_bench.core.questions import OFFICIAL, question_prompt
from pcc_bench.host import compressing
from pcc_bench.host.memories import CHUNK_CHARACTERS, MemoryBook, Source
from pcc_bench.host.prompts import PromptEncoder

SEPARATOR = "\n\n"  # between a context that is text and the words behind it, as in the tasks


@dataclass(frozen=True, eq=False)
class ContextMemory:
    """A compressed context that the decoder can be asked about.

    Attributes:
        memory: What the decoder reads in the place of the context, with its counts.
        compressor: What made it, or the file it was read from: says how the decoder reads it.
    """

    memory: Memory
    compressor: Compressor | SavedMemory

    @property
    def slots(self) -> int:
        """Vectors (soft methods) or decoder tokens (hard methods) that carry content."""
        return self.memory.slots

    @property
    def ratio(self) -> float | None:
        """Achieved compression: source tokens per position in the decoder's input; None where nothing is left."""
        return self.memory.ratio

    def __repr__(self) -> str:
        ratio = f"{self.ratio:.2f}x" if self.ratio else "nothing left"
        return f"ContextMemory({self.compressor.name}: {self.memory.source_tokens} tokens, {self.slots} slots, {ratio})"

    def save(self, path: str | Path) -> None:
        """Write it to a safetensors file, which `ContextCompressor.load_memory` and `pcc-bench ask` read.

        Raises:
            UsageError: The folder can't be written.
        """
        memory_file.save(self.memory, self.compressor, Path(path))

    def answer(self, question: str, max_new_tokens: int = 30, prompt: str = OFFICIAL, **options: Any) -> str:
        """Ask the decoder a question about the context, greedily unless `options` say otherwise.

        Args:
            question: The question; special tokens in it are ordinary characters.
            max_new_tokens: Most new tokens.
            prompt: The words of the question: `official` (the paper's), `short`, or `chat` (under the chat template).
            **options: Those of `model.generate` (streamer, do_sample, temperature, ...).

        Raises:
            UsageError: No such prompt, no chat template, or too long for the decoder's window.
        """
        until = question_prompt(prompt).until
        return _continued(self.compressor, self.plan(question, prompt), max_new_tokens, until, options)

    def inputs_embeds(self, question: str, prompt: str = OFFICIAL) -> torch.Tensor:
        """What the decoder reads, for a plain `model.generate(inputs_embeds=...)`.

        Returns:
            [1, length, hidden size], in the decoder's dtype. Stop tokens are for the caller to pass.

        Raises:
            UsageError: The method gives its vectors positions of their own, which input vectors can't carry.
        """
        if self.compressor.layout.memory_position is not None or self.memory.positions is not None:
            raise UsageError(f"{self.compressor.name} numbers positions in its own way: use answer() or generate()")
        decoder = self.compressor.decoder
        return self.plan(question, prompt).vectors(decoder).to(decoder.dtype)[None]

    def plan(self, question: str, prompt: str = OFFICIAL) -> Plan:
        """What the decoder reads: BOS, what the method puts around it, the memory, the question in the prompt's words.

        Raises:
            UsageError: No such prompt, or no chat template.
        """
        return _encoder(self.compressor).encode(_asked(self.compressor, question, prompt), [self.memory])


class ContextCompressor:
    """A compression method with its decoder; see `from_pretrained`.

    Attributes:
        compressor: The method.
    """

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

        Raises:
            UsageError: Anything that does not fit, in one sentence.
        """
        name = method or shipped.method_of(pretrained) or "pcc"
        with compressing.quiet():
            return cls(compressing.open_compressor(pretrained, decoder, device, dtype, options, name))

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
        """Compress one text or several; long lists show a progress bar.

        Args:
            texts: A text, or several.
            query: The question that a query-aware method compresses for: one for all texts, or one for each.

        Raises:
            UsageError: An empty text, or a question where the method takes none or wants one.
        """
        contexts = [texts] if isinstance(texts, str) else list(texts)
        queries = [query or ""] * len(contexts) if query is None or isinstance(query, str) else list(query)
        self.check_queries(queries)
        if len(queries) != len(contexts):
            raise UsageError(f"{len(contexts)} texts have {len(queries)} questions: pass one for each, or one for all")
        for number, context in enumerate(contexts, 1):
            if not context.strip() or not compressing.is_unicode(context):
                raise UsageError(f"text {number} of {len(contexts)} is empty, or half of a surrogate pair is in it")
        sources = [Source(context, question) for context, question in zip(contexts, queries, strict=True)]
        book = MemoryBook(self.compressor)
        book.fill(sources, quiet=sum(map(len, contexts)) <= CHUNK_CHARACTERS)
        memories = [ContextMemory(book[source], self.compressor) for source in sources]
        return memories[0] if isinstance(texts, str) else memories

    def load_memory(self, path: str | Path) -> ContextMemory:
        """Read a memory that was saved before, for this decoder.

        Raises:
            UsageError: No such file, a damaged one, or one made for another decoder.
        """
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
        """Continue memories and texts, in the order given.

        Args:
            parts: What the decoder reads; BOS and what the method was trained to read around it are added.
            max_new_tokens: Most new tokens.
            until: Texts that end the answer.
            allow_special_tokens_in_text: Let texts spell special tokens (a chat template's); else they are characters.
            **options: Those of `model.generate` (streamer, do_sample, temperature, ...). A streamer gets the tokens
                of a text prompt first: make it with `skip_prompt=True`.

        Raises:
            UsageError: Memories of several compressors, nothing to read, or too long for the decoder's window.
        """
        if isinstance(parts, str | ContextMemory) or not parts:
            raise UsageError("generate() reads a list of memories and texts: pass [memory, 'Question: ...']")
        if not all(compressing.is_unicode(part) for part in parts if isinstance(part, str)):
            raise UsageError("half of a surrogate pair is in a text: write it in UTF-8")
        memories = [part for part in parts if isinstance(part, ContextMemory)]
        reader = memories[0].compressor if memories else self.compressor
        if any(memory.compressor.fingerprint() != reader.fingerprint() for memory in memories):
            raise UsageError("these memories were made by different compressors: a prompt reads those of one")
        prompt = Prompt(
            Part("", Kind.CONTEXT, SEPARATOR) if isinstance(part, ContextMemory) else Part(part, Kind.LITERAL)
            for part in parts
        )
        plan = _encoder(reader, allow_special_tokens_in_text).encode(prompt, [memory.memory for memory in memories])
        return _continued(reader, plan, max_new_tokens, until, options)

    def check_queries(self, queries: Sequence[str]) -> None:
        """See that there is a question where the method compresses for one, and none where it does not.

        Raises:
            UsageError: It is otherwise.
        """
        name, query_aware = self.compressor.name, self.compressor.query_aware
        if query_aware and not all(query.strip() for query in queries):
            raise UsageError(f"{name} compresses for a question: pass query")
        if any(queries) and not query_aware:
            raise UsageError(f"{name} compresses without a question: leave query out, and ask the memory")


def open_memory(
    path: str | Path,
    decoder: str | None = None,
    checkpoint: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> ContextMemory:
    """A saved memory with the decoder that reads it, without the compressor's weights where they are not needed.

    Args:
        path: The memory file.
        decoder: The decoder, where it is not the one the file names.
        checkpoint: Of a method that brings its own decoder, where it is not the one the file names.
        device: As in `ContextCompressor.from_pretrained`, and so is `dtype`.
        dtype: See `device`.

    Raises:
        UsageError: The file or the decoder can't be read, or they do not belong together.
    """
    header = memory_file.header(Path(path))
    with compressing.quiet():
        if registry.get(header.method).owns_decoder:
            source = checkpoint or header.checkpoint
            if not source:
                raise UsageError(f"{path} does not name the checkpoint of {header.method} that made it: pass it")
            frozen = compressing.open_compressor(source, decoder, device, dtype, {}, header.method).decoder
        else:
            if checkpoint:
                raise UsageError(f"{header.method} brings no decoder of its own: leave the checkpoint {checkpoint} out")
            frozen = compressing.open_decoder_on(decoder or header.decoder_name, device, dtype)
    stored = memory_file.load(Path(path), frozen)
    return ContextMemory(stored.memory, stored)


def _encoder(reader: Reader, allow_special: bool = False) -> PromptEncoder:
    return PromptEncoder(reader.decoder, reader, allow_special=allow_special)


def _asked(reader: Reader, question: str, name: str) -> Prompt:
    """A context with a question behind it, in the words of a prompt; the context's own text is not in it."""
    if not compressing.is_unicode(question):
        raise UsageError("half of a surrogate pair is in the question: write it in UTF-8")
    words = question_prompt(name)
    text = mark("", SEPARATOR) + words.text.replace("{question}", literal(question))
    if words.needs_chat_template:
        if not reader.decoder.tokenizer.chat_template:
            raise UsageError(f"prompt={name} needs a chat template, and {reader.decoder.name} has none: use short")
        turns = [{"role": "user", "content": text}]
        turns += [{"role": "assistant", "content": words.answer_start}] if words.answer_start else []
        ends: dict[str, Any] = {"continue_final_message" if words.answer_start else "add_generation_prompt": True}
        text = reader.decoder.chat(turns, **ends)
    return Prompt.parse(text)


def _continued(reader: Reader, plan: Plan, max_new_tokens: int, until: Sequence[str], options: dict[str, Any]) -> str:
    """What the decoder says behind a plan, without special tokens, up to a text that ends it."""
    ids = continued_ids(reader, plan, max_new_tokens, until, options)
    text = str(reader.decoder.tokenizer.decode(ids, skip_special_tokens=True))
    return text[: min((text.find(end) for end in until if end in text), default=len(text))]


def check_window(decoder: Decoder, plan: Plan, max_new_tokens: int) -> None:
    """See that a prompt and its answer fit.

    Raises:
        UsageError: They are too long for the decoder's window.
    """
    window = getattr(decoder.model.config, "max_position_embeddings", None)
    if window is not None and plan.span + max_new_tokens > window:
        raise UsageError(
            f"the prompt takes {plan.span} positions and the answer {max_new_tokens}, the decoder has {window}: "
            "compress more, or split the text"
        )


def continued_ids(
    reader: Reader, plan: Plan, max_new_tokens: int, until: Sequence[str], options: dict[str, Any]
) -> list[int]:
    """New token ids behind a plan, those that ended it included.

    Raises:
        UsageError: Too long for the decoder's window, or for the machine's memory.
    """
    decoder = reader.decoder
    check_window(decoder, plan, max_new_tokens)
    criteria = StoppingCriteriaList([StopStringCriteria(decoder.tokenizer, list(until))]) if until else None
    with memory_errors(f"decoding a prompt of {plan.length} positions", "use a smaller dtype, or device='cpu'"):
        out = generate(
            decoder,
            realise([plan], decoder, plan.dtype(decoder) if plan.has_vectors else None),
            max_new_tokens,
            reader.layout.stop_token_ids,
            reader.layout.suppressed_token_ids,
            criteria,
            positions=positions([plan], reader.layout.memory_position),
            **options,
        )
    return out.ids[0]
