"""Checkpoints: both formats load, convert into each other without loss, and say in one sentence what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from golden_files import SHIPPED
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from pcc_bench.core import checkpoint_files as files
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError
from pcc_bench.model import checkpoint, init, published
from pcc_bench.model.compressor import PccCompressor
from pcc_bench.model.config import Boundaries
from pcc_bench.model.pcc import PCC

GOLDEN = SHIPPED / "pcc" / "seed0"


@pytest.fixture(scope="module")
def decoder(models: Path) -> Decoder:
    return init.open_decoder(str(models / "llama"))


@pytest.fixture
def copy(models: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copy a checkpoint of the session beside copies of nothing else; its decoder is named absolutely."""

    def make(name: str) -> Path:
        shutil.copytree(models / name, tmp_path / name)
        return tmp_path / name

    return make


def memory(pcc: PCC, decoder: Decoder, text: str) -> torch.Tensor:
    (made,) = PccCompressor(pcc, decoder).compress([text])
    assert made.vectors is not None
    return made.vectors


@pytest.mark.parametrize("name", ["pcc", "pcc-large"])
def test_saving_and_loading_changes_nothing(
    models: Path, decoder: Decoder, rows: list[dict[str, Any]], tmp_path: Path, name: str
) -> None:
    first = checkpoint.load(str(models / name), decoder)
    if first.config.encoder.base:  # named relative to the folder: the copy must lie as deep
        first.config = first.config.model_copy(
            update={"encoder": first.config.encoder.model_copy(update={"base": str(models / "llama")})}
        )
    checkpoint.save(first, tmp_path / "again")
    second = checkpoint.load(str(tmp_path / "again"), decoder)
    assert checkpoint.weights_fingerprint(first) == checkpoint.weights_fingerprint(second)
    text = rows[0]["context"]
    assert torch.equal(memory(first, decoder, text), memory(second, decoder, text))


@pytest.mark.parametrize("name", ["pcc", "pcc-large"])
def test_a_checkpoint_in_8_bits_is_half_as_large_and_off_by_half_a_step(
    models: Path, decoder: Decoder, tmp_path: Path, name: str
) -> None:
    base = str(models / "llama") if name == "pcc-large" else None
    first = checkpoint.load(str(models / name), decoder)
    for folder, dtype in (("half", torch.float16), ("int8", torch.int8)):
        checkpoint.save(first, tmp_path / folder, dtype)
    second = checkpoint.load(str(tmp_path / "int8"), decoder, encoder=base)
    sizes = [(tmp_path / folder / "model.safetensors").stat().st_size for folder in ("half", "int8")]
    assert sizes[1] < (0.75 if name == "pcc" else 0.9) * sizes[0]
    for part, other in ((first.encoder.body, second.encoder.body), (first.converter, second.converter)):
        others = dict(other.named_parameters())
        for key, value in part.named_parameters():
            step = 2**-11 if part is first.converter or value.ndim != 2 else 1 / 200
            assert (others[key] - value).abs().max() <= step * value.abs().max() + 1e-7, key
    shapes = [files.safetensors_shapes(tmp_path / folder / "model.safetensors") for folder in ("half", "int8")]
    assert shapes[0] == shapes[1]
    assert files.check_safetensors(tmp_path / "int8" / "model.safetensors") == len(shapes[0])


