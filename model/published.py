"""The published format of PCC checkpoints (official code, `BroAlanTaps/Stage*-PCC-*`).

An HF model folder (Lite) or a peft adapter folder (Large), each with a tokenizer and `memory_converter.bin`. Rate and
segment length are not recorded: they come from the folder's name or the caller. The three special vectors are rows of
the decoder's embedding, or stand in a `special_token_patch.pt`.
"""

import re
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from pydantic import BaseModel, Field
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedTokenizerBase

from pcc_bench.core import checkpoint_files as files
from pcc_bench.core.checkpoint_files import check_weights, from_folder
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.documents import checked, filled, read_json
from pcc_bench.core.errors import UsageError, foreign
from pcc_bench.model.config import PccConfig
from pcc_bench.model.converter import Converter
from pcc_bench.model.encoder import Encoder
from pcc_bench.model.pcc import PCC, SPECIAL_TOKENS

CONVERTER_FILE = "memory_converter.bin"
PATCH_FILE = "special_token_patch.pt"
TRAINER_PREFIX = "compressor.model."  # the official trainer saves the whole system under such prefixes (quirk Q27)


def load(
    folder: Path,
    decoder: Decoder,
    base: str | None,  # `encoder` of `checkpoint.load`
    patch: str | None,  # `special_tokens`
    dtype: torch.dtype,
    policies: dict[str, Any],
    adapt: bool,
) -> PCC:
    tokenizer = files.load_tokenizer(folder)
    if (folder / "adapter_config.json").is_file():
        model: Any = _published_adapter(folder, base, tokenizer, dtype)
        lora = {**model.peft_config["default"].to_dict(), "inference_mode": False}
        kind = {"kind": "lora", "config": model.get_base_model().config.to_dict(), "lora": files.plain(lora)}
        kind["base"] = base or str(lora.get("base_model_name_or_path"))
    elif (folder / "config.json").is_file():
        model = _published_body(folder, dtype)
        kind = {"kind": "full", "config": model.config.to_dict()}
    else:
        raise UsageError(f"{folder} has neither config.json nor adapter_config.json: it is not a PCC checkpoint")
    if "rate" not in policies:
        raise UsageError(
            f"{folder} is in the published format, which does not record its rate: pass rate=4 (or 16 ...)"
        )
    made_for = {"name": decoder.name, "hidden_size": decoder.hidden_size}
    config = checked(PccConfig, {"encoder": kind, "decoder": made_for, **policies}, f"{folder} with the options given")
    encoder = Encoder(model, tokenizer, config)
    own = converter(folder, None if adapt else decoder.hidden_size, encoder.hidden_size).to(dtype)
    return PCC(config, encoder, own, _special_vectors(folder, decoder, patch, optional=adapt))


def rate_in_name(name: str) -> int | None:
    """The rate a published name tells: 16 for `BroAlanTaps/Stage1-PCC-Lite-16x`."""
    named = re.search(r"-(\d+)x$", name.rstrip("/"))
    return int(named[1]) if named else None


class Adapter(BaseModel):
    """What we read ourselves of peft's `adapter_config.json`."""

    base_model_name_or_path: str | None = None
    r: int = Field(default=8, gt=0)


def read_adapter(folder: Path) -> Adapter:
    path = folder / "adapter_config.json"
    return checked(Adapter, read_json(path), str(path))


def _published_body(folder: Path, dtype: torch.dtype) -> Any:
    """A Lite encoder; also reads what the official trainer leaves behind, the whole system in one file."""
    weights = folder / files.WEIGHTS
    if not weights.is_file() or not any(key.startswith(TRAINER_PREFIX) for key in files.safetensors_shapes(weights)):
        return files.pretrained(folder, dtype, AutoModel)
    with foreign(f"{weights} does not fit the configuration beside it"):
        causal = AutoModelForCausalLM.from_config(from_folder(str(folder)), dtype=dtype)
        outcome = causal.load_state_dict(files.under(TRAINER_PREFIX, files.read_safetensors(weights)), strict=False)
        causal.tie_weights()
    if lost := [key for key in outcome.missing_keys if not key.startswith("lm_head")]:
        raise UsageError(f"{weights} lacks {len(lost)} encoder tensors ({lost[0]} first)")
    return causal.base_model


