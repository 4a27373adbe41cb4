"""Checkpoints on disk: our own folder format, and the published one as it is; each converts into the other.

Ours (`config.json` with a `pcc_bench` key): `model.safetensors` holds `encoder.*` (all weights of a full encoder) or
`adapter.*` and `memory_tokens` (a LoRA encoder), `converter.*`, and `special` (the vectors of `<mem>`, `</mem>`,
`<ae>`); the encoder's tokenizer lies beside it. The decoder is never in it.

Published (`BroAlanTaps/Stage*-PCC-*`): an HF model folder (Lite) or a peft adapter folder (Large), each with a
tokenizer and `memory_converter.bin`. Rate and segment length are not recorded there: they come from the name or the
caller. The three special vectors are rows of the decoder's embedding or a `special_token_patch.pt`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from pcc_bench.decoder import Decoder
from pcc_bench.errors import UsageError
from pcc_bench.model.config import DecoderConfig, EncoderConfig, PccConfig, validated
from pcc_bench.model.converter import Converter
from pcc_bench.model.encoder import MEMORY_TOKEN_NAMES, Encoder, memory_token_ids
from pcc_bench.model.pcc import PCC, SPECIAL_TOKENS

WEIGHTS = "model.safetensors"
CONVERTER_FILE = "memory_converter.bin"
PATCH_FILE = "special_token_patch.pt"
TRAINER_PREFIX = "compressor.model."  # the official trainer saves the whole system under such prefixes (quirk Q27)


def resolve(name: str, what: str = "checkpoint", beside: Path | None = None) -> Path:
    """Folder of a local path or hub id.

    Args:
        name: A folder, absolute, relative to `beside` or to the working directory, or a hub id.
        what: Named in the error.
        beside: The folder that mentions `name`.

    Raises:
        UsageError: Neither a folder nor a hub id that can be fetched.
    """
    for candidate in ([beside / name] if beside else []) + [Path(name)]:
        if candidate.is_dir():
            return candidate.resolve()
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        raise UsageError(f"{what} '{name}' is neither a folder here nor a hub id (owner/name): check the path")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise UsageError(
            f"{what} '{name}' is no folder here and could not be fetched from the hub ({first}): check the name, "
            "the network and your access, or give a local folder"
        ) from None


def is_own(folder: Path) -> bool:
    """Is this a checkpoint folder of our own format?"""
    path = folder / "config.json"
    try:
        return path.is_file() and "pcc_bench" in json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid JSON ({error})") from None


def load(
    name: str,
    decoder: Decoder,
    *,
    encoder: str | None = None,
    special_tokens: str | None = None,
    any_decoder: bool = False,
    encoder_dtype: torch.dtype | None = None,
    **policies: Any,
) -> PCC:
    """Load a checkpoint of either format, for a loaded decoder, in evaluation mode on the decoder's device.

    Args:
        name: Folder or hub id.
        decoder: Reads the memories.
        encoder: Folder or hub id of the base model of a LoRA encoder, where it is not the one recorded.
        special_tokens: A `special_token_patch.pt` for published checkpoints whose decoder lacks the three tokens.
        any_decoder: Accept a decoder other than the one the checkpoint was made for.
        encoder_dtype: Dtype of encoder and converter; the decoder's by default.
        **policies: Fields of `PccConfig` to set (rate, segment_length, slots, boundaries, padding, ...).

    Raises:
        UsageError: Anything that does not fit; one sentence.
    """
    folder = resolve(name)
    policies = {key: value for key, value in policies.items() if value is not None}
    dtype = encoder_dtype or decoder.dtype
    if is_own(folder):
        pcc = _load_own(folder, PccConfig.read(folder).with_options(**policies), encoder, dtype)
    else:
        pcc = _load_published(folder, decoder, encoder, special_tokens, dtype, policies)
    _check_decoder(pcc, decoder, name, any_decoder)
    return pcc.eval().to(decoder.device)


def save(pcc: PCC, folder: Path) -> None:
    """Write a checkpoint in our own format; the files appear whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {f"converter.{key}": value for key, value in pcc.converter.state_dict().items()}
    state["special"] = pcc.special
    state |= _encoder_state(pcc)
    state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    pcc.encoder.tokenizer.save_pretrained(folder)
    with _replaced(folder / WEIGHTS) as path:
        save_file(state, path, metadata={"format": "pt"})
    with _replaced(folder / "README.md") as path:
        path.write_text(_card(pcc), encoding="utf-8")
    with _replaced(folder / "config.json") as path:
        path.write_text(pcc.config.model_dump_json(indent=1) + "\n", encoding="utf-8")


