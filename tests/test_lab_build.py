"""Building the lab: what is made, from what, and what stops it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcc_bench.lab import build, compressors, data, decoders, measure, parts, stages
from pcc_bench.lab.decoders import DecoderRecipe
from pcc_bench.model.config import PccConfig

TINY = DecoderRecipe(family="llama", width=128, layers=2, vocabulary=600, steps=2, tokens=256)
PARTS: dict[str, parts.PartRecipe] = {
    "lab-llama": TINY,
    "lab-phi3": TINY.model_copy(update={"family": "phi3", "width": 64, "vocabulary": 500}),
    "pcc-lab-4x": parts.CompressorRecipe(rate=2, layers=1, pretraining=3, tuning=1, keep_pretrained=True),
    "pcc-lab-large-4x": parts.CompressorRecipe(rate=4, kind="large", lora_rank=2, pretraining=3, tuning=1),
    "pcc-lab-4x-phi3": parts.AdaptationRecipe(
        start="pcc-lab-4x", decoder="lab-phi3", converting=1, pretraining=4, tuning=1
    ),
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A lab of tiny parts, built once."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (parts, build):
            patch.setattr(module, "PARTS", PARTS)
        for name, value in {"DOCUMENTS": 30, "ROWS": 40, "HELD_OUT_DOCUMENTS": 10}.items():
            patch.setattr(data, name, value)
        patch.setattr(decoders, "TOKENIZER_LESSONS", 300)
        patch.setattr(stages, "FIRST_STEPS", 1)
        patch.setattr(stages, "GROWING", ((4, 1),))
        patch.setattr(stages, "LENGTHENING", ((4, 1),))
        patch.setattr(compressors, "DOCUMENTS", 2)
        folder = tmp_path_factory.mktemp("lab")
        assert build.build(folder) == list(PARTS)
        yield folder


def test_what_a_part_needs_is_built_before_it(lab: Path) -> None:
    assert build._in_order(["pcc-lab-4x-phi3"]) == ["lab-llama", "pcc-lab-4x", "lab-phi3", "pcc-lab-4x-phi3"]


def test_finished_parts_are_left_alone(lab: Path) -> None:
    assert build.build(lab) == []


def test_a_compressor_goes_to_another_decoder_converter_first(lab: Path) -> None:
    card = json.loads((lab / "pcc-lab-4x-phi3" / "part.json").read_text())
    assert set(card["tokens_seen"]) == {"converter", "2x", "tuning"}
    assert card["reconstruction"]["model"] == "pcc-lab-4x-phi3"
    config = PccConfig.read(lab / "pcc-lab-4x-phi3")
    assert config.decoder.name == "../lab-phi3"
    assert config.decoder.hidden_size == 64
    assert config.rate == 2
    assert not (lab / "pcc-lab-4x-phi3" / "pretrained").exists()


def test_an_adapted_compressor_is_measured_with_its_own_decoder(lab: Path) -> None:
    found = measure.measure(lab, "pcc-lab-4x-phi3", 8, 2)
    assert {figure.model for figure in found} == {"pcc-lab-4x-phi3"}
    assert {figure.task for figure in found} == set(measure.QUESTION_SETS)