@pytest.mark.parametrize("variant", ["lite-4x", "large-16x"])
def test_golden_checkpoints_convert_to_ours_and_back(variant: str, tmp_path: Path) -> None:
    folder = GOLDEN / variant
    told = json.loads((folder / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder / "decoder")
    reader = Decoder(AutoModelForCausalLM.from_pretrained(folder / "decoder", dtype=torch.float32), tokenizer)
    options = {"rate": told["rate"], "segment_length": told["segment_length"]}
    base = str(folder / "encoder") if told["adapter"] else None
    original = checkpoint.load(str(folder / (told["adapter"] or "encoder")), reader, encoder=base, **options)
    text = "The harbour office keeps three ledgers."

    checkpoint.save(original, tmp_path / "ours")
    ours = checkpoint.load(str(tmp_path / "ours"), reader, encoder=base)
    assert torch.equal(memory(ours, reader, text), memory(original, reader, text))

    published.export(ours, tmp_path / "published")
    again = checkpoint.load(str(tmp_path / "published"), reader, encoder=base, **options)
    assert torch.equal(memory(again, reader, text), memory(original, reader, text))


def test_the_published_layout_has_the_official_tensor_names(models: Path, decoder: Decoder, tmp_path: Path) -> None:
    published.export(checkpoint.load(str(models / "pcc"), decoder), tmp_path)
    names = load_file(tmp_path / "model.safetensors").keys()
    assert all(name.startswith("transformer.") for name in names)  # the tied lm_head is absent
    converter = torch.load(tmp_path / "memory_converter.bin", weights_only=True)
    assert list(converter) == [
        "RMSNorm.weight",
        "dense_in.weight",
        "dense_in.bias",
        "dense_out.weight",
        "dense_out.bias",
    ]


def test_what_the_official_trainer_leaves_behind_loads(models: Path, decoder: Decoder, tmp_path: Path) -> None:
    clean = checkpoint.load(str(models / "pcc"), decoder)
    published.export(clean, tmp_path / "raw-4x")
    weights = tmp_path / "raw-4x" / "model.safetensors"
    whole = {f"compressor.model.{key}": value for key, value in load_file(weights).items()}
    save_file(whole | {"decoder.model.lm_head.weight": torch.zeros(2, 2)}, weights, metadata={"format": "pt"})
    raw = checkpoint.load(str(tmp_path / "raw-4x"), decoder)  # the rate is read off the name
    assert raw.config.rate == 4
    assert torch.equal(memory(raw, decoder, "Some text."), memory(clean, decoder, "Some text."))


def test_a_large_adapter_brings_the_memory_tokens_to_a_plain_base(
    models: Path, decoder: Decoder, tmp_path: Path
) -> None:
    # Published Large adapters carry the base matrices, so the plain base model is enough.
    large = checkpoint.load(str(models / "pcc-large"), decoder)
    published.export(large, tmp_path / "adapter-4x")
    plain = checkpoint.load(str(tmp_path / "adapter-4x"), decoder, encoder=str(models / "llama"))
    assert torch.equal(memory(plain, decoder, "Some text."), memory(large, decoder, "Some text."))


def test_a_new_large_encoder_starts_as_its_base_model(models: Path, decoder: Decoder) -> None:
    large = checkpoint.load(str(models / "pcc-large"), decoder)
    base = LlamaForCausalLM.from_pretrained(models / "llama", dtype=torch.float32)
    ids = torch.arange(5, 25)[None]
    torch.testing.assert_close(large.encoder.body(ids).last_hidden_state, base.model(ids).last_hidden_state)


def test_memory_tokens_start_small_and_seeded(models: Path, decoder: Decoder) -> None:
    one, same, other = (
        init.fresh(str(models / "encoder"), decoder, [4], models / "x", seed=seed) for seed in (1, 1, 2)
    )
    rows = [pcc.encoder.body.get_input_embeddings().weight[pcc.encoder.memory_ids] for pcc in (one, same, other)]
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])
    assert rows[0].std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(
    ("tokens", "official", "proportional"),
    [(1, [64], [1]), (256, [64], [64]), (257, [64, 64], [64, 1]), (300, [64, 64], [64, 11])],
)
def test_slots_of_a_short_segment(
    models: Path, decoder: Decoder, tokens: int, official: list[int], proportional: list[int]
) -> None:
    for policy, expected in (("official", official), ("proportional", proportional)):
        pcc = checkpoint.load(str(models / "pcc"), decoder, slots=policy)
        (encoded,) = pcc.encode([[7] * tokens])
        assert [len(slots) for slots in encoded.slots] == expected


@pytest.mark.parametrize(("policy", "extra"), [("per_segment", 4), ("once", 2), ("none", 0)])
def test_boundary_vectors(models: Path, decoder: Decoder, policy: Boundaries, extra: int) -> None:
    pcc = checkpoint.load(str(models / "pcc"), decoder, boundaries=policy)
    (encoded,) = pcc.encode([[7] * 300])
    framed = pcc.frame(encoded.slots)
    assert len(framed) == 128 + extra
    if extra:
        assert torch.equal(framed[0], pcc.special[0])
        assert torch.equal(framed[-1], pcc.special[1])


