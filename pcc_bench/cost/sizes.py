"""Sizes of models, counted on torch's meta device from their configurations: no weights, no network."""

from copy import deepcopy
from functools import cache
from typing import Any, NamedTuple

import torch
from peft import get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.pytorch_utils import Conv1D

from pcc_bench.core import checkpoint_files, shipped
from pcc_bench.core.errors import UsageError
from pcc_bench.model.config import MEMORY_TOKENS
from pcc_bench.model.encoder import shallow
from pcc_bench.model.init import layer_lora_config, lora_config

LITE, LARGE = "openai-community/gpt2-large", "meta-llama/Meta-Llama-3-8B-Instruct"


def llama(
    width: int, inner: int, layers: int, heads: int, kv_heads: int, rows: int, window: int, **more: Any
) -> dict[str, Any]:
    """The configuration of a model whose sizes are named as Llama's."""
    state: dict[str, Any] = {"model_type": "llama", "hidden_size": width, "intermediate_size": inner}
    state |= {"num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads}
    return {**state, "vocab_size": rows, "max_position_embeddings": window, **more}


_LLAMA_3_8B = llama(4096, 14336, 32, 32, 8, 128256, 8192)
_MISTRAL = {"model_type": "mistral", "sliding_window": None}
_PHI = {"model_type": "phi3", "sliding_window": None}
# Configurations of the models in our recipes: a dry run needs neither network nor access to gated models.
KNOWN: dict[str, dict[str, Any]] = {
    LITE: {"model_type": "gpt2", "n_embd": 1280, "n_layer": 36, "n_head": 20, "vocab_size": 50257},
    LARGE: _LLAMA_3_8B,
    "BroAlanTaps/PCC-Decoder-Llama3-8B-Instruct": {**_LLAMA_3_8B, "vocab_size": 128259},  # + <mem>, </mem>, <ae>
    "mistralai/Mistral-7B-Instruct-v0.3": llama(4096, 14336, 32, 32, 8, 32768, 32768, **_MISTRAL),
    "Qwen/Qwen2.5-7B-Instruct": llama(3584, 18944, 28, 28, 4, 152064, 32768, model_type="qwen2"),
    "microsoft/Phi-3.5-mini-instruct": llama(3072, 8192, 32, 32, 32, 32064, 131072, **_PHI),
    "smollm2-135m": llama(576, 1536, 30, 9, 3, 49152, 8192, tie_word_embeddings=True),
}


class Model(NamedTuple):
    parameters: int  # all of it; a head tied to the embedding counts once
    body: int  # weights in matrix products, head left out
    head: int  # weights of the vocabulary head
    own_head: int  # of these, the ones that are not the embedding's
    hidden_size: int
    layers: int
    attention: int  # width of all heads together
    keys: int  # width of the keys of all key-value heads together; that of the values too
    feed_forward: int  # inner width
    gated: bool  # its feed-forward part is gated (Llama's, not GPT-2's)
    vocabulary: int  # rows of the embedding
    window: int | None  # positions; None where the configuration names no limit

    def read(self, positions: float, past: float = 0, predicted: float = 0) -> float:
        """FLOPs of one row of `positions` behind `past` ones that are in the cache, with `predicted` rows of logits."""
        products = 2 * self.body * positions + 2 * self.head * predicted
        return products + 4 * self.layers * self.attention * positions * (past + positions)

    def masked(self, positions: float) -> float:
        """Of these FLOPs, the ones on later positions, which causal kernels skip."""
        return 2 * self.layers * self.attention * positions**2

    def cache_values(self, positions: int) -> int:
        """Numbers that the keys and values of one row take."""
        return 2 * self.layers * self.keys * positions

    def backward(self, positions: float, *, head: bool, trained: bool) -> float:
        """FLOPs of the backward pass to the activations, and to the weights where they are trained."""
        products = 2 * (self.body + (self.head if head else 0)) * positions
        return products * (2 if trained else 1) + 8 * self.layers * self.attention * positions**2

    def activations(self, *, trained: bool) -> int:
        """Bytes kept for backward, a position, under bfloat16 autocast with attention that keeps no scores."""
        # Counted with saved-tensor hooks on the blocks of transformers; of a frozen matrix no input is kept.
        llama, gpt2 = ((32, 8), (21, 4)) if trained else ((16, 6), (17, 2))
        wide, inner = llama if self.gated else gpt2
        return self.layers * (wide * self.hidden_size + inner * self.feed_forward)


@cache
def config_of(name: str) -> PreTrainedConfig:
    """Of a model in `KNOWN`, one `shipped.located` knows, or a hub id. Raises UsageError: it can't be read."""
    if name in KNOWN:
        return from_state(KNOWN[name])
    try:
        return checkpoint_files.from_folder(shipped.located(name))
    except UsageError as error:
        raise UsageError(
            f"the sizes of '{name}' are not known: {error}; give a local folder, or check the name and the network"
        ) from None


def measure(config: PreTrainedConfig) -> Model:
    """Sizes of the causal LM of a configuration, built on the meta device (dense blocks, no mixture of experts)."""
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    body = sum(m.weight.numel() for m in model.base_model.modules() if isinstance(m, nn.Linear | Conv1D))
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Model(
        parameters=sum(p.numel() for p in model.parameters()),
        body=body,
        head=head.numel(),
        own_head=0 if head is embedding else head.numel(),
        hidden_size=config.hidden_size,
        layers=config.num_hidden_layers,
        attention=heads * head_size,
        keys=(getattr(config, "num_key_value_heads", None) or heads) * head_size,
        feed_forward=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        gated=any("gate" in name for name, _ in model.named_modules()),
        vocabulary=embedding.shape[0],
        window=getattr(config, "max_position_embeddings", None),
    )


def from_state(state: dict[str, Any]) -> PreTrainedConfig:
    """A configuration from plain data; token ids are left out, as they need not fit a small vocabulary."""
    plain = {key: value for key, value in state.items() if not key.endswith("_token_id")}
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    config: PreTrainedConfig = AutoConfig.for_model(**{**plain, **ids})
    return config


def first_layers(config: PreTrainedConfig, layers: int, rank: int) -> tuple[Model, int]:
    """Sizes of an encoder made of the first layers of a decoder, whose embedding it shares, and of a LoRA on them."""
    first = shallow(config, layers)
    model = measure(first)
    with torch.device("meta"):
        body: Any = AutoModelForCausalLM.from_config(first).base_model
        lora = get_peft_model(body, layer_lora_config(rank, rank, 0.0)) if rank else None
    own = model.parameters - model.own_head - model.vocabulary * model.hidden_size
    adapter = lora.get_nb_trainable_parameters()[0] if lora else 0
    return model._replace(parameters=own, head=0, own_head=0, vocabulary=0), adapter


def lora_parameters(config: PreTrainedConfig, rank: int) -> int:
    """Of our LoRA on a model with memory tokens; the one published ones have on `lm_head` learns nothing, no count."""
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(deepcopy(config))  # resizing writes into it
        model.resize_token_embeddings(config.vocab_size + MEMORY_TOKENS, mean_resizing=False)
        return get_peft_model(model, lora_config(rank)).get_nb_trainable_parameters()[0]