def export(pcc: PCC, folder: Path) -> None:
    """Write a checkpoint in the published layout, which the official code reads."""
    folder.mkdir(parents=True, exist_ok=True)
    if pcc.config.encoder.kind == "lora":
        # The base matrices of embed_tokens and lm_head go in, as in the published files: they carry `<mem_i>` rows.
        pcc.encoder.model.save_pretrained(folder, save_embedding_layers=True)
    else:
        wrapper = AutoModelForCausalLM.from_config(pcc.encoder.body.config).to(pcc.encoder.body.dtype)
        wrapper.base_model.load_state_dict(pcc.encoder.body.state_dict())
        wrapper.save_pretrained(folder)
    pcc.encoder.tokenizer.save_pretrained(folder)
    torch.save(pcc.converter.state_dict(), folder / CONVERTER_FILE)
    # The lm_head rows of the tokens are only read when a decoder without them is patched; PCC never trains or emits
    # them, so the input rows serve.
    patch = {"tokens": list(SPECIAL_TOKENS), "embedding": pcc.special.cpu(), "lm_head": pcc.special.cpu()}
    torch.save(patch, folder / PATCH_FILE)


def weights_fingerprint(pcc: PCC) -> str:
    """A short hash of all the weights that make memories: encoder (a LoRA base included), converter, special vectors."""
    digest = hashlib.sha256()
    state = {**pcc.encoder.body.state_dict(), **pcc.converter.state_dict(), "special": pcc.special}
    for key, value in sorted(state.items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def with_memory_tokens(model: Any, tokenizer: PreTrainedTokenizerBase, seed: int) -> None:
    """Add the 64 memory tokens to a plain model in place; new rows are drawn from N(0, 0.02) (official quirk Q10).

    transformers would otherwise draw them from the mean and covariance of the old rows.
    """
    added = tokenizer.add_special_tokens({"additional_special_tokens": list(MEMORY_TOKEN_NAMES)}, False)
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if added:
        generator = torch.Generator().manual_seed(seed)
        rows = model.get_input_embeddings().weight
        noise = torch.randn(len(MEMORY_TOKEN_NAMES), rows.shape[1], generator=generator) * 0.02
        with torch.no_grad():
            rows[memory_token_ids(tokenizer)] = noise.to(rows)


# ---------------------------------------------------------------------------------------------------------------------
# Our own format


def _load_own(folder: Path, config: PccConfig, base: str | None, dtype: torch.dtype) -> PCC:
    state = _read_safetensors(folder / WEIGHTS)
    tokenizer = load_tokenizer(folder)
    if config.encoder.kind == "full":
        model = AutoModel.from_config(AutoConfig.for_model(**config.encoder.config), dtype=dtype)
        _load_strictly(model, _under("encoder.", state), folder / WEIGHTS)
    else:
        model = _own_adapter(folder, config, base, tokenizer, state, dtype)
    encoder = Encoder(model, tokenizer, config)
    converter = Converter(encoder.hidden_size, config.decoder.hidden_size).to(dtype)
    _load_strictly(converter, _under("converter.", state), folder / WEIGHTS)
    if "special" not in state:
        raise UsageError(f"{folder / WEIGHTS} lacks 'special', the vectors of <mem>, </mem> and <ae>")
    return PCC(config, encoder, converter, state["special"])


def _own_adapter(
    folder: Path,
    config: PccConfig,
    base: str | None,
    tokenizer: PreTrainedTokenizerBase,
    state: dict[str, torch.Tensor],
    dtype: torch.dtype,
) -> PeftModel:
    name = base or config.encoder.base
    if name is None:
        raise UsageError(f"{folder} does not name its encoder's base model: pass encoder=<folder or hub id>")
    model = load_causal_lm(resolve(name, "encoder base", folder), dtype)
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[memory_token_ids(tokenizer)] = state["memory_tokens"].to(dtype)
    peft_model = get_peft_model(model, LoraConfig(**(config.encoder.lora or {})))
    outcome = set_peft_model_state_dict(peft_model, _under("adapter.", state))
    if outcome.unexpected_keys:
        raise UsageError(f"{folder / WEIGHTS} does not fit the encoder base '{name}': {outcome.unexpected_keys[0]}")
    return peft_model


def _encoder_state(pcc: PCC) -> dict[str, torch.Tensor]:
    model = pcc.encoder.model
    if pcc.config.encoder.kind == "full":
        return {f"encoder.{key}": value for key, value in pcc.encoder.body.state_dict().items()}
    adapter = get_peft_model_state_dict(model, save_embedding_layers=False)
    embedding = model.get_base_model().get_input_embeddings()  # type: ignore[operator]
    rows = getattr(embedding, "base_layer", embedding).weight
    return {f"adapter.{key}": value for key, value in adapter.items()} | {"memory_tokens": rows[pcc.encoder.memory_ids]}


def _card(pcc: PCC) -> str:
    config = pcc.config
    return f"""---
library_name: pcc-bench
tags: [context-compression, pcc]
---

# PCC {config.rate}x

A context compressor in the format of pcc_bench: segments of {config.segment_length} tokens become
{config.slots_per_segment} memory slots for the decoder `{config.decoder.name or "(not recorded)"}`.

| | |
|---|---|
| encoder | {config.encoder.config.get("model_type")} ({config.encoder.kind}), width {pcc.encoder.hidden_size} |
| rates | {", ".join(f"{rate}x" for rate in config.declared_rates)} |
| converter | {sum(p.numel() for p in pcc.converter.parameters()):,} parameters |
| boundaries | {config.boundaries.value} |
| slots of a short segment | {config.slots.value} |
| decoder fingerprint | {config.decoder.fingerprint or "(not recorded)"} |

{config.notes}

```
lm_eval --model pcc --model_args pretrained=<this folder> --tasks pcc_rag
```
"""


# ---------------------------------------------------------------------------------------------------------------------
# The published format


def _load_published(
    folder: Path,
    decoder: Decoder,
    base: str | None,
    patch: str | None,
    dtype: torch.dtype,
    policies: dict[str, Any],
) -> PCC:
    tokenizer = load_tokenizer(folder)
    if (folder / "adapter_config.json").is_file():
        model = _published_adapter(folder, base, tokenizer, dtype)
        lora = {**model.peft_config["default"].to_dict(), "inference_mode": False}
        kind = EncoderConfig(
            kind="lora",
            config=model.get_base_model().config.to_dict(),
            base=base or str(lora.get("base_model_name_or_path")),
            lora=plain(lora),
        )
    elif (folder / "config.json").is_file():
        model = _published_body(folder, dtype)
        kind = EncoderConfig(kind="full", config=model.config.to_dict())
    else:
        raise UsageError(f"{folder} has neither config.json nor adapter_config.json: it is not a PCC checkpoint")
    config = _published_config(folder, kind, decoder, policies)
    encoder = Encoder(model, tokenizer, config)
    converter = _published_converter(folder / CONVERTER_FILE, encoder.hidden_size, decoder).to(dtype)
    return PCC(config, encoder, converter, _special_vectors(folder, decoder, patch))


def _published_config(folder: Path, kind: EncoderConfig, decoder: Decoder, policies: dict[str, Any]) -> PccConfig:
    named = re.search(r"-(\d+)x\b", folder.name)
    rate = policies.get("rate") or (int(named[1]) if named else None)
    if rate is None:
        raise UsageError(f"{folder} is in the published format, which does not record its rate: pass rate=4 (or 16 ...)")
    made_for = DecoderConfig(name=decoder.name, hidden_size=decoder.hidden_size)
    state = {"encoder": kind.model_dump(), "decoder": made_for.model_dump(), **policies, "rate": rate}
    return validated(state, f"{folder} with the options given")


def _published_body(folder: Path, dtype: torch.dtype) -> Any:
    """A Lite encoder; also reads what the official trainer leaves behind, the whole system in one file."""
    weights = folder / WEIGHTS
    if not weights.is_file():
        return _pretrained(AutoModel, folder, dtype)
    keys = _safetensors_keys(weights)
    if not any(key.startswith(TRAINER_PREFIX) for key in keys):
        return _pretrained(AutoModel, folder, dtype)
    causal = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=dtype)
    state = _under(TRAINER_PREFIX, _read_safetensors(weights))
    outcome = causal.load_state_dict(state, strict=False)
    causal.tie_weights()
    if lost := [key for key in outcome.missing_keys if not key.startswith("lm_head")]:
        raise UsageError(f"{weights} lacks {len(lost)} encoder tensors ({lost[0]} first)")
    return causal.base_model


