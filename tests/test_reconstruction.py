"""Reconstruction and completion: what is asked, how it is scored, and that methods are asked as they were trained."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
from lm_eval.tasks import TaskManager
from nltk.translate.bleu_score import sentence_bleu
from recorded import samples
from transformers import AutoModelForCausalLM, AutoTokenizer

import pcc_bench.tasks
from pcc_bench.core.context import Kind, Prompt
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError
from pcc_bench.core.generation import generate
from pcc_bench.host import models as methods
from pcc_bench.model import checkpoint
from pcc_bench.model.training.objectives import Task, memory_plans
from pcc_bench.tasks import pretraining
from pcc_bench.tasks.documents import cut_tokens, read_documents
from pcc_bench.tasks.lab import rows as lab_rows
from pcc_bench.tasks.metadata import TokenCounter
from pcc_bench.tasks.metrics.text_overlap import text_overlap as overlap
from pcc_bench.tasks.pretraining import INSTRUCTION, ROOM

TASKS = Path(pcc_bench.tasks.__file__).parent
TEXT = (
    "Dr. Anna Reed lives in Paris. She was born on 3 May 1981, and she owns 12 maps. In 1999 her friend Paul left; "
    "I know that he pays 3,000 dollars. On May 5, 2001 Otto came."
)


def load(name: str, models: Path, **metadata: Any) -> Any:
    given = {"data": "lab", "tokenizer": str(models / "llama"), "documents": 8, "tokens": 40, **metadata}
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=given)
    return manager.load([name])["tasks"][name]


def evaluate(name: str, method: str, models: Path, **metadata: Any) -> dict[str, Any]:
    folder = models / ("pcc" if method == "pcc" else "llama")
    given = {"data": "lab", "tokenizer": str(models / "llama"), "documents": 8, "tokens": 40, **metadata}
    model = getattr(methods, method.replace("-", "_"))(pretrained=str(folder), dtype="float32", batch_size=4)
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=given)
    found: dict[str, Any] = lm_eval.simple_evaluate(model, tasks=[name], task_manager=manager, bootstrap_iters=0)
    return found


# What is asked


def test_a_document_is_cut_by_decoder_tokens_and_short_ones_are_counted(models: Path) -> None:
    task = load("pcc_reconstruction", models, tokens=1000, documents=20)
    tokenizer = AutoTokenizer.from_pretrained(models / "llama")
    texts = [row["text"] for row in lab_rows("text", "test", 20)]
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    population = task.config.metadata["population"]
    assert population["rows_read"] == 20
    assert population["kept"] == sum(len(tokens) >= 1000 for tokens in ids) < 20
    assert sum(population["dropped"].values()) == 20 - population["kept"]
    kept = [text for text, tokens in zip(texts, ids, strict=True) if len(tokens) >= 1000]
    for doc, text in zip(task.eval_docs, kept, strict=True):
        assert text.startswith(doc["document"])
        assert doc["tokens"] == len(tokenizer.encode(doc["document"], add_special_tokens=False))
        assert 990 < doc["tokens"] <= 1000
        assert text[len(doc["document"])].isspace()
    assert task.config.generation_kwargs["max_gen_toks"] == max(task.eval_docs["tokens"]) + ROOM


def test_stretches_of_a_document_join_without_a_gap(models: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(models / "llama")
    text = "Grüße aus 東京 — 👩‍👩‍👧‍👦 and more. " * 20
    counter = TokenCounter(tokenizer, "")
    for lengths in ([5, 7, 9], [1, 1], [30]):
        cut = cut_tokens(text, lengths, counter)
        assert cut is not None
        assert text.startswith("".join(cut))
        assert len(cut) == len(lengths)
    assert cut_tokens("short", [50], counter) is None


def test_text_methods_read_the_instruction_and_soft_ones_their_own_cue(models: Path) -> None:
    task = load("pcc_reconstruction", models)
    doc = task.eval_docs[0]
    prompt = task.fewshot_context(doc, num_fewshot=0)
    assert isinstance(prompt, Prompt)
    assert str(prompt) == f"{doc['document']}\n\n{INSTRUCTION}"
    assert [part.kind for part in prompt.parts] == [Kind.CONTEXT, Kind.AGAIN]
    pcc = methods.pcc(pretrained=str(models / "pcc"), dtype="float32")
    (memory,) = pcc.compressor.compress([doc["document"]])
    plan = pcc.encoder.encode(prompt, [memory])
    cue = plan.pieces[-1]
    assert isinstance(cue, torch.Tensor)
    assert torch.equal(cue, pcc.compressor.pcc.special_vector("<ae>")[None])
    assert plan.length == 1 + memory.length + 1  # BOS, memory, <ae>: no word of the instruction
    in_words = load("pcc_reconstruction", models, cue="words").fewshot_context(doc, num_fewshot=0)
    assert str(in_words) == str(prompt)
    assert pcc.encoder.encode(in_words, [memory]).length > plan.length


def test_a_soft_method_without_a_cue_says_so(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pcc = methods.pcc(pretrained=str(models / "pcc"), dtype="float32")
    monkeypatch.setattr(pcc.compressor, "layout", replace(pcc.compressor.layout, reconstruction=None))
    task = load("pcc_reconstruction", models)
    prompt = task.fewshot_context(task.eval_docs[0], num_fewshot=0)
    with pytest.raises(UsageError, match="not trained to say a context again: pass --metadata"):
        pcc.encoder.encode(prompt, pcc.compressor.compress(prompt.contexts))


def test_the_answer_is_what_training_generates_behind_ae(models: Path) -> None:
    results = evaluate("pcc_reconstruction", "pcc", models, documents=4)
    samples = results["samples"]["pcc_reconstruction"]
    model = AutoModelForCausalLM.from_pretrained(models / "llama", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(models / "llama")
    decoder = Decoder(model, tokenizer, str(models / "llama"))
    pcc = checkpoint.load(str(models / "pcc"), decoder)
    for sample in samples:
        with torch.inference_mode():
            (encoded,) = pcc.encode(pcc.encoder.tokenize([sample["doc"]["document"]]))
            prompt = memory_plans(pcc, decoder, [encoded], Task.RECONSTRUCTION)[0].vectors(decoder)
            pad = tokenizer.pad_token_id
            stops = [] if pad is None else [pad]
            room = max(other["doc"]["tokens"] for other in samples) + ROOM
            out = generate(decoder, [prompt], room, stops, range(len(tokenizer), model.config.vocab_size))
        assert sample["resps"][0][0] == tokenizer.decode(out.ids[0], skip_special_tokens=True)


def test_golden_samples(tmp_path: Path) -> None:
    recorded = json.loads((Path(__file__).parent / "fixtures" / "samples_reconstruction.json").read_text("utf-8"))
    assert sorted(recorded) == ["pcc_completion", "pcc_reconstruction"]
    assert samples(list(recorded), tmp_path) == recorded


# Words and their classes


def test_classes_of_words() -> None:
    found = pretraining.classes(TEXT, {"otto"}, [TEXT.index("Paris") + 2, TEXT.index("12")])
    said = {name: [pretraining.split_words(TEXT)[i] for i in found[name]] for name in pretraining.CLASSES}
    assert said["date"] == ["3", "May", "1981", "1999", "May", "5", "2001"]
    assert said["number"] == ["12", "3,000"]
    assert said["name"] == ["Reed", "Paris", "Paul", "Otto"]
    assert said["rare"] == ["Otto"]
    assert said["boundary"] == ["Paris", "owns", "12"]


def test_a_rare_word_stands_in_one_document_or_one_percent_of_them() -> None:
    texts = ["common alone"] + ["common pair"] * 2 + ["common"] * 297
    assert pretraining.rare_words(texts) == {"alone", "pair"}
    assert pretraining.rare_words(texts[:4]) == {"alone"}


def test_alignment_is_a_longest_common_subsequence() -> None:
    chance = random.Random(0)
    for _ in range(300):
        a, b = ([chance.choice("abcd") for _ in range(chance.randrange(12))] for _ in range(2))
        table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
        kept = pretraining.aligned(a, b)
        rest = iter(b)
        assert all(a[i] in rest for i in kept)  # a subsequence of both
        assert kept == sorted(set(kept))
        assert len(kept) == table[-1][-1]


# Scores


def test_errors_are_counted_by_class() -> None:
    classes = pretraining.classes(TEXT, set(), [])
    doc = {"document": TEXT, "classes": classes}
    perfect = pretraining.score_text(doc, [f" {TEXT}\n"])
    assert perfect["exact"] == perfect["rougeL"] == perfect["bleu_sentence"] == perfect["bleu_official"] == 1
    assert all(perfect[f"error_{name}"] == (0, len(classes[name])) for name in pretraining.CLASSES)
    wrong = pretraining.score_text(doc, [TEXT.replace("1981", "1982").replace("12", "13").replace("Paris", "Rome")])
    assert wrong["error_date"] == (1, 7)
    assert wrong["error_number"] == (1, 2)
    assert wrong["error_name"] == (1, 4)
    assert wrong["error_word"] == (3, len(pretraining.split_words(TEXT)))
    assert pretraining.ratio_of_sums([(1, 7), (0, 0), (1, 3)]) == 0.2
    assert pretraining.ratio_of_sums([(0, 0)]) is None
    nothing = pretraining.score_text(doc, [""])
    assert nothing["exact"] == nothing["rougeL"] == nothing["bleu_sentence"] == nothing["bleu_official"] == 0


def test_official_bleu_exchanges_hypothesis_and_reference() -> None:
    text = "one two three four five six seven eight nine ten"
    doc = {"document": text, "classes": {name: [] for name in pretraining.CLASSES}}
    found = pretraining.score_text(doc, ["one two three four five"])
    said, meant = text.split()[:5], text.split()
    assert found["bleu_official"] == pytest.approx(sentence_bleu([said], meant))
    assert found["bleu_official"] == pytest.approx(0.393, abs=5e-4)  # what the paper's code computes for this pair
    assert found["bleu_sentence"] == pytest.approx(0.368, abs=5e-4)


def test_words_are_nltks_without_its_download() -> None:
    assert overlap.tokenize("She isn't here. It's $3,000 (or so).") == [
        *("She", "is", "n't", "here", ".", "It", "'s", "$", "3,000", "(", "or", "so", ")", "."),
    ]


def test_bleu_is_that_of_sacrebleus_command_line(tmp_path: Path) -> None:
    pairs = [(TEXT, TEXT.replace("Paris", "Rome")), ("The cat sat on the mat.", "A cat sat on a mat."), ("One.", "")]
    reference, answers = tmp_path / "reference", tmp_path / "answers"
    reference.write_text("\n".join(meant for meant, _ in pairs) + "\n")
    answers.write_text("\n".join(answer for _, answer in pairs) + "\n")
    command = [sys.executable, "-m", "sacrebleu", str(reference), "-i", str(answers), "-b", "-w", "6"]
    theirs = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert overlap.corpus_bleu(pairs) == pytest.approx(theirs, abs=1e-6)


def test_a_run_has_every_score(models: Path) -> None:
    results = evaluate("pcc_reconstruction", "full-context", models, segment_length=16)["results"]["pcc_reconstruction"]
    for name in ("bleu", "bleu_sentence", "bleu_official", "rougeL", "exact", "token_accuracy", "error_word"):
        assert math.isfinite(results[f"{name},none"])
    assert 0 <= results["error_boundary,none"] <= 1
    assert results["compression,none"] == 1


# Completion


@pytest.mark.parametrize("method", ["full-context", "no-context"])
def test_perplexity_is_that_of_a_plain_loop(method: str, models: Path) -> None:
    results = evaluate("pcc_completion", method, models, documents=6, continuation_tokens=20)
    tokenizer = AutoTokenizer.from_pretrained(models / "llama")
    model = AutoModelForCausalLM.from_pretrained(models / "llama", dtype=torch.float32)
    total, tokens, size = 0.0, 0, 0
    for sample in results["samples"]["pcc_completion"]:
        document, continuation = (sample["doc"][key] for key in ("document", "continuation"))
        text = document if method == "full-context" else ""
        ids = tokenizer.encode(text + continuation, add_special_tokens=False)
        first = len(ids) - len(tokenizer.encode(continuation, add_special_tokens=False))
        with torch.no_grad():
            logits = model(torch.tensor([[tokenizer.bos_token_id, *ids]])).logits[0]
        logprobs = logits.log_softmax(-1)[first:-1]
        total += float(logprobs[range(len(ids) - first), ids[first:]].sum())
        tokens += len(ids) - first
        size += len(continuation.encode())
    assert tokens > 6 * 15
    found = results["results"]["pcc_completion"]
    assert found["perplexity,none"] == pytest.approx(math.exp(-total / tokens), rel=1e-5)
    assert found["byte_perplexity,none"] == pytest.approx(math.exp(-total / size), rel=1e-5)


def test_a_memory_takes_the_place_of_the_text(models: Path) -> None:
    results = evaluate("pcc_completion", "pcc", models, documents=4, continuation_tokens=20)
    for sample in results["samples"]["pcc_completion"]:
        record = sample["compression"]
        assert 30 < record["source_tokens"] <= 40
        assert record["prompt_positions"] == 1 + record["slots"] + record["boundary"]


# Sources


def test_a_folder_of_text_files(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "a.txt").write_text("First line.\nSecond.\n\n" + "Another paragraph. " * 2000 + "\n\nThe last.")
    (folder / "b.jsonl").write_text("".join(json.dumps({"text": f"Row {i}"}) + "\n" for i in range(3)))
    metadata = {"data": str(tmp_path), "dataset": "text", "split": "test", "hub": {}, "documents": 10}
    source, documents = read_documents(metadata)
    found = list(documents)
    assert source["files"] == ["a.txt", "b.jsonl"]
    assert found[1] == "Row 0"  # in turn
    assert found[0].startswith("First line.\nSecond.\n\nAnother")
    assert found[-1].endswith("The last.") or "The last." in found
    (folder / "validation.txt").write_text("Held out.")
    assert list(read_documents(metadata)[1]) == ["Held out."]
    task = load("pcc_reconstruction", models, data=str(tmp_path), tokens=2)
    assert task.config.metadata["population"]["source"] == "folder"


def test_bad_input_is_one_sentence(tmp_path: Path, models: Path) -> None:
    for name, metadata, says in (
        ("pcc_reconstruction", {"tokens": 0}, "tokens=0: tokens is a whole number of 1 or more"),
        ("pcc_reconstruction", {"cue": "loud"}, "cue='loud': cue is one of own, words"),
        ("pcc_reconstruction", {"tokens": 10**6}, "none of the 8 documents of the lab's text .* has 1000000 tokens"),
        ("pcc_completion", {"data": str(tmp_path)}, r"no documents in .*text: put \*.txt or \*.jsonl"),
        ("pcc_completion", {"tokenizer": str(tmp_path)}, "can't load the tokenizer"),
    ):
        with pytest.raises(UsageError, match=says):
            load(name, models, **metadata)
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"text": "fine"}\n{"txt": 1}\n')
    with pytest.raises(UsageError, match="line 2: no JSON object with a text in the column text"):
        load("pcc_completion", models, data=str(tmp_path))


def test_the_hub_is_streamed(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def stream(path: str, name: str, **options: Any) -> Any:
        asked.update(options, path=path, name=name)
        return ({"text": row["text"]} for row in lab_rows("text", "test", 100))

    monkeypatch.setattr("pcc_bench.tasks.data.datasets.load_dataset", stream)
    task = load("pcc_reconstruction", models, data="hub", documents=5)
    assert asked["streaming"] is True
    assert asked["path"] == "HuggingFaceFW/fineweb"
    assert task.config.metadata["population"]["rows_read"] == 5
