"""AutoCompressor equals the original code on its golden vectors, loads published folders, and keeps the contract."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SAMPLE
from golden_files import GOLDEN
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer, LlamaConfig, OPTConfig, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from pcc_bench import tasks
from pcc_bench.baselines.autocompressor import AutoCompressor, segments
from pcc_bench.baselines.autocompressor.files import TABLE
from pcc_bench.core.context import Prompt, literal, mark
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError
from pcc_bench.core.generation import generate, score
from pcc_bench.core.plan import PromptEncoder
from pcc_bench.host import models as lm_models
from pcc_bench.host.lm import CompressedLM

ROOT = GOLDEN
FOLDERS = sorted(path.parent for path in ROOT.glob("autocompressor*/**/io.safetensors"))


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=3e-4, rtol=0)


# ---------------------------------------------------------------- golden vectors


def words(ids: torch.Tensor | list[int]) -> str:
    """Ids as text of the golden tokenizer, which has one word for each id."""
    flat = ids.flatten().tolist() if isinstance(ids, torch.Tensor) else ids
    return " ".join(f"t{token:05}" for token in flat)


def word_tokenizer(size: int, config: dict[str, Any]) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({words([i]): i for i in range(size)}, unk_token=words([0])))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {name: words([config[f"{name}_id"]]) for name in ("bos_token", "eos_token")}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


@dataclass
class Golden:
    folder: Path
    config: dict[str, Any]
    io: dict[str, torch.Tensor]
    decoder: Decoder

    def load(self, segment_length: int = 0, accumulate: bool | None = None) -> AutoCompressor:
        """The golden weights, put into a fresh model of their sizes."""
        file = str(self.folder / "weights.safetensors")
        accumulate = self.config["accumulate_summary"] if accumulate is None else accumulate
        length = segment_length or max(self.lengths)
        return AutoCompressor.load(file, self.decoder, segment_length=length, accumulate=accumulate)

    @property
    def context(self) -> list[int]:
        ids: list[int] = self.io["context_ids"][0].tolist()
        return ids

    @property
    def question(self) -> list[int]:
        ids: list[int] = self.io["prompt_ids"][0].tolist()
        return ids

    @property
    def lengths(self) -> list[int]:
        return [*self.config["segment_lengths"], self.config["prompt_length"]]


@pytest.fixture(params=FOLDERS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def golden(request: pytest.FixtureRequest) -> Golden:
    folder = request.param
    config = json.loads((folder / "config.json").read_text())
    base = config["base_config"]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**base), dtype=torch.float32)
    decoder = Decoder(model, word_tokenizer(base["vocab_size"], base), "a base model")
    return Golden(folder, config, load_file(folder / "io.safetensors"), decoder)


def test_golden_folders_are_there() -> None:
    assert {folder.relative_to(ROOT).parts[0] for folder in FOLDERS} >= {
        "autocompressor_llama",
        "autocompressor_opt",
    }, ROOT


def read_through(
    compressor: AutoCompressor, ids: list[int], lengths: int | list[int], soft: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a text, and the soft prompt of its last segment."""
    ((hidden, soft),) = compressor.encoder.read_through([ids], lengths, soft)
    return compressor.decoder.model.get_output_embeddings()(hidden), soft


def test_golden_explicit_segments_one_call_each(golden: Golden) -> None:
    compressor = golden.load()
    soft = compressor.encoder.summary[:0]
    head = golden.decoder.model.get_output_embeddings()
    pieces = segments(golden.context, golden.config["segment_lengths"])
    for step, piece in enumerate(pieces):
        ((hidden, soft),) = compressor.encoder.summarize([piece], [soft])
        close(head(hidden)[None], golden.io[f"explicit_logits_seg{step}"])
        close(soft[None], golden.io[f"explicit_softprompt_after_seg{step}"])
    logits, _ = read_through(compressor, golden.question, [len(golden.question)], soft)
    close(logits[None], golden.io["prompt_logits"])
    logits, _ = read_through(compressor, golden.question, [len(golden.question)])
    close(logits[None], golden.io["prompt_logits_no_context"])


