"""Configurations, headers and files of any shape, as strangers write them: one sentence each, before they cost much."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from pcc_bench.core import memory_file
from pcc_bench.core.checkpoint_files import load_tokenizer, read_torch
from pcc_bench.core.compressor import Memory
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError
from pcc_bench.host import compressing
from pcc_bench.host.store import entry
from pcc_bench.model import checkpoint, init, published

ANY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**9), 10**30),
    st.floats(),
    st.text(max_size=5),
    st.just("p" * 5_000),
    st.lists(st.integers(-1, 10**9), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
DRAWN = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def decoder(models: Path) -> Decoder:
    return init.open_decoder(str(models / "llama"))


@pytest.fixture
def copy(models: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A checkpoint beside its decoder and base, as its configuration names them."""

    def copied(name: str) -> Path:
        for folder in (name, "llama"):
            shutil.copytree(models / folder, tmp_path / folder, dirs_exist_ok=True)
        return tmp_path / name

    return copied


def sentence(action: Callable[[], object], says: str = ".") -> None:
    with pytest.raises(UsageError, match=says) as error:
        action()
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- checkpoints


ENCODERS: dict[str, Any] = {
    "empty": {},
    "none": None,
    "a number": 3,
    "unknown type": {"model_type": "no-such-model"},
    "no layers": {"n_layer": 0},
    "a million layers": {"n_layer": 10**6},
    "negative width": {"n_embd": -1},
    "width in words": {"n_embd": "x"},
    "width of 10^9": {"n_embd": 10**9},
    "heads that do not divide": {"n_head": 3, "n_embd": 47},
    "heads that do not divide the width": {"n_head": 5},
}


@pytest.mark.parametrize("change", ENCODERS.values(), ids=ENCODERS.keys())
def test_an_encoder_of_no_sensible_shape(copy: Callable[[str], Path], decoder: Decoder, change: Any) -> None:
    folder = copy("pcc")
    state = json.loads((folder / "config.json").read_text("utf-8"))
    config = state["encoder"]["config"]
    state["encoder"]["config"] = {**config, **change} if isinstance(change, dict) and change else change
    (folder / "config.json").write_text(json.dumps(state), "utf-8")
    start = time.process_time()
    sentence(lambda: checkpoint.load(str(folder), decoder))
    assert time.process_time() - start < 5


@pytest.mark.parametrize("size", [10**9, 10**18, 10**30])
@pytest.mark.parametrize("name", ["rate", "segment_length", "decoder.hidden_size", "encoder.layers"])
def test_a_size_that_no_model_has(copy: Callable[[str], Path], decoder: Decoder, name: str, size: int) -> None:
    folder = copy("pcc")
    state = json.loads((folder / "config.json").read_text("utf-8"))
    *holder, key = name.split(".")
    (state[holder[0]] if holder else state)[key] = size
    (folder / "config.json").write_text(json.dumps(state), "utf-8")
    sentence(lambda: checkpoint.load(str(folder), decoder, any_decoder=True), f"{name}: Input should be less than")


@pytest.mark.parametrize("content", ["3", "[]", "null", '"x"', "{}"])
def test_a_configuration_that_is_no_object(copy: Callable[[str], Path], decoder: Decoder, content: str) -> None:
    folder = copy("pcc")
    (folder / "config.json").write_text(content, "utf-8")
    sentence(lambda: checkpoint.load(str(folder), decoder))


