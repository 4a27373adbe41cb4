"""Building the lab: what is made, from what, and what stops it; recording, checking and shipping what was made."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedModel, Trainer
from typer.testing import CliRunner

from pcc_bench import lab as parts
from pcc_bench.cli import app
from pcc_bench.core import shipped
from pcc_bench.core.errors import UsageError
from pcc_bench.lab import DecoderRecipe, build, check, compressors, decoders, skills, stages
from pcc_bench.model import checkpoint
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
WEIGHTS = "model.safetensors"
DISK = r"No space left.*: make room .*and run the same command again"


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    """Parts that take seconds."""
    optimisation = stages.optimisation
    with pytest.MonkeyPatch.context() as patch:
        for module in (parts, build, check):
            patch.setattr(module, "PARTS", PARTS)
        for name, value in {"DOCUMENTS": 30, "ROWS": 8, "HELD_OUT_DOCUMENTS": 2}.items():
            patch.setattr(stages, name, value)
        few = {"batch_size": 2, "micro_batch_size": 2}
        patch.setattr(stages, "optimisation", lambda *given: optimisation(*given) | few)
        patch.setattr(stages, "FIRST_STEPS", 1)
        patch.setattr(stages, "GROWING", ((4, 1),))
        patch.setattr(stages, "LENGTHENING", ((4, 1),))
        patch.setattr(decoders, "TOKENIZER_LESSONS", 300)
        patch.setattr(compressors, "DOCUMENTS", 2)
        yield


@pytest.fixture(scope="module")
def lab(small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab of tiny parts, built once."""
    folder = tmp_path_factory.mktemp("lab")
    assert build.build(folder) == list(PARTS)
    return folder


def begun(lab: Path, folder: Path, *names: str) -> Path:
    """A folder with some parts of the lab and the training data."""
    for name in (*names, "work/data"):
        shutil.copytree(lab / name, folder / name)
    return folder


def weights(folder: Path, name: str) -> bytes:
    return (folder / name / WEIGHTS).read_bytes()


# What is made


def test_what_a_part_needs_is_built_before_it(small: None) -> None:
    assert build.in_order(["pcc-lab-4x-phi3"]) == ["lab-llama", "pcc-lab-4x", "lab-phi3", "pcc-lab-4x-phi3"]


def test_finished_parts_are_left_alone_and_say_how_they_were_made(lab: Path) -> None:
    assert build.build(lab) == []
    card = json.loads((lab / "pcc-lab-4x" / "part.json").read_text())
    assert set(card["tokens_seen"]) == {"1x", "2x", "tuning"}
    assert card["seconds"] >= 0
    assert PccConfig.read(lab / "pcc-lab-4x").lab
    assert PccConfig.read(lab / "pcc-lab-large-4x").encoder.base == "../lab-llama"
    assert AutoTokenizer.from_pretrained(lab / "lab-llama").convert_tokens_to_ids("<ae>") is not None


def test_a_compressor_goes_to_another_decoder_converter_first(lab: Path) -> None:
    card = json.loads((lab / "pcc-lab-4x-phi3" / "part.json").read_text())
    assert set(card["tokens_seen"]) == {"converter", "2x", "tuning"}
    assert card["reconstruction"]["model"] == "pcc-lab-4x-phi3"
    config = PccConfig.read(lab / "pcc-lab-4x-phi3")
    assert (config.decoder.name, config.decoder.hidden_size) == ("../lab-phi3", 64)
    assert config.rate == 2
    assert not (lab / "pcc-lab-4x-phi3" / "pretrained").exists()


# What stops it


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


def no_space_for_weights(*_: Any, **__: Any) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("name", "owner", "method", "fails", "where"),
    [
        ("lab-llama", Trainer, "_save_optimizer_and_scheduler", no_space, "checkpoint-2$"),
        ("lab-llama", PreTrainedModel, "save_pretrained", no_space_for_weights, "lab/lab-llama$"),
        ("pcc-lab-4x", Trainer, "_save_optimizer_and_scheduler", no_space, "2x/states/checkpoint-2$"),
        ("pcc-lab-4x", checkpoint, "save_file", no_space_for_weights, r"lab/pcc-lab-4x/\.model\.safetensors\..*part$"),
    ],
    ids=["decoder", "decoder's export", "compressor's stage", "compressor's export"],
)
def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on(
    lab: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    owner: Any,
    method: str,
    fails: Callable[[], None],
    where: str,
) -> None:
    folder = begun(lab, tmp_path / "lab", *parts.needs(name))
    whole = getattr(owner, method)

    def saved(*arguments: Any, **options: Any) -> Any:
        if any(isinstance(given, str | Path) and re.search(where, str(given)) for given in arguments):
            fails()
        return whole(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, saved)
        with pytest.raises(UsageError, match=DISK) as told:
            build.build(folder, [name])
    assert "\n" not in str(told.value)
    assert build.read_card(folder, name) is None
    assert build.build(folder, [name]) == [name]
    assert weights(folder, name) == weights(lab, name), "as if nothing had happened"