def test_golden_implicit_segments_in_one_call(golden: Golden) -> None:
    compressor = golden.load(segment_length=10)
    whole = golden.context + golden.question
    logits, soft = read_through(compressor, whole, golden.lengths)
    close(logits[None], golden.io["implicit_logits"])
    close(soft[None], golden.io["implicit_softprompt"])
    loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(whole[1:]))
    close(loss, golden.io["loss"][0])
    logits, _ = read_through(compressor, whole, 10)
    close(logits[None], golden.io["int10_logits"])
    (soft,) = compressor.encoder.encode([whole])
    close(soft[None], golden.io["int10_softprompt"])


def test_golden_without_accumulation_only_the_newest_summary_is_read(golden: Golden) -> None:
    compressor = golden.load(accumulate=False)
    logits, soft = read_through(compressor, golden.context + golden.question, golden.lengths)
    close(logits[None], golden.io["noacc_logits"])
    close(soft[None], golden.io["noacc_softprompt"])


@pytest.mark.parametrize("side", ["left", "right"])
def test_golden_masked_padding_counts_for_nothing(golden: Golden, side: str) -> None:
    compressor = golden.load(segment_length=golden.io[f"pad_{side}_ids"].shape[1])
    ids, mask = golden.io[f"pad_{side}_ids"], golden.io[f"pad_{side}_mask"].bool()
    summaries = compressor.encoder.encode([row[real].tolist() for row, real in zip(ids, mask, strict=True)])
    close(torch.stack(summaries), golden.io[f"pad_{side}_softprompt"])
    close(summaries[1][None], golden.io["pad_solo_softprompt"])


def test_golden_a_run_gives_the_logits_and_greedy_ids(golden: Golden) -> None:
    """By way of memories, plans and positions, as `lm_eval --model autocompressor` goes; batch against single."""
    compressor = golden.load()
    explicit = golden.io[f"explicit_softprompt_after_seg{len(golden.config['segment_lengths']) - 1}"][0]
    (memory,) = compressor.compress([words(golden.context)])
    memory = type(memory)(**{**memory.__dict__, "vectors": explicit, "slots": len(explicit)})  # its own segments
    plan = PromptEncoder(compressor).encode(Prompt.parse(mark("context") + literal(words(golden.question))), [memory])
    vectors, at = plan.vectors(golden.decoder), compressor.layout.memory_position
    positions = None if at is None else [plan.positions(at)]
    wanted = golden.io["generated_ids"][0].tolist()[len(golden.question) :]
    ids = generate(golden.decoder, [vectors], len(wanted), positions=positions).ids[0]
    stop = golden.decoder.tokenizer.eos_token_id  # the original was told never to stop
    assert ids == (wanted[: wanted.index(stop) + 1] if stop in wanted else wanted)

    first = golden.io["prompt_logits"][0, -1].log_softmax(-1)[wanted[0]]
    out = score(golden.decoder, [vectors], [wanted], positions=positions)
    alone = score(golden.decoder, [vectors], [wanted[:1]], positions=positions)
    assert alone.logprobs[0] == pytest.approx(float(first), abs=3e-4)
    assert stop in wanted or out.greedy == [True]

    shorter = vectors[len(explicit) :]
    both = None if positions is None else [*positions, list(range(len(shorter)))]
    together = generate(golden.decoder, [vectors, shorter], len(wanted), positions=both)
    assert together.ids[0] == ids
    out = score(golden.decoder, [shorter, vectors], [wanted[:1], wanted[:1]], positions=both and both[::-1])
    assert out.logprobs[1] == pytest.approx(float(first), abs=3e-4)
    nothing = golden.io["prompt_logits_no_context"][0, -1].log_softmax(-1)[wanted[0]]
    assert out.logprobs[0] == pytest.approx(float(nothing), abs=3e-4)


# ---------------------------------------------------------------- published folders, at toy size

SUMMARY, SEGMENT = 5, 40
TEXTS = ["Rain.", "", "Zoë said “grüß Gott” 日本語 🌧️ <|eot_id|>.", "One two three four five. " * 40, "Rain fell. " * 9]


