"""PCC as a compression method: `lm_eval --model pcc`."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import torch
from pydantic import PositiveInt
from transformers import PreTrainedTokenizerBase

from pcc_bench.core import shipped
from pcc_bench.core.checkpoint_files import resolve
from pcc_bench.core.compressor import Compressor, Frame, Layout, Look, Memory, RawMemory
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError
from pcc_bench.model import checkpoint, inspection
from pcc_bench.model.config import PccConfig
from pcc_bench.model.pcc import AE, PCC, SPECIAL_TOKENS, Encoded


class PccCompressor(Compressor):
    """Pretraining Context Compressor (Dai et al., ACL 2025): contexts become a few vectors for a frozen decoder."""

    name = "pcc"
    soft = True
    has_converter = True
    default = shipped.DEFAULT
    label = "PCC"
    summary = "memory slots from a pretrained encoder, read by a frozen decoder (ACL 2025)"

    def __init__(self, pcc: PCC, decoder: Decoder) -> None:
        super().__init__(decoder)
        self.pcc = pcc
        self.rate = float(pcc.config.rate)
        # In print it is called by its encoder, or by what it does where that is layers of the decoder.
        if pcc.config.encoder.layers is None:
            self.label = "PCC-Lite" if pcc.config.encoder.kind == "full" else "PCC-Large"
        elif pcc.config.pooling == "mean":
            self.label = "tuned context" if pcc.config.rate == 1 else "PCC pooled"
        self._weights = checkpoint.weights_fingerprint(pcc)

    @classmethod
    def decoder_path(cls, pretrained: str, decoder: str | None) -> str:
        """By default the decoder that the checkpoint records; published ones never do."""
        if decoder:
            return decoder
        folder = resolve(pretrained)
        name = PccConfig.read(folder).decoder.name if checkpoint.is_own(folder) else None
        if name is None:
            raise UsageError(f"checkpoint '{pretrained}' does not record its decoder: pass decoder=<folder or hub id>")
        return shipped.beside(name, folder)

    @classmethod
    def recorded_rate(cls, pretrained: str, options: Mapping[str, Any]) -> float | None:
        given = super().recorded_rate(pretrained, options)
        return given if given is not None else float(PccConfig.read(resolve(pretrained)).rate)

    @classmethod
    def inspect(cls, pretrained: str, decoder: Decoder, options: Mapping[str, Any], look: Look) -> None:
        inspection.inspect(pretrained, decoder, options, look)

    @classmethod
    def load(
        cls,
        pretrained: str,
        decoder: Decoder,
        *,
        rate: int | None = None,
        segment_length: int | None = None,
        slots: str | None = None,
        boundaries: str | None = None,
        slot_positions: str | None = None,
        padding: str | None = None,
        encoder_bos: bool | None = None,
        memory_dtype: str | None = None,
        suppress_special: bool | None = None,
        encoder: str | None = None,
        special_tokens: str | None = None,
        any_decoder: bool = False,
        encoder_batch_tokens: PositiveInt | None = None,
    ) -> Self:
        """Load a checkpoint (ours or a published one) for a decoder; see `checkpoint.load` and `PccConfig`."""
        policies: dict[str, Any] = {"rate": rate, "segment_length": segment_length, "slots": slots, "padding": padding}
        policies |= {"boundaries": boundaries, "slot_positions": slot_positions, "memory_dtype": memory_dtype}
        policies |= {"encoder_bos": encoder_bos, "suppress_special": suppress_special, "special_tokens": special_tokens}
        pcc = checkpoint.load(pretrained, decoder, encoder=encoder, any_decoder=any_decoder, **policies)
        pcc.encoder.batch_tokens = encoder_batch_tokens
        return cls(pcc, decoder)

    def compress(self, contexts: Sequence[str]) -> list[Memory]:
        """Seconds are shared by tokens read."""
        counts = self.decoder.count_tokens(contexts)
        start = time.perf_counter()
        with torch.inference_mode():
            encoded = self.pcc.encode(self.pcc.encoder.tokenize(contexts))
        sources = zip(contexts, encoded, counts, strict=True)
        memories = [self._memory(context, tokens, len(text.encode())) for text, context, tokens in sources]
        per_token = (time.perf_counter() - start) / max(1, sum(memory.compressor_tokens for memory in memories))
        return [replace(memory, seconds=memory.compressor_tokens * per_token) for memory in memories]

    def compress_raw(self, contexts: Sequence[str]) -> list[RawMemory]:
        start = time.perf_counter()
        with torch.inference_mode():
            encoded = self.pcc.encode(self.pcc.encoder.tokenize(contexts), convert=False)
            none = torch.empty(0, self.pcc.encoder.slot_size, device=self.decoder.device)
            slots = [torch.cat([none, *context.slots]).cpu() for context in encoded]
        per_token = (time.perf_counter() - start) / max(1, sum(context.tokens for context in encoded))
        counts = self.decoder.count_tokens(contexts)
        memories = []
        for text, context, hidden, tokens in zip(contexts, encoded, slots, counts, strict=True):
            segments, seconds = tuple(map(len, context.slots)), context.tokens * per_token
            memories.append(RawMemory(hidden, segments, tokens, context.tokens, len(text.encode()), seconds))
        return memories

    def convert(self, raw: RawMemory) -> Memory:
        with torch.inference_mode():
            slots = self.pcc.converter(raw.slots.to(self.decoder.device))
        encoded = Encoded(raw.compressor_tokens, list(slots.split(raw.segments)) if raw.segments else [])
        return replace(self._memory(encoded, raw.source_tokens, raw.source_bytes), seconds=raw.seconds)

    def _memory(self, context: Encoded, source_tokens: int, source_bytes: int) -> Memory:
        with torch.inference_mode():
            memory = self.pcc.memory(context, source_tokens, source_bytes)
            context.slots.clear()  # or those of all contexts of a call would be held twice
            assert memory.vectors is not None
            dtype = torch.float32 if self.pcc.config.memory_dtype == "float32" else self.decoder.dtype
            return replace(memory, vectors=memory.vectors.to(dtype).cpu())

    @property
    def depends_on_batch(self) -> bool:
        """The official padding is read by the encoder, and its length is that of the longest text of a batch."""
        return self.pcc.config.padding == "attended"

    @property
    def tokenizers(self) -> tuple[PreTrainedTokenizerBase, ...]:
        return (self.decoder.tokenizer, self.pcc.encoder.tokenizer)

    def options(self) -> dict[str, Any]:
        described = {"encoder", "decoder", "prompt", "notes", "lab", "rates"}
        options = self.pcc.config.model_dump(mode="json", exclude=described)
        if self.pcc.config.slot_positions == "consecutive":
            del options["slot_positions"]  # fingerprints of memories made before there was a choice stay valid
        if not self.pcc.config.gate:
            del options["gate"]
        return options

    def weights_fingerprint(self) -> str:
        return self._weights

    @cached_property
    def layout(self) -> Layout:
        """BOS first where the decoder has one, `<ae>` behind a memory that is reconstructed."""
        tokenizer, config = self.decoder.tokenizer, self.pcc.config
        vocabulary = tokenizer.get_vocab()
        # end of turn and padding end an answer too (official quirk Q23)
        stops = [vocabulary[name] for name in config.decoder.stop_tokens if name in vocabulary]
        padding = [] if tokenizer.pad_token_id is None else [int(tokenizer.pad_token_id)]
        beyond = range(len(tokenizer), self.decoder.model.config.get_text_config().vocab_size)  # the tokenizer (Q26)
        special = [vocabulary[name] for name in SPECIAL_TOKENS if config.suppress_special and name in vocabulary]
        return Layout(
            starts_with_bos=bool(self.decoder.bos),
            reconstruction=Frame(closing=self.pcc.special_vector(AE)[None]),
            stop_token_ids=(*stops, *padding),
            suppressed_token_ids=(*beyond, *special),
        )
