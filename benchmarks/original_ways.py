"""The baselines at a size for measuring, and how the original code of each compresses one context."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from pcc_bench.baselines.autocompressor import segments
from pcc_bench.baselines.cocom.encoders import ENCODE
from pcc_bench.baselines.cocom.files import CocomConfig, export_cocom
from pcc_bench.baselines.icae import spans
from pcc_bench.baselines.icae.files import IcaeConfig, export_icae
from pcc_bench.core import tiny
from pcc_bench.core.compressor import Memory
from pcc_bench.core.tiny import make_bert_tokenizer
from pcc_bench.host import models as lm_models
from pcc_bench.host.lm import CompressedLM
from pcc_bench.model import init

Compress = Callable[[str], Memory]
Build = Callable[[Path, Sequence[str], int, int, int, int], tuple[CompressedLM, Compress]]
RANK = 16


def base(family: str, folder: Path, texts: Sequence[str], width: int, layers: int, vocabulary: int) -> Path:
    """A random model of the size asked for."""
    tokenizer = tiny.make_tokenizer(texts, vocabulary)
    return tiny.make_model(family, tokenizer, folder, width=width, layers=layers, window=8192)


def lora(model: Path, targets: Iterable[str]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Random adapters of a model's linear layers, by the last parts of their names."""
    state = load_file(model / "model.safetensors")
    endings = tuple(f"{target}_proj.weight" for target in targets)
    return {
        key.removesuffix(".weight"): (
            torch.randn(RANK, value.shape[1]) * 0.1,
            torch.randn(value.shape[0], RANK) * 0.1,
        )
        for key, value in state.items()
        if key.endswith(endings)
    }


def opened(method: str, folder: Path, batch_size: int, **options: Any) -> CompressedLM:
    """As `lm_eval --model <method>` does."""
    kind = getattr(lm_models, method)
    model: CompressedLM = kind(pretrained=str(folder), dtype="float32", device="cpu", batch_size=batch_size, **options)
    return model


def memory(vectors: torch.Tensor) -> Memory:
    """Vectors without an account."""
    return Memory(0, 0, 0, slots=len(vectors), vectors=vectors)


# ICAE: 128 memory tokens, spans of 512; its encoder is a whole language model, batch 1


def icae(
    folder: Path, texts: Sequence[str], width: int, layers: int, vocabulary: int, batch_size: int
) -> tuple[CompressedLM, Compress]:
    """Span by span."""
    model = base("mistral", folder / "base", texts, width, layers, vocabulary)
    config = IcaeConfig(base_model_name_or_path="../base")
    export_icae(folder / "icae", lora(model, "qv"), torch.randn(131, width), config, torch.float32)
    opened_model = opened("icae", folder / "icae", batch_size)
    return opened_model, partial(compress_icae, opened_model)


def compress_icae(model: CompressedLM, context: str) -> Memory:
    """Span by span."""
    compressor, decoder = model.compressor, model.frozen
    slots = []
    encoder = compressor.encoder
    for span in spans(decoder.tokenizer.encode(context), encoder.capacity):
        row = torch.cat([decoder.embed(span), encoder.memory_tokens])[None]
        hidden = encoder.body(inputs_embeds=row, use_cache=False).last_hidden_state
        decoder.model.get_output_embeddings()(hidden)
        slots.append(hidden[0, len(span) :])
    return memory(torch.cat([*slots, compressor.behind]))


# AutoCompressor: 50 summary tokens, segments of 200 (so that rates are near four)


def autocompressor(
    folder: Path, texts: Sequence[str], width: int, layers: int, vocabulary: int, batch_size: int
) -> tuple[CompressedLM, Compress]:
    """Segment by segment, a whole language model."""
    path = base("llama", folder / "model", texts, width, layers, vocabulary) / "model.safetensors"
    save_file(load_file(path) | {"embed_summary.weight": torch.randn(50, width)}, path, metadata={"format": "pt"})
    model = opened("autocompressor", path.parent, batch_size, segment_length=200)
    return model, partial(compress_autocompressor, model)


def compress_autocompressor(model: CompressedLM, context: str) -> Memory:
    """Segment by segment."""
    encoder, decoder = model.compressor.encoder, model.frozen
    soft = encoder.summary[:0]
    for piece in segments(decoder.tokenizer.encode(context, add_special_tokens=False), encoder.segment_length):
        row = torch.cat([soft, decoder.embed(piece), encoder.summary])[None]
        hidden = decoder.model.base_model(inputs_embeds=row, use_cache=False).last_hidden_state
        decoder.model.get_output_embeddings()(hidden[:, len(soft) : len(soft) + len(piece)])
        soft = torch.cat([soft, hidden[0, len(soft) + len(piece) :]])
    return memory(soft)


# COCOM, COCOM-light, PISCO: documents of 128 tokens; those of a sample are one call


def cocom(
    folder: Path, texts: Sequence[str], width: int, layers: int, vocabulary: int, batch_size: int
) -> tuple[CompressedLM, Compress]:
    """At 4x, the decoder compresses."""
    model = opened("cocom", write_cocom(folder, texts, width, layers, vocabulary), batch_size)
    return model, partial(compress_causal, model)