def _published_adapter(
    folder: Path, base: str | None, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype
) -> PeftModel:
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    name = base or config.get("base_model_name_or_path") or ""
    model = load_causal_lm(_resolve_base(name, folder), dtype)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > vocabulary:
        if not any("base_layer" in key for key in _safetensors_keys(folder / "adapter_model.safetensors")):
            raise UsageError(
                f"the encoder base '{name}' has {vocabulary} token rows, the tokenizer in {folder} {len(tokenizer)}, "
                "and the adapter does not bring the missing ones: use the base model that has the memory tokens"
            )
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    try:
        return PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=False)
    except (RuntimeError, SafetensorError) as error:
        raise UsageError(f"the adapter in {folder} does not fit its base '{name}' ({_first_line(error)})") from None


def _resolve_base(name: str, adapter: Path) -> Path:
    """The base of an adapter: as named, beside the adapter's folder, or from the hub."""
    return resolve(name, "encoder base", adapter.parent)


def _published_converter(path: Path, encoder_size: int, decoder: Decoder) -> Converter:
    if not path.is_file():
        raise UsageError(f"{path} is missing: a published checkpoint keeps its converter there")
    state = _read_torch(path)
    widths = tuple(state["dense_in.weight"].shape) if "dense_in.weight" in state else None
    if widths != (decoder.hidden_size, encoder_size):
        raise UsageError(
            f"{path}: the converter maps {widths[1] if widths else '?'} to {widths[0] if widths else '?'} dimensions, "
            f"but the encoder has {encoder_size} and the decoder {decoder.hidden_size}: it belongs to another pair"
        )
    converter = Converter(encoder_size, decoder.hidden_size)
    _load_strictly(converter, state, path)
    return converter


