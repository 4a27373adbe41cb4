"""LLMLingua-2 is the authors' package, offline: same texts out, nothing else touched."""

from __future__ import annotations

import json
import os
import random
import re
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from demonstrated import REAL
from toy_classifier import make_classifier

from pcc_bench.baselines.llmlingua2 import LlmLingua2
from pcc_bench.baselines.llmlingua2.package import PlainCounter
from pcc_bench.core import registry
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.documents import read_json_lines
from pcc_bench.core.errors import UsageError
from pcc_bench.host import models as lm_models
from pcc_bench.model import init
from pcc_bench.tasks.rows import real_folder

PASSAGES = REAL / "squad" / "validation.jsonl"
FAMILIES = ("xlm-roberta", "bert")
# The package tells its models apart by these names in the path; ours may be called anything.
FOLDERS: dict[str, str] = {"xlm-roberta": "llmlingua-2-xlm-roberta-large", "bert": "bert-base-multilingual-cased"}
SETTINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [  # our options, the package's
    ({"rate": 2}, {"rate": 0.5}),
    ({"rate": 4}, {"rate": 0.25}),
    ({"rate": 16, "word_score": "first"}, {"rate": 1 / 16, "token_to_word": "first"}),
    ({"target_tokens": 60}, {"target_token": 60}),
    (
        {"rate": 3, "force_tokens": r"\n . ! ? \c", "drop_consecutive": True, "force_digits": True},
        {
            "rate": 1 / 3,
            "force_tokens": ["\n", ".", "!", "?", ","],
            "drop_consecutive": True,
            "force_reserve_digit": True,
        },
    ),
]


@pytest.fixture(scope="module")
def texts(rows: list[dict[str, Any]]) -> list[str]:
    return [row["context"] for row in rows]


