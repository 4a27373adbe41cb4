"""The contract every compression method keeps: a subclass of `Compressor` with `compress`; the runner does the rest."""

import inspect as introspection
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, Self

import torch
from transformers import PreTrainedTokenizerBase

from pcc_bench.core.decoder import Decoder
from pcc_bench.core.documents import digest

# Runs one check of `Compressor.inspect` and notes its outcome: a value and what is said of it, or a UsageError. Gives
# the value; None where the check fails.
Look = Callable[[str, Callable[[], tuple[Any, str]]], Any]


@dataclass(frozen=True)
class Memory:
    """What the decoder reads in the place of one context.

    Exactly one of `text` and `vectors` is set. A hard method (truncation, LLMLingua-2) gives text, which is tokenized
    together with the rest of the prompt, so that `full-context` reads token for token what lm-eval's `hf` reads. A
    soft method (PCC, ICAE) gives vectors that stand in the decoder's input where tokens would stand.
    """

    source_tokens: int  # of the context under the decoder's tokenizer, no special tokens
    compressor_tokens: int  # of the context as the compressor reads it, under its own tokenizer
    source_bytes: int  # of the context in UTF-8
    slots: int  # vectors (soft) or decoder tokens (hard) that carry content
    boundary: int = 0  # vectors that only frame the content (`<mem>`, `</mem>`)
    seconds: float = 0.0  # this context's share of the time its batch took to compress
    text: str | None = None  # "" for none
    vectors: torch.Tensor | None = None  # [slots + boundary, hidden size of the decoder], in reading order, without BOS
    # At the context's end, which the method has no room for. They are in none of the counts above, so that text that
    # was never read does not pass for compressed.
    truncated_bytes: int = 0
    # Position ids of the vectors from the memory's start, ascending; what follows counts on. None: as tokens have.
    positions: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.vectors is None):
            raise ValueError("a memory holds either text or vectors")
        if self.vectors is not None and len(self.vectors) != self.slots + self.boundary:
            raise ValueError(f"{len(self.vectors)} vectors, but {self.slots} slots + {self.boundary} boundary counted")
        places = self.positions
        if places is not None and (len(places) != self.length or any(a >= b for a, b in pairwise(places))):
            raise ValueError(f"{len(places)} positions of {self.length} vectors, or they do not ascend")

    @property
    def length(self) -> int:
        """Vectors or tokens it has in the decoder's input."""
        return self.slots + self.boundary

    @property
    def span(self) -> int:
        """Position ids it takes up: more than vectors where these stand at the places of the text."""
        return self.positions[-1] + 1 if self.positions else self.length

    @property
    def ratio_slots(self) -> float | None:
        """Achieved compression, slots only: source tokens per slot; None where no slot is left."""
        return self.source_tokens / self.slots if self.slots else None

    @property
    def ratio(self) -> float | None:
        """Achieved compression as the decoder feels it: source tokens per position, boundary vectors counted."""
        return self.source_tokens / self.length if self.length else None


@dataclass(frozen=True)
class RawMemory:
    """A soft memory before its last and cheap step, the converter: what a store keeps in little room."""

    slots: torch.Tensor  # [slots, width of the encoder], of all segments
    segments: tuple[int, ...]  # slots of each segment
    source_tokens: int  # as in `Memory`, and so are the following
    compressor_tokens: int
    source_bytes: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Frame:
    """What a soft method was trained to read around a whole prompt."""

    opening: Sequence[int] = ()  # token ids after BOS, before everything else
    closing: Sequence[int] | torch.Tensor = ()  # before the answer: token ids, or vectors [n, decoder's hidden size]
    lead: str = ""  # text behind the last memory, tokenized with the words there, which may begin with it already


@dataclass(frozen=True, eq=False)
class Layout:
    """What a method asks of the decoder's side. The defaults leave the decoder as lm-eval runs it."""

    starts_with_bos: bool | None = None  # BOS before the first memory; None: as the decoder's tokenizer does by itself
    frame: Frame = Frame()  # what stands around a prompt
    templated: Frame = Frame()  # the same where a chat template has put its own words around it already
    reconstruction: Frame | None = None  # around a memory that is to be said again; None: the method was not trained to
    memory_position: int | None = None  # of every vector of a memory; None: they count as tokens
    stop_token_ids: tuple[int, ...] = ()  # ids that end an answer besides the decoder's own end of sequence
    suppressed_token_ids: tuple[int, ...] = ()  # ids an answer may not contain


