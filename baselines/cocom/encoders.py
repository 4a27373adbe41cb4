"""Encoders of COCOM and PISCO: a context in documents of a fixed size, each on its own a few vectors.

Section 3 of the COCOM paper; `COCOM.compr_decoder` and `BERT_Compressor` of the original modeling_cocom.py. The
published helper `generate_from_text` puts the memory tokens before the document, where a causal decoder sees nothing of
it; training puts them behind it, and so do we.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import nn
from transformers import AutoModel

from pcc_bench.baselines import weights
from pcc_bench.baselines.cocom.files import ALPHA_PER_RANK, export_cocom
from pcc_bench.baselines.soft import CausalEncoder, Purpose, SoftEncoder, drawn_vectors
from pcc_bench.core.checkpoint_files import from_folder, load_strictly, load_tokenizer
from pcc_bench.core.decoder import Decoder, batches, check_window
from pcc_bench.core.errors import UsageError

Overlong = Literal["split", "truncate"]
Slots = Literal["proportional", "fixed"]
AUTOENCODE, ENCODE, SEPARATOR = -3, -2, -1  # rows of the special tokens, behind those of the memory tokens


@dataclass(frozen=True)
class Documents:
    rate: int  # tokens for each vector
    length: int  # tokens of a full document
    slots: Slots = "proportional"  # vectors of a shorter document: by its length, or as many as a full one's
    overlong: Overlong = "split"  # a longer context is read in several documents, or its first one only

    def count(self, tokens: int) -> int:
        """Vectors of a document of so many tokens."""
        return -(-(self.length if self.slots == "fixed" else min(tokens, self.length)) // self.rate)

    def check_positions(self, positions: int, config: Any) -> None:
        check_window(config, positions, f"a document of {self.length} tokens", "pass a smaller document_length")


class DocumentEncoder(SoftEncoder):
    sizes: Documents
    separator: torch.Tensor  # [n, width], `<SEP>` behind each document's vectors
    room: int  # tokens of a context that a document holds
    reach: int  # tokens of a longer context that are read where it is not split

    @abstractmethod
    def vectors(self, documents: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Vectors of each document: [slots, width of the decoder]."""

    @property
    def limit(self) -> int | None:
        return self.reach if self.sizes.overlong == "truncate" else None

    def documents(self, ids: Sequence[int]) -> list[list[int]]:
        size = self.room if self.sizes.overlong == "split" else self.reach
        return [list(ids[start : start + size]) for start in range(0, len(ids), size)]

    def boundaries(self, tokens: int) -> int:
        return len(self.separator) * len(self.documents(range(tokens)))

    def encode(self, contexts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        cut = [self.documents(ids) for ids in contexts]
        rest = iter(self.vectors([document for documents in cut for document in documents]))
        parts = [[part for _ in documents for part in (next(rest), self.separator)] for documents in cut]
        return [torch.cat([self.separator[:0], *vectors]) for vectors in parts]


class CocomEncoder(DocumentEncoder, CausalEncoder):
    """A causal model: `<ENC> <s> document </s>`, then memory tokens, whose last hidden states are the vectors."""

    # [memory tokens + 3, width]: the memory tokens, of which the last one is repeated where more are needed, `<AE>`,
    # `<ENC>` and `<SEP>`.
    special: torch.Tensor

    def __init__(
        self, decoder: Decoder, body: nn.Module, special: torch.Tensor, sizes: Documents, separated: bool
    ) -> None:
        super().__init__(decoder, body)  # the decoder's own, or one with an adapter of its own (PISCO)
        self.register_buffer("special", special.detach())
        self.separated = separated
        eos = decoder.tokenizer.eos_token_id
        self.end = [] if eos is None else [int(eos)]
        self.cut_as(sizes)
        document = len(decoder.bos) + min(self.room + len(self.end), self.reach)  # as `framed`
        sizes.check_positions(1 + document + sizes.count(self.room), decoder.model.config)  # `<ENC>` and memory tokens

    @classmethod
    def start(cls, decoder: Decoder, segment_length: int, rate: int, rank: int, seed: int) -> Self:
        """The decoder, whose linear layers get a LoRA; special tokens stay as they are drawn (as in the original)."""
        targets = sorted({weights.last_part(name) for name in weights.linear_layers(decoder)})
        weights.trainable(decoder.model, targets, rank, alpha=ALPHA_PER_RANK * rank, seed=seed)
        special = drawn_vectors(decoder, 4, seed)
        return cls(decoder, decoder.model.base_model, special, Documents(rate, segment_length), separated=True)

    def cut_as(self, sizes: Documents) -> None:
        # The original cuts at the length of a document with its three special tokens, so that one token of text more
        # takes the place of `</s>`.
        self.sizes, self.room, self.reach = sizes, sizes.length, sizes.length + len(self.end)

    def resize(self, segment_length: int, rate: int) -> None:
        self.cut_as(Documents(rate, segment_length, self.sizes.slots, self.sizes.overlong))

    @property
    def separator(self) -> torch.Tensor:  # type: ignore[override]
        return self.special[SEPARATOR:] if self.separated else self.special[:0]

    def framed(self, ids: Sequence[int]) -> list[int]:
        """BOS, document, end of sequence: as many as the original reads."""
        bos = self.decoder.bos
        return [*bos, *ids, *self.end][: len(bos) + self.reach]

    def memory(self, slots: int) -> torch.Tensor:
        """Vectors of the memory tokens behind a document: [slots, width]."""
        return self.special[torch.arange(slots).clamp_max(len(self.special) + AUTOENCODE - 1)]

    def vectors(self, documents: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        counts = [self.sizes.count(len(ids)) for ids in documents]
        start = self.special[ENCODE][None]
        rows = [(start, self.framed(ids), self.memory(count)) for ids, count in zip(documents, counts, strict=True)]
        return [row[len(row) - count :] for row, count in zip(self.read(rows), counts, strict=True)]

    def prompt(self, vectors: torch.Tensor, purpose: Purpose) -> torch.Tensor:
        before = self.special[AUTOENCODE][None] if purpose == "reconstruct" else self.special[:0]
        return torch.cat([before, self.decoder.embed(self.decoder.bos), vectors])

    def export(self, folder: Path, base: str) -> None:
        """A COCOM without its base model, whose questions stand in no `[INST]`."""
        tied = self.decoder.model.config.tie_word_embeddings
        rows = {"embed_tokens": self.special} | ({} if tied else {"lm_head": self.special})
        layers, sizes = weights.lora_of(self.decoder.model), self.sizes
        export_cocom(folder, layers, rows, base, rate=sizes.rate, document_length=sizes.length, lead="", closing="")


class BertEncoder(DocumentEncoder):
    """COCOM-light: BERT's last hidden states in groups of `rate`, each group through a linear layer one vector."""

    # What fills a document up to whole groups is among them, as in the original, but never depends on other documents.

    def __init__(
        self,
        folder: Path,  # BERT's configuration and tokenizer
        state: dict[str, torch.Tensor],  # `model.*` and `linear.*`
        decoder: Decoder,
        grouping: str,  # `concat` or `mean`
        path: Path,  # of the state
        sizes: Documents,  # a document's length counts [CLS] and [SEP]
        separator: torch.Tensor,
    ) -> None:
        super().__init__(decoder, load_tokenizer(folder))
        tokenizer = self.tokenizer
        if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None or tokenizer.pad_token_id is None:
            raise UsageError(f"the tokenizer in {folder} has no [CLS], [SEP] or [PAD]: it is no BERT's; pass encoder=")
        self.sizes, self.separator = sizes, separator
        self.room = self.reach = sizes.length - 2
        if self.room < 1:
            raise UsageError(f"document_length={sizes.length} leaves no room beside [CLS] and [SEP]: pass 3 or more")
        config, self.grouping = from_folder(str(folder)), grouping
        width = config.hidden_size * (sizes.rate if grouping == "concat" else 1)
        parts = {"model": AutoModel.from_config(config), "linear": nn.Linear(width, decoder.hidden_size)}
        module = nn.ModuleDict(parts)
        load_strictly(module, {key: value for key, value in state.items() if not key.endswith("position_ids")}, path)
        self.module = module.to(decoder.device, decoder.dtype).eval().requires_grad_(False)
        sizes.check_positions(sizes.count(sizes.length) * sizes.rate, config)

    def framed(self, ids: Sequence[int]) -> list[int]:
        return [int(self.tokenizer.cls_token_id), *ids, int(self.tokenizer.sep_token_id)]

    def vectors(self, documents: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Each document filled up to whole groups; the filling is masked."""
        rows = [self.framed(ids) for ids in documents]
        counts = [self.sizes.count(len(row)) for row in rows]
        vectors: dict[int, torch.Tensor] = {}
        device, rate = self.decoder.device, self.sizes.rate
        for batch in batches([count * rate for count in counts], device):
            ids = torch.full((len(batch), max(counts[i] for i in batch) * rate), int(self.tokenizer.pad_token_id))
            mask = torch.zeros_like(ids)
            for row, i in enumerate(batch):
                ids[row, : len(rows[i])], mask[row, : len(rows[i])] = torch.tensor(rows[i]), 1
            hidden = self.module["model"](input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
            linear, groups = self.module["linear"], hidden.shape[1] // rate
            if self.grouping == "mean":
                grouped = linear(hidden).view(len(batch), groups, rate, -1).mean(dim=2)
            else:
                grouped = linear(hidden.reshape(len(batch), groups, rate * hidden.shape[2]))
            vectors |= {i: grouped[row, : counts[i]] for row, i in enumerate(batch)}
        return [vectors[i] for i in range(len(documents))]
