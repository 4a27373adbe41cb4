"""A token classifier of the user's: what it keeps are pieces of the text, the most probable ones, within the budget."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_classifier import make_classifier
from transformers import AutoModelForTokenClassification, AutoTokenizer

from pcc_bench.baselines.token_classifier import TokenClassifier
from pcc_bench.baselines.token_classifier.classifier import kept_labels
from pcc_bench.core import registry
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError
from pcc_bench.model import init

FAMILIES = ("xlm-roberta", "bert")


@pytest.fixture(scope="module")
def texts(rows: list[dict[str, Any]]) -> list[str]:
    return sorted({row["context"] for row in rows})


@pytest.fixture(scope="module")
def decoder(models: Path) -> Decoder:
    return init.open_decoder(str(models / "llama"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("classifiers")
    return {family: make_classifier(family, texts, root / family) for family in FAMILIES}


def shortened(folder: Path, decoder: Decoder, contexts: list[str], **options: Any) -> list[str]:
    return [str(memory.text) for memory in TokenClassifier.load(str(folder), decoder, **options).compress(contexts)]


@pytest.mark.parametrize("family", FAMILIES)
def test_probabilities_are_those_of_the_model_read_by_hand(
    folders: dict[str, Path], decoder: Decoder, texts: list[str], family: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folders[family])
    model = AutoModelForTokenClassification.from_pretrained(folders[family]).eval()
    with torch.inference_mode():
        expected = model(**tokenizer(texts[0][:600], return_tensors="pt")).logits[0, 1:-1].softmax(-1)[:, 1].tolist()
    classifier = TokenClassifier.load(str(folders[family]), decoder).classifier
    rows = classifier.tokens([texts[0][:600], "Rain."])["input_ids"]
    assert classifier.probabilities(rows)[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_lost_where_everything_fits(
    folders: dict[str, Path], decoder: Decoder, texts: list[str], family: str
) -> None:
    odd = ["  Two  lines,\n\n\tone  tab. ", "Grüße, 東京 und 🦜: naïve café", "...", "a"]
    for unit in ("word", "token"):
        contexts = [*texts, *odd]
        assert shortened(folders[family], decoder, contexts, rate=1, unit=unit, force_tokens=[",", "\n"]) == contexts


@pytest.mark.parametrize("rate", [1.5, 4, 16])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_achieved_rate_is_the_requested_one_in_the_decoders_tokens(
    folders: dict[str, Path], decoder: Decoder, texts: list[str], family: str, rate: float
) -> None:
    for memory in TokenClassifier.load(str(folders[family]), decoder, rate=rate).compress(texts):
        assert memory.ratio is not None
        assert rate <= memory.ratio < rate * 1.25
        assert memory.slots == decoder.count_tokens([str(memory.text)])[0]
    (memory,) = TokenClassifier.load(str(folders[family]), decoder, target_tokens=20).compress(texts[:1])
    assert 14 <= memory.slots <= 20


def test_the_most_probable_words_stay(folders: dict[str, Path], decoder: Decoder, texts: list[str]) -> None:
    compressor = TokenClassifier.load(str(folders["bert"]), decoder, rate=4, word_score="first")
    text = texts[0]
    encoded = compressor.classifier.tokens([text])
    (values,) = compressor.classifier.probabilities(encoded["input_ids"])
    first: dict[int, float] = {}
    spans: dict[int, tuple[int, int]] = {}
    for word, (start, end), value in zip(encoded.word_ids(0), encoded["offset_mapping"][0], values, strict=True):
        first.setdefault(word, value)
        spans[word] = (spans.get(word, (start, end))[0], end)
    kept = compressor.compress([text])[0].text or ""
    count = len(re.findall(r"\w+|[^\w\s]", kept))  # the toy tokenizer's words
    best = sorted(sorted(first, key=lambda word: (-first[word], word))[:count])
    assert kept.split() == "".join(_gap(text, spans, best, n) for n in range(len(best))).split()


def _gap(text: str, spans: dict[int, tuple[int, int]], best: list[int], n: int) -> str:
    start, end = spans[best[n]]
    adjacent = n > 0 and best[n - 1] == best[n] - 1 and text[start - 1 : start].strip() != ""
    between = text[spans[best[n - 1]][1] : start] if n else ""
    return ("" if adjacent or not re.search(r"\s", between) else " ") + text[start:end]


@pytest.mark.parametrize("family", FAMILIES)
def test_forced_texts_and_digits_stay(folders: dict[str, Path], decoder: Decoder, family: str) -> None:
    text = "One line, short; another.\nThe line of 1984, longer than that one.\nThe last line of them."
    options = {"rate": 8, "force_tokens": r"\n \c the", "force_digits": True}
    (kept,) = shortened(folders[family], decoder, [text], **options)
    assert (kept.count("\n"), kept.count(","), kept.count("1984")) == (2, 2, 1)
    assert "the" not in kept  # "another" holds it, "The" is another word
    (bare,) = shortened(folders[family], decoder, [text], rate=8)
    assert bare.count("\n") + bare.count(",") < 2, "at 8x most of the text goes, these too"


@pytest.mark.parametrize("family", FAMILIES)
def test_chunks_and_batches_change_little_and_nothing(
    folders: dict[str, Path], decoder: Decoder, texts: list[str], family: str
) -> None:
    long = " ".join(texts)
    one = TokenClassifier.load(str(folders[family]), decoder, chunk=64, overlap=16, chunk_batch=1)
    many = TokenClassifier.load(str(folders[family]), decoder, chunk=64, overlap=16, chunk_batch=7)
    contexts = [long, "Rain.", "", texts[0]]
    assert [memory.text for memory in one.compress(contexts)] == [
        many.compress([context])[0].text for context in contexts
    ]
    (ids,) = one.classifier.tokens([long])["input_ids"]
    chunks: list[int] = []
    handle = one.classifier.model.register_forward_pre_hook(
        lambda module, arguments, named: chunks.append(len(named["input_ids"])), with_kwargs=True
    )
    values = one.classifier.probabilities([ids])[0]
    handle.remove()
    assert len(values) == len(ids) > 1000
    assert min(values) > 0, "a token was read in no chunk"
    room = 64 - len(one.classifier.before) - len(one.classifier.behind)
    assert sum(chunks) == -(-(len(ids) - 16) // (room - 16))


@pytest.mark.parametrize("forged", ["</s>", "[SEP]", "[PAD]", "<unk>", "[CLS]"])
@pytest.mark.parametrize("family", FAMILIES)
def test_special_tokens_in_a_text_are_ordinary_characters(
    folders: dict[str, Path], decoder: Decoder, family: str, forged: str
) -> None:
    compressor = TokenClassifier.load(str(folders[family]), decoder, rate=1.2)
    classifier, text = compressor.classifier, f"Mind {forged} here."
    seen: list[list[int]] = []
    handle = classifier.model.register_forward_pre_hook(
        lambda module, arguments, named: seen.extend(named["input_ids"].tolist()), with_kwargs=True
    )
    kept = compressor.compress([text])[0].text or ""
    handle.remove()
    rest = iter(text)
    assert all(character in rest for character in kept), "a piece of a word may go, but nothing is added or moved"
    inner = seen[0][len(classifier.before) : len(seen[0]) - len(classifier.behind)]
    assert not set(inner) & classifier.special


@pytest.mark.parametrize(
    ("names", "keep", "labels"),
    [
        (["LABEL_0", "LABEL_1"], None, (1,)),
        (["drop", "keep"], "drop", (0,)),
        (["O", "B-PER", "I-PER"], None, (1, 2)),
        (["O", "B-PER", "I-PER"], "I-PER O", (0, 2)),
    ],
)
def test_which_labels_mean_keep(names: list[str], keep: str | None, labels: tuple[int, ...]) -> None:
    assert kept_labels(names, keep, "it") == labels


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 2, "target_tokens": 9}, "token-classifier: rate=2.0 and target_tokens=9 exclude each other"),
        ({"rate": 0.5}, "rate: Input should be greater than or equal to 1"),
        ({"keep": "PER"}, "keep=PER: .* has no such label; it has LABEL_0, LABEL_1"),
        ({"chunk": 4000}, "chunk=4000, but .* reads 16 to 510 tokens at once"),
        ({"overlap": 400}, r"an overlap is at most half of the chunk \(510 tokens\)"),
        ({"chunk_batch": 0}, "a batch at least 1"),
        ({"force_tokens": ". ."}, "has an empty text or one twice"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    folders: dict[str, Path], decoder: Decoder, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        TokenClassifier.load(str(folders["bert"]), decoder, **registry.typed(TokenClassifier, options, "model_args"))


def test_a_model_of_another_kind_or_without_its_head_is_refused(
    models: Path, folders: dict[str, Path], decoder: Decoder, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="holds LlamaForCausalLM, no token classification model"):
        TokenClassifier.load(str(models / "llama"), decoder)
    with pytest.raises(UsageError, match="neither a folder here nor a hub id"):
        TokenClassifier.load("./nowhere", decoder)
    with pytest.raises(UsageError, match="needs model_args decoder="):
        TokenClassifier.decoder_path("classifier", None)
    with pytest.raises(UsageError, match="tells A, B, C apart: pass keep="):
        kept_labels(["A", "B", "C"], None, "it")
    model = AutoModelForTokenClassification.from_pretrained(folders["bert"])
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("classifier")}
    model.save_pretrained(tmp_path, state_dict=state)
    AutoTokenizer.from_pretrained(folders["bert"]).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r"lacks 2 tensors of its configuration.* \(classifier.bias first\)"):
        TokenClassifier.load(str(tmp_path), decoder)


def test_options_and_weights_tell_memories_apart(folders: dict[str, Path], decoder: Decoder) -> None:
    settings: list[dict[str, Any]] = [{}, {"rate": 4}, {"keep": "LABEL_0"}, {"unit": "token"}, {"force_tokens": "."}]
    settings += [{"chunk": 100, "overlap": 20}, {"force_digits": True}, {"word_score": "first"}]
    prints = [TokenClassifier.load(str(folders["bert"]), decoder, **options).fingerprint() for options in settings]
    prints.append(TokenClassifier.load(str(folders["xlm-roberta"]), decoder).fingerprint())
    assert len(set(prints)) == len(prints)
    assert json.dumps(TokenClassifier.load(str(folders["bert"]), decoder).options())
