"""Memories for vLLM: what is written is what our decoder reads, bit for bit, and a server's answers are ours."""

from __future__ import annotations

import json
import socket
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from test_lm import generations, load, prompt, scorings
from typer.testing import CliRunner
from vllm_stub import Stub, serving, vectors_of

from pcc_bench import ContextCompressor
from pcc_bench.cli import app
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError
from pcc_bench.core.generation import generate
from pcc_bench.core.plan import common_dtype
from pcc_bench.host.compressing import ContextMemory
from pcc_bench.host.serving import BAN, SAMPLING, InProcess, Server, compare, sampling, write
from pcc_bench.model import init

QUESTION = "Who <|begin_of_text|> is it?"


@pytest.fixture(scope="module")
def memory(models: Path, rows: list[dict[str, Any]]) -> ContextMemory:
    return ContextCompressor.from_pretrained(str(models / "pcc"), device="cpu").compress(rows[0]["context"])


@pytest.fixture(scope="module")
def decoder(models: Path) -> Decoder:
    return init.open_decoder(str(models / "llama"))


def read_by_ours(memory: ContextMemory) -> torch.Tensor:
    """What really goes into our decoder's first layer when it answers."""
    decoder, seen = memory.compressor.decoder, []
    handle = decoder.model.model.register_forward_pre_hook(
        lambda module, arguments, named: seen.append(named["inputs_embeds"]), with_kwargs=True
    )
    memory.answer(QUESTION, max_new_tokens=1)
    handle.remove()
    return seen[0][0]


def test_the_vectors_written_are_those_our_decoder_reads_bit_for_bit(memory: ContextMemory, tmp_path: Path) -> None:
    write(memory, QUESTION, "official", 7, tmp_path / "p.pt", as_chat=False)
    vectors = torch.load(tmp_path / "p.pt", weights_only=True)
    assert torch.equal(vectors, read_by_ours(memory))
    write(memory, QUESTION, "official", 7, tmp_path / "p.json", as_chat=False)
    body = json.loads((tmp_path / "p.json").read_text("utf-8"))
    assert torch.equal(vectors_of(body["prompt_embeds"][0], memory.compressor.decoder), vectors)
    assert (body["max_tokens"], body["temperature"]) == (7, 0)
    ends = set(body["stop_token_ids"])
    assert ends >= {memory.compressor.decoder.tokenizer.eos_token_id, *memory.compressor.layout.stop_token_ids}
    assert body.get("logit_bias", {}) == {str(token): BAN for token in memory.compressor.layout.suppressed_token_ids}
    assert vectors.untyped_storage().nbytes() == vectors.nbytes  # not of a larger tensor


def test_for_a_chat_the_memory_goes_alone(memory: ContextMemory, tmp_path: Path) -> None:
    written = write(memory, "Who?", "short", 7, tmp_path / "c.json", as_chat=True)
    assert written.endpoint == "/v1/chat/completions"
    (turn,) = json.loads((tmp_path / "c.json").read_text("utf-8"))["messages"]
    part, words = turn["content"]
    assert part["type"] == "prompt_embeds"
    assert memory.memory.vectors is not None
    assert torch.equal(vectors_of(part["data"], memory.compressor.decoder), memory.memory.vectors)
    assert words == {"type": "text", "text": "Question: Who?\nShort answer (a few words):"}


@pytest.mark.parametrize("method", ["pcc", "full-context"])
def test_tasks_that_generate_have_the_answers_of_our_decoder(
    models: Path, rows: list[dict[str, Any]], decoder: Decoder, method: str
) -> None:
    folder = models / ("pcc" if method == "pcc" else "llama")
    stub = Stub(decoder)
    arguments = {"until": ["e", "\n"], "do_sample": False, "max_gen_toks": 12}
    requests = generations([prompt(row) for row in rows[:5]], arguments)
    with serving(stub) as url:
        served = load(method, folder, batch_size=3, backend=url)
        answers = served.generate_until(requests, True)
    ours = load(method, folder, batch_size=3)
    assert answers == ours.generate_until(requests, True)
    assert served.describe()["backend"]["id"] == "toy"
    assert served.max_length == 2048  # the server's window, where it is the smaller one
    assert all(answer.record["served_seconds"] > 0 for answer in answers)  # type: ignore[attr-defined]
    assert [body["stop"] for body in stub.bodies] == [["e", "\n"]] * 2
    assert all(isinstance(read, list) for read in stub.read) == (method == "full-context")
    assert served.fingerprint() != ours.fingerprint()


