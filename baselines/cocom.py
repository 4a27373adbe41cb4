"""COCOM and COCOM-light (Rau et al., WSDM 2025, arXiv:2407.09252; naver/cocom-v1-*).

A context is read in documents of 128 tokens. Each becomes a few vectors for a decoder that was trained to answer from
them: in COCOM the decoder compresses with the adapter it answers with, in COCOM-light a BERT does. `<SEP>` ends each
document's vectors.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Self, get_args

import torch
from transformers import PreTrainedTokenizerBase

from pcc_bench.baselines import _cocom_weights as files
from pcc_bench.baselines import _weights
from pcc_bench.baselines._bert_documents import open_bert
from pcc_bench.baselines._cocom_config import CocomConfig, base_path, check_rate
from pcc_bench.baselines._documents import CausalEncoder, DocumentEncoder, Overlong, Slots
from pcc_bench.compressor import Compressor, Frame, Memory
from pcc_bench.decoder import Decoder
from pcc_bench.errors import UsageError
from pcc_bench.model.files import resolve


class CocomCompressor(Compressor):
    """Context compression for a decoder that is trained with its compressor.

    Args:
        decoder: The decoder, adapted already.
        encoder: Makes the vectors of a document.
        separator: Token ids behind each document's vectors.
        layout: Text before everything, between the last memory and the question, and behind the question.
        overlong: A context longer than a document is read in several (`split`), or its first one only (`truncate`, as
            in the original; what is left out is counted).
        weights: A hash of the checkpoint.
    """

    name = "cocom"
    soft = True
    owns_decoder = True
    summary = "memory tokens of a decoder, or of BERT (light), trained with the decoder that reads them (WSDM 2025)"

    def __init__(
        self,
        decoder: Decoder,
        encoder: DocumentEncoder,
        separator: Sequence[int],
        layout: tuple[str, str, str],
        overlong: Overlong,
        weights: str,
    ) -> None:
        super().__init__(decoder)
        _one_of("overlong", overlong, Overlong)
        self.encoder, self.separator, self.layout, self.overlong = encoder, list(separator), layout, overlong
        self.rate = float(encoder.rate)
        self._weights = weights
        opening, _, closing = layout
        self._opening = decoder.tokenizer.encode(opening, add_special_tokens=False) if opening else []
        self._closing = _behind_text(decoder.tokenizer, closing)

    @classmethod
    def decoder_path(cls, pretrained: str, decoder: str | None) -> str:
        """The base decoder, by default the one the checkpoint's `config.json` names."""
        return base_path(pretrained, decoder)

    @classmethod
    def load(
        cls,
        pretrained: str,
        decoder: Decoder,
        *,
        rate: int | None = None,
        encoder: str | None = None,
        file: str | None = None,
        slots: Slots = "proportional",
        overlong: Overlong = "split",
        document_length: int | None = None,
        lead: str | None = None,
        closing: str | None = None,
    ) -> Self:
        """Load a published checkpoint; its weights replace the decoder's, the adapter merged.

        Args:
            pretrained: Folder or hub id with `config.json` and the state in safetensors, in shards or not (or `.bin`):
                the whole one, or without the base model.
            decoder: The base model; it is changed.
            rate: Refuse a checkpoint of another rate.
            encoder: Folder or hub id of the BERT of COCOM-light (its configuration and tokenizer), where it is not the
                one the checkpoint names.
            file: The weights' name, where a folder holds several.
            slots: Vectors of a document shorter than `document_length`: `proportional` to its length (as the original
                answers), or as many as a full one's (`fixed`, as it pretrains).
            overlong: See the class.
            document_length: Tokens of a document; 128 as in training by default, in COCOM-light with [CLS] and [SEP].
            lead: Text between the last memory and the question; by default the checkpoint's, or the original's.
            closing: Text behind the question; the same.

        Raises:
            UsageError: An option without sense, or files that are incomplete or belong to another base model.
        """
        folder = resolve(pretrained)
        config = CocomConfig.read(folder)
        if config.training_form == "both_separately":
            raise UsageError(f"{pretrained} has two adapters: it is a PISCO checkpoint, pass --model pisco")
        check_rate(rate, config, pretrained)
        layout = ("", config.lead if lead is None else lead, config.closing if closing is None else closing)
        sizes = _sizes(config, document_length, slots)
        path = _weights.find(str(folder), file)
        state = _weights.read(path)
        light = {key: state.pop(key) for key in list(state) if config.compr_model_name and key.startswith("compr.")}
        bert = None
        if config.compr_model_name:
            grouping = config.compr_linear_type or "concat"
            bert = open_bert(config.compr_model_name, encoder, light, decoder, grouping, path, **sizes)
        state = files.whole(state, decoder, config, path)
        *memory_ids, _, encode_id, separator = files.load_merged(decoder, state, config, path)
        weights = _weights.digest(light | _own(state, encode_id + 2 - len(config.special_tokens)), decoder)
        decoder.adapt(weights)
        made = bert or CausalEncoder(decoder.model.base_model, decoder, memory_ids, encode_id, **sizes)
        return cls(decoder, made, [separator] if config.sep else [], layout, overlong, weights)

    def compress(self, contexts: Sequence[str]) -> list[Memory]:
        """Compress contexts; documents of all of them share few forwards, seconds are shared by tokens read."""
        start = time.perf_counter()
        ids, texts = self.encoder.tokenize(contexts, self.overlong)
        cut = [self.encoder.documents(one, self.overlong) for one in ids]
        made = iter(self.encoder.encode([document for documents in cut for document in documents]))
        separator = self.decoder.embed(self.separator)
        vectors = [
            torch.cat([separator[:0], *(part for _ in documents for part in (next(made), separator))]).cpu()
            for documents in cut
        ]
        per_token = (time.perf_counter() - start) / max(1, sum(map(len, ids)))
        return [
            Memory(
                source_tokens=tokens,
                compressor_tokens=len(read),
                source_bytes=len(text.encode()),
                slots=sum(document.slots for document in documents),
                boundary=len(separator) * len(documents),
                seconds=len(read) * per_token,
                vectors=memory,
                truncated_bytes=len(context.encode()) - len(text.encode()),
            )
            for context, text, read, documents, memory, tokens in zip(
                contexts, texts, ids, cut, vectors, self.decoder.count_tokens(texts), strict=True
            )
        ]

    def frame(self, templated: bool) -> Frame:
        """The original's prompt around memories and question, unless a chat template stands there already."""
        return Frame() if templated else Frame(self._opening, self._closing, self.layout[1])

    def options(self) -> dict[str, Any]:
        """How contexts are cut, how many vectors they become, and what stands around them."""
        opening, lead, closing = self.layout
        sizes = {name: getattr(self.encoder, name) for name in ("rate", "slots")}
        words = {"opening": opening, "lead": lead, "closing": closing}
        return {**sizes, "document_length": self.encoder.length, "overlong": self.overlong, **words}

    def weights_fingerprint(self) -> str:
        """Hash of adapters, special tokens, BERT and decoder."""
        return self._weights

    @property
    def tokenizers(self) -> tuple[PreTrainedTokenizerBase, ...]:
        """The decoder's and the encoder's."""
        return (self.decoder.tokenizer, self.encoder.tokenizer)

    @property
    def starts_with_bos(self) -> bool:
        """BOS comes first, where the decoder has one."""
        return self.decoder.bos_token_id is not None


def _behind_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a text as it stands behind other text: some tokenizers put a blank before whatever comes first."""
    before, whole, alone = (tokenizer.encode(part, add_special_tokens=False) for part in ("a", "a" + text, text))
    return list(whole[len(before) :]) if whole[: len(before)] == before else list(alone)


def _own(state: dict[str, torch.Tensor], base: int) -> dict[str, torch.Tensor]:
    """What a COCOM state has beside its base model: adapters, and the rows of the special tokens."""
    rows = {
        key: value[base:] for key, value in state.items() if key.endswith(("embed_tokens.weight", "lm_head.weight"))
    }
    return rows | {key: value for key, value in state.items() if ".lora_" in key}


def _sizes(config: CocomConfig, length: int | None, slots: Slots) -> dict[str, Any]:
    _one_of("slots", slots, Slots)
    if length is not None and (not isinstance(length, int) or length < 1):
        raise UsageError(f"document_length={length} is not supported: pass a whole number (128 in training)")
    return {"rate": config.compr_rate, "length": length or config.doc_max_length, "slots": slots}


def _one_of(option: str, value: str, choices: Any) -> None:
    if value not in get_args(choices):
        raise UsageError(f"{option}={value} is unknown: pass one of {', '.join(get_args(choices))}")
