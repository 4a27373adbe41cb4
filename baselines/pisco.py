"""PISCO (Louis et al., 2025, arXiv:2501.16075; naver/pisco-mistral): COCOM with one adapter for either role.

The decoder compresses with one LoRA and answers with another; a document becomes eight vectors, however short it is.
Trained on the answers that a teacher gives who reads the whole text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from pcc_bench.baselines import lora, weights
from pcc_bench.baselines.cocom import files
from pcc_bench.baselines.cocom.compressor import CocomCompressor, check_choice
from pcc_bench.baselines.cocom.encoder import CocomEncoder, Documents, Overlong
from pcc_bench.baselines.cocom.files import ALPHA_PER_RANK, CocomConfig
from pcc_bench.core.architecture import check_weights
from pcc_bench.core.checkpoint_files import read_torch, resolve
from pcc_bench.core.context import literal, mark
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError

ADAPTERS, ENDS = "adapters.pth", "decoder_first_last_layers.pth"
ROLES = ("decoder_adapter", "encoder_adapter")

# What the chat template is filled with (modelling_pisco.py)
SYSTEM = (
    "You are a helpful assistant. Your task is to extract relevant information from provided documents and to answer "
    "to questions as briefly as possible."
)
USER = "Background:\n{documents}\n\nQuestion:{question}"


class PiscoCompressor(CocomCompressor):
    """COCOM with one adapter for compressing and one for answering, and always as many vectors for a document."""

    name = "pisco"
    default = ""  # none was trained here
    label = "PISCO"
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
        check_choice("overlong", overlong, Overlong)
        words: Any = (opening, lead, closing)
        if None in words:
            words = tuple(b if a is None else a for a, b in zip(words, chat_words(decoder), strict=True))
        ids, body, state = load_separate(decoder, folder, config)
        digest = weights.digest(state, decoder)
        decoder.adapt(digest)
        sizes = Documents(config.compr_rate, config.doc_max_length, "fixed", overlong)
        return cls(CocomEncoder(decoder, body, decoder.embed(ids), sizes, config.sep), words, digest)


def chat_words(decoder: Decoder) -> tuple[str, str, str]:
    """PISCO's instruction in the decoder's chat template: before the memories, up to the question, and behind it.

    Raises:
        UsageError: The tokenizer has no chat template.
    """
    documents, question = mark("documents"), literal("question")
    user = USER.format(documents=documents, question=question)
    if not decoder.tokenizer.chat_template:
        raise UsageError(f"the tokenizer of '{decoder.name}' has no chat template: pass opening=, lead= and closing=")
    turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]
    try:
        text = decoder.chat(turns, add_generation_prompt=True)
    except UsageError:  # no system role: the original joins the two
        text = decoder.chat([{"role": "user", "content": f"{SYSTEM}\n{user}"}], add_generation_prompt=True)
    opening, rest = text.removeprefix(decoder.tokenizer.bos_token or "").split(documents)
    lead, closing = rest.split(question)
    return opening, lead, closing


def load_separate(decoder: Decoder, folder: Path, config: CocomConfig) -> tuple[list[int], nn.Module, dict[str, Any]]:
    """Give the decoder PISCO's answering adapter, and make a second tree over its weights with the compressing one.

    Returns:
        Ids of the special tokens, the compressing body, and the tensors of all files by name.

    Raises:
        UsageError: A tensor is missing, unexpected or of a shape or value that belongs to another base model or rank.
    """
    path, table, head = folder / ADAPTERS, files.table_name(decoder), "lm_head.weight"
    ends, adapters = (_read_present(folder / name) for name in (ENDS, ADAPTERS))
    weights.check_names(ends, {table, head}, folder / ENDS)
    weights.check_names(adapters, ROLES, path)
    for role in ROLES:
        if not isinstance(adapters[role], dict):
            raise UsageError(f"{role} in {path} holds no tensors by name: copy the file again")
        check_weights(adapters[role], f"{path}, {role}")
    check_weights(ends, str(folder / ENDS))
    _check_first_rows(decoder, ends[table], folder / ENDS)
    ids = files.add_special_tokens(decoder, config, ends[table], folder / ENDS)
    layers = lora.linear_layers(decoder)
    state = {f"{role}/{key}": value for role in ROLES for key, value in adapters[role].items()}
    pairs = {f"{role}/{layer}": files.lora_names(f"{role}/{layer}.", "") for role in ROLES for layer in layers}
    # Some versions of peft save the resized embeddings with each adapter: the same values once more.
    state = {key: value for key, value in state.items() if key.rpartition("/")[2] not in (table, head)}
    weights.check_names(state, {name for pair in pairs.values() for name in pair}, path)
    for role in ROLES:
        loras = {layer: pairs[f"{role}/{layer}"] for layer in layers}
        lora.check(state, loras, layers, decoder, path, config.lora_r, "config.json says lora_r")
    files.copy_into(decoder.model.state_dict(), ends)
    reader = lora.twin(decoder.model.base_model)
    prefix = f"{decoder.model.base_model_prefix}."
    _attach(reader, _of_role(state, "encoder_adapter", prefix), config.lora_r, layers)
    _attach(decoder.model, _of_role(state, "decoder_adapter", ""), config.lora_r, layers)
    return ids, reader.eval().requires_grad_(False), {**state, **ends}


def _read_present(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f"{path} is missing: the checkpoint is incomplete, and the decoder would run without it")
    return read_torch(path)


def _attach(model: nn.Module, values: dict[str, torch.Tensor], rank: int, layers: Iterable[str]) -> None:
    lora.inject(model, sorted(set(map(lora.last_part, layers))), rank, ALPHA_PER_RANK * rank)
    unexpected = model.load_state_dict(values, strict=False).unexpected_keys
    assert not unexpected, unexpected  # the names have been compared with the layers


def _of_role(state: Mapping[str, torch.Tensor], role: str, prefix: str) -> dict[str, torch.Tensor]:
    """One adapter's tensors by their names in a module tree, adapter name `default`."""
    own = {key.removeprefix(f"{role}/"): value for key, value in state.items() if key.startswith(f"{role}/")}
    return {key.removeprefix(prefix).replace(".weight", ".default.weight"): value for key, value in own.items()}


def _check_first_rows(decoder: Decoder, table: torch.Tensor, path: Path) -> None:
    """PISCO trains the vectors of its special tokens only: the others are the base decoder's."""
    ours = decoder.embedding.weight[:256].float().cpu()
    theirs = table[: len(ours)].float()
    if theirs.shape == ours.shape and not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-3):
        raise UsageError(
            f"{path} was made for another base model than '{decoder.name}' (its token vectors are others): pass "
            "decoder=<its base>"
        )
