"""What can be seen of a PCC checkpoint without loading it: `pcc-bench validate`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pcc_bench.core import checkpoint_files as files
from pcc_bench.core.checkpoint_files import from_folder, from_state, without_weights
from pcc_bench.core.compressor import Look
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.documents import is_folder
from pcc_bench.core.errors import UsageError
from pcc_bench.model import checkpoint, published
from pcc_bench.model.config import MEMORY_TOKENS, PccConfig
from pcc_bench.model.converter import Converter
from pcc_bench.model.encoder import Encoder, first_layers_config, memory_token_ids


def inspect(pretrained: str, decoder: Decoder, options: Mapping[str, Any], look: Look) -> None:
    def location() -> tuple[Path, str]:
        path = files.resolve(pretrained)
        return path, f"{path}, {'our' if checkpoint.is_own(path) else 'the published'} format"

    folder = look("checkpoint", location)
    if folder is None:
        return

    def memory_tokens() -> tuple[Any, str]:
        tokenizer = files.load_tokenizer(folder)
        return tokenizer, f"{len(memory_token_ids(tokenizer))} in a vocabulary of {len(tokenizer)}"

    def published_weights() -> tuple[int, str]:
        paths = weight_files(str(folder))
        read = sum(map(files.check_safetensors, paths))
        return read, f"{read} tensors in {', '.join(path.name for path in paths) or 'no safetensors file'}, all finite"

    if not checkpoint.is_own(folder):
        look("memory tokens", memory_tokens)
        look("converter", lambda: (published.converter(folder, decoder.hidden_size), f"to width {decoder.hidden_size}"))
        look("weights", published_weights)
        return

    def configuration() -> tuple[PccConfig, str]:
        policies = {key: value for key, value in options.items() if key in PccConfig.model_fields}
        config = PccConfig.read(folder).with_options(**policies)
        rates = ", ".join(f"{rate}x" for rate in config.declared_rates)
        sizes = f"segments of {config.segment_length}, boundaries {config.boundaries}"
        return config, f"rate {config.rate} of {rates}; {sizes}"

    config = look("configuration", configuration)
    if config is None:
        return
    # An encoder that is made of the decoder's layers has its tokenizer, and no memory tokens in it.
    tokenizer = decoder.tokenizer if config.encoder.layers is not None else look("memory tokens", memory_tokens)

    def made_for() -> tuple[bool, str]:
        checkpoint.check_decoder(config, decoder, pretrained, bool(options.get("any_decoder")))
        if config.decoder.fingerprint is None or decoder.embedding.weight.is_meta:
            return True, f"width {decoder.hidden_size}; the fingerprint can't be compared before the weights are loaded"
        return True, f"width {decoder.hidden_size}, fingerprint {decoder.fingerprint}"

    look("made for the decoder", made_for)
    if tokenizer is not None:
        look("weights", lambda: _weights(folder, config, tokenizer, decoder, options.get("encoder")))


def weight_files(name: str) -> list[Path]:
    return sorted(Path(name).glob("*.safetensors")) if is_folder(name) else []


def _weights(folder: Path, config: PccConfig, tokenizer: Any, decoder: Decoder, base: str | None) -> tuple[bool, str]:
    """Compare the names and shapes in the file with those of a model without weights."""
    path = folder / (config.weights or "") / files.WEIGHTS
    if not path.is_file():
        raise UsageError(f"{path} is missing: the checkpoint is incomplete")
    full, layers = config.encoder.kind == "full", config.encoder.layers
    where = f"encoder.config in {folder / 'config.json'}"
    if layers is not None:
        described = first_layers_config(decoder, layers)
    elif full:
        described = from_state(config.encoder.config, where)
    else:
        described = from_folder(str(checkpoint.base_folder(folder, base or config.encoder.base)))
    body = without_weights(described, where)
    with torch.device("meta"):
        converter = Converter(body.config.hidden_size, config.decoder.hidden_size)
    encoder = Encoder(body, tokenizer, config)  # checks that a segment fits its positions
    shapes = files.safetensors_shapes(path)
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    files.check_fits(converter, files.under("converter.", state), path)
    checkpoint.tensor(state, "special", (3, config.decoder.hidden_size), path)
    if full and layers is None:
        files.check_fits(body, files.under("encoder.", state), path)
    elif layers is None or encoder.memory_rows is not None:
        checkpoint.tensor(state, "memory_tokens", (MEMORY_TOKENS, body.config.hidden_size), path)
    if encoder.gate is not None:
        checkpoint.tensor(state, "gate", (body.config.hidden_size,), path)
    files.check_safetensors(path)
    return True, f"{len(shapes)} tensors in {files.WEIGHTS}, all finite, {path.stat().st_size / 2**20:.1f} MiB"
