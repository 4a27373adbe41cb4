"""Random token classifiers of LLMLingua-2's two families at toy size, for tests and benchmarks; see `model.tiny`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForTokenClassification,
    BertTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    XLMRobertaConfig,
    XLMRobertaForTokenClassification,
    XLMRobertaTokenizer,
)

Family = Literal["xlm-roberta", "bert"]


def make_classifier(
    family: Family,
    texts: Sequence[str],
    folder: Path,
    *,
    vocabulary: int = 600,
    forced: int = 100,
    width: int = 16,
    layers: int = 1,
) -> Path:
    """Write a classifier with random weights and a tokenizer trained on `texts` as a transformers folder.

    Args:
        family: XLM-RoBERTa or BERT.
        texts: What the tokenizer is trained on.
        folder: Where to.
        vocabulary: Tokens, special ones included.
        forced: Rows for forced words; the published checkpoints have 100.
        width: Hidden size.
        layers: Transformer layers.
    """
    tokenizer = _xlm_roberta(texts, vocabulary) if family == "xlm-roberta" else make_bert_tokenizer(texts, vocabulary)
    sizes: dict[str, Any] = {"vocab_size": len(tokenizer) + forced, "hidden_size": width, "num_hidden_layers": layers}
    sizes |= {"num_attention_heads": 2, "intermediate_size": width, "num_labels": 2}
    sizes |= {"max_position_embeddings": 514 if family == "xlm-roberta" else 512}
    sizes |= {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: PreTrainedModel = (
            XLMRobertaForTokenClassification(XLMRobertaConfig(**sizes, eos_token_id=tokenizer.eos_token_id))
            if family == "xlm-roberta"
            else BertForTokenClassification(BertConfig(**sizes))
        )
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _xlm_roberta(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerBase:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    trainer = trainers.UnigramTrainer(vocab_size=vocabulary - 5, show_progress=False, unk_token="<unk>")
    tokenizer.train_from_iterator(texts, trainer)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = dict.fromkeys(special, 0.0)
    pieces |= {piece: float(i) for piece, i in sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])}
    scored = [(piece, 0.0 if piece in special else -5 - rank / 100) for rank, piece in enumerate(pieces)]
    return XLMRobertaTokenizer(vocab=[*scored, ("<mask>", 0.0)])


def make_bert_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerBase:
    """Word pieces, cased, made from texts."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=special, show_progress=False)
    )
    return BertTokenizer(vocab=tokenizer.get_vocab(), do_lower_case=False)
