"""What a step of a recipe takes: weights, FLOPs and memory, from sizes of models alone.

FLOPs, with 2 for a multiplication and an addition, `x` positions, `N` weights in matrix products (embedding tables left
out), `L` layers and `d` the width of all heads together:

- forward: `2 N x + 4 L d x^2`. The second term is the two attention products without the causal half that fast kernels
  skip: what torch's `FlopCounterMode` counts.
- backward to the activations: the first term once more, the second twice, because both factors of an attention product
  are activations. Through frozen weights (the decoder, the base under a LoRA) this is all.
- backward to trained weights: `2 N x` on top, for those weights.
- The encoder reads segment and memory tokens, without a vocabulary head; the decoder reads BOS, memory, `<ae>` and
  target, and its head computes logits at every position.

At 40 % utilisation of 4 A100 this gives the official README's hours within 5 % (tests/test_recipes.py).
"""

import math
import re
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedConfig

from pcc_bench.core.errors import UsageError
from pcc_bench.cost.sizes import LARGE, LITE, Model, config_of, first_layers, from_state, lora_parameters, measure
from pcc_bench.model.config import MEMORY_TOKENS, Boundaries, PccConfig
from pcc_bench.model.converter import Converter
from pcc_bench.model.pcc import SPECIAL_TOKENS
from pcc_bench.model.training.recipe import Recipe

ANSWERING_TOKENS = {"qa": 32, "gsm8k": 200, "dialogue": 400}  # prompt and answer in decoder tokens: guesses
LOGIT_BYTES = 10  # bfloat16, its float32 copy and the gradient of that


class Weights(NamedTuple):
    """A group of weights: `parameters` of which `trained` learn."""

    name: str
    parameters: int
    trained: int


class Footprint(NamedTuple):
    """Estimated bytes a process holds at its fullest; no sharding, no offloading, no fragmentation."""

    weights: float  # all weights, in the dtypes that training holds them in
    copies: float  # the bfloat16 copies of float32 matrices that autocast keeps for the backward pass
    gradients: float  # of whole tensors, also where only some of their rows learn
    optimizer: float  # Adam's two moments, likewise
    activations: float  # what is kept for the backward pass of a micro-batch, and its logits

    @property
    def total(self) -> float:
        return float(sum(self))


class SampleSizes(NamedTuple):
    """Mean sizes of a training sample."""

    tokens: float  # of context
    segments: int
    slots: float
    decoder_rows: tuple[tuple[float, float], ...]  # probability, or 1 where each step has the row, and positions


class Geometry(NamedTuple):
    encoder: Model  # without memory tokens; under a LoRA, its base
    lora: int  # weights of the adapter; 0 where there is none
    lora_products: int  # of these, the ones in matrix products: looking up an embedding is none
    decoder: Model
    converter: int  # weights of the converter
    pooled: bool = False  # there are no memory tokens: slots are means


def geometry_of(recipe: Recipe) -> Geometry:
    """Sizes of a recipe's models, from their configurations. Raises UsageError: a model whose sizes can't be found."""
    reads = config_of(recipe.decoder)
    if recipe.encoder:
        return sized(config_of(recipe.encoder), recipe.lora_rank, reads)
    layers, rank, pooling = recipe.encoder_layers, recipe.lora_rank, recipe.pooling
    if layers is None:
        start = Path(str(recipe.start))
        if not (start / "config.json").is_file():
            if not (published := re.search(r"Stage[12]-PCC-(Lite|Large)-\d+x$", start.name)):
                raise UsageError(
                    f"start '{recipe.start}' is neither a checkpoint folder here nor a published one "
                    "(Stage1-PCC-Lite-4x ...): a dry run fetches no checkpoints, so give its folder"
                )
            return sized(config_of(LITE), 0, reads) if published[1] == "Lite" else sized(config_of(LARGE), 64, reads)
        config = PccConfig.read(start)
        if config.encoder.layers is None:
            return sized_as(config, reads)
        layers, pooling, rank = config.encoder.layers, config.pooling, lora_rank(config)
    encoder, adapter = first_layers(reads, layers, rank)
    converter = _converter_weights(encoder.hidden_size, reads.hidden_size)
    return Geometry(encoder, adapter, adapter, measure(reads), converter, pooling == "mean")


