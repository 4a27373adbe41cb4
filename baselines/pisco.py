"""PISCO (Louis et al., 2025, arXiv:2501.16075; naver/pisco-mistral): COCOM with one adapter for either role.

The decoder compresses with one LoRA and answers with another; a document becomes eight vectors, however short it is.
Trained on the answers that a teacher gives who reads the whole text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from pcc_bench.baselines import _weights
from pcc_bench.baselines._cocom_config import CocomConfig, check_rate
from pcc_bench.baselines._documents import CausalEncoder, Overlong
from pcc_bench.baselines._pisco_weights import load_separate
from pcc_bench.baselines.cocom import CocomCompressor
from pcc_bench.decoder import Decoder
from pcc_bench.errors import UsageError
from pcc_bench.model.files import resolve

# What the chat template is filled with (modelling_pisco.py)
SYSTEM = (
    "You are a helpful assistant. Your task is to extract relevant information from provided documents and to answer "
    "to questions as briefly as possible."
)
USER = "Background:\n{documents}\n\nQuestion:{question}"


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
        check_rate(rate, config, pretrained)
        layout = (opening, lead, closing)
        if None in layout:
            layout = tuple(b if a is None else a for a, b in zip(layout, chat_layout(decoder), strict=True))  # type: ignore[assignment]
        ids, body, state = load_separate(decoder, folder, config)
        *memory_ids, _, encode_id, separator = ids
        weights = _weights.digest(state, decoder)
        decoder.adapt(weights)
        made = CausalEncoder(
            body, decoder, memory_ids, encode_id, rate=config.compr_rate, length=config.doc_max_length, slots="fixed"
        )
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