def test_likelihood_tasks_are_refused_before_anything_is_compressed(
    models: Path, rows: list[dict[str, Any]], decoder: Decoder
) -> None:
    with serving(Stub(decoder)) as url:
        model = load("pcc", models / "pcc", backend=url)
        with pytest.raises(UsageError, match="t asks for log-likelihoods, which vLLM does not give behind input"):
            model.loglikelihood(scorings([(prompt(rows[0]), " yes")]), True)
        with pytest.raises(UsageError, match="asks for log-likelihoods"):
            model.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("a",), 0, metadata=("t", 0, 1))], True)
        assert model.book.compressions == 0
        with pytest.raises(UsageError, match=r"repetition_penalty=1\.3 goes by other tokens in vLLM"):
            model.generate_until(generations([prompt(rows[0])], {"until": [], "repetition_penalty": 1.3}), True)


def test_the_check_tells_an_equal_server_from_another_one(
    models: Path, memory: ContextMemory, decoder: Decoder
) -> None:
    with serving(Stub(decoder)) as url:
        (right,) = compare(Server(url), memory, ["Who?"], "official", 9)
    assert (right.equal, right.ours, right.same) == (True, right.theirs, right.tokens)
    with torch.no_grad():
        other = init.open_decoder(str(models / "llama"))
        other.model.model.norm.weight.requires_grad_(False).neg_()
    with serving(Stub(other)) as url:
        (wrong,) = compare(Server(url), memory, ["Who?"], "official", 9)
    assert not wrong.equal
    assert wrong.same < wrong.tokens


def test_the_commands_write_and_compare(memory: ContextMemory, decoder: Decoder, tmp_path: Path) -> None:
    memory.save(tmp_path / "m.safetensors")
    (tmp_path / "questions.txt").write_text("Who?\n\nWhere?\n", encoding="utf-8")
    given = ["prompt", str(tmp_path / "m.safetensors"), "--question", "Who?", "--device", "cpu"]
    done = CliRunner().invoke(app, [*given, "-o", str(tmp_path / "p.pt")], catch_exceptions=False)
    assert "for /v1/completions" in done.output
    assert torch.load(tmp_path / "p.pt", weights_only=True).shape[1] == decoder.hidden_size
    with serving(Stub(decoder)) as url:
        words = ["serve-check", url, str(tmp_path / "m.safetensors"), "--questions", str(tmp_path / "questions.txt")]
        done = CliRunner().invoke(app, [*words, "--device", "cpu"], catch_exceptions=False)
    assert done.exit_code == 0
    assert f"2 of 2 answers of toy at {url} equal ours" in done.output