def test_segments_share_forwards_and_keep_their_order(models: Path, decoder: Decoder) -> None:
    pcc = checkpoint.load(str(models / "pcc"), decoder)
    pcc.encoder.batch_tokens = 16_384
    calls: list[int] = []
    pcc.encoder.body.register_forward_pre_hook(lambda *_, **__: calls.append(1), with_kwargs=True)
    contexts = [[i % 900 + 5] * (37 * i % 700 + 1) for i in range(40)]
    together = pcc.encode(contexts)
    assert len(calls) < 10  # 40 contexts, more than 60 segments
    for ids, encoded in zip(contexts, together, strict=True):
        (alone,) = pcc.encode([ids])
        torch.testing.assert_close(torch.cat(encoded.slots), torch.cat(alone.slots), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("policy", get_args(Boundaries))
def test_a_long_context_is_converted_in_parts_into_one_tensor(
    models: Path, decoder: Decoder, policy: Boundaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    pcc = checkpoint.load(str(models / "pcc"), decoder, boundaries=policy)
    pcc.encoder.batch_tokens = 600
    contexts = [[i % 900 + 5 for i in range(tokens)] for tokens in (5000, 700, 0)]
    sizes: list[int] = []
    pcc.converter.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    whole = pcc.encode(contexts)  # with gradients all at once
    assert len(sizes) == 1
    monkeypatch.setattr("pcc_bench.model.pcc.PART_SLOTS", 64)
    with torch.inference_mode():
        raw = pcc.encode(contexts, convert=False)
        in_parts = pcc.encode(contexts)
    assert sum(sizes[1:]) == sizes[0]
    assert max(sizes[1:]) < 64 + 600  # the slots of a forward, at most, on top
    for one, other, hidden in zip(whole, in_parts, raw, strict=True):
        assert (one.tokens, len(one.slots)) == (other.tokens, len(other.slots))
        torch.testing.assert_close(pcc.frame([pcc.converter(slots) for slots in hidden.slots]), pcc.frame(one.slots))
        torch.testing.assert_close(pcc.memory(other).vectors, pcc.frame(one.slots))
        assert len({piece.untyped_storage().data_ptr() for piece in other.slots}) <= 1  # no tensor of its own a segment


def test_a_context_without_tokens_has_no_slots(models: Path, decoder: Decoder) -> None:
    pcc = checkpoint.load(str(models / "pcc"), decoder)
    empty, full = pcc.encode([[], [7, 8]])
    assert empty.slots == []
    assert len(pcc.frame(empty.slots)) == 0
    assert len(full.slots) == 1


# Mistakes: one sentence each.


def refuses(message: str, name: str | Path, decoder: Decoder, **options: Any) -> None:
    with pytest.raises(UsageError, match=message) as error:
        checkpoint.load(str(name), decoder, **options)
    assert "\n" not in str(error.value)


def edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def test_unknown_checkpoints_are_refused(decoder: Decoder) -> None:
    refuses("neither a folder here nor a hub id", "./no/such/folder", decoder)
    refuses("could not be fetched from the hub", "nobody/nothing-4x", decoder)


def test_checkpoints_for_another_decoder_are_refused(models: Path, tmp_path: Path) -> None:
    refuses("was made for the decoder '../llama'", models / "pcc", init.open_decoder(str(models / "mistral")))
    checkpoint.load(str(models / "pcc"), init.open_decoder(str(models / "mistral")), any_decoder=True)
    from pcc_bench.core import tiny

    narrow = tiny.make_model("llama", tiny.make_tokenizer(["text"], 300), tmp_path / "narrow", width=32)
    refuses("made for another decoder", models / "pcc", init.open_decoder(str(narrow)))


def test_undeclared_rates_are_refused(models: Path, decoder: Decoder) -> None:
    assert checkpoint.load(str(models / "pcc"), decoder, rate=16).config.slots_per_segment == 16
    refuses("rate 8 was not trained: this checkpoint declares 4x, 16x", models / "pcc", decoder, rate=8)


def test_published_checkpoints_need_a_rate(decoder: Decoder) -> None:
    refuses("does not record its rate: pass rate=4", GOLDEN / "lite-4x" / "encoder", decoder)


def test_rates_that_cannot_be_are_refused(models: Path, decoder: Decoder, tmp_path: Path) -> None:
    published.export(checkpoint.load(str(models / "pcc"), decoder), tmp_path)
    refuses("rate 2 needs 128 slots", tmp_path, decoder, rate=2)
    refuses("rate 5 does not divide segments of 256", tmp_path, decoder, rate=5)
    refuses("takes 1040 positions, the model has 512", tmp_path, decoder, rate=64, segment_length=1024)


def test_a_declared_rate_that_is_none_is_refused(copy: Callable[[str], Path], decoder: Decoder) -> None:
    folder = copy("pcc")
    config = json.loads((folder / "config.json").read_text())
    for rate in (0, -4):
        (folder / "config.json").write_text(json.dumps(config | {"rates": [4, rate]}))
        refuses("rates.1: Input should be greater than 0", folder, decoder)


def test_damaged_files_are_refused(copy: Callable[[str], Path], decoder: Decoder) -> None:
    folder = copy("pcc")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:-100], whole[:20], b"", b"\xff" * 200):
        weights.write_bytes(damaged)
        refuses("model.safetensors is damaged or not safetensors", folder, decoder)
    weights.unlink()
    refuses("model.safetensors is missing", folder, decoder)