def _special_vectors(folder: Path, decoder: Decoder, patch: str | None) -> torch.Tensor:
    """Rows of the three tokens, matched by name: from a patch file, else from the decoder's own embedding."""
    path = Path(patch) if patch else folder / PATCH_FILE
    if path.is_file():
        state = _read_torch(path)
        rows = {name: state["embedding"][row] for row, name in enumerate(state["tokens"])}
    elif patch:
        raise UsageError(f"special_tokens={patch}: no such file")
    else:
        vocabulary = decoder.tokenizer.get_vocab()
        ids = {name: vocabulary[name] for name in SPECIAL_TOKENS if name in vocabulary}
        rows = {name: decoder.embedding.weight.detach()[row].clone() for name, row in ids.items()}
    if missing := [name for name in SPECIAL_TOKENS if name not in rows]:
        raise UsageError(
            f"the decoder '{decoder.name}' has no token {missing[0]}, which this published checkpoint was trained with: "
            "use the PCC decoder, or pass special_tokens=<special_token_patch.pt>"
        )
    return torch.stack([rows[name].float() for name in SPECIAL_TOKENS])


# ---------------------------------------------------------------------------------------------------------------------
# Files


def _check_decoder(pcc: PCC, decoder: Decoder, name: str, any_decoder: bool) -> None:
    made_for = pcc.config.decoder
    if made_for.hidden_size != decoder.hidden_size:
        raise UsageError(
            f"checkpoint '{name}' makes memories of width {made_for.hidden_size} for '{made_for.name}', "
            f"the decoder '{decoder.name}' has width {decoder.hidden_size}: it was made for another decoder"
        )
    if pcc.converter.decoder_size != decoder.hidden_size or pcc.special.shape != (3, decoder.hidden_size):
        raise UsageError(f"checkpoint '{name}': converter or special vectors do not have width {decoder.hidden_size}")
    if made_for.fingerprint and made_for.fingerprint != decoder.fingerprint and not any_decoder:
        raise UsageError(
            f"checkpoint '{name}' was made for the decoder '{made_for.name}' (fingerprint {made_for.fingerprint}), "
            f"not for '{decoder.name}' ({decoder.fingerprint}): use that decoder, or pass any_decoder=True to try anyway"
        )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{folder} has no readable tokenizer ({_first_line(error)})") from None


