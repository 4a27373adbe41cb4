"""Checkpoints of adapters only: each names its base model, and is what the whole checkpoint is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from toy_cocom import RANK, WRAPPED, cocom_state, write_cocom
from transformers import AutoModelForCausalLM, AutoTokenizer

from pcc_bench.baselines.autocompressor.files import export_autocompressor
from pcc_bench.baselines.cocom.files import export_cocom
from pcc_bench.baselines.icae.files import IcaeConfig, export_icae
from pcc_bench.baselines.weights import lora_of
from pcc_bench.core import memory_file, registry, shipped, tiny
from pcc_bench.core.errors import UsageError
from pcc_bench.host import models as lm_models
from pcc_bench.host.lm import CompressedLM
from pcc_bench.model import init
from pcc_bench.tasks import metadata

TEXTS = ["Rain.", "", "Zoë said “grüß Gott” 日本語.", "Rain fell on the mill and on the river. " * 9]
SUMMARY = 5


def load(method: str, folder: Path, **options: Any) -> CompressedLM:
    model: CompressedLM = getattr(lm_models, method)(
        pretrained=str(folder), device="cpu", dtype=options.pop("dtype", "float32"), **options
    )
    return model


def vectors(model: CompressedLM) -> torch.Tensor:
    return torch.cat([memory.vectors for memory in model.compressor.compress(TEXTS) if memory.vectors is not None])


def logits(model: CompressedLM) -> torch.Tensor:
    found: torch.Tensor = model.frozen.model(torch.arange(5, 40)[None]).logits
    return found


def copied(base: Path, folder: Path, tied: bool = False) -> Path:
    """A base model beside the checkpoints, its vocabulary head tied to its input embedding or not."""
    shutil.copytree(base, folder)
    if tied:
        model = AutoModelForCausalLM.from_pretrained(base, tie_word_embeddings=True, dtype=torch.float32)
        model.tie_weights()
        model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["own head", "tied head"])
def base(request: pytest.FixtureRequest, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(models / "llama", tmp_path_factory.mktemp("lab") / "base", request.param)


def narrow(models: Path, folder: Path) -> str:
    """A model of another width."""
    return str(tiny.make_model("llama", AutoTokenizer.from_pretrained(models / "llama"), folder / "narrow", width=48))


def trained(base: Path, targets: list[str], seed: int = 0) -> nn.Module:
    """A base model that peft has given adapters and, as AutoCompressor has them, summary tokens."""
    torch.manual_seed(seed)
    model = init.open_decoder(str(base)).model
    model.embed_summary = nn.Embedding(SUMMARY, model.config.hidden_size)
    config = LoraConfig(r=RANK, lora_alpha=16, target_modules=targets, modules_to_save=["embed_summary"])
    adapted: nn.Module = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.1)
    return adapted


# ---------------------------------------------------------------- AutoCompressor


def test_what_peft_saves_of_an_autocompressor_is_merged_into_the_base_it_names(base: Path) -> None:
    model = trained(base, ["q_proj", "k_proj", "v_proj", "o_proj"])
    folder = base.parent / "peft"
    model.peft_config["default"].base_model_name_or_path = "../base"
    model.save_pretrained(folder)
    (folder / "config.json").write_text('{"segment_length": 30, "accumulate_summary": false}')
    found = load("autocompressor", folder)
    ids = torch.arange(5, 40)[None]
    torch.testing.assert_close(found.frozen.model(ids).logits, model(ids).logits, atol=3e-5, rtol=0)
    assert torch.equal(found.compressor.encoder.summary, model.embed_summary.weight)
    assert found.compressor.options() == {"segment_length": 30, "accumulate": False}
    assert metadata.tokenizer_name({"pretrained": str(folder)}, "x", "y") == str((folder / "../base").resolve())
    assert torch.equal(vectors(load("autocompressor", folder, decoder=str(base))), vectors(found))


def test_an_exported_autocompressor_is_what_peft_saves(base: Path) -> None:
    model = trained(base, ["q_proj", "v_proj"])
    model.save_pretrained(base.parent / "saved")
    lora = {name.removeprefix("base_model.model."): pair for name, pair in lora_of(model).items()}
    summary = model.embed_summary.weight
    folder = base.parent / "exported"
    export_autocompressor(folder, lora, summary, "../base", alpha=16, segment_length=40, dtype=torch.float32)
    one, other = (load_file(base.parent / name / "adapter_model.safetensors") for name in ("saved", "exported"))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    found = load("autocompressor", folder)
    assert found.compressor.options() == {"segment_length": 40, "accumulate": True}
    expected = load("autocompressor", base.parent / "saved", decoder=str(base), segment_length=40)
    assert torch.equal(vectors(found), vectors(expected))
    assert found.fingerprint() == expected.fingerprint()


def test_a_memory_of_an_adapter_is_refused_by_the_plain_base_and_by_another_adapter(base: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        model = trained(base, ["q_proj", "v_proj"], seed)
        lora = {name.removeprefix("base_model.model."): pair for name, pair in lora_of(model).items()}
        folder = base.parent / f"seed{seed}"
        export_autocompressor(folder, lora, model.embed_summary.weight, "../base", alpha=16, segment_length=40)
    first = load("autocompressor", base.parent / "seed1")
    memory_file.save(first.compressor.compress(["Rain."])[0], first.compressor, tmp_path / "memory.safetensors")
    assert memory_file.load(tmp_path / "memory.safetensors", first.frozen).memory.slots == SUMMARY
    for decoder in (init.open_decoder(str(base)), load("autocompressor", base.parent / "seed2").frozen):
        with pytest.raises(UsageError, match="was made for the decoder"):
            memory_file.load(tmp_path / "memory.safetensors", decoder)


def test_a_damaged_adapter_is_refused_with_the_reason(models: Path, tmp_path: Path) -> None:
    model = trained(models / "llama", ["q_proj", "v_proj"])
    lora = {name.removeprefix("base_model.model."): pair for name, pair in lora_of(model).items()}
    folder, base = tmp_path / "x", str(models / "llama")
    export_autocompressor(folder, lora, model.embed_summary.weight, base, alpha=16, segment_length=40)
    config = json.loads((folder / "adapter_config.json").read_text())
    state = load_file(folder / "adapter_model.safetensors")

    def refuse(says: str, decoder: str | None = base, without: str = "", **changes: Any) -> None:
        (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
        save_file({k: v for k, v in state.items() if k != without}, folder / "adapter_model.safetensors")
        with pytest.raises(UsageError, match=says):
            load("autocompressor", folder, decoder=decoder)

    refuse("names no base model: pass decoder=", None, base_model_name_or_path=None)
    refuse("use_dora=True is not supported: merge the adapter", use_dora=True)
    refuse("does not save embed_summary: it is no AutoCompressor's adapter", modules_to_save=None)
    refuse("adapter_config.json can't be used: r: ", r="many")
    refuse(f"has rank {RANK}, adapter_config.json says r=3: they do not go together", r=3)
    refuse(
        r"lacks 1 tensors \(base_model.model.embed_summary.weight first\)",
        without=f"{'base_model.model.'}embed_summary.weight",
    )
    refuse("tensors that do not belong there .*v_proj", target_modules=["q_proj"])
    refuse("was made for another base model", narrow(models, tmp_path))


# ---------------------------------------------------------------- COCOM


def split(base: Path) -> tuple[dict[str, tuple[torch.Tensor, torch.Tensor]], dict[str, torch.Tensor]]:
    """A whole COCOM's adapters, and the rows of its special tokens."""
    state = cocom_state(base)
    sides = {side: {k: v for k, v in state.items() if f"lora_{side}" in k} for side in "AB"}
    lora = {
        key.removeprefix(WRAPPED).removesuffix(".lora_A.default.weight"): (value, sides["B"][key.replace("_A", "_B")])
        for key, value in sides["A"].items()
    }
    tied = json.loads((base / "config.json").read_text())["tie_word_embeddings"]
    tables = {"embed_tokens": "model.embed_tokens.weight", **({} if tied else {"lm_head": "lm_head.weight"})}
    return lora, {name: state[f"{WRAPPED}{key}"][-4:] for name, key in tables.items()}


