"""Random models of any decoder family at toy size, with real tokenizers: every code path and speed ratio is real."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

BOS, EOS, PAD, TURN = SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|eot_id|>")

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

FAMILIES: dict[str, type[PreTrainedConfig]] = {"gpt2": transformers.GPT2Config, "llama": transformers.LlamaConfig}
FAMILIES |= {"mistral": transformers.MistralConfig, "qwen2": transformers.Qwen2Config, "phi3": transformers.Phi3Config}
FAMILIES |= {"gemma3": transformers.Gemma3TextConfig}  # scales its input vectors, and every other block has a window


def make_tokenizer(
    texts: Iterable[str],
    vocabulary: int = 2048,
    adds_bos: bool = True,
    *,
    prefix_space: bool = False,
    special: Sequence[str] = (),
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on `texts`; any other text still encodes. `vocabulary` counts special tokens.

    `adds_bos` puts BOS before every text, as Llama's tokenizer does and GPT-2's does not. With `prefix_space` a text
    starts with a space that it need not have (Llama-2), so that each word has one form.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    options: dict[str, Any] = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet(), "show_progress": False}
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[*SPECIAL, *special], **options)
    tokenizer.train_from_iterator(texts, trainer)
    if adds_bos:
        bos = (BOS, tokenizer.token_to_id(BOS))
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[bos])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, chat_template=CHAT_TEMPLATE
    )


def make_model(
    family: str,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    *,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    window: int = 8192,
    seed: int = 0,
    std: float = 0.15,
    **options: Any,
) -> Path:
    """Write a causal LM with random weights and its tokenizer as a transformers folder.

    Key-value heads are half as many as `heads`. At the usual `std` of 0.02, for training, the logits of a tiny model
    are so alike that greedy decoding depends on rounding. `options` are the configuration's own.
    """
    sizes: dict[str, Any] = {"vocab_size": len(tokenizer), "hidden_size": width, "num_hidden_layers": layers}
    sizes |= {"num_attention_heads": heads, "max_position_embeddings": window}
    sizes |= {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    if family == "gpt2":
        names = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}
        names |= {"max_position_embeddings": "n_positions"}
        sizes = {names.get(key, key): value for key, value in sizes.items()}
    else:
        sizes |= {"intermediate_size": 2 * width, "num_key_value_heads": max(1, heads // 2)}
    if family == "gemma3":
        sizes |= {"head_dim": width // heads, "query_pre_attn_scalar": width // heads, "sliding_window": 128}
        sizes |= {"layer_types": [("sliding_attention", "full_attention")[layer % 2] for layer in range(layers)]}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(FAMILIES[family](**{**sizes, **options}), dtype=torch.float32)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=std)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_bert_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerBase:
    """Word pieces, cased, made from texts."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    # pieces that are there from the start: the trainer would number them by a hash, and break ties by their numbers
    special += [f"##{character}" for character in sorted({*"".join(texts)}) if not character.isspace()]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return transformers.BertTokenizer(vocab=tokenizer.get_vocab(), do_lower_case=False)
