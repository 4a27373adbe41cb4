"""COCOM's files: settings, what stands in them, and how it gets into the decoder.

A published COCOM has its whole state in safetensors. The base model may be left out of it, as a whole: then the decoder
that `config.json` names gives its weights, and in the place of the vocabulary tables stand the rows of `<MEM>`, `<AE>`,
`<ENC>` and `<SEP>`, in this order, as `special_tokens.embed_tokens` and (where the decoder's head is not tied)
`special_tokens.lm_head`, [special tokens, width]. Adapters, and BERT in COCOM-light, keep their names.
"""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Literal, Self, cast

import torch
from pydantic import PositiveInt
from tokenizers import AddedToken

from pcc_bench.baselines import weights
from pcc_bench.baselines.weights import Lora, Recorded
from pcc_bench.core.checkpoint_files import WEIGHTS, check_names
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.documents import checked, read_json
from pcc_bench.core.errors import UsageError

ALPHA_PER_RANK = 2  # the original code sets lora_alpha = 2 r and records neither
WRAPPED = "decoder.base_model.model."  # before the decoder's names, where peft has wrapped it
SPECIAL = {"embed_tokens.weight": "special_tokens.embed_tokens", "lm_head.weight": "special_tokens.lm_head"}


class CocomConfig(Recorded):
    """What we read of a published `config.json` (class COCOMConfig of the original code)."""

    decoder_model_name: str  # the base decoder
    compr_model_name: str | None = None  # the BERT of COCOM-light; None where the decoder compresses
    compr_rate: PositiveInt  # tokens per memory token
    compr_linear_type: Literal["concat", "mean"] | None = "concat"  # groups before the linear layer, or means after it
    lora: bool = False  # the decoder has adapters
    lora_r: PositiveInt = 16
    sep: bool = False  # `<SEP>` stands behind each document's memory
    doc_max_length: PositiveInt = 128  # tokens of a document
    different_mem_tokens: bool = False  # PISCO: each memory token has an embedding of its own
    training_form: str = "both"  # `both_separately` (PISCO): one adapter compresses, another one answers
    lead: str = "[INST]"  # between the last memory and the question; published files leave it to the code
    closing: str = "\n[/INST]\n"  # behind the question; the same

    @classmethod
    def read(cls, folder: Path) -> Self:
        path = folder / "config.json"
        if not path.is_file():
            raise UsageError(f"{folder} has no config.json: a COCOM or PISCO checkpoint has one beside its weights")
        return checked(cls, read_json(path), f"{path} is no COCOM or PISCO configuration")

    def check_rate(self, rate: int | None, pretrained: str) -> None:
        if rate not in (None, self.compr_rate):
            raise UsageError(
                f"{pretrained} was trained for rate={self.compr_rate}, not for rate={rate}: leave rate out, or take "
                "the checkpoint of that rate (naver/cocom-v1-4, -16 and -128-mistral-7b are published)"
            )

    @property
    def special_tokens(self) -> list[str]:
        """What the original adds to the decoder's vocabulary, in its order."""
        count = -(-self.doc_max_length // self.compr_rate)
        memory = [f"<MEM{i}>" for i in range(count)] if self.different_mem_tokens else ["<MEM>"]
        return [*memory, "<AE>", "<ENC>", "<SEP>"]


def add_special_tokens(decoder: Decoder, config: CocomConfig, table: torch.Tensor, path: Path) -> list[int]:
    """Give decoder and tokenizer the special tokens, whose vectors are still to be filled in; returns their ids."""
    # `table`: the checkpoint's token vectors, [vocabulary with special tokens, width]
    names = config.special_tokens
    known = decoder.tokenizer.get_vocab()
    size = len(decoder.tokenizer) + sum(name not in known for name in names)
    if tuple(table.shape) != (size, decoder.hidden_size):
        raise UsageError(
            f"{path} was made for another base model than '{decoder.name}': its vocabulary is {table.shape[0]} "
            f"with {len(names)} special tokens and its width {table.shape[-1]}, the decoder would have {size} and "
            f"{decoder.hidden_size}; pass decoder=<its base> (config.json names '{config.decoder_model_name}')"
        )
    decoder.tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    decoder.model.resize_token_embeddings(size, mean_resizing=False)
    return cast("list[int]", decoder.tokenizer.convert_tokens_to_ids(names))


def load_merged(
    decoder: Decoder, state: Mapping[str, torch.Tensor], config: CocomConfig, path: Path
) -> tuple[list[int], dict[str, torch.Tensor]]:
    """Put a COCOM state into the decoder, its one adapter merged, which is on in both roles.

    Returns the ids of the special tokens, and what the state has beside its base model: adapters, and their rows.
    """
    prefix = WRAPPED if config.lora else "decoder."
    layers = weights.linear_layers(decoder) if config.lora else {}
    inner = ".base_layer." if any(".base_layer." in key for key in state) else "."  # peft before 0.6 has none
    names = {}
    for name in decoder.model.state_dict():
        layer, _, kind = name.rpartition(".")
        names[name] = prefix + (f"{layer}{inner}{kind}" if layer in layers else name)
    if any(key in SPECIAL.values() for key in state):
        state = _with_base(state, decoder, names, config, path)
    table = names[table_name(decoder)]
    if table not in state:
        raise UsageError(f"{path} lacks {table}: it is no COCOM state")
    ids = add_special_tokens(decoder, config, state[table], path)
    loras = weights.lora_names(prefix + "{}.lora_{}.default.weight", layers)
    weights.check_whole(path, decoder, state, names, chain(*loras.values()))
    weights.check_lora(state, loras, layers, decoder, path, config.lora_r, "config.json says lora_r")
    copy_into(decoder, {name: state[key] for name, key in names.items() if key in state})
    weights.merge_lora(decoder, state, loras, ALPHA_PER_RANK)
    first = ids[-1] + 1 - len(ids)
    rows = {key: value[first:] for key, value in state.items() if key.endswith(tuple(SPECIAL))}
    return ids, rows | {key: value for key, value in state.items() if ".lora_" in key}


def _with_base(
    state: Mapping[str, torch.Tensor], decoder: Decoder, names: Mapping[str, str], config: CocomConfig, path: Path
) -> dict[str, torch.Tensor]:
    """A checkpoint's whole state, its base model the decoder's, where the files leave all of it out."""
    base = {names[name]: value for name, value in decoder.model.state_dict().items()}
    if present := base.keys() & state.keys():
        absent = sorted(base.keys() - state.keys())
        raise UsageError(
            f"{path} has {len(present)} tensors of its base model and lacks {len(absent)} ({absent[0]} first): a "
            "checkpoint has all of them, or none and the rows of its special tokens"
        )
    if decoder.model.config.tie_word_embeddings:
        del base[names["lm_head.weight"]]
    tables = {key: SPECIAL[kind] for key in base for kind in SPECIAL if key.endswith(kind)}
    check_names([key for key in state if key in SPECIAL.values()], tables.values(), path)
    for key, rows in tables.items():
        table = base[key][: len(decoder.tokenizer)]
        weights.check_shape(path, decoder, rows, state[rows].shape, (len(config.special_tokens), table.shape[1]))
        base[key] = torch.cat([table, state[rows].to(table)])
    return base | {key: value for key, value in state.items() if key not in SPECIAL.values()}


def table_name(decoder: Decoder) -> str:
    return next(f"{name}.weight" for name, module in decoder.model.named_modules() if module is decoder.embedding)


@torch.no_grad()
def copy_into(decoder: Decoder, values: Mapping[str, torch.Tensor]) -> None:
    own = decoder.model.state_dict()
    for name, value in values.items():
        own[name].copy_(value)


def export_cocom(
    folder: Path,
    lora: Lora,  # of every linear layer but the vocabulary head, scaled by 2 as in the original
    rows: Mapping[str, torch.Tensor],  # `embed_tokens` and, unless the head is tied, `lm_head`: [4, width], see above
    base: str,  # a hub id, or a folder, absolute or relative to this one
    *,
    rate: int,
    document_length: int,
    lead: str | None = None,  # see `CocomConfig`; None leaves it to the code
    closing: str | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a COCOM whose decoder compresses, without its base model."""
    state = weights.lora_state(WRAPPED + "{}.lora_{}.default.weight", lora)
    state |= {SPECIAL[f"{name}.weight"]: value for name, value in rows.items()}
    config = {"model_type": "COCOM", "decoder_model_name": base, "lora": True, "lora_r": weights.rank_of(lora)}
    config |= {"sep": True, "compr_model_name": None, "compr_rate": rate, "doc_max_length": document_length}
    config |= {"training_form": "both"}
    config |= {key: text for key, text in (("lead", lead), ("closing", closing)) if text is not None}
    weights.write(folder, WEIGHTS, state, dtype, config)