def _published_adapter(
    folder: Path, base: str | None, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype
) -> PeftModel:
    name = base or read_adapter(folder).base_model_name_or_path or ""
    model = files.pretrained(files.resolve(name, "encoder base", folder.parent), dtype)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > vocabulary:
        if not any("base_layer" in key for key in files.safetensors_shapes(folder / "adapter_model.safetensors")):
            raise UsageError(
                f"the encoder base '{name}' has {vocabulary} token rows, the tokenizer in {folder} {len(tokenizer)}, "
                "and the adapter does not bring the missing ones: use the base model that has the memory tokens"
            )
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with foreign(f"the adapter in {folder} does not fit its base '{name}'"):
        return PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=False)


def converter(folder: Path, decoder_size: int | None, encoder_size: int | None = None) -> Converter:
    """The converter of a published folder; widths are compared where they are given."""
    path = folder / CONVERTER_FILE
    if not path.is_file():
        raise UsageError(f"{path} is missing: a published checkpoint keeps its converter there")
    state = files.read_weights(path)
    first = state.get("dense_in.weight")
    if first is None or first.dim() != 2:
        raise UsageError(f"{path} has no matrix dense_in.weight: it is no converter")
    width, reads = first.shape
    if width != (decoder_size or width) or reads != (encoder_size or reads):
        raise UsageError(
            f"{path}: the converter maps {reads} to {width} dimensions, but the encoder has {encoder_size or reads} "
            f"and the decoder {decoder_size or width}: it belongs to another pair"
        )
    module = Converter(reads, width)
    files.load_strictly(module, state, path)
    return module


def _special_vectors(folder: Path, decoder: Decoder, patch: str | None, optional: bool = False) -> torch.Tensor:
    """Rows of the three tokens by name: of a patch file, else of the decoder; empty where `optional` and missing."""
    path = Path(patch) if patch else folder / PATCH_FILE
    if path.is_file():
        state = files.read_torch(path)
        tokens, embedding = state.get("tokens"), state.get("embedding")
        tokens = tokens if isinstance(tokens, list) and all(isinstance(token, str) for token in tokens) else []
        is_matrix = isinstance(embedding, torch.Tensor) and embedding.dim() == 2
        if embedding is None or not is_matrix or not tokens or len(embedding) != len(tokens):
            raise UsageError(
                f"{path} is no special_token_patch: it holds no list 'tokens' with a row of 'embedding' for each"
            )
        check_weights({"embedding": embedding}, str(path))
        rows = dict(zip(tokens, embedding, strict=True))
    elif patch:
        raise UsageError(f"special_tokens={patch}: no such file")
    else:
        vocabulary = decoder.tokenizer.get_vocab()
        ids = {name: vocabulary[name] for name in SPECIAL_TOKENS if name in vocabulary}
        rows = dict(zip(ids, decoder.embed(list(ids.values())).detach(), strict=True))
    if missing := [name for name in SPECIAL_TOKENS if name not in rows]:
        if optional:
            return torch.empty(0)
        raise UsageError(
            f"the decoder '{decoder.name}' has no token {missing[0]}, which this checkpoint was trained with: "
            "use the PCC decoder, or pass special_tokens=<special_token_patch.pt>"
        )
    return torch.stack([rows[name].float() for name in SPECIAL_TOKENS])


def export(pcc: PCC, folder: Path) -> None:
    """Write a checkpoint in the published layout, which the official code reads."""
    with filled(folder) as part:
        if pcc.config.encoder.kind == "lora":
            # The base matrices of embed_tokens and lm_head go in, as in the published files: they carry `<mem_i>` rows.
            adapted: Any = pcc.encoder.model
            adapted.save_pretrained(part, save_embedding_layers=True)
        else:
            wrapper = AutoModelForCausalLM.from_config(pcc.encoder.body.config).to(pcc.encoder.body.dtype)
            wrapper.base_model.load_state_dict(pcc.encoder.body.state_dict())
            wrapper.save_pretrained(part)
        pcc.encoder.tokenizer.save_pretrained(part)
        torch.save(pcc.converter.state_dict(), part / CONVERTER_FILE)
        # The lm_head rows of the tokens are only read when a decoder without them is patched; PCC never trains or emits
        # them, so the input rows serve.
        patch = {"tokens": list(SPECIAL_TOKENS), "embedding": pcc.special.cpu(), "lm_head": pcc.special.cpu()}
        torch.save(patch, part / PATCH_FILE)