def whole_model(family: str, models: Path, seed: int = 0, **sizes: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """Configuration and state of a published model: a plain one and `embed_summary.weight`."""
    tokenizer = AutoTokenizer.from_pretrained(models / "llama")
    shared = {"vocab_size": len(tokenizer), "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    shared |= {"max_position_embeddings": 2048, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    own = {"ffn_dim": 96, "word_embed_proj_dim": 64} if family == "opt" else {"intermediate_size": 96}
    config = {"opt": OPTConfig, "llama": LlamaConfig}[family](**{**shared, **own, **sizes})
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    return config, state | {TABLE: torch.randn(SUMMARY, config.hidden_size)}


def publish(family: str, models: Path, folder: Path, files: str = "bin", accumulate: bool = True, **sizes: Any) -> Path:
    """Write a folder as the hub has it: a pickled `.bin` (Llama), or shards with an index (OPT)."""
    config, state = whole_model(family, models, **sizes)
    folder.mkdir(parents=True)
    AutoTokenizer.from_pretrained(models / "llama").save_pretrained(folder)
    extra = {"summary_length": SUMMARY, "accumulate_summary": accumulate, "segment_gradient_checkpointing": False}
    (folder / "config.json").write_text(json.dumps({**config.to_dict(), **extra}))
    if files == "bin":
        torch.save(state, folder / "pytorch_model.bin")
        return folder
    suffix = files.removeprefix("sharded ")
    stem = "pytorch_model" if suffix == "bin" else "model"
    if family == "opt":
        del state["lm_head.weight"]  # tied
    parts = {f"{stem}-{i:05}-of-00002.{suffix}": sorted(state)[i - 1 :: 2] for i in (1, 2)}
    for name, keys in parts.items():
        part = {key: state[key] for key in keys}
        torch.save(part, folder / name) if suffix == "bin" else save_file(part, folder / name)
    places = {key: name for name, keys in parts.items() for key in keys}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


@pytest.fixture(scope="module")
def folders(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("autocompressor")
    made = {family: publish(family, models, root / family) for family in ("llama", "opt")}
    made["other base"] = publish("llama", models, root / "base", seed=7)
    return made


def load(folder: Path, **options: Any) -> CompressedLM:
    kind = lm_models.autocompressor  # type: ignore[attr-defined]
    options = {"segment_length": SEGMENT, **options}
    model: CompressedLM = kind(pretrained=str(folder), device="cpu", dtype="float32", **options)
    return model


def vectors(model: CompressedLM) -> torch.Tensor:
    return torch.cat([memory.vectors for memory in model.compressor.compress(TEXTS) if memory.vectors is not None])


@pytest.mark.parametrize("family", ["llama", "opt"])
@pytest.mark.parametrize("files", ["sharded bin", "sharded safetensors"])
def test_shards_hold_what_one_file_holds(
    models: Path, folders: dict[str, Path], tmp_path: Path, family: str, files: str
) -> None:
    expected, found = load(folders[family]), load(publish(family, models, tmp_path / "x", files))
    assert torch.equal(vectors(found), vectors(expected))
    assert found.fingerprint() == expected.fingerprint()


def test_the_checkpoints_weights_replace_those_of_a_base_model(folders: dict[str, Path]) -> None:
    expected = load(folders["llama"])
    found = load(folders["llama"], decoder=str(folders["other base"]))
    assert torch.equal(vectors(found), vectors(expected))
    ids = torch.arange(5, 60)[None]
    assert torch.equal(found.frozen.model(ids).logits, expected.frozen.model(ids).logits)


def test_rmt_is_told_by_its_configuration(models: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    rmt = load(publish("llama", models, tmp_path / "rmt", accumulate=False))
    assert rmt.compressor.options()["accumulate"] is False
    assert all(memory.slots <= SUMMARY for memory in rmt.compressor.compress(TEXTS))
    assert load(folders["llama"], accumulate=False).compressor.options() == rmt.compressor.options()


# ---------------------------------------------------------------- the contract


@pytest.fixture(scope="module", params=["llama", "opt"])
def model(request: pytest.FixtureRequest, folders: dict[str, Path]) -> CompressedLM:
    return load(folders[request.param], batch_size=3)


def test_a_memory_does_not_depend_on_its_batch_and_comes_again(model: CompressedLM) -> None:
    together, again = model.compressor.compress(TEXTS), model.compressor.compress(TEXTS)
    for text, one, other in zip(TEXTS, together, again, strict=True):
        (alone,) = model.compressor.compress([text])
        assert one.vectors is not None and alone.vectors is not None and other.vectors is not None
        close(one.vectors, alone.vectors)
        assert torch.equal(one.vectors, other.vectors)
    assert model.compressor.compress([]) == []


def test_tokens_bytes_and_slots_add_up(model: CompressedLM) -> None:
    for text, memory in zip(TEXTS, model.compressor.compress(TEXTS), strict=True):
        tokens = len(model.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))
        assert memory.source_tokens == memory.compressor_tokens == tokens
        assert memory.source_bytes == len(text.encode())
        assert (memory.slots, memory.boundary) == (-(-tokens // SEGMENT) * SUMMARY, 0)


def test_answers_do_not_depend_on_their_batch(model: CompressedLM) -> None:
    """Rows of a batch have memories of different lengths: padding is masked, and positions are each row's own."""
    from lm_eval.api.instance import Instance

    prompts = [Prompt.parse("Read: " * (i % 2) + mark(text) + "Who?" * (i + 1)) for i, text in enumerate(TEXTS) if text]

    def answers(batch: list[Prompt]) -> list[Any]:
        greedy = {"until": [], "do_sample": False, "max_gen_toks": 8}
        rows = [Instance("generate_until", {}, (text, greedy), i, metadata=("t", i, 1)) for i, text in enumerate(batch)]
        pairs = [Instance("loglikelihood", {}, (text, " So"), i, metadata=("t", i, 1)) for i, text in enumerate(batch)]
        scores = [score[0] for score in model.loglikelihood(pairs, True)]
        return list(zip(model.generate_until(rows, True), scores, strict=True))

    together = answers(prompts)
    for prompt, (text, logprob) in zip(prompts, together, strict=True):
        ((alone, score_alone),) = answers([prompt])
        assert alone == text
        assert score_alone == pytest.approx(logprob, abs=3e-4)


def test_soft_vectors_take_no_positions_on_opt(folders: dict[str, Path]) -> None:
    opt, llama = load(folders["opt"]), load(folders["llama"])
    assert (opt.compressor.layout.memory_position, llama.compressor.layout.memory_position) == (-1, None)
    (memory,) = opt.compressor.compress(["Rain."])
    plan = opt.encoder.encode(Prompt.parse("So: " + mark("Rain.") + "Why?"), [memory])
    before, after = (len(piece) for piece in plan.pieces if isinstance(piece, list))
    assert plan.positions(-1) == [*range(before), *[-1] * SUMMARY, *range(before, before + after)]


# ---------------------------------------------------------------- mistakes, one sentence each


def rewrite(folder: Path, **changes: torch.Tensor | None) -> None:
    """Change or drop tensors of a folder's one file; `__` in a name stands for a dot."""
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    for name, value in changes.items():
        key = name.replace("__", ".")
        state = {k: v for k, v in state.items() if k != key} | ({} if value is None else {key: value})
    torch.save(state, folder / "pytorch_model.bin")


def test_missing_and_unexpected_tensors_are_named(models: Path, tmp_path: Path) -> None:
    folder = publish("llama", models, tmp_path / "x")
    rewrite(folder, model__norm__weight=None)
    with pytest.raises(UsageError, match=r"pytorch_model.bin lacks 1 tensors \(model.norm.weight first\)"):
        load(folder)
    rewrite(folder, model__norm__weight=torch.ones(64), model__other=torch.ones(2))
    with pytest.raises(UsageError, match=r"has 1 tensors that do not belong there \(model.other first\)"):
        load(folder)
    rewrite(folder, model__other=None, embed_summary__weight=None)
    with pytest.raises(UsageError, match=r"lacks embed_summary.weight: it is no AutoCompressor"):
        load(folder)


def test_another_base_model_is_refused(models: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    small = publish("llama", models, tmp_path / "vocabulary", vocab_size=999)
    with pytest.raises(UsageError, match=r"vocabulary of 1024 and width 64, the decoder .* 999 and 64: leave decoder="):
        load(folders["llama"], decoder=str(small))
    narrow = publish("llama", models, tmp_path / "width", hidden_size=48)
    with pytest.raises(UsageError, match=r"width 64, the decoder .* 1024 and 48"):
        load(folders["llama"], decoder=str(narrow))
    with pytest.raises(UsageError, match=r"another base model .*model.layers.0.self_attn.k_proj.weight is"):
        load(folders["llama"], decoder=str(models / "llama"))  # other heads


class Bomb:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


@pytest.mark.parametrize("decoder", [True, False])
def test_a_bin_file_with_code_in_it_is_refused_and_not_run(
    models: Path, folders: dict[str, Path], tmp_path: Path, decoder: bool
) -> None:
    folder = publish("llama", models, tmp_path / "x")
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save({**state, "x": Bomb(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(UsageError, match="holds more than tensors and was not opened"):
        load(folder, **({"decoder": str(folders["llama"])} if decoder else {}))
    assert not (tmp_path / "ran").exists()


def test_options_without_sense_are_refused(folders: dict[str, Path]) -> None:
    decoder = load(folders["llama"]).frozen

    def refuse(says: str, **options: Any) -> None:
        with pytest.raises(UsageError, match=says):
            AutoCompressor.load(str(folders["llama"]), decoder, **options)

    for option in ("rate", "segment_length"):
        for value in (0, 2.5, "many"):
            with pytest.raises(UsageError, match=f"{option}: Input should be"):
                load(folders["llama"], **{option: value})
    refuse("rate=4 with 5 summary tokens means segment_length=20, not 30", rate=4, segment_length=30)
    refuse("takes 2505 positions, the model has 2048: pass a shorter segment_length", rate=500)
    assert AutoCompressor.load(str(folders["llama"]), decoder, rate=8).encoder.segment_length == 40
    with pytest.raises(UsageError, match="do not add up to a text of 5"):
        segments([1, 2, 3, 4, 5], [2, 2])


def test_a_context_whose_summaries_outgrow_the_window_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=r"segment \d+ of a context .* takes \d+ positions, the model has 2048"):
        load(folders["llama"], segment_length=5).compressor.compress(["word " * 3000])
    with pytest.raises(UsageError, match=r"takes 2053 positions, the model has 2048"):
        load(folders["llama"], segment_length=2048)
    assert (
        load(folders["opt"], segment_length=2048).compressor.encoder.segment_length == 2048
    )  # soft positions are free there


def test_a_run_of_lm_eval_compresses_each_context_once(folders: dict[str, Path]) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    arguments = f"pretrained={folders['opt']},segment_length={SEGMENT},dtype=float32,device=cpu"
    # lm-eval's own tasks are thousands of files and not needed here; test_icae.py has the whole command.
    metadata = {"data": str(SAMPLE), "tokenizer": str(folders["opt"])}
    manager = TaskManager(include_path=tasks.__path__[0], include_defaults=False, metadata=metadata)
    results = simple_evaluate(
        "autocompressor", arguments, tasks=["pcc_squad"], task_manager=manager, batch_size=4, bootstrap_iters=0
    )
    samples = results["samples"]["pcc_squad"]
    ours = results["config"]["pcc_bench"]
    assert (ours["method"], ours["requested_rate"]) == ("autocompressor", SEGMENT / SUMMARY)
    assert ours["compressions"] == len({row["doc"]["context"] for row in samples})
    records = [row["compression"] for row in samples]
    achieved = sum(r["source_tokens"] for r in records) / sum(r["slots"] for r in records)
    assert results["results"]["pcc_squad"]["compression,none"] == pytest.approx(achieved)
