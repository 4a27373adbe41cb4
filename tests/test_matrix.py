"""Every registered method keeps every promise of the contract (`pcc_bench.core.compressor`).

A method joins by a row in `TOYS`, which makes a tiny checkpoint of it; a registered method without one fails.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from command import lm_eval_run
from golden_files import SHIPPED
from lm_eval.api.instance import Instance
from safetensors.torch import save_file
from toy_cocom import write_cocom, write_pisco
from transformers import AutoTokenizer

from pcc_bench import ContextCompressor, ContextMemory
from pcc_bench.core import memory_file, registry, tiny
from pcc_bench.core.compressor import Compressor, Memory
from pcc_bench.core.context import Prompt, literal, mark
from pcc_bench.core.errors import UsageError
from pcc_bench.core.registry import METHODS
from pcc_bench.host import models as lm_models
from pcc_bench.host.compressing import open_compressor, open_memory
from pcc_bench.host.lm import CompressedLM
from pcc_bench.model import init

QUERY = "Who saw the rain?"
TEXTS = {
    "empty": "",
    "one token": "a",
    "short": "Rain fell on the roof of the old mill.",
    "unicode": "Zoë said “grüß Gott” 日本語 🌧️ \u0301 אבג <|eot_id|> [MASK] <MEM> \\u00e9\tend.",
    "lines": "One.\n\nTwo two.\n\n\nThree three three.",
    "long": "The miller saw the rain fall on field and river. " * 70,
}


@dataclass(frozen=True)
class Toy:
    """A tiny checkpoint of a method.

    Attributes:
        pretrained: What `--model_args pretrained=` names.
        options: Options it is loaded with.
        other: An option that changes its memories; None where the method has no options.
        decoder: Its base decoder, where it does not find it by itself.
    """

    pretrained: Path
    options: dict[str, Any] = field(default_factory=dict)
    other: dict[str, Any] | None = None
    decoder: Path | None = None


def pcc(models: Path, folder: Path) -> Toy:
    return Toy(models / "pcc", {"rate": 4}, {"rate": 16})


def composed(models: Path, folder: Path) -> Toy:
    return Toy(models / "pcc", {"first_rate": 2}, {"first": "random-context"})


def icae(models: Path, folder: Path) -> Toy:
    from test_icae import published

    save_file(published(init.open_decoder(str(models / "mistral"))), folder / "icae.safetensors")
    return Toy(folder, {}, {"use": "ae"}, models / "mistral")


def autocompressor(models: Path, folder: Path) -> Toy:
    from test_autocompressor import publish

    return Toy(
        publish("llama", models, folder / "auto", "sharded safetensors"), {"segment_length": 40}, {"segment_length": 30}
    )


def cocom(models: Path, folder: Path) -> Toy:
    return Toy(write_cocom(folder / "cocom", models / "mistral"), {}, {"slots": "fixed"})


def pisco(models: Path, folder: Path) -> Toy:
    return Toy(write_pisco(folder / "pisco", models / "mistral"), {}, {"overlong": "truncate"})


def llmlingua2(models: Path, folder: Path) -> Toy:
    from toy_classifier import make_classifier

    classifier = make_classifier("bert", list(TEXTS.values()), folder / "classifier")
    return Toy(classifier, {"rate": 3}, {"rate": 6}, models / "llama")


def token_classifier(models: Path, folder: Path) -> Toy:
    from toy_classifier import make_classifier

    classifier = make_classifier("bert", list(TEXTS.values()), folder / "classifier")
    return Toy(classifier, {"rate": 3}, {"rate": 6}, models / "llama")


def hard(**other: Any) -> Callable[[Path, Path], Toy]:
    """A method that needs no checkpoint but the decoder."""
    return lambda models, folder: Toy(models / "llama", other=other or None)


TOYS: dict[str, Callable[[Path, Path], Toy]] = {
    "full-context": hard(),
    "no-context": hard(),
    "truncated-context": hard(keep="last"),
    "random-context": hard(seed=1),
    "bm25-context": hard(rate=8),
    "pcc": pcc,
    "composed": composed,
    "icae": icae,
    "cocom": cocom,
    "pisco": pisco,
    "autocompressor": autocompressor,
    "llmlingua2": llmlingua2,
    "token-classifier": token_classifier,
}


def load(method: str, toy: Toy, **options: Any) -> CompressedLM:
    """As `lm_eval --model <method>` does."""
    kind = getattr(lm_models, method.replace("-", "_"))
    decoder = {} if toy.decoder is None else {"decoder": str(toy.decoder)}
    arguments = {"pretrained": str(toy.pretrained), **decoder, "device": "cpu", "dtype": "float32", "batch_size": 3}
    model: CompressedLM = kind(**{**arguments, **toy.options, **options})
    return model


@pytest.fixture(scope="module", params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def toy(method: str, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    if method not in TOYS:
        pytest.fail(f"'{method}' is registered, but tests/test_matrix.py has no toy checkpoint of it: add it to TOYS")
    return TOYS[method](models, tmp_path_factory.mktemp(method))


@pytest.fixture(scope="module")
def model(method: str, toy: Toy) -> CompressedLM:
    return load(method, toy)


@pytest.fixture(scope="module")
def memories(model: CompressedLM) -> dict[str, Memory]:
    """Of all texts, made in one batch."""
    return dict(zip(TEXTS, make(model.compressor, list(TEXTS.values())), strict=True))


def make(compressor: Compressor, texts: Sequence[str]) -> list[Memory]:
    """As the runner asks for memories."""
    if compressor.query_aware:
        return compressor.compress_for(texts, [QUERY] * len(texts))
    return compressor.compress(texts)


def counts(memory: Memory) -> dict[str, int]:
    names = ("source_tokens", "compressor_tokens", "source_bytes", "slots", "boundary", "truncated_bytes")
    return {name: getattr(memory, name) for name in names}


def same(one: Memory, other: Memory, atol: float = 0) -> bool:
    """Equal in all but the time it took."""
    if counts(one) != counts(other) or one.text != other.text:
        return False
    if one.vectors is None or other.vectors is None:
        return one.vectors is other.vectors
    return torch.allclose(one.vectors.float(), other.vectors.float(), rtol=0, atol=atol)


def asked(texts: Sequence[str], questions: Sequence[str], kind: str = "generate_until") -> list[Instance]:
    """Requests of one task: each text under each question."""
    greedy = {"until": [], "do_sample": False, "max_gen_toks": 4}
    rows = [Prompt.parse(mark(text) + "Question: " + literal(question)) for text in texts for question in questions]
    argument = greedy if kind == "generate_until" else " rain"
    return [Instance(kind, {}, (prompt, argument), i, metadata=("task", i, 1)) for i, prompt in enumerate(rows)]


# ---------------------------------------------------------------- no method is forgotten


def test_the_original_codes_golden_vectors_of_all_baselines_ship() -> None:
    assert {path.relative_to(SHIPPED).parts[0] for path in SHIPPED.glob("*/**/io.safetensors")} >= {
        *("icae_v1_llama", "icae_v2_llama", "icae_v2_mistral", "autocompressor_llama", "autocompressor_opt"),
        *("cocom_r4", "cocom_r16", "cocom_light_r4", "cocom_light_r16", "pisco"),
    }


def test_every_registered_method_has_a_toy_and_every_toy_a_method() -> None:
    assert set(TOYS) == set(METHODS)
    assert all(registry.get(name).name == name for name in METHODS)


def test_the_rate_is_known_before_a_model_is_loaded(method: str, model: CompressedLM, toy: Toy) -> None:
    recorded = type(model.compressor).recorded_rate(str(toy.pretrained), toy.options)
    assert recorded == (math.inf if method == "no-context" else model.compressor.rate)


def test_a_text_is_compressed_outside_an_evaluation_as_in_it(method: str, model: CompressedLM, toy: Toy) -> None:
    if not model.compressor.soft:
        return
    decoder = None if toy.decoder is None else str(toy.decoder)
    opened = open_compressor(str(toy.pretrained), decoder, "cpu", "float32", toy.options, method)
    (memory,), (expected,) = opened.compress(["Rain fell."]), model.compressor.compress(["Rain fell."])
    assert torch.equal(memory.vectors, expected.vectors)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=f"option nonsense: {method} has no such option"):
        open_compressor(str(toy.pretrained), decoder, "cpu", "float32", {"nonsense": 1}, method)


def test_what_a_method_says_it_is_holds(method: str, model: CompressedLM, memories: dict[str, Memory]) -> None:
    compressor = model.compressor
    assert compressor.summary
    for memory in memories.values():
        assert (memory.vectors is not None, memory.text is None) == (compressor.soft, compressor.soft)
    described = model.describe()
    assert described["method"] == method
    assert described["capabilities"]["soft"] == compressor.soft
    assert described["requested_rate"] == compressor.rate
    assert described["label"] == compressor.label != ""
    if compressor.query_aware:
        with pytest.raises((UsageError, NotImplementedError)):
            compressor.compress(["Rain."])
    else:
        with pytest.raises(NotImplementedError):
            compressor.compress_for(["Rain."], [QUERY])


# ---------------------------------------------------------------- memories


def test_a_memory_does_not_depend_on_its_batch(model: CompressedLM, memories: dict[str, Memory]) -> None:
    for name, text in TEXTS.items():
        (alone,) = make(model.compressor, [text])
        assert same(alone, memories[name], atol=1e-4), name
    backwards = make(model.compressor, list(TEXTS.values())[::-1])
    for name, memory in zip(TEXTS, backwards[::-1], strict=True):
        assert same(memory, memories[name], atol=1e-4), name
    assert make(model.compressor, []) == []


def test_the_same_texts_give_the_same_memories(model: CompressedLM, memories: dict[str, Memory]) -> None:
    torch.manual_seed(1)
    again = make(model.compressor, list(TEXTS.values()))
    assert all(same(memory, memories[name]) for name, memory in zip(TEXTS, again, strict=True))


def test_tokens_bytes_slots_and_length_add_up(model: CompressedLM, memories: dict[str, Memory]) -> None:
    decoder = model.compressor.decoder
    for name, text in TEXTS.items():
        memory = memories[name]
        assert memory.source_bytes + memory.truncated_bytes == len(text.encode()), name
        read = text.encode()[: memory.source_bytes].decode()
        assert decoder.count_tokens([read]) == [memory.source_tokens], name
        assert memory.length == memory.slots + memory.boundary
        assert min(counts(memory).values()) >= 0 and memory.seconds >= 0
        if memory.vectors is not None:
            assert memory.vectors.shape == (memory.length, decoder.hidden_size)
            assert memory.vectors.device.type == "cpu" and memory.vectors.isfinite().all()
            assert not memory.vectors.requires_grad
        else:
            assert memory.text is not None
            assert decoder.count_tokens([memory.text]) == [memory.slots], name
            assert memory.boundary == 0
        if memory.slots:
            assert memory.ratio_slots == memory.source_tokens / memory.slots
            assert memory.ratio == memory.source_tokens / memory.length


def test_empty_one_token_and_long_contexts(method: str, model: CompressedLM, memories: dict[str, Memory]) -> None:
    empty, token, long = (memories[name] for name in ("empty", "one token", "long"))
    assert (empty.source_tokens, empty.source_bytes, empty.truncated_bytes) == (0, 0, 0)
    assert empty.text in (None, "")
    assert token.source_tokens == 1
    if model.compressor.soft:
        assert token.slots >= 1
    if method not in ("full-context", "no-context"):
        assert long.slots > token.slots
        assert long.ratio is not None and long.ratio > 1.3
    if method == "no-context":
        assert long.length == 0
    if (
        not long.truncated_bytes and model.compressor.rate and method != "llmlingua2"
    ):  # its chunks have rates of their own
        assert long.ratio_slots == pytest.approx(model.compressor.rate, rel=0.25)


def test_characters_stay_whole(memories: dict[str, Memory]) -> None:
    text = memories["unicode"].text
    if text is not None:
        assert text.encode("utf-8", errors="strict").decode() == text
        assert "\ufffd" not in text
    assert memories["unicode"].source_bytes == len(TEXTS["unicode"].encode())


# ---------------------------------------------------------------- a run


def test_each_context_is_compressed_once_in_a_run_and_reused_by_the_next(
    method: str, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(method, toy)
    compressor, calls = model.compressor, Counter[tuple[str, ...]]()
    compress, compress_for = compressor.compress, compressor.compress_for

    def counted(texts: Sequence[str]) -> list[Memory]:
        calls.update((text,) for text in texts)
        return compress(texts)

    def counted_for(texts: Sequence[str], queries: Sequence[str]) -> list[Memory]:
        calls.update(zip(texts, queries, strict=True))
        return compress_for(texts, queries)

    monkeypatch.setattr(compressor, "compress", counted)
    monkeypatch.setattr(compressor, "compress_for", counted_for)
    texts, questions = [TEXTS["short"], TEXTS["lines"]], ["Who?", "Where?", "Who?"]
    answers = model.generate_until(asked(texts, questions), True)
    distinct = 4 if compressor.query_aware else 2
    assert (len(calls), set(calls.values()), model.book.compressions) == (distinct, {1}, distinct)
    model.loglikelihood(asked(texts, questions, "loglikelihood"), True)
    assert (len(calls), set(calls.values()), model.book.compressions) == (distinct, {1}, distinct)
    assert answers[0] == answers[2] and answers[3] == answers[5]  # the same question of the same context


def test_under_wrong_memory_each_question_reads_the_memory_of_another_context(
    method: str, toy: Toy, model: CompressedLM
) -> None:
    if not model.compressor.soft:
        with pytest.raises(UsageError, match="control=wrong_memory exchanges soft memories"):
            load(method, toy, control="wrong_memory")
        return
    texts = ["Rain fell on the old mill.", "Snow lay on the new road."]
    right = model.generate_until(asked(texts, [QUERY]), True)
    wrong = load(method, toy, control="wrong_memory").generate_until(asked(texts, [QUERY]), True)
    assert wrong == right[::-1]


@pytest.mark.parametrize("name", ["icae", "cocom", "pisco", "autocompressor", "llmlingua2"])
def test_the_plain_command_runs_a_rival_on_the_four_question_sets(name: str, models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    folder.mkdir()
    toy = TOYS[name](models, folder)
    given = {"pretrained": toy.pretrained, "dtype": "float32", **toy.options}
    given |= {"decoder": toy.decoder} if toy.decoder else {}
    arguments = ",".join(f"{key}={value}" for key, value in given.items())
    command = ("--model", name, "--model_args", arguments, "--tasks", "pcc_rag", "--batch_size", 4, "--limit", 2)
    found = lm_eval_run(
        tmp_path / "out",
        *command,
        "--metadata",
        '{"data": "lab", "population": "all"}',
        "--gen_kwargs",
        "max_gen_toks=4",
    )
    tasks = {"pcc_squad", "pcc_hotpotqa", "pcc_adversarialqa", "pcc_nq"}
    assert tasks <= set(found["results"])
    assert all(found["results"][task]["compression,none"] > 0 for task in tasks)
    assert found["config"]["pcc_bench"]["method"] == name


def test_the_record_of_an_answer_adds_up(model: CompressedLM, memories: dict[str, Memory]) -> None:
    names = ["short", "unicode", "lines"]
    rows = asked([TEXTS[name] for name in names], [QUERY])
    for name, answer in zip(names, model.generate_until(rows, True), strict=True):
        record, memory = answer.record, memories[name]
        for key in ("source_tokens", "compressor_tokens", "source_bytes", "slots", "boundary"):
            assert record[key] == getattr(memory, key), (name, key)
        assert record["prompt_positions"] >= memory.length
        assert record["ratio"] == memory.ratio
    for score in model.loglikelihood(asked([TEXTS["short"]], [QUERY], "loglikelihood"), True):
        assert score[0] < 0


def test_answers_do_not_depend_on_their_batch(model: CompressedLM) -> None:
    rows = asked([TEXTS[name] for name in ("short", "unicode", "lines")], [QUERY])
    together = model.generate_until(rows, True)
    assert [model.generate_until([row], True)[0] for row in rows] == together


# ---------------------------------------------------------------- fingerprints


def test_options_are_in_the_fingerprint(method: str, toy: Toy, model: CompressedLM) -> None:
    again = load(method, toy)
    assert again.compressor.options() == model.compressor.options()
    assert again.compressor.fingerprint() == model.compressor.fingerprint()
    assert again.fingerprint() == model.fingerprint()
    if toy.other is None:
        assert model.compressor.options() == {}
        return
    other = load(method, toy, **toy.other)
    assert other.compressor.options() != model.compressor.options()
    assert other.compressor.fingerprint() != model.compressor.fingerprint()
    assert other.fingerprint() != model.fingerprint()
    assert other.compressor.weights_fingerprint() == model.compressor.weights_fingerprint()


def test_an_unknown_option_is_refused_with_the_nearest_one(method: str, toy: Toy) -> None:
    name = next(iter(toy.other or {"overflow": "skip"}))
    with pytest.raises(UsageError, match=rf"no option '{name}x': did you mean '{name}'"):
        load(method, toy, **{f"{name}x": 1})


# ---------------------------------------------------------------- memory files and foreign decoders


@pytest.fixture
def stored(model: CompressedLM, memories: dict[str, Memory], tmp_path: Path) -> Path:
    """A memory file."""
    path = tmp_path / "new" / "memory.safetensors"
    memory_file.save(memories["short"], model.compressor, path)
    return path


def direct(model: CompressedLM) -> str:
    """The answer of a run."""
    prompt, greedy = Prompt.parse(mark(TEXTS["short"], "\n\n") + literal(QUERY)), {"until": [], "max_gen_toks": 4}
    (answer,) = model.generate_until([Instance("generate_until", {}, (prompt, greedy), 0, metadata=("t", 0, 1))], True)
    return str(answer)


def answer(saved: memory_file.SavedMemory, model: CompressedLM) -> str:
    """The answer of a saved memory, which brings its own layout."""
    parts = [ContextMemory(saved.memory, saved), QUERY]
    return ContextCompressor(model.compressor).generate(parts, max_new_tokens=4)


def test_a_saved_memory_answers_as_a_fresh_one(stored: Path, model: CompressedLM, memories: dict[str, Memory]) -> None:
    again = memory_file.load(stored, model.frozen)
    assert same(again.memory, memories["short"])
    assert counts(again.memory) == counts(memories["short"])
    assert again.fingerprint() == model.compressor.fingerprint()
    assert answer(again, model) == direct(model)


def test_a_saved_memory_finds_its_decoder(stored: Path, toy: Toy, model: CompressedLM) -> None:
    opened = open_memory(stored, decoder=str(toy.decoder) if toy.decoder else None, device="cpu")
    assert opened.compressor.decoder.fingerprint == model.frozen.fingerprint
    assert ContextCompressor(model.compressor).generate([opened, QUERY], max_new_tokens=4) == direct(model)


def test_a_saved_memory_is_refused_by_a_decoder_that_reads_it_otherwise(
    stored: Path, model: CompressedLM, models: Path
) -> None:
    with pytest.raises(UsageError, match="was made for the decoder"):
        memory_file.load(stored, init.open_decoder(str(models / "qwen2")))
    named = init.open_decoder(model.frozen.name)  # as it stands on the disk, without what a method put in
    if model.frozen.adapted:
        with pytest.raises(UsageError, match="was made for the decoder"):
            memory_file.load(stored, named)
    else:
        assert answer(memory_file.load(stored, named), model) == direct(model)


def test_a_foreign_decoder_is_refused_where_the_method_is_bound_to_one(
    method: str, toy: Toy, model: CompressedLM, models: Path, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(models / "mistral")
    foreign = tiny.make_model("mistral", tokenizer, tmp_path / "foreign", width=48)
    if model.compressor.soft:
        with pytest.raises(UsageError, match=re.compile("decoder|base model")):
            load(method, toy, decoder=str(foreign))
    else:
        assert load(method, toy, decoder=str(foreign)).frozen.hidden_size == 48
