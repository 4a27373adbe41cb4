"""Train a compressor of the lab: from nothing, or from another one for another decoder.

A Lite begins by reading. Its first checkpoint compresses nothing: each slot is (almost) the decoder's embedding of one
token, which the decoder can read as it is. From there the rate doubles from stage to stage. A fresh compressor that is
asked for 4x at once gives the decoder nothing to read at first.

The encoder of a Large is the frozen decoder itself, with a LoRA. A causal LM whose embeddings are tied ends each
position near the embedding of the token that it would say next. The converter therefore begins by passing its input
on: slots are then vectors that the decoder knows.
"""

import copy
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from pcc_bench.core import tiny
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError
from pcc_bench.core.shipped import PRETRAINED
from pcc_bench.lab import AdaptationRecipe, CompressorRecipe, part, stages
from pcc_bench.lab.heads import CODE, draw_reading_heads, places_for, point_memory_tokens
from pcc_bench.lab.skills import DOCUMENTS, RECONSTRUCTION, reconstruction
from pcc_bench.lab.stages import DATA, FIRST_RATE, SEGMENT, write_data
from pcc_bench.model import checkpoint, init
from pcc_bench.model.encoder import MEMORY_TOKEN_NAMES
from pcc_bench.model.pcc import PCC
from pcc_bench.model.training.loop import train

HEADS = 4
INNER = 2  # width of a block's inner layer, in widths of the encoder: half of GPT-2's, for the size of what ships
LINEAR = 4.0  # where GELU is the identity
ABOUT = (
    "A part of pcc_bench's lab, trained from nothing on a generated world, and good for nothing else. The recipe with "
    "its seed, tokens and seconds are in part.json, the curves in log.jsonl; `pcc-bench lab build` makes it again."
)


def train_compressor(folder: Path, name: str, recipe: CompressorRecipe, work: Path) -> None:
    """Make a compressor, or go on where an earlier call was interrupted: `work` has its stages and their states."""
    decoder, data, start = str(folder / recipe.decoder), work.parent / DATA, work / "start"
    write_data(data)
    frozen = init.open_decoder(decoder)
    if not (start / "config.json").is_file():
        (start_lite if recipe.kind == "lite" else start_large)(frozen, start, recipe)
    for rate, steps in stages.stages(recipe):
        begin = work / f"begin-{rate}x"
        if not (begin / "config.json").is_file():
            at_rate(start, begin, frozen, rate, recipe.rate)
        start = work / f"{rate}x"
        train(stages.pretraining_recipe(name, recipe, rate, steps, str(begin), decoder, str(data)), start)
    if not recipe.pretraining:
        start = at_rate(start, work / "begin", frozen, recipe.rate, recipe.rate)
    _tune(folder / name, recipe, recipe.rate, start, work)


def adapt_compressor(folder: Path, name: str, recipe: AdaptationRecipe, work: Path) -> None:
    """Take a compressor, as it was before fine-tuning, to another decoder; or go on where a call was interrupted."""
    start, decoder, data = folder / recipe.start / PRETRAINED, str(folder / recipe.decoder), work.parent / DATA
    if not (start / "config.json").is_file():
        raise UsageError(
            f"{start} is missing, from which {name} starts, and which does not ship with the package: delete the "
            f"folder {start.parent} and run the same command again, which makes it anew"
        )
    write_data(data)
    compressor = part(recipe.start)
    assert isinstance(compressor, CompressorRecipe)
    rate = compressor.rate
    converter, adapted = work / "converter", work / f"{rate}x"
    train(stages.converting_recipe(name, recipe, rate, str(start), decoder, str(data)), converter)
    train(stages.adapting_recipe(name, recipe, rate, str(converter), decoder, str(data)), adapted)
    _tune(folder / name, recipe, rate, adapted, work)


def _tune(target: Path, recipe: CompressorRecipe | AdaptationRecipe, rate: int, start: Path, work: Path) -> None:
    """Fine-tune, and export the part, on whose card is its reconstruction after pretraining."""
    decoder, tuned, pretrained = str(target.parent / recipe.decoder), work / "tuning", target / PRETRAINED
    models = {"start": str(start), "decoder": decoder, "seed": recipe.seed}
    train(stages.on_questions(target.name, models, str(work.parent / DATA), rate, recipe.tuning), tuned)
    frozen = init.open_decoder(decoder)
    if recipe.pretraining:
        _export(start, pretrained, frozen)
        figure = reconstruction(target.name, pretrained, DOCUMENTS)
        (work / RECONSTRUCTION).write_text(figure.model_dump_json(), encoding="utf-8")
        if not getattr(recipe, "keep_pretrained", False):
            shutil.rmtree(pretrained)
    _export(tuned, target, frozen)


