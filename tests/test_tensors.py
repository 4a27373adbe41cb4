"""Weights that are lost, not finite or of another kind are one sentence, wherever they come in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import pcc_bench
from pcc_bench.core import memory_file
from pcc_bench.core.checkpoint_files import check_complete, is_finite, read_safetensors
from pcc_bench.core.errors import UsageError
from pcc_bench.host import validate
from pcc_bench.host.compressing import compress, open_compressor
from pcc_bench.model import checkpoint, init, published

Change = Callable[[dict[str, torch.Tensor], str], None]


def _nan(state: dict[str, torch.Tensor], name: str) -> None:
    state[name].view(-1)[3] = float("nan")


def _infinite(state: dict[str, torch.Tensor], name: str) -> None:
    state[name].view(-1)[-1] = -float("inf")


def _int8(state: dict[str, torch.Tensor], name: str) -> None:
    state[name] = state[name].to(torch.int8)


def _change(folder: Path, name: str, change: Change) -> None:
    state = load_file(folder / "model.safetensors")
    change(state, name)
    save_file(state, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(("change", "says"), [(_nan, "not finite"), (_infinite, "not finite"), (_int8, "holds int8")])
def test_a_converter_that_is_not_finite_or_no_float_is_refused(
    models: Path, tmp_path: Path, change: Change, says: str
) -> None:
    folder = tmp_path / "pcc"
    shutil.copytree(models / "pcc", folder)
    _change(folder, "converter.dense_in.weight", change)
    with pytest.raises(UsageError, match=rf"converter\.dense_in\.weight .*{says}|converter\.dense_in\.weight {says}"):
        open_compressor(str(folder), str(models / "llama"), "cpu", "float32", {})
    report = validate.validate("pcc", f"pretrained={folder},decoder={models / 'llama'}", "")
    assert [check.what for check in report.checks if not check.holds] == ["weights"]


@pytest.mark.parametrize("change", [_nan, _infinite])
def test_a_decoder_that_is_not_finite_is_refused(models: Path, tmp_path: Path, change: Change) -> None:
    shutil.copytree(models / "llama", tmp_path / "llama")
    _change(tmp_path / "llama", "model.layers.1.mlp.up_proj.weight", change)
    with pytest.raises(UsageError, match=r"up_proj\.weight has values that are not finite"):
        init.open_decoder(str(tmp_path / "llama"))


def _lose(state: dict[str, torch.Tensor], name: str) -> None:
    del state[name]


def test_a_decoder_that_lacks_a_tensor_is_refused_instead_of_drawn(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "llama", tmp_path / "llama")
    _change(tmp_path / "llama", "model.norm.weight", _lose)
    for read in (check_complete, init.open_decoder):
        with pytest.raises(UsageError, match=r"lacks 1 tensors of its configuration.*\(model\.norm\.weight first\)"):
            read(str(tmp_path / "llama"))


def test_whole_decoders_of_every_family_are_complete(models: Path) -> None:
    for folder in sorted(models.iterdir()):
        if (folder / "tokenizer.json").is_file() and not (folder.name.startswith("pcc")):
            check_complete(folder)


def test_a_memory_that_is_not_finite_names_its_checkpoint(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compressor = open_compressor(str(models / "pcc"), str(models / "llama"), "cpu", "float32", {})
    compressor.pcc.converter.dense_out.bias.data[0] = float("inf")  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=rf"pcc \({models / 'pcc'}\) makes memories with values that are not"):
        compress("It rains.", compressor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_finite_is_told_in_every_dtype(dtype: torch.dtype) -> None:
    values = torch.ones(3, 5)
    assert is_finite(values.to(dtype)) and is_finite(torch.empty(0).to(dtype))
    values[1, 2] = float("nan")
    assert not is_finite(values.to(dtype))


@pytest.mark.parametrize("name", ["p" * 5_000, "a\0b", ""])
def test_weights_in_a_place_that_can_be_none_are_missing(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is missing: the checkpoint is incomplete"):
        read_safetensors(tmp_path / name / "model.safetensors")


SHIPPED = Path(pcc_bench.__file__).parent / "lab" / "models"
RIVALS = {
    "autocompressor": "adapter_model.safetensors",
    "cocom": "model.safetensors",
    "icae": "model.safetensors",
    "llmlingua2": "model.safetensors",
}


@pytest.fixture(scope="module")
def entrances(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Callable[[], object]]]:
    """Every kind of file that tensors come in by, with what reads it."""
    root = tmp_path_factory.mktemp("entrances")
    for name in ("pcc", "pcc-large", "llama", "encoder"):
        shutil.copytree(models / name, root / name)
    decoder = init.open_decoder(str(root / "llama"))
    pcc = checkpoint.load(str(root / "pcc"), decoder)
    published.export(pcc, root / "published-4x")
    compressor = open_compressor(str(root / "pcc"), None, "cpu", "float32", {})
    memory_file.save(compress("It rains.", compressor), compressor, root / "memory.safetensors")
    made: dict[str, tuple[Path, Callable[[], object]]] = {
        name: (root / name / "model.safetensors", partial(checkpoint.load, str(root / name), decoder))
        for name in ("pcc", "pcc-large", "published-4x")
    }
    made["decoder"] = (root / "llama" / "model.safetensors", partial(init.open_decoder, str(root / "llama")))
    made["memory"] = (root / "memory.safetensors", partial(memory_file.load, root / "memory.safetensors", decoder))
    shutil.copytree(SHIPPED / "lab-llama", root / "rivals" / "lab-llama")
    for method, file in RIVALS.items():
        (source,) = SHIPPED.glob(f"{method}-lab*")
        shutil.copytree(source, folder := root / "rivals" / source.name)
        words = (str(folder), str(root / "rivals" / "lab-llama"), "cpu", "float32", {}, method)
        made[method] = (folder / file, partial(open_compressor, *words))
    return made


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_tensor_that_is_not_finite_comes_in_anywhere(
    entrances: dict[str, tuple[Path, Callable[[], object]]], data: st.DataObject
) -> None:
    path, read = entrances[data.draw(st.sampled_from(sorted(entrances)))]
    whole, state = path.read_bytes(), load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    name = data.draw(st.sampled_from(sorted(key for key, value in state.items() if value.numel())))
    state[name].view(-1)[data.draw(st.integers(0, state[name].numel() - 1))] = data.draw(
        st.sampled_from([float("nan"), float("inf"), -float("inf")])
    )
    save_file(state, path, metadata)
    try:
        with pytest.raises(UsageError, match="not finite numbers") as error:
            read()
        assert name.rpartition(".")[2] in str(error.value) and "\n" not in str(error.value)
    finally:
        path.write_bytes(whole)
    read()


@pytest.mark.parametrize("method", [*RIVALS, "pcc", "pcc-large", "decoder"])
def test_a_matrix_that_is_flat_is_one_sentence(
    entrances: dict[str, tuple[Path, Callable[[], object]]], method: str
) -> None:
    path, read = entrances[method]
    whole, state = path.read_bytes(), load_file(path)
    matrices = [name for name, value in state.items() if value.dim() == 2]
    try:
        for name in (matrices[0], matrices[-1]):
            for shape in ((-1,), (1, *state[name].shape)):
                save_file({**state, name: state[name].reshape(shape).clone()}, path, {"format": "pt"})
                with pytest.raises(UsageError) as error:
                    read()
                assert "\n" not in str(error.value)
    finally:
        path.write_bytes(whole)