def test_a_cocom_without_its_base_is_what_the_whole_one_is(base: Path) -> None:
    lora, rows = split(base)
    folder = base.parent / "cocom"
    export_cocom(folder, lora, rows, "../base", rate=4, document_length=128, dtype=torch.bfloat16)
    small = (folder / "model.safetensors").stat().st_size
    expected = load("cocom", write_cocom(base.parent / "whole", base), dtype="bfloat16")
    found = load("cocom", folder, dtype="bfloat16")
    assert small < 0.5 * sum(path.stat().st_size for path in (base.parent / "whole").glob("*.safetensors"))
    assert torch.equal(logits(found), logits(expected))
    assert torch.equal(vectors(found), vectors(expected))
    assert found.fingerprint() == expected.fingerprint()
    assert metadata.tokenizer_name({"pretrained": str(folder)}, "x", "y") == str((folder / "../base").resolve())


def test_a_cocom_with_a_part_of_its_base_is_refused(models: Path, tmp_path: Path) -> None:
    lora, rows = split(models / "llama")
    folder, base = tmp_path / "x", str(models / "llama")
    export_cocom(folder, lora, rows, base, rate=4, document_length=128)
    state = load_file(folder / "model.safetensors")

    def refuse(says: str, changed: dict[str, torch.Tensor], decoder: str = base) -> None:
        save_file(changed, folder / "model.safetensors")
        with pytest.raises(UsageError, match=says):
            load("cocom", folder, decoder=decoder)

    norm = f"{WRAPPED}model.norm.weight"
    says = r"has 1 tensors of its base model and lacks \d+ \(.*lm_head.weight first\): a checkpoint has all of them"
    refuse(says, {**state, norm: torch.ones(64)})
    no_rows = {key: value for key, value in state.items() if key != "special_tokens.lm_head"}
    refuse(r"lacks 1 tensors \(special_tokens.lm_head first\)", no_rows)
    refuse(
        "special_tokens.embed_tokens is .*the decoder's is", {**state, "special_tokens.embed_tokens": torch.ones(3, 64)}
    )
    name = next(key for key in state if ".lora_" in key)
    refuse(f"lacks 1 tensors .{name}", {key: value for key, value in state.items() if key != name})
    refuse("was made for another base model", state, narrow(models, tmp_path))