def cocom_light(
    folder: Path, texts: Sequence[str], width: int, layers: int, vocabulary: int, batch_size: int
) -> tuple[CompressedLM, Compress]:
    """At 4x, a BERT of the decoder's size compresses."""
    cocom_folder = write_cocom(folder, texts, width, layers, vocabulary)
    make_bert_tokenizer(texts, vocabulary).save_pretrained(folder / "bert")
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": 4 * width}
    config = BertConfig(vocab_size=vocabulary, num_attention_heads=4, **sizes)
    config.save_pretrained(folder / "bert")
    compressor = torch.nn.ModuleDict({"model": BertModel(config), "linear": torch.nn.Linear(4 * width, width)})
    state = {f"compr.{key}": value for key, value in compressor.state_dict().items()}
    save_file(load_file(cocom_folder / "model.safetensors") | state, cocom_folder / "model.safetensors")
    fields = json.loads((cocom_folder / "config.json").read_text()) | {"compr_model_name": "../bert"}
    (cocom_folder / "config.json").write_text(json.dumps(fields))
    model = opened("cocom", cocom_folder, batch_size)
    return model, lambda context: model.compressor.compress([context])[0]


def write_cocom(folder: Path, texts: Sequence[str], width: int, layers: int, vocabulary: int) -> Path:
    """A COCOM without its base, and the base."""
    model = base("mistral", folder / "base", texts, width, layers, vocabulary)
    rows = {"embed_tokens": torch.randn(4, width), "lm_head": torch.randn(4, width)}
    adapters = lora(model, ("q", "k", "v", "o", "gate", "up", "down"))
    export_cocom(folder / "cocom", adapters, rows, "../base", rate=4, document_length=128, dtype=torch.float32)
    return folder / "cocom"


def pisco(
    folder: Path, texts: Sequence[str], width: int, layers: int, vocabulary: int, batch_size: int
) -> tuple[CompressedLM, Compress]:
    """At 16x, one adapter compresses and another one answers."""
    path = base("mistral", folder / "base", texts, width, layers, vocabulary)
    state = init.open_decoder(str(path)).model.state_dict()
    (folder / "pisco").mkdir()
    fields = {"decoder_model_name": "../base", "compr_rate": 16, "doc_max_length": 128, "sep": True, "lora": True}
    fields |= {"lora_r": RANK, "different_mem_tokens": True, "training_form": "both_separately"}
    (folder / "pisco" / "config.json").write_text(json.dumps(fields))
    tokens = len(CocomConfig(**fields).special_tokens)
    tables = {key: state[key] for key in ("model.embed_tokens.weight", "lm_head.weight")}
    ends = {key: torch.cat([value, torch.randn(tokens, width)]) for key, value in tables.items()}
    torch.save(ends, folder / "pisco" / "decoder_first_last_layers.pth")
    adapters = {}
    for role in ("decoder_adapter", "encoder_adapter"):
        pairs = lora(path, ("q", "k", "v", "o", "gate", "up", "down"))
        adapters[role] = {
            f"{layer}.lora_{side}.weight": pair[i] for layer, pair in pairs.items() for i, side in enumerate("AB")
        }
    torch.save(adapters, folder / "pisco" / "adapters.pth")
    words = {"opening": "Background:\n", "lead": "\n\nQuestion:", "closing": "\n"}
    model = opened("pisco", folder / "pisco", batch_size, **words)
    return model, partial(compress_causal, model)


def compress_causal(model: CompressedLM, context: str) -> Memory:
    """The documents of a sample at once, through a whole language model."""
    compressor, decoder = model.compressor, model.frozen
    encoder = compressor.encoder
    (ids,) = encoder.tokenize([context])
    documents = encoder.documents(ids)
    counts = [encoder.sizes.count(len(document)) for document in documents]
    start = encoder.special[ENCODE][None]
    rows = [
        torch.cat([start, decoder.embed(encoder.framed(document)), encoder.memory(count)])
        for document, count in zip(documents, counts, strict=True)
    ]
    vectors = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    hidden = encoder.body(inputs_embeds=vectors, use_cache=False).last_hidden_state
    decoder.model.get_output_embeddings()(hidden)
    parts = [
        torch.cat([states[len(row) - count : len(row)], encoder.separator])
        for states, row, count in zip(hidden, rows, counts, strict=True)
    ]
    return memory(torch.cat(parts))


# LLMLingua-2: the package's own class


def llmlingua2(
    folder: Path, texts: Sequence[str], width: int, layers: int, vocabulary: int, batch_size: int
) -> tuple[CompressedLM, Compress]:
    """At 4x; the package's tokenizer from OpenAI, which counts tokens, is replaced by the decoder's."""
    sys.path.append(str(Path(__file__).parent.parent / "tests"))
    from llmlingua import PromptCompressor, prompt_compressor
    from toy_classifier import make_classifier

    from pcc_bench.baselines.llmlingua2.package import PlainCounter

    decoder = base("llama", folder / "decoder", texts, width, layers, vocabulary)
    named = folder / "llmlingua-2-xlm-roberta-large"  # the package knows its models by such names
    make_classifier("xlm-roberta", texts, named, vocabulary=vocabulary, width=width, layers=layers)
    model = opened("llmlingua2", named, batch_size, decoder=str(decoder), rate=4)
    prompt_compressor.tiktoken.encoding_for_model = lambda name: PlainCounter(model.tokenizer)
    package = PromptCompressor(str(named), device_map="cpu", use_llmlingua2=True)
    return model, lambda context: Memory(
        0, 0, 0, slots=0, text=package.compress_prompt_llmlingua2(context, rate=0.25)["compressed_prompt"]
    )


METHODS: dict[str, Build] = {
    "icae": icae,
    "autocompressor": autocompressor,
    "cocom": cocom,
    "cocom-light": cocom_light,
    "pisco": pisco,
    "llmlingua2": llmlingua2,
}