def test_an_adapter_without_memory_tokens(copy: Callable[[str], Path], decoder: Decoder) -> None:
    folder = copy("pcc-large")
    for path in folder.glob("*token*"):
        shutil.copy(folder.parent / "llama" / path.name, path)
    sentence(lambda: checkpoint.load(str(folder), decoder), r"lacks 64 of the 64 memory tokens \(<mem_0> first\)")
    folder = copy("pcc-large")
    tensors = load_file(folder / "model.safetensors")
    del tensors["memory_tokens"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    sentence(lambda: checkpoint.load(str(folder), decoder), "lacks 'memory_tokens'")


def test_a_name_of_5000_characters(decoder: Decoder) -> None:
    sentence(lambda: checkpoint.load("p" * 5_000, decoder), "is no name: it has 5,000 characters")


@DRAWN
@given(data=st.data())
def test_no_value_of_a_checkpoints_configuration_is_a_traceback(
    models: Path, decoder: Decoder, tmp_path: Path, data: st.DataObject
) -> None:
    if not (folder := tmp_path / "pcc").exists():
        shutil.copytree(models / "pcc", folder)
    state = json.loads((models / "pcc/config.json").read_text("utf-8"))
    holder = data.draw(st.sampled_from([state, state["decoder"], state["encoder"], state["encoder"]["config"]]))
    holder[data.draw(st.sampled_from([*holder]))] = data.draw(ANY)
    (folder / "config.json").write_text(json.dumps(state), "utf-8")
    try:
        checkpoint.load(str(folder), decoder, any_decoder=True)
    except UsageError as error:
        assert "\n" not in str(error)


# ---------------------------------------------------------------- decoders and tokenizers


DECODERS: dict[str, dict[str, Any]] = {
    "0 heads": {"num_attention_heads": 0},
    "width in words": {"hidden_size": "x"},
    "unknown rope": {"rope_parameters": {"rope_type": "spiral", "rope_theta": 10000.0}},
    "unknown activation": {"hidden_act": "no-such-activation"},
    "unknown dtype": {"dtype": "float3"},
    "unknown type": {"model_type": "no-such-model"},
    "a million layers": {"num_hidden_layers": 10**6},
}


@pytest.mark.parametrize("change", DECODERS.values(), ids=DECODERS.keys())
def test_a_decoder_of_no_sensible_shape(models: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    shutil.copytree(models / "llama", folder := tmp_path / "llama")
    state = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(state | change), "utf-8")
    start = time.process_time()
    sentence(lambda: init.open_decoder(str(folder)))
    assert time.process_time() - start < 5


@pytest.mark.parametrize("content", ["[]", "{}", "3", "", "[" * 100_000, '{"version": "1.0"}'])
def test_a_tokenizer_that_is_none(models: Path, tmp_path: Path, content: str) -> None:
    shutil.copytree(models / "llama", folder := tmp_path / "llama")
    (folder / "tokenizer.json").write_text(content, "utf-8")
    sentence(lambda: load_tokenizer(folder), "has no readable tokenizer")
    sentence(lambda: init.open_decoder(str(folder)))


# ---------------------------------------------------------------- memories


@pytest.fixture
def saved(models: Path, tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    compressor = compressing.open_compressor(str(models / "pcc"), None, "cpu", "float32", {"rate": 16})
    (memory,) = compressor.compress([rows[0]["context"]])
    memory_file.save(memory, compressor, path := tmp_path / "memory.safetensors")
    return path


def rewrite(path: Path, header: dict[str, Any], change: Callable[[dict[str, torch.Tensor]], object] | None) -> None:
    with safe_open(path, framework="pt") as file:
        state = json.loads(file.metadata()[memory_file.KEY]) | header
    tensors = load_file(path)
    if change:
        change(tensors)
    save_file(tensors, path, {memory_file.KEY: json.dumps(state)})


MEMORIES: dict[str, tuple[dict[str, Any], Callable[[dict[str, torch.Tensor]], object] | None, str]] = {
    "width": ({}, lambda t: t.update(memory=t["memory"][:, :7].clone()), "memory has shape .*decoder's width"),
    "a flat closing": ({}, lambda t: t.update(closing=torch.ones(64)), "closing has shape"),
    "ids beyond the table": ({"opening": [10**6]}, None, "opening has the token 1000000"),
    "negative ids": ({"opening": [-1]}, None, "opening.0: .*greater than or equal to 0"),
    "negative slots": ({"slots": -5}, None, "slots: .*greater than or equal to 0"),
    "whole numbers": ({}, lambda t: t.update(memory=t["memory"].long()), "holds int64"),
    "not a number": ({}, lambda t: t["memory"].view(-1)[3:4].fill_(float("nan")), "not finite"),
    "infinity in the closing": ({}, lambda t: t.update(closing=torch.full((1, 64), -float("inf"))), "not finite"),
}


@pytest.mark.parametrize(("header", "change", "says"), MEMORIES.values(), ids=MEMORIES.keys())
def test_a_memory_of_no_sensible_shape(
    saved: Path, decoder: Decoder, header: dict[str, Any], change: Any, says: str
) -> None:
    rewrite(saved, header, change)
    sentence(lambda: memory_file.load(saved, decoder), says)


@DRAWN
@given(data=st.data())
def test_no_header_of_a_memory_is_a_traceback(saved: Path, decoder: Decoder, data: st.DataObject) -> None:
    before = saved.read_bytes()
    field = data.draw(st.sampled_from([*memory_file.Header.model_fields]))
    rewrite(saved, {field: data.draw(ANY)}, None)
    try:
        memory_file.load(saved, decoder)
    except UsageError as error:
        assert "\n" not in str(error)
    finally:
        saved.write_bytes(before)


COUNTS = {"source_tokens": 9, "compressor_tokens": 9, "source_bytes": 9, "seconds": 0.1, "slots": 2, "boundary": 1}
FOREIGN: dict[str, tuple[Any, dict[str, torch.Tensor]]] = {
    "an unknown count": ({**COUNTS, "slotz": 1}, {"vectors": torch.ones(3, 4)}),
    "a negative count": ({**COUNTS, "slots": -2}, {"vectors": torch.ones(3, 4)}),
    "counts that are a list": ([], {"vectors": torch.ones(3, 4)}),
    "no counts": ({}, {"vectors": torch.ones(3, 4)}),
    "whole numbers": (COUNTS, {"vectors": torch.ones(3, 4, dtype=torch.int64)}),
    "flat": (COUNTS, {"vectors": torch.ones(3)}),
    "too few": (COUNTS, {"vectors": torch.ones(2, 4)}),
    "not finite": (COUNTS, {"vectors": torch.full((3, 4), float("inf"))}),
    "two kinds": (COUNTS, {"vectors": torch.ones(3, 4), "text": torch.ones(3, dtype=torch.uint8)}),
    "no text": (COUNTS, {"text": torch.full((3,), 255, dtype=torch.uint8)}),
    "nothing": (COUNTS, {}),
}


@pytest.mark.parametrize(("counts", "tensors"), FOREIGN.values(), ids=FOREIGN.keys())
def test_a_stored_memory_with_a_foreign_header_under_a_right_checksum(
    counts: Any, tensors: dict[str, torch.Tensor]
) -> None:
    header = json.dumps({"key": "k", "maker": "m", "counts": counts})
    data = save(tensors, {entry.HEADER: f"{entry._checksum(header, tensors)} {header}"})
    with pytest.raises(entry.DamagedError):
        entry.read(data, "k")


@settings(max_examples=60, deadline=None)
@given(field=st.sampled_from([*COUNTS]), value=ANY)
def test_no_count_of_a_stored_memory_is_a_traceback(field: str, value: Any) -> None:
    memory = Memory(**COUNTS, vectors=torch.ones(3, 4))  # type: ignore[arg-type]
    counts = {**COUNTS, field: value}
    header = json.dumps({"key": "k", "maker": "m", "counts": counts})
    tensors = {"vectors": torch.ones(3, 4)}
    try:
        again = entry.read(save(tensors, {entry.HEADER: f"{entry._checksum(header, tensors)} {header}"}), "k")
    except entry.DamagedError:
        return
    assert again.boundary == memory.boundary and again.slots == memory.slots  # type: ignore[union-attr]


# ---------------------------------------------------------------- files of the original code


def test_damaged_files_of_torch_save(models: Path, decoder: Decoder, tmp_path: Path) -> None:
    """56 of them: cut, with bytes changed, other pickles; those that still are tensors are given back."""
    published.export(checkpoint.load(str(models / "pcc"), decoder), tmp_path)
    path = tmp_path / "memory_converter.bin"
    whole = path.read_bytes()
    old = tmp_path / "old.pt"  # the format before zip files, whose pickle is read byte for byte
    torch.save({"a": torch.ones(2)}, old, _use_new_zipfile_serialization=False)
    draw = random.Random(56)
    damaged = [whole[: draw.randrange(len(whole))] for _ in range(12)]
    for source in (whole, old.read_bytes()):
        for _ in range(18):
            data = bytearray(source)
            for _ in range(draw.choice((1, 4, 40))):
                data[draw.randrange(len(data))] = draw.randrange(256)
            damaged.append(bytes(data))
    others: tuple[Any, ...] = ([1], 3, None, {"a": {"b": 1}}, "text")
    damaged += [b"", b"text", b"0", pickle.dumps(others), *(pickle.dumps(value) for value in others[:4])]
    assert len(damaged) == 56
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            assert isinstance(read_torch(path), dict)
        except UsageError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 30
