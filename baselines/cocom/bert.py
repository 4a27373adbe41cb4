"""The encoder of COCOM-light: a BERT reads the documents (`BERT_Compressor` of the original modeling_cocom.py)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModel

from pcc_bench.baselines.cocom.encoder import DocumentEncoder, Documents
from pcc_bench.baselines.soft import batches
from pcc_bench.core.architecture import from_folder
from pcc_bench.core.checkpoint_files import load_strictly, load_tokenizer, resolve, under
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError


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
        sizes: How contexts are cut; a document's length counts [CLS] and [SEP].
        separator: [n, width of the decoder], behind each document's vectors.

    Raises:
        UsageError: That BERT can't be read, is another one, or has no room for a document.
    """

    def __init__(
        self,
        folder: Path,
        state: dict[str, torch.Tensor],
        decoder: Decoder,
        grouping: str,
        path: Path,
        sizes: Documents,
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
        try:
            config = from_folder(str(folder))
        except UsageError as error:
            raise UsageError(f"the BERT encoder in {folder} can't be read: {error}") from None
        self.grouping = grouping
        width = config.hidden_size * (sizes.rate if grouping == "concat" else 1)
        module = nn.ModuleDict(
            {"model": AutoModel.from_config(config), "linear": nn.Linear(width, decoder.hidden_size)}
        )
        load_strictly(module, {key: value for key, value in state.items() if not key.endswith("position_ids")}, path)
        self.module = module.to(decoder.device, decoder.dtype).eval().requires_grad_(False)
        sizes.check_positions(sizes.count(sizes.length) * sizes.rate, config)

    def framed(self, ids: Sequence[int]) -> list[int]:
        """[CLS] document [SEP]."""
        return [int(self.tokenizer.cls_token_id), *ids, int(self.tokenizer.sep_token_id)]

    def vectors(self, documents: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Filled up to whole groups, longest documents first; filling is masked, so that nothing else depends on it."""
        rows = [self.framed(ids) for ids in documents]
        counts = [self.sizes.count(len(row)) for row in rows]
        vectors: dict[int, torch.Tensor] = {}
        device, rate = self.decoder.device, self.sizes.rate
        for batch in batches([count * rate for count in counts], device):
            width = max(counts[i] for i in batch) * rate
            ids = torch.full((len(batch), width), int(self.tokenizer.pad_token_id))
            mask = torch.zeros_like(ids)
            for row, i in enumerate(batch):
                ids[row, : len(rows[i])] = torch.tensor(rows[i])
                mask[row, : len(rows[i])] = 1
            hidden = self.module["model"](input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
            grouped = self._group(hidden)
            vectors |= {i: grouped[row, : counts[i]] for row, i in enumerate(batch)}
        return [vectors[i] for i in range(len(documents))]

    def _group(self, hidden: torch.Tensor) -> torch.Tensor:
        """[batch, groups x rate, BERT's width] -> [batch, groups, width of the decoder]."""
        rows, positions, width = hidden.shape
        rate = self.sizes.rate
        linear = self.module["linear"]
        if self.grouping == "mean":
            return linear(hidden).view(rows, positions // rate, rate, -1).mean(dim=2)  # type: ignore[no-any-return]
        return linear(hidden.reshape(rows, positions // rate, rate * width))  # type: ignore[no-any-return]


def open_bert(
    name: str,
    given: str | None,
    state: dict[str, torch.Tensor],
    decoder: Decoder,
    grouping: str,
    path: Path,
    sizes: Documents,
    separator: torch.Tensor,
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
    return BertEncoder(folder, under("compr.", state), decoder, grouping, path, sizes, separator)
