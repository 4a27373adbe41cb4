"""Random token classifiers of LLMLingua-2's families at toy size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase

from pcc_bench.core.tiny import make_bert_tokenizer


def make_classifier(
    family: str,
    texts: Sequence[str],
    folder: Path,
    *,
    vocabulary: int = 600,
    forced: int = 100,
    width: int = 16,
    layers: int = 1,
) -> Path:
    """Write a token classifier of LLMLingua-2's families: random weights, a tokenizer trained on `texts`.

    `forced` rows are for forced words; the published checkpoints have 100.
    """
    tokenizer = _xlm_roberta(texts, vocabulary) if family == "xlm-roberta" else make_bert_tokenizer(texts, vocabulary)
    sizes: dict[str, Any] = {"vocab_size": len(tokenizer) + forced, "hidden_size": width, "num_hidden_layers": layers}
    sizes |= {"num_attention_heads": 2, "intermediate_size": width, "num_labels": 2}
    sizes |= {"max_position_embeddings": 514 if family == "xlm-roberta" else 512}
    sizes |= {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any
        if family == "xlm-roberta":
            config = transformers.XLMRobertaConfig(**sizes, eos_token_id=tokenizer.eos_token_id)
            model = transformers.XLMRobertaForTokenClassification(config)
        else:
            model = transformers.BertForTokenClassification(transformers.BertConfig(**sizes))
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
    return transformers.XLMRobertaTokenizer(vocab=[*scored, ("<mask>", 0.0)])
