"""COCOM and PISCO checkpoints at toy size, with the files, names, nesting and dtypes of the published ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from pcc_bench.model import init

RANK = 8
WRAPPED = "decoder.base_model.model."
COCOM_TOKENS = 4  # <MEM> <AE> <ENC> <SEP>


def adapters(model: nn.Module, form: str, seed: int, rank: int = RANK) -> dict[str, torch.Tensor]:
    """LoRA of every linear layer but the head; `form` names a tensor from its layer and side."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            outer, inner = module.weight.shape
            state[form.format(name, "A")] = torch.randn(rank, inner, generator=generator) * 0.1
            state[form.format(name, "B")] = torch.randn(outer, rank, generator=generator) * 0.1
    return state


def longer(table: torch.Tensor, rows: int, seed: int) -> torch.Tensor:
    """A vocabulary table with the special tokens' rows behind it."""
    more = torch.randn(rows, table.shape[1], generator=torch.Generator().manual_seed(seed)) * 0.15
    return torch.cat([table, more])


def cocom_state(base: Path, seed: int = 0, rank: int = RANK) -> dict[str, torch.Tensor]:
    """`COCOM.state_dict()`: the base model with its linear layers wrapped by peft, in bfloat16."""
    model = init.open_decoder(str(base)).model
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name != "lm_head"}
    state = {}
    for number, (name, value) in enumerate(model.state_dict().items()):
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue  # safetensors hold one tensor once
        layer, _, kind = name.rpartition(".")
        if name in ("lm_head.weight", "model.embed_tokens.weight"):
            value = longer(value, COCOM_TOKENS, seed + number)
        state[WRAPPED + (f"{layer}.base_layer.{kind}" if layer in linear else name)] = value
    state |= adapters(model, WRAPPED + "{}.lora_{}.default.weight", seed, rank)
    return {key: value.bfloat16() for key, value in state.items()}


def configuration(base: Path, **changes: Any) -> dict[str, Any]:
    """The `config.json` of a released COCOM."""
    config = {"decoder_model_name": str(base), "quantization": "no", "generation_top_k": 5, "sep": True, "lora": True}
    config |= {"compr_model_name": None, "compr_rate": 4, "compr_linear_type": "concat", "training_form": "both"}
    config |= {"lora_r": RANK, "model_type": "COCOM", "architectures": ["COCOM"], "torch_dtype": "bfloat16"}
    return {**config, **changes}


def write(folder: Path, config: dict[str, Any], state: dict[str, torch.Tensor], shards: int = 3) -> Path:
    """A folder as the hub has it: shards and their index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    places = {}
    for shard in range(shards):
        keys = sorted(state)[shard::shards]
        name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        save_file({key: state[key].contiguous() for key in keys}, folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(keys, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def write_cocom(folder: Path, base: Path, seed: int = 0, **changes: Any) -> Path:
    """COCOM: the decoder compresses."""
    return write(folder, configuration(base, **changes), cocom_state(base, seed))


def write_bert(folder: Path, texts: list[str], positions: int = 512) -> Path:
    """What COCOM-light needs of bert-base-uncased: configuration and tokenizer."""
    words = sorted({word for text in texts for word in text.lower().split()})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words, *(chr(c) for c in range(33, 127))]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep")}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    config.max_position_embeddings = positions
    config.save_pretrained(folder)
    return folder


def light_state(base: Path, bert: Path, grouped: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """The state of COCOM-light: COCOM's, BERT's with its pooler, and the linear layer over `grouped` positions."""
    torch.manual_seed(seed)
    model = BertModel(BertConfig.from_pretrained(bert))
    width = cocom_state(base)[WRAPPED + "model.norm.weight"].shape[0]
    linear = nn.Linear(model.config.hidden_size * grouped, width)
    state = {f"compr.model.{key}": value for key, value in model.state_dict().items()}
    state |= {f"compr.linear.{key}": value for key, value in linear.state_dict().items()}
    return cocom_state(base, seed) | {key: value.detach().bfloat16() for key, value in state.items()}


def write_light(folder: Path, base: Path, bert: Path, rate: int = 4, grouping: str = "concat") -> Path:
    """COCOM-light: a BERT compresses."""
    config = configuration(base, compr_model_name=str(bert), compr_rate=rate, compr_linear_type=grouping)
    return write(folder, config, light_state(base, bert, rate if grouping == "concat" else 1))


def write_pisco(
    folder: Path, base: Path, seed: int = 0, rank: int = RANK, with_ends: bool = False, **changes: Any
) -> Path:
    """PISCO: two adapters and the vocabulary tables; `with_ends` as some versions of peft write the adapters."""
    model = init.open_decoder(str(base)).model
    config = configuration(base, compr_rate=16, training_form="both_separately", doc_max_length=128)
    config |= {"different_mem_tokens": True, "load_adapters": True, "compr_linear_type": "concat", **changes}
    tokens = 8 + 3
    ends = {
        key: longer(model.state_dict()[key], tokens, seed + number).bfloat16()
        for number, key in enumerate(("model.embed_tokens.weight", "lm_head.weight"))
    }
    own = {}
    for number, role in enumerate(("decoder_adapter", "encoder_adapter")):
        state = adapters(model, "{}.lora_{}.weight", seed + number, rank)
        own[role] = {key: value.bfloat16() for key, value in state.items()} | (ends if with_ends else {})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(own, folder / "adapters.pth")
    torch.save(ends, folder / "decoder_first_last_layers.pth")
    return folder