def lora_rank(config: PccConfig) -> int:
    return int((config.encoder.lora or {}).get("r", 0))


def sized_as(config: PccConfig, reads: PreTrainedConfig) -> Geometry:
    """Sizes of a checkpoint of a configuration, whose encoder is no part of the decoder `reads`, and of that."""
    state = config.encoder.config
    state = {**state, "vocab_size": state["vocab_size"] - MEMORY_TOKENS}
    return sized(from_state(state), lora_rank(config), reads)


def boundary_vectors(boundaries: Boundaries, segments: int) -> int:
    return {"per_segment": 2 * segments, "once": 2, "none": 0}[boundaries]


def sized(config: PreTrainedConfig, rank: int, reads: PreTrainedConfig) -> Geometry:
    """Sizes of an encoder without memory tokens, its LoRA of a rank (0: none), converter and the decoder `reads`."""
    encoder, decoder = measure(config), measure(reads)
    adapter = lora_parameters(config, rank) if rank else 0
    looked_up = rank * (encoder.vocabulary + MEMORY_TOKENS)
    converter = _converter_weights(encoder.hidden_size, decoder.hidden_size)
    return Geometry(encoder, adapter, adapter - looked_up, decoder, converter)


def _converter_weights(encoder_width: int, decoder_width: int) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Converter(encoder_width, decoder_width).parameters())


def parts_of(recipe: Recipe, geometry: Geometry) -> tuple[Weights, ...]:
    """Weights by part. A full encoder is kept without a head of its own; under a LoRA the whole causal LM is kept."""
    encoder, learns = geometry.encoder, set(recipe.train)
    base = encoder.parameters - (0 if geometry.lora else encoder.own_head)
    rows = MEMORY_TOKENS * encoder.hidden_size * (2 if geometry.lora and encoder.own_head else 1)
    full = "encoder" in learns and not geometry.lora
    only_rows = "memory_tokens" in learns and "encoder" not in learns  # else the encoder's choice holds
    learned_rows = MEMORY_TOKENS * encoder.hidden_size if full or only_rows else 0
    parts = [Weights("encoder", base, base if full else 0)]
    if not geometry.pooled:
        parts.append(Weights("memory tokens", rows, learned_rows))
    if "gate" in learns:
        parts.append(Weights("gate", encoder.hidden_size, encoder.hidden_size))
    if "special" in learns:
        vectors = len(SPECIAL_TOKENS) * geometry.decoder.hidden_size
        parts.append(Weights("special vectors", vectors, vectors))
    if geometry.lora:
        parts.append(Weights("LoRA", geometry.lora, geometry.lora if "encoder" in learns else 0))
    parts.append(Weights("converter", geometry.converter, geometry.converter if "converter" in learns else 0))
    return (*parts, Weights("decoder", geometry.decoder.parameters, 0))