# ---------------------------------------------------------------- ICAE


def icae_parts(base: Path) -> tuple[dict[str, tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
    model = trained(base, ["q_proj", "v_proj"])
    lora = {name.removeprefix("base_model.model."): pair for name, pair in lora_of(model).items()}
    return lora, torch.randn(8 + 3, model.config.hidden_size)


def test_an_icae_may_name_its_base_and_how_it_was_trained(base: Path) -> None:
    lora, table = icae_parts(base)
    folder = base.parent / "icae"
    config = IcaeConfig(
        base_model_name_or_path="../base", rate=3, max_spans=7, lora_alpha=16, opening="Q:", closing="A:"
    )
    export_icae(folder, lora, table, config, torch.float32)
    found = load("icae", folder)
    assert found.frozen.name == str(base)
    options = found.compressor.options()
    assert options == {
        "version": 2,
        "use": "ft",
        **config.model_dump(include={"rate", "max_spans", "lora_alpha", "opening", "closing"}),
    }
    assert metadata.tokenizer_name({"pretrained": str(folder)}, "x", "y") == str((folder / "../base").resolve())
    given = load("icae", folder, rate=2, use="ae", opening="", decoder=str(base)).compressor.options()
    assert (given["rate"], given["use"], given["opening"], given["closing"]) == (2, "ae", "", "A:")


def test_a_shipped_part_is_named_without_its_folder_and_without_its_base(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = copied(models / "llama", tmp_path / "lab-base")
    lora, table = icae_parts(base)
    export_icae(tmp_path / "icae-lab-4x", lora, table, IcaeConfig(base_model_name_or_path="../lab-base"))
    summary = table[:SUMMARY]
    export_autocompressor(tmp_path / "auto-lab-4x", lora, summary, "../lab-base", alpha=8, segment_length=40)
    lora, rows = split(base)
    export_cocom(tmp_path / "cocom-lab-4x", lora, rows, "../lab-base", rate=4, document_length=64)
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    for method, name in (("icae", "icae-lab-4x"), ("autocompressor", "auto-lab-4x"), ("cocom", "cocom-lab-4x")):
        assert registry.get(method).decoder_path(name, None) == str(base)
        model = load(method, Path(name))
        assert Path(model.frozen.name) == base
        assert model.compressor.compress(["Rain fell on the mill."])[0].slots
    assert shipped.located(load("icae", Path("icae-lab-4x"), decoder="lab-base").frozen.name) == str(base)


def test_a_configuration_that_is_not_icaes_is_not_read_and_a_wrong_one_is_refused(models: Path, tmp_path: Path) -> None:
    lora, table = icae_parts(models / "llama")
    export_icae(tmp_path, lora, table, IcaeConfig(base_model_name_or_path=str(models / "llama")))
    (tmp_path / "config.json").write_text('{"model_type": "llama", "rate": 2}')
    with pytest.raises(UsageError, match="icae needs its base model"):
        load("icae", tmp_path)
    assert load("icae", tmp_path, decoder=str(models / "llama")).compressor.options()["rate"] == 4
    (tmp_path / "config.json").write_text('{"model_type": "icae", "rates": 2}')
    with pytest.raises(UsageError, match=r"config.json can't be used: unknown key 'rates'"):
        load("icae", tmp_path, decoder=str(models / "llama"))