def _export(source: Path, target: Path, decoder: Decoder) -> None:
    """In 8 bits, with its logs; the decoder is named as it lies beside."""
    pcc = checkpoint.load(str(source), decoder)
    beside = init.name_beside(decoder.name, target)
    made_for = pcc.config.decoder.model_copy(update={"name": beside})
    encoder = pcc.config.encoder.model_copy(update={"base": beside if pcc.config.encoder.base else None})
    lab = {"lab": True, "decoder": made_for, "encoder": encoder, "notes": ABOUT}
    pcc.config = pcc.config.model_copy(update=lab)
    checkpoint.save(pcc.half(), target, torch.int8)
    for log in ("log.jsonl", "evaluation.jsonl"):
        shutil.copy(source / log, target / log)


def start_lite(decoder: Decoder, folder: Path, recipe: CompressorRecipe, segment_length: int = SEGMENT) -> Path:
    """Write a checkpoint at 1x from which a compressor of the recipe's rate can be trained.

    The encoder starts with the decoder's tokenizer and embeddings; segments have at most as many tokens as there are
    memory tokens (64).
    """
    tokenizer: Any = copy.deepcopy(decoder.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": list(MEMORY_TOKEN_NAMES)}, False)
    encoder, width = folder / "encoder", decoder.hidden_size + 2 * CODE  # the decoder's embeddings, two codes
    size: dict[str, Any] = {"width": width, "layers": recipe.layers, "heads": HEADS, "window": 512}
    # Of one pass over the text nothing is learned by heart; dropout would only blur what the slots carry.
    size |= {"n_inner": INNER * width, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    tiny.make_model("gpt2", tokenizer, encoder, seed=recipe.seed, std=0.02, **size)
    model = AutoModelForCausalLM.from_pretrained(encoder)
    embeddings = decoder.embedding.weight.detach().float()
    places = places_for(recipe.rate, HEADS, recipe.layers)
    draw_reading_heads(model, embeddings, places, recipe.seed)
    model.save_pretrained(encoder)
    pcc = init.fresh(str(encoder), decoder, [1], folder, segment_length=segment_length, seed=recipe.seed)
    point_memory_tokens(pcc.encoder.body, pcc.encoder.memory_ids, 1, places)
    return _save_start(pcc, recipe, float(embeddings.std()), folder)


def start_large(decoder: Decoder, folder: Path, recipe: CompressorRecipe) -> Path:
    """Write a checkpoint at `FIRST_RATE`, from which a compressor of that rate or a higher one can be trained."""
    sizes: dict[str, Any] = {"segment_length": SEGMENT, "lora_rank": recipe.lora_rank, "seed": recipe.seed}
    pcc = init.fresh(decoder.name, decoder, [FIRST_RATE], folder, **sizes)
    lora = {**(pcc.config.encoder.lora or {}), "lora_dropout": 0.0}  # see `start_lite`
    pcc.config = pcc.config.model_copy(update={"encoder": pcc.config.encoder.model_copy(update={"lora": lora})})
    return _save_start(pcc, recipe, float(decoder.embedding.weight.float().std()), folder)


def _save_start(pcc: PCC, recipe: CompressorRecipe, std: float, folder: Path) -> Path:
    """Let the converter pass the token's channels on, at the scale (`std`) of the decoder's embeddings, and save."""
    converter, size = pcc.converter, pcc.converter.decoder_size
    with torch.no_grad():
        converter.dense_in.weight.zero_()
        converter.dense_in.weight[:, :size] = torch.eye(size)
        converter.dense_in.bias.fill_(LINEAR)
        converter.dense_out.weight.copy_(std * torch.eye(size))
        converter.dense_out.bias.fill_(-LINEAR * std)
    pcc.config = pcc.config.model_copy(update={"boundaries": recipe.boundaries, "encoder_bos": False})
    checkpoint.save(pcc, folder)
    return folder


def at_rate(start: Path, folder: Path, decoder: Decoder, rate: int, final_rate: int) -> Path:
    """Write a copy of a checkpoint whose memory tokens stand for `rate` tokens each, to be trained on.

    Those of a Lite are pointed at the tokens they stand for; a Large's learn it.
    """
    pcc = checkpoint.load(str(start), decoder, adapt=True).float()
    if pcc.config.encoder.kind == "full":
        places = places_for(final_rate, HEADS, pcc.encoder.body.config.n_layer)
        point_memory_tokens(pcc.encoder.body, pcc.encoder.memory_ids, rate, places)
    pcc.config = pcc.config.model_copy(update={"rate": rate, "rates": (rate,)})
    checkpoint.save(init.adapted(pcc, decoder, folder), folder)
    return folder