def sample_of(recipe: Recipe, phase: int, steps: int) -> SampleSizes:
    """Mean sizes of a sample of a phase; the decoder's tokenizer is taken to be as fine as the encoder's."""
    sizes = recipe.phases[phase]
    tokens = float(sizes.segments * sizes.segment_length)
    if not recipe.data_at(phase).is_text and recipe.optimisation.tokens:
        tokens = min(tokens, recipe.optimisation.tokens / (steps * recipe.optimisation.batch_size))
    segments = math.ceil(tokens / sizes.segment_length)
    slots = float(segments * (sizes.segment_length // sizes.rate))
    if recipe.slots == "proportional" or recipe.pooling == "mean":
        slots = min(slots, math.ceil(tokens / sizes.rate))
    prefix = 1 + slots + boundary_vectors(recipe.boundaries, segments)
    objective, data = recipe.objective, recipe.data_at(phase)
    if not data.is_text:
        return SampleSizes(tokens, segments, slots, ((1.0, prefix + ANSWERING_TOKENS[data.kind]),))
    share, prefix = recipe.completion_at(phase), prefix + objective.append_eos
    weights = (1 - share, share)
    if objective.combination == "summed":
        weights = (float(share < 1), float(share > 0))
    lengths = (prefix + 1 + tokens, prefix + objective.completion_tokens)
    rows = tuple((weight, length) for weight, length in zip(weights, lengths, strict=True) if weight)
    return SampleSizes(tokens, segments, slots, rows)


def flops_of(recipe: Recipe, geometry: Geometry, sample: SampleSizes) -> float:
    """Forward and backward of one sample through encoder, converter and decoder."""
    encoder, decoder, learns = geometry.encoder, geometry.decoder, set(recipe.train)
    positions = (sample.tokens + (0 if geometry.pooled else sample.slots)) / sample.segments
    passes = 2 if recipe.optimisation.gradient_checkpointing and _encoder_learns(recipe) else 1
    flops = passes * encoding_flops(geometry, positions)
    if _encoder_learns(recipe):
        weights = "encoder" in learns and not geometry.lora
        flops += encoder.backward(positions, head=False, trained=weights)
        flops += (4 if "encoder" in learns else 2) * geometry.lora_products * positions
    flops *= sample.segments
    flops += (6 if "converter" in learns else 4) * geometry.converter * sample.slots
    for weight, length in sample.decoder_rows:
        flops += weight * decoder.read(length, predicted=length)
        flops += weight * decoder.backward(length, head=True, trained=False)
    return flops


def encoding_flops(geometry: Geometry, positions: float) -> float:
    """Forward of one segment with its memory tokens through the encoder."""
    return geometry.encoder.read(positions) + 2 * geometry.lora_products * positions


def _encoder_learns(recipe: Recipe) -> bool:
    return bool({"encoder", "memory_tokens"} & set(recipe.train))


def memory_of(recipe: Recipe, geometry: Geometry, parts: tuple[Weights, ...], samples: list[SampleSizes]) -> Footprint:
    """Bytes a process: in float32 everything is.

    Under bfloat16 what learns stays so, with a bfloat16 copy of each matrix by autocast, and what is frozen is not.
    """
    mixed = recipe.optimisation.precision == "bfloat16"
    encoder, decoder, learns = geometry.encoder, geometry.decoder, set(recipe.train)
    learning = sum(part.trained for part in parts)  # weights in tensors that learn
    if "memory_tokens" in learns and "encoder" not in learns:  # a few rows: the whole table's gradient
        learning += encoder.vocabulary * encoder.hidden_size
    products = geometry.converter if "converter" in learns else 0  # of these, in matrix products
    if "encoder" in learns:
        products += geometry.lora_products if geometry.lora else encoder.body
    frozen = sum(part.parameters for part in parts) - learning
    position = encoder.activations(trained="encoder" in learns) if _encoder_learns(recipe) else 0  # bytes
    if position and recipe.optimisation.gradient_checkpointing:  # the input of every block, and one block at a time
        position = 2 * encoder.layers * encoder.hidden_size + position // encoder.layers
    scale = 1 if mixed else 2
    read = scale * decoder.activations(trained=False) + LOGIT_BYTES * decoder.vocabulary
    activations = recipe.optimisation.micro_batch_size * max(
        scale * (sample.tokens + sample.slots) * position + max(length for _, length in sample.decoder_rows) * read
        for sample in samples
    )
    weights = 4 * learning + (2 if mixed else 4) * frozen
    return Footprint(weights, 2 * products if mixed else 0, 4 * learning, 8 * learning, activations)
