"""The lab: the paper in miniature, really trained, so that every command gives true numbers on a laptop, offline.

Here are its parts: what is trained, from what, and how. Everything about a part follows from its recipe.
"""

from typing import Any, Literal

from pcc_bench.core.documents import Strict, digest
from pcc_bench.core.errors import UsageError
from pcc_bench.model.config import Boundaries
from pcc_bench.tasks.lab.world import VERSION


class PartRecipe(Strict): ...


class DecoderRecipe(PartRecipe):
    family: Literal["llama", "mistral", "qwen2", "phi3"]
    width: int = 256
    layers: int = 6
    heads: int = 4
    vocabulary: int = 2048  # tokens of its own byte-level BPE tokenizer
    steps: int = 2000
    tokens: int = 4096  # tokens a step, padding included
    learning_rate: float = 1.5e-3  # peak
    decay: float = 0.4  # share of the steps, at the end, in which the learning rate falls to 0; before, it is constant
    growing: float = 0.45  # share of the steps over which lessons grow to their full length
    seed: int = 0


class CompressorRecipe(PartRecipe):
    """How a compressor is made: pretraining at rates that double, then fine-tuning on questions."""

    rate: int
    decoder: str = "lab-llama"  # the part that reads its memories
    pretraining: int = 900  # steps of pretraining; 0 for none
    completion: float = 0.3  # share of completion in pretraining; 0 is reconstruction only, 1 completion only
    tuning: int = 200  # steps of fine-tuning
    boundaries: Boundaries = "per_segment"
    # `lite`: a GPT-2 all of which is trained. `large`: the decoder itself with a LoRA.
    kind: Literal["lite", "large"] = "lite"
    layers: int = 4  # of a Lite's encoder
    lora_rank: int = 64  # of a Large's
    keep_pretrained: bool = False  # keep the checkpoint as it was before fine-tuning too; it is measured in any case
    seed: int = 0  # of everything drawn


class AdaptationRecipe(PartRecipe):
    """How a compressor is taken to another decoder: the converter learns first, then all of it, then on questions."""

    start: str  # the compressor, as it was before fine-tuning; its recipe keeps that checkpoint
    decoder: str  # the part that reads the memories from now on
    converting: int = 60  # steps of pretraining in which only the converter learns, which starts anew
    pretraining: int = 400  # steps of pretraining of converter and encoder after that
    completion: float = 0.3  # share of completion in the last of them; reconstruction comes first
    tuning: int = 200  # steps of fine-tuning
    seed: int = 0  # of everything drawn


class RivalRecipe(PartRecipe):
    """How a soft baseline is made: pretraining on text, then fine-tuning on questions, like PCC-Large."""

    method: Literal["icae", "cocom", "autocompressor"]
    rate: int = 4
    decoder: str = "lab-llama"  # the decoder that it adapts
    pretraining: int = 900  # steps of pretraining
    completion: float = 0.3  # share of completion in its last 40 %; AutoCompressor's only objective is to read on
    tuning: int = 200  # steps of fine-tuning
    rank: int = 32  # of the LoRA
    seed: int = 0  # of everything drawn


class ClassifierRecipe(PartRecipe):
    """How the token classifier of LLMLingua-2's kind is made: a BERT that learns which words carry facts."""

    width: int = 128
    layers: int = 2
    heads: int = 2
    vocabulary: int = 2000  # word pieces of its own tokenizer
    steps: int = 300
    batch: int = 16  # passages a step
    learning_rate: float = 1e-3  # peak
    seed: int = 0


PARTS: dict[str, PartRecipe] = {
    "lab-llama": DecoderRecipe(family="llama"),
    "lab-mistral": DecoderRecipe(family="mistral", width=192, layers=5, vocabulary=1536, steps=1500, seed=1),
    "lab-qwen2": DecoderRecipe(family="qwen2", width=224, layers=4, vocabulary=2560, steps=1000, seed=2),
    "lab-phi3": DecoderRecipe(family="phi3", width=192, layers=4, vocabulary=2048, steps=1500, seed=3),
    "pcc-lab-4x": CompressorRecipe(rate=4, keep_pretrained=True),
    "pcc-lab-16x": CompressorRecipe(rate=16),
    "pcc-lab-64x": CompressorRecipe(rate=64),
    "pcc-lab-large-4x": CompressorRecipe(rate=4, kind="large"),
    "pcc-lab-large-16x": CompressorRecipe(rate=16, kind="large"),
    "icae-lab-4x": RivalRecipe(method="icae", rank=64),
    "cocom-lab-4x": RivalRecipe(method="cocom"),
    "autocompressor-lab-4x": RivalRecipe(method="autocompressor"),
    "llmlingua2-lab": ClassifierRecipe(),
    "pcc-lab-4x-no-pretraining": CompressorRecipe(rate=4, pretraining=0),
    "pcc-lab-4x-reconstruction": CompressorRecipe(rate=4, completion=0.0),
    "pcc-lab-4x-completion": CompressorRecipe(rate=4, completion=1.0),
    "pcc-lab-4x-no-boundaries": CompressorRecipe(rate=4, boundaries="none"),
    "pcc-lab-mistral-4x": CompressorRecipe(rate=4, decoder="lab-mistral"),
    "pcc-lab-4x-mistral": AdaptationRecipe(start="pcc-lab-4x", decoder="lab-mistral"),
    "pcc-lab-4x-qwen2": AdaptationRecipe(start="pcc-lab-4x", decoder="lab-qwen2"),
    "pcc-lab-4x-phi3": AdaptationRecipe(start="pcc-lab-4x", decoder="lab-phi3"),
}


def part(name: str) -> PartRecipe:
    if name not in PARTS:
        raise UsageError(f"the lab has no part '{name}'; it has {', '.join(PARTS)}")
    return PARTS[name]


def needs(name: str) -> tuple[str, ...]:
    recipe = part(name)
    return tuple(getattr(recipe, key) for key in ("start", "decoder") if hasattr(recipe, key))


def identity(name: str) -> str:
    """A short hash of all that a part follows from: its recipe, the world, the parts that it needs."""
    state: dict[str, Any] = {"recipe": part(name).model_dump(mode="json"), "world": VERSION}
    state["needs"] = [identity(other) for other in needs(name)]
    return digest(state)