def test_missing_and_extra_tensors_are_named(copy: Callable[[str], Path], decoder: Decoder) -> None:
    folder = copy("pcc")
    edit(folder, lambda state: state.__delitem__("encoder.wpe.weight"))
    refuses(r"lacks 1 tensors \(wpe.weight first\)", folder, decoder)
    edit(
        folder, lambda state: state.update({"encoder.wpe.weight": torch.zeros(512, 48), "encoder.odd": torch.zeros(1)})
    )
    refuses(r"1 tensors that do not belong there \(odd first\)", folder, decoder)


def test_scales_that_do_not_fit_are_refused(models: Path, decoder: Decoder, tmp_path: Path) -> None:
    pcc, name = checkpoint.load(str(models / "pcc"), decoder), "encoder.wpe.weight"
    damage: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
        f"does not fit '{name}'": lambda state: state.update({name + files.SCALES: torch.ones(3, 1)}),
        f"does not fit '{name}', no matrix": lambda state: state.pop(name),
        f"{name} has values that are not finite": lambda state: state[name + files.SCALES].fill_(float("nan")),
        f"{name} holds int8, not float32": lambda state: state.pop(name + files.SCALES),
    }
    for message, change in damage.items():
        checkpoint.save(pcc, tmp_path, torch.int8)
        edit(tmp_path, change)
        refuses(message, tmp_path, decoder)
        if "no matrix" not in message:  # scales of nothing: the tensor is missed by its name
            with pytest.raises(UsageError, match=message):
                files.check_safetensors(tmp_path / "model.safetensors")


def test_a_converter_of_the_wrong_width_is_refused(
    copy: Callable[[str], Path], models: Path, decoder: Decoder, tmp_path: Path
) -> None:
    folder = copy("pcc")
    edit(folder, lambda state: state.update({"converter.dense_in.weight": torch.zeros(64, 40)}))
    refuses(r"dense_in.weight has shape \[64, 40\], expected \[64, 48\]", folder, decoder)
    published.export(checkpoint.load(str(models / "pcc"), decoder), tmp_path / "p-4x")
    state = torch.load(tmp_path / "p-4x" / "memory_converter.bin", weights_only=True)
    torch.save(state | {"dense_in.weight": torch.zeros(32, 48)}, tmp_path / "p-4x" / "memory_converter.bin")
    refuses("maps 48 to 32 dimensions, but the encoder has 48 and the decoder 64", tmp_path / "p-4x", decoder)


def test_a_tokenizer_without_memory_tokens_is_refused(
    copy: Callable[[str], Path], models: Path, decoder: Decoder
) -> None:
    folder = copy("pcc")
    AutoTokenizer.from_pretrained(models / "encoder").save_pretrained(folder)
    refuses(r"lacks 64 of the 64 memory tokens \(<mem_0> first\)", folder, decoder)


def test_fresh_special_vectors_are_of_the_size_of_what_a_decoder_with_scaled_inputs_reads(models: Path) -> None:
    decoder = init.open_decoder(str(models / "gemma3"))
    read = decoder.embed(range(len(decoder.tokenizer)))
    assert read.std() > 7 * decoder.embedding.weight.std()  # sqrt(64)
    special = init._special_rows(decoder)
    assert float(special.std()) == pytest.approx(float(read.std()), rel=0.3)


def test_a_decoder_without_the_special_tokens_is_refused(decoder: Decoder) -> None:
    with pytest.raises(UsageError, match="has no token <mem>"):
        published._special_vectors(GOLDEN / "large-4x" / "adapter", decoder, None)


def test_unsafe_files_are_refused_and_not_executed(models: Path, decoder: Decoder, tmp_path: Path) -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (exec, ("import pathlib; pathlib.Path('exploded').touch()",))

    published.export(checkpoint.load(str(models / "pcc"), decoder), tmp_path / "p-4x")
    (tmp_path / "p-4x" / "memory_converter.bin").write_bytes(pickle.dumps(Bomb()))
    refuses("memory_converter.bin", tmp_path / "p-4x", decoder)
    assert not Path("exploded").exists()


def test_a_configuration_with_unknown_keys_is_refused(copy: Callable[[str], Path], decoder: Decoder) -> None:
    folder = copy("pcc")
    state = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(state | {"slotz": "official"}))
    refuses("unknown key 'slotz'", folder, decoder)
    (folder / "config.json").write_text(json.dumps(state | {"pcc_bench": 99}))
    refuses("checkpoint format 99, this version reads 1", folder, decoder)
    (folder / "config.json").write_text("{")
    refuses("config.json is not valid JSON", folder, decoder)


def test_an_interrupted_save_leaves_the_old_checkpoint(
    models: Path, decoder: Decoder, copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy("pcc")
    before = (folder / "model.safetensors").read_bytes()
    pcc = checkpoint.load(str(folder), decoder)

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(UsageError, match=r"No space left.*old file is untouched"):
        checkpoint.save(pcc, folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert not list(folder.glob(".*.part"))
