"""Memories on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from safetensors import safe_open
from safetensors.torch import save_file

from pcc_bench import ContextMemory
from pcc_bench.baselines.controls import FullContext
from pcc_bench.cli.memory import read_input
from pcc_bench.core import memory_file
from pcc_bench.core.compressor import Compressor
from pcc_bench.core.context import Prompt, literal, mark
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError
from pcc_bench.host import compressing
from pcc_bench.host import models as lm_models
from pcc_bench.model.init import open_decoder


@pytest.fixture(scope="module")
def decoder(models: Path) -> Decoder:
    return open_decoder(str(models / "llama"))


@pytest.fixture(scope="module")
def compressor(models: Path) -> Compressor:
    return compressing.open_compressor(str(models / "pcc"), None, "cpu", "float32", {"rate": 16})


@pytest.fixture
def path(tmp_path: Path, compressor: Compressor, rows: list[dict[str, Any]]) -> Path:
    (memory,) = compressor.compress([rows[0]["context"]])
    memory_file.save(memory, compressor, tmp_path / "new" / "memory.safetensors")
    return tmp_path / "new" / "memory.safetensors"


def change(path: Path, **header: Any) -> None:
    """Rewrite the header of a memory file."""
    with safe_open(path, framework="pt") as file:
        state = json.loads(file.metadata()[memory_file.KEY]) | header
        vectors = file.get_tensor("memory")
    save_file({"memory": vectors}, path, metadata={memory_file.KEY: json.dumps(state)})


def test_a_memory_comes_back_as_it_was(
    path: Path, compressor: Compressor, decoder: Decoder, rows: list[dict[str, Any]]
) -> None:
    (memory,) = compressor.compress([rows[0]["context"]])
    stored = memory_file.load(path, decoder)
    assert memory.vectors is not None
    assert torch.equal(stored.memory.vectors, memory.vectors)  # type: ignore[arg-type]
    for count in ("source_tokens", "compressor_tokens", "source_bytes", "slots", "boundary"):
        assert getattr(stored.memory, count) == getattr(memory, count)
    assert (stored.header.rate, stored.fingerprint()) == (16, compressor.fingerprint())
    assert stored.header.options["boundaries"] == "per_segment"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_answers_equal_those_of_compressing_directly(
    path: Path, models: Path, decoder: Decoder, rows: list[dict[str, Any]]
) -> None:
    question = f"Question: {rows[0]['question']}\n\nAnswer: "
    prompt = Prompt.parse(mark(rows[0]["context"]) + literal(question))
    model = lm_models.pcc(pretrained=str(models / "pcc"), rate=16, device="cpu", dtype="float32")  # type: ignore[attr-defined]
    arguments = {"until": [], "do_sample": False, "max_gen_toks": 12}
    (direct,) = model.generate_until([Instance("generate_until", {}, (prompt, arguments), 0, metadata=("t", 0, 1))])
    saved = memory_file.load(path, decoder)
    memory = ContextMemory(saved.memory, saved)
    assert memory.answer(rows[0]["question"], max_new_tokens=12) == direct


def test_another_decoder_is_refused(path: Path, models: Path) -> None:
    with pytest.raises(UsageError, match=r"was made for the decoder '.*llama'.*not for '.*mistral'"):
        memory_file.load(path, open_decoder(str(models / "mistral")))


def test_a_newer_schema_is_refused(path: Path, decoder: Decoder) -> None:
    change(path, schema_version=99, decoder=None)
    with pytest.raises(UsageError, match="schema version 99"):
        memory_file.load(path, decoder)


def test_damaged_files_are_refused(path: Path, decoder: Decoder) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(UsageError, match="damaged or not safetensors"):
        memory_file.load(path, decoder)
    path.write_bytes(b"not a memory")
    with pytest.raises(UsageError, match="damaged or not safetensors"):
        memory_file.load(path, decoder)
    path.write_bytes(whole)
    change(path, slots=3)
    with pytest.raises(UsageError, match=r"its vectors are not the 3 \+ 4"):
        memory_file.load(path, decoder)
    change(path, rate="fast")
    with pytest.raises(UsageError, match="damaged: rate"):
        memory_file.load(path, decoder)


def test_other_files_are_refused(tmp_path: Path, decoder: Decoder) -> None:
    with pytest.raises(UsageError, match="no memory file"):
        memory_file.load(tmp_path / "nothing", decoder)
    save_file({"memory": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="no memory: 'pcc-bench compress' makes those"):
        memory_file.load(tmp_path / "other.safetensors", decoder)


def test_text_is_a_memory_too(tmp_path: Path, decoder: Decoder, models: Path) -> None:
    full = FullContext(decoder)
    (memory,) = full.compress(["It rains."])
    memory_file.save(memory, full, tmp_path / "x.safetensors")
    stored = memory_file.load(tmp_path / "x.safetensors", decoder)
    assert (stored.memory.text, stored.memory.vectors, stored.soft) == ("It rains.", None, False)
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        state = json.loads(file.metadata()[memory_file.KEY])
    assert state["schema_version"] == 2  # a reader that knows vectors only refuses it
    save_file({}, tmp_path / "x.safetensors", metadata={memory_file.KEY: json.dumps(state | {"text": None})})
    with pytest.raises(UsageError, match="is damaged: a memory is either vectors or text"):
        memory_file.load(tmp_path / "x.safetensors", decoder)


def test_a_bad_byte_is_named_with_its_offset(tmp_path: Path) -> None:
    file = tmp_path / "f.txt"
    file.write_bytes("\ufeffnaïve".encode())
    assert read_input(file, None) == "naïve"
    for data, offset in ((b"abc\xff", 3), (b"\xef\xbb\xbfa\xff", 4)):
        file.write_bytes(data)
        with pytest.raises(UsageError, match=rf"f.txt is not UTF-8 text: byte 0xff at offset {offset}"):
            read_input(file, None)


def test_a_failed_write_leaves_nothing(tmp_path: Path, path: Path, decoder: Decoder, compressor: Compressor) -> None:
    (tmp_path / "file").write_text("in the way", "utf-8")
    with pytest.raises(UsageError, match=r"m\.safetensors can't be written \(.*\): make room or choose another folder"):
        memory_file.save(memory_file.load(path, decoder).memory, compressor, tmp_path / "file" / "m.safetensors")