def test_bad_inputs_are_one_sentence(memory: ContextMemory, models: Path, decoder: Decoder, tmp_path: Path) -> None:
    refusals = [
        ("no vLLM server answers at http://127.0.0.1:9", lambda: Server("http://127.0.0.1:9")),
        ("'ftp://x' is no address of a server", lambda: Server("ftp://x")),
        ("no vLLM server answers at http://x:y .nonnumeric port", lambda: Server("http://x:y")),
        ("no vLLM server answers at http://a b", lambda: Server("http://a\nb")),
        ("half of a surrogate pair is in the prompt", lambda: memory.answer("Who \ud800?")),
        (
            r"the prompt with an answer of 10000000 takes \d+ positions, the model has 4096",
            lambda: write(memory, "Who?", "official", 10**7, tmp_path / "p.pt", False),
        ),
        ("name a file .pt", lambda: write(memory, "Who?", "official", 7, tmp_path / "p.bin", False)),
        ("--question is empty", lambda: write(memory, "  ", "official", 7, tmp_path / "p.pt", False)),
        (
            "which vLLM keeps for itself",
            lambda: write(memory, "<prompt_embeds>", "official", 7, tmp_path / "p.pt", True),
        ),
        ("backend: String should match pattern", lambda: load("pcc", models / "pcc", backend="sglang")),
        ("backend: String should match pattern", lambda: load("pcc", models / "pcc", backend="")),
        ("memory_store: String should have at least 1", lambda: load("pcc", models / "pcc", memory_store="")),
    ]
    text = ContextCompressor.from_pretrained(str(models / "llama"), "full-context", device="cpu").compress("A text.")
    refusals.append(("leaves text", lambda: write(text, "Who?", "official", 7, tmp_path / "p.pt", True)))
    for sentence, call in refusals:
        with pytest.raises(UsageError, match=sentence) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "sent",
    [b"HTTP/1.0 200 OK\r\nContent-Length: 99\r\n\r\n{}", b"NOT HTTP\r\n\r\n", b""],
    ids=["short", "words", "none"],
)
def test_an_answer_that_breaks_off_is_one_sentence(sent: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(sent)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(UsageError, match="no vLLM server answers at") as caught:
            Server(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert "\n" not in str(caught.value)


def test_a_server_that_refuses_says_why(memory: ContextMemory, models: Path, decoder: Decoder) -> None:
    with (
        serving(Stub(decoder, takes_vectors=False)) as url,
        pytest.raises(
            UsageError, match=r"400: You must set .* start it with vllm serve DECODER --enable-prompt-embeds"
        ),
    ):
        compare(Server(url), memory, ["Who?"], "official", 9)
    with serving(Stub(init.open_decoder(str(models / "qwen2")), names=("a", "b"))) as url:
        with pytest.raises(UsageError, match="serves a, b: name one"):
            Server(url)
        with pytest.raises(UsageError, match="serves a, b, not c"):
            Server(f"{url}#c")
        assert Server(f"{url}#b").model.id == "b"


def test_vllm_in_this_process_gets_the_same_vectors_and_settings(
    models: Path, rows: list[dict[str, Any]], decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a module in vLLM's place, which has the interface of its `LLM` and `SamplingParams`."""
    started: dict[str, Any] = {}

    class LLM:
        def __init__(self, **options: Any) -> None:
            started.update(options)

        def generate(self, prompts: Any, sampling: Any, use_tqdm: bool) -> list[Any]:
            inputs = [
                part["prompt_embeds"] if "prompt_embeds" in part else part["prompt_token_ids"] for part in prompts
            ]
            ids = [
                generate(decoder, [row], sampling["max_tokens"], sampling["stop_token_ids"]).ids[0] for row in inputs
            ]
            return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(row))]) for row in ids]

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=LLM, SamplingParams=dict, __version__="0"))
    requests = generations([prompt(row) for row in rows[:3]])
    served = load("pcc", models / "pcc", batch_size=2, backend="vllm", backend_memory=0.3)
    assert served.generate_until(requests, True) == load("pcc", models / "pcc").generate_until(requests, True)
    assert (started["enable_prompt_embeds"], started["gpu_memory_utilization"]) == (True, 0.3)
    assert started["dtype"] == "float32"
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UsageError, match="backend=vllm needs vLLM in this environment"):
        InProcess("any", "float32", 10, 0.5)


def test_sampling_states_every_value(memory: ContextMemory) -> None:
    fields = sampling(memory.compressor, 5, options={"do_sample": True, "top_p": 0.9, "no_repeat_ngram_size": 0})
    assert {name: fields[name] for name in (*SAMPLING, "repetition_penalty")} == {
        "temperature": 1.0,
        "top_p": 0.9,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
    }
    assert sampling(memory.compressor, 5, options={"temperature": 0.7})["temperature"] == 0
    plan = memory.plan("Who?")
    assert common_dtype([plan], memory.compressor.decoder) == torch.float32
