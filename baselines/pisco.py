"""PISCO (Louis et al., 2025, arXiv:2501.16075; naver/pisco-mistral): COCOM with one adapter for either role.

The decoder compresses with one LoRA and answers with another, trained on the answers of a teacher that reads the whole
text. A document becomes eight vectors, however short it is.
"""

from itertools import chain
from pathlib import Path
from typing import Any, Self

from torch import nn

from pcc_bench.baselines import weights
from pcc_bench.baselines.cocom import CocomCompressor, files
from pcc_bench.baselines.cocom.encoders import CocomEncoder, Documents, Overlong
from pcc_bench.baselines.cocom.files import ALPHA_PER_RANK, CocomConfig
from pcc_bench.core.checkpoint_files import check_names, check_weights, read_torch, resolve, under
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
    """COCOM with an adapter for each role, and always as many vectors for a document."""

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
        rate: int | None = None,  # refuse a checkpoint of another rate
        overlong: Overlong = "split",  # see `CocomCompressor`
        opening: str | None = None,  # by default what the decoder's chat template makes of PISCO's instruction
        lead: str | None = None,  # the same, between the last memory and the question
        closing: str | None = None,  # the same, behind the question
    ) -> Self:
        """Load a published checkpoint (`adapters.pth`, `decoder_first_last_layers.pth`) into its base decoder."""
        folder = resolve(pretrained)
        config = CocomConfig.read(folder)
        if config.training_form != "both_separately":
            raise UsageError(f"{pretrained} has one adapter or none: it is a COCOM checkpoint, pass --model cocom")
        if config.compr_model_name:
            raise UsageError(
                f"{pretrained} has a compressor of its own ('{config.compr_model_name}'): only PISCO checkpoints whose "
                "decoder compresses are read (naver/pisco-mistral)"
            )
        config.check_rate(rate, pretrained)
        sizes = Documents(config.compr_rate, config.doc_max_length, "fixed", overlong)
        words: Any = (opening, lead, closing)
        if None in words:
            words = tuple(b if a is None else a for a, b in zip(words, chat_words(decoder), strict=True))
        ids, body, state = load_separate(decoder, folder, config)
        digest = weights.digest(state, decoder)
        decoder.adapt(digest)
        return cls(CocomEncoder(decoder, body, decoder.embed(ids), sizes, config.sep), words, digest)


def chat_words(decoder: Decoder) -> tuple[str, str, str]:
    """PISCO's instruction in the decoder's chat template: before the memories, up to the question, and behind it."""
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
    """Give the decoder PISCO's answering adapter: ids of the special tokens, the compressing body, tensors by name."""
    path, ends_path, table, head = folder / ADAPTERS, folder / ENDS, files.table_name(decoder), "lm_head.weight"
    for file in (ends_path, path):
        if not file.is_file():
            raise UsageError(f"{file} is missing: the checkpoint is incomplete, and the decoder would run without it")
    ends, adapters = read_torch(ends_path), read_torch(path)
    check_names(ends, {table, head}, ends_path)
    check_names(adapters, ROLES, path)
    for role in ROLES:
        if not isinstance(adapters[role], dict):
            raise UsageError(f"{role} in {path} holds no tensors by name: copy the file again")
        check_weights(adapters[role], f"{path}, {role}")
    check_weights(ends, str(ends_path))
    own = decoder.embedding.weight[:256]
    values = ends[table][: len(own)]  # only the special tokens' vectors are trained, which come last
    if values.shape == own.shape:
        weights.check_values(ends_path, decoder, table, values, own)
    ids = files.add_special_tokens(decoder, config, ends[table], ends_path)
    layers = weights.linear_layers(decoder)
    # Some versions of peft save the resized embeddings with each adapter: the same values once more.
    state = {f"{role}/{key}": adapters[role][key] for role in ROLES for key in adapters[role] if key not in ends}
    names = {role: weights.lora_names(role + "/{}.lora_{}.weight", layers) for role in ROLES}
    check_names(state, {name for role in ROLES for name in chain(*names[role].values())}, path)
    files.copy_into(decoder, ends)
    reader = weights.twin(decoder.model.base_model)
    targets = sorted(set(map(weights.last_part, layers)))
    for role, tree in (("encoder_adapter", reader), ("decoder_adapter", decoder.model)):
        weights.check_lora(state, names[role], layers, decoder, path, config.lora_r, "config.json says lora_r")
        before = f"{decoder.model.base_model_prefix}." if tree is reader else ""
        values = under(f"{role}/{before}", state)
        values = {key.replace(".weight", ".default.weight"): value for key, value in values.items()}
        weights.inject(tree, targets, config.lora_r, ALPHA_PER_RANK * config.lora_r, values)
    return ids, reader.eval().requires_grad_(False), {**state, **ends}