@pytest.fixture(scope="module")
def decoder(models: Path) -> Decoder:
    return init.open_decoder(str(models / "llama"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("classifiers")
    return {family: make_classifier(family, texts, root / FOLDERS[family]) for family in FAMILIES}


@pytest.fixture(scope="module")
def direct(folders: dict[str, Path], decoder: Decoder) -> dict[str, Any]:
    """The package as its own documentation has it; only its downloaded counter is replaced."""
    from llmlingua import prompt_compressor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompt_compressor.tiktoken, "encoding_for_model", lambda name: PlainCounter(decoder.tokenizer))
        return {
            family: prompt_compressor.PromptCompressor(str(folder), device_map="cpu", use_llmlingua2=True)
            for family, folder in folders.items()
        }


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []

    def refuse(*arguments: Any, **named: Any) -> None:
        calls.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return calls


def texts_of(compressor: LlmLingua2, contexts: list[str]) -> list[str | None]:
    return [memory.text for memory in compressor.compress(contexts)]


def by_the_package(package: Any, contexts: list[str], options: dict[str, Any]) -> list[str]:
    return [package.compress_prompt_llmlingua2(text, **options)["compressed_prompt"] for text in contexts]


@pytest.mark.parametrize(("ours", "theirs"), SETTINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_those_of_the_package_called_directly_one_by_one(
    folders: dict[str, Path],
    direct: dict[str, Any],
    decoder: Decoder,
    texts: list[str],
    family: str,
    ours: dict[str, Any],
    theirs: dict[str, Any],
) -> None:
    contexts = [*sorted(set(texts)), "\n".join(sorted(set(texts))), "Rain fell on 3 May.\nIt was cold, wet and windy!"]
    made = texts_of(LlmLingua2.load(str(folders[family]), decoder, **ours), contexts)
    assert made == by_the_package(direct[family], contexts, theirs)
    assert all(made[:-1])


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_those_of_the_package_on_200_real_passages(
    folders: dict[str, Path], direct: dict[str, Any], decoder: Decoder, family: str
) -> None:
    if not PASSAGES.is_file():
        pytest.skip(f"no real data at {PASSAGES}: set PCC_DATA to a folder with squad/validation.jsonl")
    with PASSAGES.open(encoding="utf-8") as lines:
        passages = list(dict.fromkeys(json.loads(line)["context"] for line in lines))[:200]
    assert len(passages) == 200
    made = texts_of(LlmLingua2.load(str(folders[family]), decoder, rate=4), passages)
    assert made == by_the_package(direct[family], passages, {"rate": 0.25})


@pytest.mark.parametrize("family", FAMILIES)
def test_it_loads_and_works_with_no_network_from_a_folder_of_any_name(
    folders: dict[str, Path], decoder: Decoder, texts: list[str], family: str, tmp_path: Path, no_network: list[Any]
) -> None:
    renamed = tmp_path / "my classifier"
    renamed.mkdir()
    for path in folders[family].iterdir():
        (renamed / path.name).write_bytes(path.read_bytes())
    assert texts_of(LlmLingua2.load(str(renamed), decoder), texts[:2])[0]
    assert not no_network


def test_loading_it_leaves_seeds_and_kernels_alone(folders: dict[str, Path], decoder: Decoder) -> None:
    def state() -> list[Any]:
        kernels = [torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark]
        draws = [random.random(), float(np.random.rand()), float(torch.rand(1))]  # noqa: NPY002
        return [os.environ.get("PYTHONHASHSEED"), *kernels, *draws]

    def seed() -> None:
        random.seed(7)
        np.random.seed(7)  # noqa: NPY002
        torch.manual_seed(7)

    seed()
    before = state()
    seed()
    LlmLingua2.load(str(folders["bert"]), decoder)
    assert state() == before


@pytest.mark.parametrize("family", FAMILIES)
def test_one_context_gives_what_it_gives_among_others_and_every_time(
    folders: dict[str, Path], decoder: Decoder, texts: list[str], family: str
) -> None:
    contexts = [*texts[:9:4], "Rain.", "", "  \n ", "Grüße, 東京 und 🦜: naïve café", " ".join(texts)]
    compressor = LlmLingua2.load(str(folders[family]), decoder, rate=2)
    together = texts_of(compressor, contexts)
    assert together == texts_of(compressor, contexts)
    assert together == [texts_of(compressor, [text])[0] for text in contexts]
    assert together == texts_of(LlmLingua2.load(str(folders[family]), decoder, rate=2, chunk_batch=1), contexts)
    assert compressor.compress([]) == []
    assert together[4] == together[5] == ""


@pytest.mark.parametrize("family", FAMILIES)
def test_the_account_is_in_the_decoders_tokens(
    folders: dict[str, Path], decoder: Decoder, texts: list[str], family: str
) -> None:
    compressor = LlmLingua2.load(str(folders[family]), decoder, rate=4)
    (memory,) = compressor.compress(texts[:1])
    assert memory.source_tokens == len(decoder.tokenizer.encode(texts[0], add_special_tokens=False))
    assert memory.slots == len(decoder.tokenizer.encode(memory.text, add_special_tokens=False))
    own = compressor.package.tokenizer
    assert memory.compressor_tokens == len(own.encode(texts[0], add_special_tokens=False))
    assert memory.source_bytes == len(texts[0].encode())
    assert memory.ratio == pytest.approx(4, rel=0.3)


def test_a_target_leaves_about_as_many_tokens_whatever_the_length(
    folders: dict[str, Path], decoder: Decoder, texts: list[str]
) -> None:
    compressor = LlmLingua2.load(str(folders["xlm-roberta"]), decoder, target_tokens=80)
    assert compressor.rate is None
    for text in (texts[0], " ".join(sorted(set(texts))), texts[-1]):
        (memory,) = compressor.compress([text])
        assert 80 * 0.6 < memory.slots < 80 * 1.4


def test_forced_words_stay(folders: dict[str, Path], decoder: Decoder) -> None:
    text = "One line, short.\nAnother line, longer than that one.\nThe last line of them."
    for family in FAMILIES:
        bare = LlmLingua2.load(str(folders[family]), decoder, rate=8)
        kept = LlmLingua2.load(str(folders[family]), decoder, rate=8, force_tokens=["\n", ","])
        assert (texts_of(bare, [text])[0] or "").count("\n") == 0
        (made,) = texts_of(kept, [text])
        assert made is not None
        assert (made.count("\n"), made.count(",")) == (2, 2)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("forged", ["</s>", "[SEP]", "[PAD]", "<pad>", "[NEW0]", "<unk>", "＜/s＞", "<mask>", "[UNK]"])
def test_special_tokens_in_a_text_are_ordinary_characters(
    folders: dict[str, Path], decoder: Decoder, texts: list[str], family: str, forged: str
) -> None:
    compressor = LlmLingua2.load(str(folders[family]), decoder, rate=1.25, force_tokens=["\n"])
    package = compressor.package
    seen: list[list[int]] = []
    handle = package.model.register_forward_pre_hook(
        lambda module, arguments, named: seen.extend(named["input_ids"].tolist()), with_kwargs=True
    )
    (made,) = texts_of(compressor, [f"{texts[0][:400]} Mind {forged} here. {texts[0][400:700]}"])
    handle.remove()
    assert made is not None
    assert "\n" not in made  # [NEW0] is no way to write the first forced word
    tokens = [package.tokenizer.convert_ids_to_tokens([i for i in row if i != row[-1]]) for row in seen]
    special = {*package.special_tokens, *package.added_tokens} - {package.tokenizer.unk_token}
    end = package.tokenizer.unk_token if family == "xlm-roberta" else "[SEP]"  # the package's own, see its issue 181
    inner = [token for row in tokens for token in row[1:] if token not in ("[PAD]", end, "[CLS]")]
    assert not special & set(inner)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_of_unknown_characters_only_leaves_nothing_and_harms_no_other(
    folders: dict[str, Path], decoder: Decoder, texts: list[str], family: str
) -> None:
    compressor = LlmLingua2.load(str(folders[family]), decoder, rate=2)
    unknown, known = texts_of(compressor, ["ᚠᛇᚻ", texts[0]])
    assert unknown == ""
    assert known == texts_of(compressor, [texts[0]])[0]


def test_options_and_weights_tell_memories_apart(folders: dict[str, Path], decoder: Decoder) -> None:
    made = [
        LlmLingua2.load(str(folders[family]), decoder, **options).fingerprint()
        for family, options in (
            ("bert", {}),
            ("bert", {"rate": 4}),
            ("bert", {"target_tokens": 9}),
            ("bert", {"force_tokens": "."}),
            ("xlm-roberta", {}),
        )
    ]
    assert len(set(made)) == len(made)
    assert LlmLingua2.load(str(folders["bert"]), decoder, chunk_batch=3).fingerprint() == made[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.5}, "rate: Input should be greater than or equal to 1"),
        ({"rate": 2, "target_tokens": 9}, "exclude each other"),
        ({"target_tokens": 0}, "target_tokens: Input should be greater than 0"),
        ({"target_tokens": 1.5}, "target_tokens: Input should be a valid integer"),
        ({"word_score": "last"}, "word_score: Input should be 'mean' or 'first'"),
        ({"counting": "gpt2"}, "counting: Input should be 'decoder' or 'cl100k'"),
        ({"force_tokens": ". ."}, "has an empty text or one twice"),
        ({"force_tokens": [str(i) for i in range(101)]}, "101 force_tokens, the package takes 100"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    folders: dict[str, Path], decoder: Decoder, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        LlmLingua2.load(str(folders["bert"]), decoder, **registry.typed(LlmLingua2, options, "model_args"))


def test_gpts_tokens_are_counted_on_request_only_and_missing_ones_named(
    folders: dict[str, Path], decoder: Decoder, no_network: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import tiktoken.registry

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    with pytest.raises(UsageError, match=r"TIKTOKEN_CACHE_DIR, or pass counting=decoder"):
        LlmLingua2.load(str(folders["bert"]), decoder, counting="cl100k")
    assert no_network


def test_a_checkpoint_of_another_kind_is_refused(models: Path, decoder: Decoder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds LlamaForCausalLM, not a classifier of LLMLingua-2"):
        LlmLingua2.load(str(models / "llama"), decoder)
    with pytest.raises(UsageError, match="is no LLMLingua-2 classifier"):
        LlmLingua2.load(str(tmp_path), decoder)
    with pytest.raises(UsageError, match="neither a folder here nor a hub id"):
        LlmLingua2.load("./nowhere", decoder)


def test_forced_words_without_rows_for_them_are_refused(tmp_path: Path, texts: list[str], decoder: Decoder) -> None:
    folder = make_classifier("bert", texts, tmp_path / "bare", forced=0)
    assert LlmLingua2.load(str(folder), decoder, force_tokens=".").compress(["Rain. Sun."])
    with pytest.raises(UsageError, match="vocabulary lacks the 100 rows"):
        LlmLingua2.load(str(folder), decoder, force_tokens=r"\n")


def test_the_decoder_has_to_be_named(folders: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="needs model_args decoder="):
        lm_models.llmlingua2(pretrained=str(folders["bert"]), device="cpu")


def test_the_classifier_for_english_text_keeps_what_answers_are_made_of(decoder: Decoder) -> None:
    rows = [row for _, row in read_json_lines(real_folder() / "squad" / "validation.jsonl")]
    asked = {row["context"]: [] for row in rows}
    for row in rows:
        asked[row["context"]] += row["answers"]["text"][0].lower().split()
    memories = LlmLingua2.load("llmlingua2-squad", decoder, rate=4).compress(list(asked))
    kept = [set(re.findall(r"\w+", (memory.text or "").lower())) for memory in memories]
    answered = [word in text for text, words in zip(kept, asked.values(), strict=True) for word in words]
    words = [word in text for text, context in zip(kept, asked, strict=True) for word in context.lower().split()]
    assert np.mean(answered) > 1.5 * np.mean(words)
    assert 3 < sum(memory.source_tokens for memory in memories) / sum(memory.slots for memory in memories) < 5