def test_an_interrupted_part_goes_on_to_the_same_weights_and_counts_its_time(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(lab, tmp_path / "lab", "lab-llama")
    train, started = compressors.train, []

    def interrupted(recipe: Any, stage: Path) -> Any:
        started.append(stage.name)
        if stage.name == "tuning":
            raise KeyboardInterrupt
        return train(recipe, stage)

    monkeypatch.setattr(compressors, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build.build(folder, ["pcc-lab-4x"])
    assert started == ["1x", "2x", "tuning"]
    path = folder / "work" / "pcc-lab-4x" / "time.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"since": told["since"] - 1000}))
    monkeypatch.undo()
    assert build.build(folder, ["pcc-lab-4x"]) == ["pcc-lab-4x"]
    assert weights(folder, "pcc-lab-4x") == weights(lab, "pcc-lab-4x")
    assert json.loads((folder / "pcc-lab-4x" / "part.json").read_text())["seconds"] >= 1000


def test_a_part_of_another_recipe_is_left_alone_and_made_anew_if_asked(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(lab, tmp_path / "lab", "lab-phi3")
    monkeypatch.setitem(PARTS, "lab-phi3", PARTS["lab-phi3"].model_copy(update={"seed": 1}))
    with pytest.raises(UsageError, match=r"lab-phi3 was made by another recipe.*--again"):
        build.build(folder, ["lab-phi3"])
    assert build.build(folder, ["lab-phi3"], again=True) == ["lab-phi3"]


def test_a_part_of_another_world_is_left_alone(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "VERSION", 0)
    with pytest.raises(UsageError, match=r"lab-llama was made by another recipe or for another world"):
        build.build(lab, ["lab-llama"])


def test_an_adaptation_needs_the_checkpoint_before_fine_tuning(lab: Path, tmp_path: Path) -> None:
    folder = begun(lab, tmp_path / "lab", "lab-llama", "lab-phi3", "pcc-lab-4x")
    shutil.rmtree(folder / "pcc-lab-4x" / "pretrained")
    with pytest.raises(UsageError, match=r"pcc-lab-4x/pretrained is missing.*delete the folder .*pcc-lab-4x and run"):
        build.build(folder, ["pcc-lab-4x-phi3"])


def test_unknown_parts_missing_records_and_damaged_cards_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the lab has no part 'pcc-lab-5x'; it has lab-llama"):
        build.build(tmp_path, ["pcc-lab-5x"])
    with pytest.raises(UsageError, match=r"lab\.json is missing"):
        check.check(tmp_path)
    with pytest.raises(UsageError, match="no finished part"):
        check.record(tmp_path)
    (tmp_path / "lab-llama").mkdir()
    (tmp_path / "lab-llama" / "part.json").write_text("{")
    with pytest.raises(UsageError, match=r"part\.json is not valid JSON .*delete the folder"):
        build.build(tmp_path, ["lab-llama"])


# Recording and checking


@pytest.fixture(scope="module")
def recorded(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab, measured on few rows."""
    folder = shutil.copytree(lab, tmp_path_factory.mktemp("recorded") / "lab", ignore=shutil.ignore_patterns("work"))
    names = ["lab-llama", "pcc-lab-4x", "pcc-lab-4x-phi3"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "CHECK_ROWS", 8)
        patch.setattr(check, "CHECK_DOCUMENTS", 2)
        patch.setattr(check, "tracking", lambda folder, name: skills.tracking(folder, name, 4))
        patch.setattr(check, "measure", lambda folder, name, *_: skills.measure(folder, name, 8, 2))
        check.record(folder, names)
        assert check.check(folder) == []
    return folder


@pytest.fixture
def unmeasured(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be measured, and nothing differs."""
    monkeypatch.setattr(check, "measure", lambda *_: pytest.fail("measured again"))
    figures = check.read_record(recorded).check
    monkeypatch.setattr(
        check, "_quick", lambda _, names: tuple(one for name in names for one in check._of(name, figures))
    )


def test_each_part_is_measured_with_its_own_decoder(recorded: Path) -> None:
    record = check.read_record(recorded)
    assert {figure.model for figure in record.measured} == {
        "lab-llama, full-context",
        "lab-llama, no-context",
        "pcc-lab-4x",
        "pcc-lab-4x-phi3",
    }
    table = check.table(record)
    assert "reconstruction bleu" in table.columns
    assert table.loc["pcc-lab-4x-phi3", "reconstruction bleu"] != "-", "measured before fine-tuning"


def test_what_is_recorded_is_not_measured_again(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = check.read_record(recorded)
    monkeypatch.setattr(check, "measure", lambda *_: pytest.fail("measured again"))
    assert check.record(recorded, list(known.parts)) == known


def test_a_changed_weight_is_found(recorded: Path, tmp_path: Path, unmeasured: None) -> None:
    folder = shutil.copytree(recorded, tmp_path / "lab")
    path = folder / "pcc-lab-4x" / WEIGHTS
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.write_bytes(changed)
    assert check.check(folder) == [f"{path} has changed"]
    path.unlink()
    assert check.check(folder) == [f"{path} is missing"]


def test_another_generator_is_found(recorded: Path, monkeypatch: pytest.MonkeyPatch, unmeasured: None) -> None:
    data = check.read_record(recorded).data
    monkeypatch.setattr(check, "VERSION", 99)
    monkeypatch.setattr(check, "_world", lambda: data | {"squad": "other"})
    assert check.check(recorded) == [
        f"the record is of version {parts.VERSION} of the world, this generator is version 99",
        "the world's squad rows have changed",
    ]


def test_a_changed_recipe_is_found(recorded: Path, monkeypatch: pytest.MonkeyPatch, unmeasured: None) -> None:
    monkeypatch.setitem(PARTS, "lab-llama", TINY.model_copy(update={"seed": 1}))
    assert "lab-llama: its recipe, or what it is made from, has changed" in check.check(recorded)


# Shipping


def test_what_ships_goes_without_the_checkpoint_before_fine_tuning(
    recorded: Path, tmp_path: Path, unmeasured: None
) -> None:
    target = tmp_path / "models"
    size = build.ship(recorded, target, ["lab-llama", "pcc-lab-4x"])
    assert size == sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    assert not (target / "pcc-lab-4x" / "pretrained").exists()
    assert weights(target, "pcc-lab-4x") == weights(recorded, "pcc-lab-4x")
    record = check.record(target, figures=recorded)
    assert record.measured == check.read_record(recorded).measured
    assert set(record.parts) == {"lab-llama", "pcc-lab-4x"}
    assert check.check(target) == []


def test_a_checkpoint_that_was_taken_away_is_not_asked_for_again(recorded: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(recorded, tmp_path / "lab")
    shutil.rmtree(folder / "pcc-lab-4x" / "pretrained")
    record = check.record(folder, ["pcc-lab-4x"])
    assert [figure for figure in record.measured if figure.task == "reconstruction"], "the figure stays"
    assert not [figure for figure in record.check if figure.task == "reconstruction"]


def test_what_does_not_fit_or_does_not_ship_is_refused(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, message in {
        "pcc-lab-4x-phi3": "does not ship; lab-llama, .* do",
        "pcc-lab-16x": "has no finished pcc-lab-16x: 'pcc-bench lab build pcc-lab-16x --output .*' makes it",
    }.items():
        with pytest.raises(UsageError, match=message):
            build.ship(lab, tmp_path / "models", [name])
    monkeypatch.setattr(build, "LIMIT", 1000)
    with pytest.raises(UsageError, match="more than the 0 that may ship: take a part out"):
        build.ship(lab, tmp_path / "models", ["lab-llama"])
    assert not (tmp_path / "models").exists()


def test_the_list_says_what_is_built_and_what_ships(lab: Path) -> None:
    done = CliRunner().invoke(app, ["lab", "ls", "--folder", str(lab)])
    assert done.exit_code == 0
    _, _, *lines = [line for line in done.output.splitlines() if line.startswith("|")]
    rows = {name: cells for name, *cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)}
    assert list(rows) == build.in_order(PARTS), "in the order of building"
    assert rows["pcc-lab-4x"][0] == "yes"
    assert rows["pcc-lab-4x"][2:4] == ["yes", "lab-llama"]
    assert rows["pcc-lab-4x-phi3"][2:4] == ["no", "pcc-lab-4x, lab-phi3"]
    assert "5 of 5 parts are built" in done.output


@pytest.mark.parametrize("name", ["pcc-lab-4x/pretrained", "pcc-lab-4x-completion", "lab-nothing"])
def test_a_part_that_does_not_ship_says_how_it_is_made(name: str) -> None:
    part = name.partition("/")[0]
    with pytest.raises(UsageError, match=rf"'pcc-bench lab build {part} --output lab' makes it .* named lab/{name}$"):
        shipped.located(name)


def test_a_folder_or_a_hub_id_is_no_part_that_does_not_ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pcc-lab-5x").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("pcc-lab-5x", "some-lab/model", "label-x", "gpt2", ""):
        assert shipped.located(name) == name
