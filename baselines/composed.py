"""Two methods in a row: a hard one shortens the text, and PCC compresses what it leaves; their rates multiply.

With a PCC of 1x (`pcc-smollm2-1x`: the decoder's own token vectors between trained frame vectors) this is a hard method
with the supervision a compressor had: the frame has learned how to answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from inspect import signature
from typing import Any, Self

from transformers import PreTrainedTokenizerBase

from pcc_bench.baselines.hard import HardCompressor
from pcc_bench.core import registry, shipped
from pcc_bench.core.compressor import Compressor, Layout, Look, Memory
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError


class ComposedCompressor(Compressor):
    """PCC (`second`) reads the text that a hard method (`first`) leaves of a context."""

    name = "composed"
    soft = True
    default = shipped.DEFAULT
    summary = "a hard method shortens the text, PCC compresses what is left (first=, first_rate=)"

    def __init__(self, first: Compressor, second: Compressor) -> None:
        super().__init__(second.decoder)
        self.first, self.second = first, second
        self.query_aware = first.query_aware
        self.label = f"{first.label} + {second.label}"
        self.rate = first.rate * second.rate if first.rate and second.rate else None

    @classmethod
    def decoder_path(cls, pretrained: str, decoder: str | None) -> str:
        return registry.get("pcc").decoder_path(pretrained, decoder)

    @classmethod
    def load(
        cls,
        pretrained: str,
        decoder: Decoder,
        *,
        first: str = "truncated-context",  # a hard method
        first_rate: float | None = None,  # its own default where there is none
        first_pretrained: str | None = None,  # its checkpoint, of a method that has one
        rate: int | None = None,  # PCC's; the checkpoint's where there is none
        any_decoder: bool = False,  # as PCC's
    ) -> Self:
        """Load both; `pretrained` is PCC's checkpoint."""
        kind = _hard(first)
        if first_pretrained and kind.default == HardCompressor.default:
            raise UsageError(f"first={first} has no checkpoint: leave first_pretrained out")
        if not first_pretrained and kind.default != HardCompressor.default:
            raise UsageError(f"first={first} needs first_pretrained=<its checkpoint>, {kind.default} or so")
        options = {} if first_rate is None else {"rate": first_rate}
        if options and "rate" not in signature(kind.load).parameters:
            raise UsageError(f"first={first} takes no rate: leave first_rate={first_rate:g} out")
        options = registry.typed(kind, options, f"first={first}, first_rate")
        before = kind.load(first_pretrained or decoder.name, decoder, **options)
        own = {"any_decoder": any_decoder, **({} if rate is None else {"rate": rate})}
        return cls(before, registry.get("pcc").load(pretrained, decoder, **own))

    @classmethod
    def recorded_rate(cls, pretrained: str, options: Mapping[str, Any]) -> float | None:
        own = {"rate": options["first_rate"]} if options.get("first_rate") is not None else {}
        first = _hard(options.get("first", "truncated-context")).recorded_rate(pretrained, own)
        second = registry.get("pcc").recorded_rate(pretrained, options)
        return first * second if first and second else None

    @classmethod
    def inspect(cls, pretrained: str, decoder: Decoder, options: Mapping[str, Any], look: Look) -> None:
        kind = _hard(options.get("first", "truncated-context"))
        look("first method", lambda: (None, kind.summary))
        own = {name: value for name, value in options.items() if not name.startswith("first")}
        registry.get("pcc").inspect(pretrained, decoder, own, look)

    def compress(self, contexts: Sequence[str]) -> list[Memory]:
        return self._compress_rest(self.first.compress(contexts))

    def compress_for(self, contexts: Sequence[str], queries: Sequence[str]) -> list[Memory]:
        return self._compress_rest(self.first.compress_for(contexts, queries))

    def _compress_rest(self, shortened: Sequence[Memory]) -> list[Memory]:
        """Compress what is left; sizes are those of the whole contexts."""
        memories = self.second.compress([memory.text or "" for memory in shortened])
        sizes = ("source_tokens", "compressor_tokens", "source_bytes")
        return [
            replace(memory, seconds=whole.seconds + memory.seconds, **{size: getattr(whole, size) for size in sizes})
            for whole, memory in zip(shortened, memories, strict=True)
        ]

    @property
    def depends_on_batch(self) -> bool:
        return self.first.depends_on_batch or self.second.depends_on_batch

    @property
    def tokenizers(self) -> tuple[PreTrainedTokenizerBase, ...]:
        return tuple(dict.fromkeys((*self.second.tokenizers, *self.first.tokenizers)))

    @cached_property
    def layout(self) -> Layout:
        return self.second.layout

    def options(self) -> dict[str, Any]:
        own = {f"first_{name}": value for name, value in self.first.options().items()}
        return {**self.second.options(), "first": self.first.name, **own}

    def weights_fingerprint(self) -> str:
        return "+".join(filter(None, (self.first.weights_fingerprint(), self.second.weights_fingerprint())))


def _hard(name: str) -> type[HardCompressor]:
    kind = registry.get(name)
    if not issubclass(kind, HardCompressor):
        raise UsageError(
            f"first={name}: the first of two methods has to leave text: pass truncated-context, random-context, "
            "bm25-context, llmlingua2, token-classifier, no-context or full-context"
        )
    return kind
