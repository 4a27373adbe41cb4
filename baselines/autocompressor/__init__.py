"""AutoCompressor (Chevalier et al., EMNLP 2023; princeton-nlp/AutoCompressors) and its relative RMT.

A language model reads a long text segment by segment. Each segment ends in learned summary tokens, whose last hidden
states (after the final norm) stand as a soft prompt before the next segment, and at the end before the question.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import PositiveInt
from torch import nn

from pcc_bench.baselines import weights
from pcc_bench.baselines.autocompressor import files
from pcc_bench.baselines.soft import CausalEncoder, Purpose, Row, SoftCompressor, drawn_vectors
from pcc_bench.core import shipped
from pcc_bench.core.checkpoint_files import resolve
from pcc_bench.core.compressor import Layout
from pcc_bench.core.decoder import Decoder, check_window
from pcc_bench.core.documents import is_file
from pcc_bench.core.errors import UsageError

SEGMENT_LENGTH = 1536  # a quarter of the 6,144 tokens of a training sequence
UNPLACED = -1  # OPT's position table has its padding row at -1: all soft vectors stand there
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
STEPS_OF_GRADIENT = 2  # segments through which gradients flow; in the original two sub-steps of two segments


class AutoCompressor(SoftCompressor):
    name = "autocompressor"
    default = "autocompressor-lab-4x"
    label = "AutoCompressor"
    summary = "summary vectors accumulated over segments, read by the same fine-tuned model (EMNLP 2023)"
    encoder: "SummaryEncoder"

    @classmethod
    def decoder_path(cls, pretrained: str, decoder: str | None) -> str:
        """By default the checkpoint itself, or the base model that an adapter names."""
        folder = Path(shipped.located(pretrained))
        if decoder or not files.is_adapter(folder):
            return decoder or pretrained
        if not (name := files.AdapterConfig.read(folder).base_model_name_or_path):
            raise UsageError(f"{folder / files.ADAPTER_CONFIG} names no base model: pass decoder=<folder or hub id>")
        return shipped.beside(name, folder)

    @classmethod
    def recorded_rate(cls, pretrained: str, options: Mapping[str, Any]) -> float | None:
        recorded = files.AutoCompressorConfig.read(Path(shipped.located(pretrained)))
        length = options.get("segment_length") or recorded.segment_length or SEGMENT_LENGTH
        known = length / recorded.summary_length if recorded.summary_length else None
        return super().recorded_rate(pretrained, options) or known

    @classmethod
    def load(
        cls,
        pretrained: str,
        decoder: Decoder,
        *,
        file: str | None = None,  # the weights' name, where a folder holds several
        rate: PositiveInt | None = None,  # tokens a summary vector: another way to give `segment_length`
        segment_length: PositiveInt | None = None,  # by default as the folder's `config.json` says, or 1,536
        accumulate: bool | None = None,  # see `SummaryEncoder`; by default as the folder's `config.json` says
    ) -> Self:
        """Put a published model, or a peft adapter, into a decoder: the same model or its base (same sizes)."""
        folder = Path(pretrained).parent if is_file(pretrained) else resolve(pretrained)
        if files.is_adapter(folder):
            summary = files.load_adapter(decoder, folder, file)
        else:
            is_loaded = not file and Path(decoder.name).resolve() == Path(pretrained).resolve()
            summary = files.load_whole(decoder, weights.find(pretrained, file), is_loaded)
        recorded = files.AutoCompressorConfig.read(folder)
        if recorded.summary_length not in (None, len(summary)):
            raise UsageError(
                f"{folder} has {len(summary)} summary tokens, its config.json says summary_length="
                f"{recorded.summary_length}: copy it again"
            )
        length = rate * len(summary) if rate else None
        if length and segment_length and length != segment_length:
            raise UsageError(
                f"autocompressor: rate={rate} with {len(summary)} summary tokens means segment_length={length}, "
                f"not {segment_length}: pass one of the two"
            )
        length = segment_length or length or recorded.segment_length or SEGMENT_LENGTH
        accumulate = recorded.accumulate_summary if accumulate is None else accumulate
        encoder = SummaryEncoder(decoder, summary.to(decoder.device, decoder.dtype), length, accumulate)
        return cls(encoder, weights.digest({files.TABLE: summary}, decoder), length / len(summary))

    def options(self) -> dict[str, Any]:
        return {"segment_length": self.encoder.segment_length, "accumulate": self.encoder.accumulate}

    @cached_property
    def layout(self) -> Layout:
        """The soft prompt first, the question without special tokens; on OPT soft vectors take up no positions."""
        return Layout(starts_with_bos=False, memory_position=self.encoder.memory_position)


class SummaryEncoder(CausalEncoder):
    """A decoder that summarizes what it reads, behind all earlier vectors (`accumulate`) or only the newest (RMT)."""

    def __init__(self, decoder: Decoder, summary: torch.Tensor, segment_length: int, accumulate: bool) -> None:
        super().__init__(decoder, decoder.model.base_model)
        # the summary tokens, [n, width]
        self.summary = summary if isinstance(summary, nn.Parameter) else nn.Parameter(summary, requires_grad=False)
        self.segment_length, self.accumulate = segment_length, accumulate
        # On OPT, soft vectors take up no positions; on Llama they count as tokens.
        self.memory_position = UNPLACED if decoder.model.config.model_type == "opt" else None
        self._check_window([segment_length])

    @classmethod
    def start(cls, decoder: Decoder, segment_length: int, rate: int, rank: int, seed: int) -> Self:
        summary = nn.Parameter(drawn_vectors(decoder, segment_length // rate, seed))
        weights.trainable(decoder.model, TARGETS, rank, alpha=rank, seed=seed)
        return cls(decoder, summary, segment_length, accumulate=True)

    def resize(self, segment_length: int, rate: int) -> None:
        self.segment_length = segment_length  # the rate follows from the number of summary tokens

    def encode(self, contexts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Summary vectors, [segments x summary tokens, width]; first segments share forwards, then second ones ..."""
        cut = [segments(ids, self.segment_length) for ids in contexts]
        for pieces in cut:
            self._check_window([len(piece) for piece in pieces])
        soft = [self.summary[:0] for _ in contexts]
        for step in range(max(map(len, cut), default=0)):
            live = [i for i, pieces in enumerate(cut) if len(pieces) > step]
            pairs = self.summarize([cut[i][step] for i in live], [soft[i] for i in live])
            for i, (_, after) in zip(live, pairs, strict=True):
                soft[i] = after
        return soft

    def summarize(
        self, pieces: Sequence[Sequence[int]], soft: Sequence[torch.Tensor]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Of segments behind soft prompts [n, width], last hidden states [tokens, width] and the next soft prompts."""
        states = self.read([(before, piece, self.summary) for before, piece in zip(soft, pieces, strict=True)])
        pairs = []
        for before, piece, row in zip(soft, pieces, states, strict=True):
            _, tokens, new = row.split([len(before), len(piece), len(self.summary)])
            pairs.append((tokens, torch.cat([before, new]) if self.accumulate else new))
        return pairs

    def read_through(
        self, texts: Sequence[Sequence[int]], segment_lengths: int | Sequence[int], soft: torch.Tensor | None = None
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """How it is trained: of each text, last hidden states [tokens, width] and its last segment's soft prompt."""
        # Texts have one length, and the last segment is not summarized; gradients flow through two segments.
        columns = list(zip(*(segments(ids, segment_lengths) for ids in texts), strict=True))
        before = [self.summary[:0] if soft is None else soft for _ in texts]
        states: list[list[torch.Tensor]] = [[] for _ in texts]
        for step, column in enumerate(columns, 1):
            if step == len(columns):
                rows = self.read(list(zip(before, column, strict=True)))
                pairs = [(row[len(vectors) :], vectors) for row, vectors in zip(rows, before, strict=True)]
            else:
                pairs = self.summarize(column, before)
            for i, (hidden, after) in enumerate(pairs):
                states[i].append(hidden)
                before[i] = after.detach() if step % STEPS_OF_GRADIENT == 0 and step < len(columns) else after
        return [(torch.cat(parts), vectors) for parts, vectors in zip(states, before, strict=True)]

    def position_ids(self, rows: Sequence[Row]) -> torch.Tensor | None:
        if self.memory_position is None:
            return None

        def places(part: Sequence[int] | torch.Tensor) -> torch.Tensor:
            return torch.full((len(part),), UNPLACED) if isinstance(part, torch.Tensor) else torch.arange(len(part))

        lines = [torch.cat(list(map(places, parts))) for parts in rows]
        return nn.utils.rnn.pad_sequence(lines, batch_first=True, padding_value=UNPLACED).to(self.decoder.device)

    def prompt(self, vectors: torch.Tensor, purpose: Purpose) -> torch.Tensor:
        return vectors

    def export(self, folder: Path, base: str) -> None:
        layers = weights.lora_of(self.decoder.model)
        sizes: dict[str, Any] = {"alpha": float(weights.rank_of(layers)), "segment_length": self.segment_length}
        files.export_autocompressor(folder, layers, self.summary, base, **sizes)

    def _check_window(self, lengths: Sequence[int]) -> None:
        """See that every segment of a context fits, behind what the ones before it leave."""
        for index, length in enumerate(lengths):
            soft = index if self.accumulate else min(index, 1)
            needed = length + (0 if self.memory_position is not None else (soft + 1) * len(self.summary))
            what = f"autocompressor: segment {index + 1} of a context (segment_length={self.segment_length}, "
            what += f"{len(self.summary)} summary tokens each)"
            remedy = f"pass {'another' if index else 'a shorter'} segment_length"
            check_window(self.decoder.model.config, needed, what, remedy)


def segments(ids: Sequence[int], lengths: int | Sequence[int]) -> list[list[int]]:
    """Cut ids into segments of given lengths, which add up to the text, or of one length and a shorter last one."""
    if isinstance(lengths, int):
        return [list(ids[start : start + lengths]) for start in range(0, len(ids), lengths)]
    if sum(lengths) != len(ids):
        raise UsageError(f"segments of {list(lengths)} tokens do not add up to a text of {len(ids)}")
    return [list(ids[end - length : end]) for end, length in zip(accumulate(lengths), lengths, strict=True)]
