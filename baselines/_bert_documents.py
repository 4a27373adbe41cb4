"""The encoder of COCOM-light: a BERT reads the documents (`BERT_Compressor` of the original modeling_cocom.py)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModel

from pcc_bench.baselines import _weights
from pcc_bench.baselines._documents import Document, DocumentEncoder
from pcc_bench.decoder import Decoder
from pcc_bench.errors import UsageError
from pcc_bench.model.architecture import from_folder
from pcc_bench.model.files import load_strictly, load_tokenizer, resolve, under


class BertEncoder(DocumentEncoder):
    """COCOM-light: BERT's last hidden states in groups of `rate`, each group through a linear layer one vector.

    What fills a document up to whole groups is among them, as in the original, but unlike there never depends on the
    other documents of a batch.

    Args:
        folder: BERT's configuration and tokenizer.
        state: `model.*` and `linear.*`.
        decoder: Reads the vectors.
        grouping: `concat` or `mean`.
        path: Of the state, for messages.
        **sizes: See `DocumentEncoder`; the length counts [CLS] and [SEP].
    """

    def __init__(
        self, folder: Path, state: dict[str, torch.Tensor], decoder: Decoder, grouping: str, path: Path, **sizes: Any
    ) -> None:
        super().__init__(load_tokenizer(folder), **sizes)
        tokenizer = self.tokenizer
        if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None or tokenizer.pad_token_id is None:
            raise UsageError(f"the tokenizer in {folder} has no [CLS], [SEP] or [PAD]: it is no BERT's; pass encoder=")
        self.room = self.reach = self.length - 2
        if self.room < 1:
            raise UsageError(f"document_length={self.length} leaves no room beside [CLS] and [SEP]: pass 3 or more")
        config = _bert_config(folder)
        self.grouping = grouping
        width = config.hidden_size * (self.rate if grouping == "concat" else 1)
        module = nn.ModuleDict(
            {"model": AutoModel.from_config(config), "linear": nn.Linear(width, decoder.hidden_size)}
        )
        load_strictly(module, {key: value for key, value in state.items() if not key.endswith("position_ids")}, path)
        self.device = decoder.device
        self.module = module.to(decoder.device, decoder.dtype).eval().requires_grad_(False)
        self._check_positions(self._count(self.length) * self.rate, config)

    def document(self, ids: list[int]) -> Document:
        """[CLS] document [SEP], filled up to whole groups."""
        framed = [self.tokenizer.cls_token_id, *ids, self.tokenizer.sep_token_id]
        return Document(framed, len(ids), self._count(len(framed)))

    @torch.inference_mode()
    def encode(self, documents: Sequence[Document]) -> list[torch.Tensor]:
        """Longest documents first; the filling is masked, so that nothing else depends on it."""
        made: dict[int, torch.Tensor] = {}
        device = self.device
        for batch in _weights.batches([document.slots * self.rate for document in documents], device):
            width = max(documents[i].slots for i in batch) * self.rate
            ids = torch.full((len(batch), width), int(self.tokenizer.pad_token_id))
            mask = torch.zeros_like(ids)
            for row, i in enumerate(batch):
                ids[row, : len(documents[i].ids)] = torch.tensor(documents[i].ids)
                mask[row, : len(documents[i].ids)] = 1
            read = self.module["model"](input_ids=ids.to(device), attention_mask=mask.to(device))
            vectors = self._group(read.last_hidden_state)
            made |= {i: vectors[row, : documents[i].slots] for row, i in enumerate(batch)}
        return [made[i] for i in range(len(documents))]

    def _group(self, hidden: torch.Tensor) -> torch.Tensor:
        """[batch, groups x rate, BERT's width] -> [batch, groups, width of the decoder]."""
        rows, positions, width = hidden.shape
        linear = self.module["linear"]
        if self.grouping == "mean":
            return linear(hidden).view(rows, positions // self.rate, self.rate, -1).mean(dim=2)  # type: ignore[no-any-return]
        return linear(hidden.reshape(rows, positions // self.rate, self.rate * width))  # type: ignore[no-any-return]


def open_bert(
    name: str,
    given: str | None,
    state: dict[str, torch.Tensor],
    decoder: Decoder,
    grouping: str,
    path: Path,
    **sizes: Any,
) -> BertEncoder:
    """COCOM-light's encoder: weights from the checkpoint, configuration and tokenizer from the BERT it names.

    Raises:
        UsageError: That BERT can't be found, or is another one.
    """
    try:
        folder = resolve(given or name, "BERT encoder", beside=path.parent)
    except UsageError as error:
        hint = "" if given else "; the checkpoint holds only its weights: pass encoder=<folder of that BERT>"
        raise UsageError(f"{error}{hint}") from None
    return BertEncoder(folder, under("compr.", state), decoder, grouping, path, **sizes)


def _bert_config(folder: Path) -> Any:
    try:
        return from_folder(str(folder))
    except UsageError as error:
        raise UsageError(f"the BERT encoder in {folder} can't be read: {error}") from None