class Compressor(ABC):
    """A compression method bound to one decoder."""

    name: ClassVar[str]  # in the registry and in `lm_eval --model`
    soft: ClassVar[bool]  # memories are vectors (True) or text (False)
    owns_decoder: ClassVar[bool] = False  # it brings its own decoder weights and can't be read by another one
    # A text with nothing to compress has a meaning (`loglikelihood_rolling`): the decoder's input is left alone.
    scores_whole_text: ClassVar[bool] = False
    has_converter: ClassVar[bool] = False  # the last step is a cheap one: `compress` is `compress_raw` and `convert`
    summary: ClassVar[str] = ""  # what it is, in one line
    default: ClassVar[str] = ""  # the checkpoint where the user names none; "" where there is none

    # Memories depend on the question too: the runner calls `compress_for`, once for each context and question, never
    # `compress`. An instance may say more than its class.
    query_aware: bool = False
    label: str = ""  # what it is called in print ("": its name), such as which encoder it has
    rate: float | None = None  # the requested compression, source tokens per slot
    source: str = ""  # the checkpoint it was loaded from, as the user named it; for messages

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder

    @classmethod
    def decoder_path(cls, pretrained: str, decoder: str | None) -> str:
        """Folder or hub id of the decoder, before anything is loaded; by default `pretrained` is the decoder."""
        return decoder or pretrained

    @classmethod
    def load(cls, pretrained: str, decoder: Decoder) -> Self:
        """Build the method for a loaded decoder. Subclasses add their options as keyword arguments."""
        return cls(decoder)

    @classmethod
    def recorded_rate(cls, pretrained: str, options: Mapping[str, Any]) -> float | None:
        """Source tokens per position, by options or files, before loading; infinity: nothing is read, None: unknown."""
        parameter = introspection.signature(cls.load).parameters.get("rate")
        rate = options.get("rate", parameter.default if parameter else None)
        return float(rate) if isinstance(rate, int | float) else None

    @classmethod
    def inspect(cls, pretrained: str, decoder: Decoder, options: Mapping[str, Any], look: Look) -> None:
        """Look at a checkpoint without loading it (`pcc-bench validate`); the decoder may be on the `meta` device."""
        return

    @abstractmethod
    def compress(self, contexts: Sequence[str]) -> list[Memory]:
        """Compress contexts, all in one call so that a method can batch them; one memory each, in order."""

    def compress_for(self, contexts: Sequence[str], queries: Sequence[str]) -> list[Memory]:
        """Compress each context for the question of its prompt (`Prompt.query`), if the method is query-aware."""
        raise NotImplementedError(f"{self.name} is not query-aware")

    def compress_raw(self, contexts: Sequence[str]) -> list[RawMemory]:
        """As `compress`, without the converter; a method that has one overrides this."""
        raise NotImplementedError(f"{self.name} has no converter")

    def convert(self, raw: RawMemory) -> Memory:
        """Finish a memory, alone, so that it does not depend on others; a method with a converter overrides this."""
        raise NotImplementedError(f"{self.name} has no converter")

    @property
    def depends_on_batch(self) -> bool:  # does a memory depend on the texts compressed in the same call?
        return False

    @property
    def tokenizers(self) -> tuple[PreTrainedTokenizerBase, ...]:
        """Those that decide what a memory is and what it counts."""
        return (self.decoder.tokenizer,)

    def options(self) -> dict[str, Any]:
        """What changes the memories besides the weights; goes into the fingerprint and the results."""
        return {}

    def weights_fingerprint(self) -> str:  # of the method's own; "" where it has none
        return ""

    def fingerprint(self) -> str:
        """A short hash of all that decides which memories come out."""
        return digest([self.name, self.weights_fingerprint(), self.options()])

    @cached_property
    def layout(self) -> Layout:
        return Layout()
