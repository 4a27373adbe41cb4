"""The Python API: it answers what `lm_eval --model METHOD` answers, for every kind of method."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from command import lm_eval_run
from transformers import TextStreamer

from pcc_bench import ContextCompressor, ContextMemory
from pcc_bench.core.errors import UsageError

ALL = '{"population": "all"}'
QUESTION = "Who saw the rain?"
TEXTS = ["The miller saw the rain fall on field and river. " * 8, "Nobody in Delft saw the snow. " * 8]


@pytest.fixture(scope="module")
def pcc(models: Path) -> ContextCompressor:
    return ContextCompressor.from_pretrained(str(models / "pcc"), device="cpu")


@pytest.fixture(scope="module")
def memories(pcc: ContextCompressor) -> list[ContextMemory]:
    return pcc.compress(TEXTS)


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, pcc_bench; assert not {'torch', 'transformers', 'pydantic'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        from pcc_bench import nothing  # type: ignore[attr-defined]  # noqa: F401


@pytest.mark.parametrize(
    ("method", "checkpoint", "options", "prompt"),
    [
        ("pcc", "pcc", {"rate": 16}, "official"),
        ("pcc", "pcc", {}, "short"),
        ("truncated-context", "llama", {"rate": 2}, "official"),
        ("bm25-context", "mistral", {}, "official"),
        ("pcc", "pcc-lab-4x", {}, "chat"),
    ],
)
def test_answers_are_those_of_lm_eval(
    method: str, checkpoint: str, options: dict[str, Any], prompt: str, models: Path, tmp_path: Path
) -> None:
    pretrained = checkpoint if "lab" in checkpoint else str(models / checkpoint)
    arguments = ",".join(f"{k}={v}" for k, v in {"pretrained": pretrained, **options}.items())
    metadata = '{"population": "all", "prompt": "' + prompt + '"}'
    run = ["--model", method, "--model_args", arguments, "--device", "cpu"]
    run += ["--tasks", "pcc_squad", "--limit", 3, "--metadata", metadata]
    samples = lm_eval_run(tmp_path, *run, *(["--apply_chat_template"] if prompt == "chat" else []))["samples"]
    pcc = ContextCompressor.from_pretrained(pretrained, method, device="cpu", **options)
    assert len(samples) == 3
    for sample in samples:
        row = sample["doc"]
        query = row["question"] if pcc.compressor.query_aware else None
        memory = pcc.compress(row["context"], query=query)
        assert memory.answer(row["question"], prompt=prompt) == sample["resps"][0][0]
        assert memory.ratio == sample["compression"]["ratio"]


def test_generate_reads_memories_and_texts_in_any_order(pcc: ContextCompressor, memories: list[ContextMemory]) -> None:
    one, other = memories
    asked = f"Question: {QUESTION}\n\nAnswer: "
    assert pcc.generate([one, asked]) == one.answer(QUESTION)
    prompts = ([one, other, asked], [other, "And: ", one, asked], [asked], ["A", one])
    assert len({pcc.generate(parts) for parts in prompts}) == 4
    assert len(pcc.tokenizer.encode(pcc.generate([one, asked], max_new_tokens=5), add_special_tokens=False)) <= 5
    assert pcc.generate([one, asked], do_sample=True, temperature=5.0) != one.answer(QUESTION)


def test_a_streamer_gets_the_answer_as_it_comes(
    pcc: ContextCompressor, memories: list[ContextMemory], capsys: pytest.CaptureFixture[str]
) -> None:
    class Pieces(TextStreamer):
        pieces: list[str] = []  # noqa: RUF012

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            self.pieces.append(text)

    streamer = Pieces(pcc.tokenizer, skip_prompt=True, skip_special_tokens=True)
    answer = memories[0].answer(QUESTION, streamer=streamer)
    assert "".join(streamer.pieces) == answer
    assert len(streamer.pieces) > 3


def test_an_answer_ends_at_a_text_and_has_no_special_tokens(
    pcc: ContextCompressor, memories: list[ContextMemory]
) -> None:
    whole = pcc.generate([memories[0], "x"])
    middle = whole[len(whole) // 2 : len(whole) // 2 + 3]
    assert pcc.generate([memories[0], "x"], until=[middle]) == whole.partition(middle)[0]
    for token in pcc.tokenizer.all_special_tokens:
        assert token not in whole


def test_plain_generate_reads_the_input_vectors(pcc: ContextCompressor, memories: list[ContextMemory]) -> None:
    vectors = memories[0].inputs_embeds(QUESTION)
    assert vectors.shape[::2] == (1, pcc.compressor.decoder.hidden_size)
    with torch.inference_mode():
        ids = pcc.model.generate(inputs_embeds=vectors, max_new_tokens=30, do_sample=False)
    assert pcc.tokenizer.decode(ids[0], skip_special_tokens=True) == memories[0].answer(QUESTION)


@pytest.mark.parametrize("method", ["pcc", "full-context"])
def test_a_memory_is_saved_and_read(method: str, models: Path, tmp_path: Path) -> None:
    checkpoint = models / ("pcc" if method == "pcc" else "llama")
    pcc = ContextCompressor.from_pretrained(str(checkpoint), method, device="cpu")
    memory = pcc.compress(TEXTS[0])
    memory.save(tmp_path / "a" / "m.safetensors")
    again = pcc.load_memory(tmp_path / "a" / "m.safetensors")
    assert (again.slots, again.ratio) == (memory.slots, memory.ratio)
    assert again.answer(QUESTION) == memory.answer(QUESTION)
    other = ContextCompressor.from_pretrained(str(models / "mistral"), "full-context", device="cpu")
    with pytest.raises(UsageError, match="was made for the decoder"):
        other.load_memory(tmp_path / "a" / "m.safetensors")


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("pcc-lab-4x", "pcc"),
        ("icae-lab-4x", "icae"),
        ("cocom-lab-4x", "cocom"),
        ("autocompressor-lab-4x", "autocompressor"),
        ("llmlingua2-lab", "llmlingua2"),
    ],
)
def test_a_shipped_checkpoint_knows_its_method(name: str, method: str) -> None:
    decoder = "lab-llama" if method == "llmlingua2" else None
    assert ContextCompressor.from_pretrained(name, decoder=decoder, device="cpu").compressor.name == method


def test_long_lists_show_progress(
    pcc: ContextCompressor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pcc.compress(TEXTS)
    assert "Compressing contexts" not in capsys.readouterr().err
    monkeypatch.setattr("pcc_bench.host.api.CHUNK_CHARACTERS", 100)
    pcc.compress(TEXTS)
    assert "Compressing contexts" in capsys.readouterr().err


def test_mistakes_are_one_sentence(
    pcc: ContextCompressor, memories: list[ContextMemory], models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pcc.tokenizer, "chat_template", None)

    def says(words: str, call: Any) -> None:
        with pytest.raises(UsageError, match=words):
            call()

    load = ContextCompressor.from_pretrained
    says("did you mean 'pcc'", lambda: load(str(models / "pcc"), "pc"))
    says("no such option: did you mean 'rate'", lambda: load(str(models / "pcc"), rat=4))
    says("dtype int8 is unknown", lambda: load(str(models / "pcc"), dtype="int8"))
    says("device nonsense can't be used", lambda: load(str(models / "pcc"), device="nonsense"))
    says("text 2 of 2 is empty", lambda: pcc.compress(["a", " "]))
    says("compresses without a question", lambda: pcc.compress("a", query=QUESTION))
    says("prompt is one of official, short, chat", lambda: memories[0].answer(QUESTION, prompt="long"))
    says("prompt is one of official, short, chat", lambda: memories[0].answer(QUESTION, prompt=["short"]))
    says("needs a chat template", lambda: memories[0].answer(QUESTION, prompt="chat"))
    says("the model has 4096", lambda: memories[0].answer(QUESTION, max_new_tokens=4096))
    says("reads a list of memories and texts", lambda: pcc.generate("a"))
    aware = load(str(models / "llama"), "bm25-context", device="cpu")
    says("compresses for a question", lambda: aware.compress(TEXTS))
    says("3 questions", lambda: aware.compress(TEXTS, query=["a", "b", "c"]))
    both = [memories[0], aware.compress(TEXTS[0], query=QUESTION)]
    says("made by different compressors", lambda: pcc.generate(both))


def test_the_pipeline_answers_as_the_memory_does(pcc: ContextCompressor) -> None:
    from transformers import pipeline

    ask = pipeline("compressed-text-generation", model=pcc)
    question, other = QUESTION, "Who is in Delft?"
    memory = pcc.compress(TEXTS[0])
    assert ask(TEXTS[0], question=question) == {"answer": memory.answer(question), "ratio": memory.ratio}
    both = ask(TEXTS, questions=[question, other])
    assert both[1]["answers"] == [pcc.compress(TEXTS[1]).answer(asked) for asked in (question, other)]
    assert len(both) == 2
    with pytest.raises(UsageError, match="not both"):
        ask(TEXTS[0], question=question, questions=[other])
    with pytest.raises(UsageError, match="without a question"):
        ask(TEXTS[0])
    with pytest.raises(UsageError, match="takes model=ContextCompressor"):
        pipeline("compressed-text-generation", model=pcc.model)
