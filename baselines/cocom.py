"""COCOM, COCOM-light (Rau et al., WSDM 2025) and PISCO (Louis et al., 2025; naver/cocom-v1-*, naver/pisco-mistral).

A context is read in documents of 128 tokens. Each becomes a few vectors for a decoder that was trained to answer from
them: in COCOM the decoder compresses with the adapter it answers with, in COCOM-light a BERT does, in PISCO the decoder
has one adapter for either role. `<SEP>` ends each document's vectors.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Self, get_args

import torch
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from pcc_bench.baselines import _cocom_weights as files
from pcc_bench.baselines import _weights
from pcc_bench.baselines._cocom_weights import CocomConfig
from pcc_bench.baselines._documents import CausalEncoder, DocumentEncoder, Overlong, Slots, open_bert
from pcc_bench.compressor import Compressor, Frame, Memory
from pcc_bench.decoder import Decoder
from pcc_bench.errors import UsageError
from pcc_bench.model.files import resolve

# COCOM's prompt, and the words PISCO's chat template is filled with (modelling_pisco.py)
LEAD, CLOSING = "[INST]", "\n[/INST]\n"
SYSTEM = (
    "You are a helpful assistant. Your task is to extract relevant information from provided documents and to answer "
    "to questions as briefly as possible."
)
USER = "Background:\n{documents}\n\nQuestion:{question}"


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
        return files.base_path(pretrained, decoder)

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
        lead: str = LEAD,
        closing: str = CLOSING,
    ) -> Self:
        """Load a published checkpoint; its weights replace the decoder's, the adapter merged.

        Args:
            pretrained: Folder or hub id with `config.json` and the whole state in safetensors shards (or `.bin`).
            decoder: The base model; it is changed.
            rate: Refuse a checkpoint of another rate.
            encoder: Folder or hub id of the BERT of COCOM-light (its configuration and tokenizer), where it is not the
                one the checkpoint names.
            file: The weights' name, where a folder holds several.
            slots: Vectors of a document shorter than `document_length`: `proportional` to its length (as the original
                answers), or as many as a full one's (`fixed`, as it pretrains).
            overlong: See the class.
            document_length: Tokens of a document; 128 as in training by default, in COCOM-light with [CLS] and [SEP].
            lead: Text between the last memory and the question.
            closing: Text behind the question.

        Raises:
            UsageError: An option without sense, or files that are incomplete or belong to another base model.
        """
        folder = resolve(pretrained)
        config = CocomConfig.read(folder)
        if config.training_form == "both_separately":
            raise UsageError(f"{pretrained} has two adapters: it is a PISCO checkpoint, pass --model pisco")
        files.check_rate(rate, config, pretrained)
        sizes = _sizes(config, document_length, slots)
        path = _weights.find(str(folder), file)
        state = _weights.read(path)
        light = {key: state.pop(key) for key in list(state) if config.compr_model_name and key.startswith("compr.")}
        bert = None
        if config.compr_model_name:
            grouping = config.compr_linear_type or "concat"
            bert = open_bert(config.compr_model_name, encoder, light, decoder, grouping, path, **sizes)
        *memory_ids, _, encode_id, separator = files.load_merged(decoder, state, config, path)
        weights = _weights.digest(light | _own(state, encode_id + 2 - len(config.special_tokens)), decoder)
        decoder.adapt(weights)
        made = bert or CausalEncoder(decoder.model.base_model, decoder, memory_ids, encode_id, **sizes)
        return cls(decoder, made, [separator] if config.sep else [], ("", lead, closing), overlong, weights)

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
    def starts_with_bos(self) -> bool:
        """BOS comes first, where the decoder has one."""
        return self.decoder.bos_token_id is not None


class PiscoCompressor(CocomCompressor):
    """COCOM with one adapter for compressing and one for answering, and always as many vectors for a document."""

    name = "pisco"
    summary = "a decoder with one adapter that compresses and one that answers, distilled from full text (2025)"

    @classmethod
    def load(  # type: ignore[override]
        cls,
        pretrained: str,
        decoder: Decoder,
        *,
        rate: int | None = None,
        overlong: Overlong = "split",
        opening: str | None = None,
        lead: str | None = None,
        closing: str | None = None,
    ) -> Self:
        """Load a published checkpoint (`adapters.pth`, `decoder_first_last_layers.pth`) into its base decoder.

        Args:
            pretrained: Folder or hub id.
            decoder: The base model; it is changed.
            rate: Refuse a checkpoint of another rate.
            overlong: See `CocomCompressor`.
            opening: Text before everything; by default what the decoder's chat template makes of PISCO's instruction.
            lead: Text between the last memory and the question; the same.
            closing: Text behind the question; the same.

        Raises:
            UsageError: An option without sense, or files that are incomplete or belong to another base model.
        """
        folder = resolve(pretrained)
        config = CocomConfig.read(folder)
        if config.training_form != "both_separately":
            raise UsageError(f"{pretrained} has one adapter or none: it is a COCOM checkpoint, pass --model cocom")
        if config.compr_model_name:
            raise UsageError(
                f"{pretrained} has a compressor of its own ('{config.compr_model_name}'): only PISCO checkpoints whose "
                "decoder compresses are read (naver/pisco-mistral)"
            )
        files.check_rate(rate, config, pretrained)
        layout = (opening, lead, closing)
        if None in layout:
            layout = tuple(b if a is None else a for a, b in zip(layout, chat_layout(decoder), strict=True))  # type: ignore[assignment]
        ids, body, state = files.load_separate(decoder, folder, config)
        *memory_ids, _, encode_id, separator = ids
        weights = _weights.digest(state, decoder)
        decoder.adapt(weights)
        made = CausalEncoder(body, decoder, memory_ids, encode_id, **_sizes(config, None, "fixed"))
        return cls(decoder, made, [separator] if config.sep else [], layout, overlong, weights)  # type: ignore[arg-type]


def chat_layout(decoder: Decoder) -> tuple[str, str, str]:
    """PISCO's instruction in the decoder's chat template: before the memories, up to the question, and behind it.

    Raises:
        UsageError: The tokenizer has no chat template.
    """
    documents, question = "<<documents>>", "<<question>>"
    user = USER.format(documents=documents, question=question)
    tokenizer = decoder.tokenizer
    if not tokenizer.chat_template:
        raise UsageError(f"the tokenizer of '{decoder.name}' has no chat template: pass opening=, lead= and closing=")
    try:
        text = _rendered(tokenizer, [("system", SYSTEM), ("user", user)])
    except TemplateError:  # no system role: the original joins the two
        text = _rendered(tokenizer, [("user", f"{SYSTEM}\n{user}")])
    opening, rest = text.removeprefix(tokenizer.bos_token or "").split(documents)
    lead, closing = rest.split(question)
    return opening, lead, closing


def _rendered(tokenizer: PreTrainedTokenizerBase, turns: Sequence[tuple[str, str]]) -> str:
    messages = [{"role": role, "content": content} for role, content in turns]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


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