def load_causal_lm(folder: Path, dtype: torch.dtype) -> Any:
    return _pretrained(AutoModelForCausalLM, folder, dtype)


def _pretrained(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    try:
        return kind.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UsageError(f"the model in {folder} can't be read ({_first_line(error)})") from None


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise UsageError(f"{path} is missing: the checkpoint is incomplete")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UsageError(f"{path} is damaged or not safetensors ({_first_line(error)}): copy it again") from None


def _safetensors_keys(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (SafetensorError, FileNotFoundError) as error:
        raise UsageError(f"{path} is damaged or not safetensors ({_first_line(error)}): copy it again") from None


def _read_torch(path: Path) -> dict[str, Any]:
    """A file of the original code; nothing in it is executed."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read ({_first_line(error)})") from None
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":  # torch raises the unpickler's own, from several modules
            raise
        raise UsageError(f"{path} holds more than tensors and was not opened") from None
    if not isinstance(state, dict):
        raise UsageError(f"{path} does not hold named tensors")
    return state


def _load_strictly(module: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Load all tensors of a module; a missing, extra or wrongly shaped one is named."""
    wanted = module.state_dict()
    if missing := sorted(wanted.keys() - state.keys()):
        raise UsageError(f"{path} lacks {len(missing)} tensors ({missing[0]} first)")
    if extra := sorted(state.keys() - wanted.keys()):
        raise UsageError(f"{path} has {len(extra)} tensors that do not belong there ({extra[0]} first)")
    for key, value in state.items():
        if value.shape != wanted[key].shape:
            raise UsageError(f"{path}: {key} has shape {list(value.shape)}, expected {list(wanted[key].shape)}")
    module.load_state_dict(state)


def _under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def plain(value: Any) -> Any:
    """JSON-ready copy of a peft configuration (sets become sorted lists, enums their values)."""
    return json.loads(json.dumps(value, default=lambda x: sorted(x) if isinstance(x, set) else getattr(x, "value", str(x))))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """Write beside `path`, then move over it, so that an interrupted save leaves the old file whole."""
    part = path.with_name(path.name + ".part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
