"""Memories outside lm-eval: a compressor and its decoder are opened, a text is compressed, a memory is asked."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import StoppingCriteriaList, StopStringCriteria
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from pcc_bench.core import memory_file, registry
from pcc_bench.core.compressor import Compressor, Memory
from pcc_bench.core.context import Prompt, literal, mark
from pcc_bench.core.decoder import DTYPES, Decoder, check_window
from pcc_bench.core.errors import UsageError, foreign, memory_errors
from pcc_bench.core.generation import generate
from pcc_bench.core.memory_file import Reader
from pcc_bench.core.plan import Plan, PromptEncoder, common_dtype, positions, realise
from pcc_bench.core.questions import OFFICIAL, question_prompt
from pcc_bench.host.store.store import MemoryStore
from pcc_bench.host.store.store import compress as compressed
from pcc_bench.model.init import open_decoder

SEPARATOR = "\n\n"  # between a context that is text and the words behind it, as in the tasks


def open_compressor(
    pretrained: str, decoder: str | None, device: str | None, dtype: str, options: dict[str, Any], method: str = "pcc"
) -> Compressor:
    """Load a method's checkpoint and its decoder outside lm-eval; see `ContextCompressor.from_pretrained`."""
    kind = registry.get(method)
    known = list(registry.options_of(kind).model_fields)
    if unknown := [name for name in options if name not in known]:
        raise UsageError(f"option {unknown[0]}: {kind.name} has no such option{registry.suggest(unknown[0], known)}")
    options = registry.typed(kind, options, "the options given")
    frozen = open_decoder_on(kind.decoder_path(pretrained, decoder), device, dtype)
    compressor = kind.load(pretrained, frozen, **options)
    compressor.source = pretrained
    return compressor


def open_decoder_on(name: str, device: str | None, dtype: str) -> Decoder:
    if dtype not in ("auto", *DTYPES):
        raise UsageError(f"dtype {dtype} is unknown{registry.suggest(dtype, ['auto', *DTYPES])}")
    if device in (None, "auto"):
        device = "cuda" if torch.cuda.is_available() else "cpu"
    frozen = open_decoder(name, DTYPES.get(dtype, dtype))
    memory = memory_errors(f"moving the decoder to {device}", "use a smaller dtype, or device cpu")
    with foreign(f"device {device} can't be used", "pass cpu"), memory:
        frozen.model.to(device)
    return frozen


def compress(text: str, compressor: Compressor, store: MemoryStore | None = None, query: str = "") -> Memory:
    """The memory of one text, for a question where the method compresses for one, from a store where it is there."""
    with memory_errors("compressing the text", "use a smaller --dtype, --device cpu, or a shorter text"):
        (memory,) = compressed(compressor, [text], [query], store)
    if store is not None and store.trouble:
        raise UsageError(f"the memory store could not keep the memory ({store.trouble}): make room, or use another one")
    return memory


@contextmanager
def quiet() -> Iterator[None]:  # no progress bars of transformers
    was_on = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            enable_progress_bar()


@dataclass(frozen=True, eq=False)
class ContextMemory:
    """A compressed context that the decoder can be asked about."""

    memory: Memory  # what the decoder reads in the place of the context, with its counts
    compressor: Reader  # what made it, or the file it was read from: says how the decoder reads it

    @property
    def slots(self) -> int:
        return self.memory.slots

    @property
    def ratio(self) -> float | None:
        """Achieved compression: source tokens per position in the decoder's input; None where nothing is left."""
        return self.memory.ratio

    def __repr__(self) -> str:
        ratio = f"{self.ratio:.2f}x" if self.ratio else "nothing left"
        return f"ContextMemory({self.compressor.name}: {self.memory.source_tokens} tokens, {self.slots} slots, {ratio})"

    def save(self, path: str | Path) -> None:
        """Write it to a safetensors file, which `ContextCompressor.load_memory` and `pcc-bench ask` read."""
        memory_file.save(self.memory, self.compressor, Path(path))

    def answer(self, question: str, max_new_tokens: int = 30, prompt: str = OFFICIAL, **options: Any) -> str:
        """Ask the decoder a question about the context, greedily unless `options` say otherwise.

        Special tokens in the question are ordinary characters. `prompt` names its words: `official` (the paper's),
        `short`, or `chat` (under the chat template). `options` are those of `model.generate` (streamer, ...).
        """
        until = question_prompt(prompt).until
        return continued(self.compressor, self.plan(question, prompt), max_new_tokens, until, options)

    def inputs_embeds(self, question: str, prompt: str = OFFICIAL) -> torch.Tensor:
        """What the decoder reads, for a plain `model.generate(inputs_embeds=...)`: [1, length, hidden size], its dtype.

        Stop tokens are for the caller to pass. UsageError where a method gives its vectors positions of their own.
        """
        if self.compressor.layout.memory_position is not None or self.memory.positions is not None:
            raise UsageError(f"{self.compressor.name} numbers positions in its own way: use answer() or generate()")
        decoder = self.compressor.decoder
        return self.plan(question, prompt).vectors(decoder).to(decoder.dtype)[None]

    def plan(self, question: str, prompt: str = OFFICIAL) -> Plan:
        """What the decoder reads: BOS, what the method puts around it, memory, question in a prompt's words."""
        words, decoder = question_prompt(prompt), self.compressor.decoder
        text = mark("", SEPARATOR) + words.asking(literal(question))
        if words.needs_chat_template:
            if not decoder.tokenizer.chat_template:
                raise UsageError(f"prompt={prompt} needs a chat template, and {decoder.name} has none: use short")
            turns = [{"role": "user", "content": text}, {"role": "assistant", "content": words.answer_start}]
            text = decoder.chat(turns, continue_final_message=True)
        return PromptEncoder(self.compressor).encode(Prompt.parse(text), [self.memory])


def open_memory(
    path: str | Path,
    decoder: str | None = None,
    checkpoint: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> ContextMemory:
    """A saved memory and the decoder that reads it; arguments where they are not what the file names."""
    header = memory_file.header(Path(path))
    with quiet():
        if registry.get(header.method).owns_decoder:
            source = checkpoint or header.checkpoint
            if not source:
                raise UsageError(f"{path} does not name the checkpoint of {header.method} that made it: pass it")
            frozen = open_compressor(source, decoder, device, dtype, {}, header.method).decoder
        else:
            if checkpoint:
                raise UsageError(f"{header.method} brings no decoder of its own: leave the checkpoint {checkpoint} out")
            frozen = open_decoder_on(decoder or header.decoder_name, device, dtype)
    stored = memory_file.load(Path(path), frozen)
    return ContextMemory(stored.memory, stored)


def continued(reader: Reader, plan: Plan, max_new_tokens: int, until: Sequence[str], options: dict[str, Any]) -> str:
    """What the decoder says behind a plan, without special tokens, up to a text that ends it."""
    ids = continued_ids(reader, plan, max_new_tokens, until, options)
    text = str(reader.decoder.tokenizer.decode(ids, skip_special_tokens=True))
    return text[: min((text.find(end) for end in until if end in text), default=len(text))]


def continued_ids(
    reader: Reader, plan: Plan, max_new_tokens: int, until: Sequence[str], options: dict[str, Any]
) -> list[int]:
    decoder, layout = reader.decoder, reader.layout
    what = f"the prompt with an answer of {max_new_tokens}"
    check_window(decoder.model.config, plan.span + max_new_tokens, what, "compress more, or split the text")
    criteria = StoppingCriteriaList([StopStringCriteria(decoder.tokenizer, list(until))]) if until else None
    with memory_errors(f"decoding a prompt of {plan.length} positions", "use a smaller dtype, or device='cpu'"):
        prompts = realise([plan], decoder, common_dtype([plan], decoder))
        ends_and_bans = layout.stop_token_ids, layout.suppressed_token_ids
        places = positions([plan], layout.memory_position)
        return generate(decoder, prompts, max_new_tokens, *ends_and_bans, criteria, places, **options).ids[0]
