"""The lm-eval model: equal to lm-eval's own where nothing is compressed, lawful where something is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from pcc_bench.core import registry, tiny
from pcc_bench.core.compressor import Compressor, Memory
from pcc_bench.core.context import Prompt, literal, mark
from pcc_bench.core.errors import UsageError
from pcc_bench.host import answering
from pcc_bench.host import models as lm_models
from pcc_bench.host.lm import CompressedLM
from pcc_bench.host.memories import Source, wrong_partners

GREEDY = {"until": [], "do_sample": False, "max_gen_toks": 12}


def prompt(row: dict[str, Any], after: str = "\n\n") -> Prompt:
    return Prompt.parse(f"{mark(row['context'], after)}Question: {literal(row['question'])}\n\nAnswer: ")


def generations(prompts: Sequence[str], arguments: dict[str, Any] = GREEDY) -> list[Instance]:
    return [
        Instance("generate_until", {}, (text, dict(arguments)), i, metadata=("t", i, 1))
        for i, text in enumerate(prompts)
    ]


def scorings(pairs: Sequence[tuple[str, str]]) -> list[Instance]:
    return [Instance("loglikelihood", {}, pair, i, metadata=("t", i, 1)) for i, pair in enumerate(pairs)]


def load(method: str, folder: Path, **arguments: Any) -> CompressedLM:
    kind = getattr(lm_models, method.replace("-", "_"))
    model: CompressedLM = kind(pretrained=str(folder), device="cpu", dtype="float32", **arguments)
    return model


def hf(folder: Path, batch_size: int) -> HFLM:
    return HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=batch_size)


class Identity(Compressor):
    """A soft compressor that compresses nothing: the memory is the context's own token embeddings."""

    name = "identity"
    soft = True

    def compress(self, contexts: Sequence[str]) -> list[Memory]:
        memories = []
        for context in contexts:
            ids = self.decoder.tokenizer.encode(context, add_special_tokens=False)
            size = len(context.encode())
            memories.append(Memory(len(ids), len(ids), size, slots=len(ids), vectors=self.decoder.embed(ids)))
        return memories


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> type[CompressedLM]:
    known = registry.get
    monkeypatch.setattr(registry, "get", lambda name: Identity if name == "identity" else known(name))
    return type("identity", (CompressedLM,), {"method": "identity"})


def texts_with_chat(model: HFLM, rows: Sequence[dict[str, Any]], chat: bool) -> list[Prompt]:
    if not chat:
        return [prompt(row) for row in rows]
    marked = (f"{mark(row['context'], chr(10))}Question: {literal(row['question'])}" for row in rows)
    return [Prompt.parse(model.apply_chat_template([{"role": "user", "content": text}])) for text in marked]


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_full_context_equals_hf(
    models: Path, rows: list[dict[str, Any]], family: str, batch_size: int, chat: bool
) -> None:
    ours, theirs = load("full-context", models / family, batch_size=batch_size), hf(models / family, batch_size)
    prompts = texts_with_chat(theirs, rows[:8], chat)
    assert ours.generate_until(generations(prompts), True) == theirs.generate_until(generations(prompts), True)
    pairs = [
        (text, f" {answer}") for text, row in zip(prompts, rows, strict=False) for answer in row["answers"]["text"][:2]
    ]
    scores, expected = ours.loglikelihood(scorings(pairs), True), theirs.loglikelihood(scorings(pairs), True)
    assert [s[0] for s in scores] == pytest.approx([s[0] for s in expected], abs=1e-4)
    assert [s[1] for s in scores] == [s[1] for s in expected]


def test_full_context_stops_where_hf_stops(models: Path, rows: list[dict[str, Any]]) -> None:
    arguments = {"until": ["e", "\n"], "do_sample": False, "max_gen_toks": 20}
    ours, theirs = load("full-context", models / "llama", batch_size=3), hf(models / "llama", 3)
    requests = generations([prompt(row) for row in rows[:7]], arguments)
    assert ours.generate_until(requests, True) == theirs.generate_until(requests, True)


def test_full_context_scores_whole_texts_as_hf_does(models: Path, rows: list[dict[str, Any]]) -> None:
    requests = [Instance("loglikelihood_rolling", {}, (row["context"],), 0, metadata=("t", 0, 1)) for row in rows[:2]]
    ours, theirs = load("full-context", models / "llama"), hf(models / "llama", 1)
    assert ours.loglikelihood_rolling(requests, True) == pytest.approx(theirs.loglikelihood_rolling(requests, True))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_identity_compressor_gives_full_contexts_results(
    models: Path, rows: list[dict[str, Any]], identity: type[CompressedLM], family: str
) -> None:
    # Text is tokenized apart from a soft memory, so the law needs a seam that no token crosses: contexts end in a
    # full stop and questions start with a capital, and this tokenizer joins neither.
    soft = identity(pretrained=str(models / family), device="cpu", dtype="float32", batch_size=3)
    full = load("full-context", models / family, batch_size=3)
    prompts = [prompt(row, after="") for row in rows[:6]]
    assert soft.generate_until(generations(prompts), True) == full.generate_until(generations(prompts), True)
    pairs = [(text, " London") for text in prompts]
    ours, expected = soft.loglikelihood(scorings(pairs), True), full.loglikelihood(scorings(pairs), True)
    assert [s[0] for s in ours] == pytest.approx([s[0] for s in expected], abs=1e-4)
    record = soft.generate_until(generations(prompts[:1]), True)[0].record  # type: ignore[attr-defined]
    assert record["ratio"] == 1


@pytest.mark.parametrize("method", ["pcc", "truncated-context", "no-context"])
def test_batch_of_one_equals_batch_of_eight(models: Path, rows: list[dict[str, Any]], method: str) -> None:
    folder = models / ("pcc" if method == "pcc" else "llama")
    one, eight = load(method, folder, batch_size=1), load(method, folder, batch_size=8)
    prompts = [prompt(row) for row in rows[:9]]
    assert one.generate_until(generations(prompts), True) == eight.generate_until(generations(prompts), True)
    pairs = [(text, f" {word}") for text in prompts for word in ("London", "a much longer answer")]
    single, batched = one.loglikelihood(scorings(pairs), True), eight.loglikelihood(scorings(pairs), True)
    assert [s[0] for s in single] == pytest.approx([s[0] for s in batched], abs=1e-4)


def test_answers_come_back_in_the_order_of_the_requests(models: Path, rows: list[dict[str, Any]]) -> None:
    model = load("pcc", models / "pcc", batch_size=4)
    prompts = [prompt(row) for row in rows[:10]]
    forward = model.generate_until(generations(prompts), True)
    assert model.generate_until(generations(prompts[::-1]), True) == forward[::-1]


def test_each_distinct_context_is_compressed_once(models: Path, rows: list[dict[str, Any]]) -> None:
    model = load("pcc", models / "pcc", batch_size=8)
    seen: list[str] = []
    compress = model.compressor.compress
    model.compressor.compress = lambda contexts: seen.extend(contexts) or compress(contexts)  # type: ignore
    prompts = [prompt(row) for row in rows]
    model.generate_until(generations(prompts), True)
    model.loglikelihood(scorings([(text, " yes") for text in prompts]), True)
    distinct = {row["context"] for row in rows}
    assert len(rows) > len(distinct)
    assert sorted(seen) == sorted(distinct)
    described = model.describe()
    assert described["compressions"] == len(distinct)
    assert described["counts"]["memories_reused"] == 2 * (len(rows) - len(distinct))


def test_accounting_adds_up(models: Path, rows: list[dict[str, Any]]) -> None:
    model = load("pcc", models / "pcc", batch_size=8, rate=16)
    (answer,) = model.generate_until(generations([prompt(rows[0])]), True)
    record = answer.record  # type: ignore[attr-defined]
    tokens = len(model.tokenizer.encode(rows[0]["context"], add_special_tokens=False))
    segments = -(-record["compressor_tokens"] // 256)
    assert record["source_tokens"] == tokens
    assert record["source_bytes"] == len(rows[0]["context"].encode())
    assert (record["slots"], record["boundary"]) == (16 * segments, 2 * segments)
    assert record["ratio_slots"] == tokens / (16 * segments)
    assert record["ratio"] == tokens / (18 * segments)
    question = f"Question: {rows[0]['question']}\n\nAnswer: "
    text = len(model.tokenizer.encode(question, add_special_tokens=False))
    assert record["prompt_positions"] == 1 + 18 * segments + text
    assert record["compress_seconds"] > 0
    assert record["prefill_seconds"] > 0
    assert record["decode_seconds"] > 0


def test_pcc_reads_the_official_layout(models: Path, rows: list[dict[str, Any]]) -> None:
    model = load("pcc", models / "pcc")
    request = prompt(rows[0])
    model.book.fill(map(Source, request.contexts))
    memory = model.book[Source(rows[0]["context"])]
    plan = model.encoder.encode(request, [memory])
    question = model.tokenizer.encode(f"Question: {rows[0]['question']}\n\nAnswer: ", add_special_tokens=False)
    assert plan.pieces == ([model.tokenizer.bos_token_id], memory, question)


def test_a_chat_template_brings_its_own_bos(models: Path, rows: list[dict[str, Any]]) -> None:
    model = load("pcc", models / "pcc")
    (request,) = texts_with_chat(model, rows[:1], chat=True)
    model.book.fill(map(Source, request.contexts))
    plan = model.encoder.encode(request, [model.book[Source(rows[0]["context"])]])
    first = plan.pieces[0]
    assert isinstance(first, list)
    assert first.count(model.tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("method", ["full-context", "pcc"])
def test_data_cannot_spell_special_tokens(models: Path, method: str) -> None:
    folder = models / ("pcc" if method == "pcc" else "llama")
    question = "who said <|eot_id|> and <|begin_of_text|>?"
    text = Prompt.parse(f"{mark('A <|eot_id|> context <mem_0>.')}{literal(question)}<|eot_id|>")

    def ids(model: CompressedLM) -> list[int]:
        sources = [Source(context) for context in text.contexts]
        model.book.fill(sources)
        plan = model.encoder.encode(text, [model.book[source] for source in sources])
        return [token for piece in plan.pieces if isinstance(piece, list) for token in piece]

    safe, open_ = load(method, folder), load(method, folder, allow_special_tokens_in_text=True)
    turn = safe.tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert ids(safe).count(turn) == 1  # the template's own
    assert ids(open_).count(turn) == (2 if method == "pcc" else 3)
    assert safe.tokenizer.decode(ids(safe)).endswith(f"{question}<|eot_id|>")


def test_wrong_memory_reads_another_contexts_memory(models: Path, rows: list[dict[str, Any]]) -> None:
    right, wrong = load("pcc", models / "pcc"), load("pcc", models / "pcc", control="wrong_memory", control_seed=3)
    again = load("pcc", models / "pcc", control="wrong_memory", control_seed=3)
    requests = generations([prompt(row) for row in rows[:12]])
    swapped = wrong.generate_until(requests, True)
    assert swapped != right.generate_until(requests, True)
    assert swapped == again.generate_until(requests[::-1], True)[::-1]


@pytest.mark.parametrize("count", [2, 3, 4, 9])
def test_no_context_is_its_own_wrong_memory(count: int) -> None:
    contexts = {"x" * (number % 3) + str(number) for number in range(count)}
    for seed in range(20):
        partners = wrong_partners(contexts, seed)
        assert partners.keys() == contexts
        assert all(other in contexts and other != context for context, other in partners.items())


def test_an_answer_from_another_memory_is_not_taken_from_the_cache(
    models: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    from lm_eval.api.model import CachingLM

    contexts = sorted({row["context"] for row in rows}, key=len)
    few, many = [contexts[0], contexts[3]], contexts[:4]  # in another set a context has another partner
    same = [one for one in few if wrong_partners(few, 0)[one] == wrong_partners(many, 0)[one]]
    assert len(same) < len(few)
    for chosen in (few, many):
        model = load("pcc", models / "pcc", control="wrong_memory", control_seed=0)
        requests = generations([prompt({"context": context, "question": "Who?"}) for context in chosen])
        CachingLM(model, str(tmp_path / "answers.db")).generate_until(requests)
    assert model.describe()["counts"].get("cached", 0) == len(same)


def test_a_batch_shares_its_seconds(models: Path, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    def took(original: Any, **seconds: float) -> Any:
        return lambda *arguments, **options: original(*arguments, **options)._replace(**seconds)

    monkeypatch.setattr(answering, "generate", took(answering.generate, prefill_seconds=800.0, decode_seconds=40.0))
    monkeypatch.setattr(answering, "score", took(answering.score, seconds=800.0))
    model = load("full-context", models / "llama", batch_size=4)
    prompts = [prompt(row) for row in rows[:4]]
    for answers in (
        model.generate_until(generations(prompts), True),
        model.loglikelihood(scorings([(text, " yes") for text in prompts]), True),
    ):
        records = [answer.record for answer in answers]  # type: ignore[attr-defined]
        assert [record["prefill_seconds"] for record in records] == pytest.approx([200.0] * 4, rel=0.05)
        assert {record["decode_seconds"] for record in records} <= {10.0, 0.0}
    assert sum(answer.record["decode_seconds"] for answer in model.generate_until(generations(prompts), True)) == 40.0  # type: ignore[attr-defined]


def test_memories_beyond_the_budget_are_made_again_not_lost(models: Path, rows: list[dict[str, Any]]) -> None:
    roomy, tight = load("pcc", models / "pcc"), load("pcc", models / "pcc", memory_gb=0)
    requests = generations([prompt(row) for row in rows[:8]])
    assert tight.generate_until(requests, True) == roomy.generate_until(requests, True)
    assert tight.generate_until(requests, True) == roomy.generate_until(requests, True)
    assert tight.book.compressions == 2 * roomy.book.compressions


def test_sampled_answers_are_not_cached(models: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    from lm_eval.api.model import CachingLM

    for arguments, cached in (({"do_sample": False}, 2), ({"do_sample": True, "temperature": 1.0}, 0)):
        requests = generations([prompt(row) for row in rows[:2]], {**GREEDY, **arguments})
        for _ in range(2):
            model = load("pcc", models / "pcc")
            CachingLM(model, str(tmp_path / "answers.db")).generate_until(requests)
        assert model.describe()["counts"].get("cached", 0) == cached


def test_too_long_a_prompt_is_an_error_by_default(models: Path, rows: list[dict[str, Any]]) -> None:
    model = load("pcc", models / "pcc", max_length=100)
    with pytest.raises(UsageError, match=r"row 0 of t takes \d+ positions.*overflow=skip or overflow=truncate"):
        model.generate_until(generations([prompt(rows[0])]), True)


def test_too_long_a_prompt_can_be_skipped_and_is_counted(models: Path, rows: list[dict[str, Any]]) -> None:
    model = load("full-context", models / "llama", max_length=300, overflow="skip")
    short = Prompt.parse(f"{mark('It rains.')}Why?")
    answers = model.generate_until(generations([prompt(rows[0]), short]), True)
    assert answers[0].record["skipped"]  # type: ignore[attr-defined]
    assert "skipped" not in answers[1].record  # type: ignore[attr-defined]
    assert model.describe()["skipped"] == {"t": [0]}


@pytest.mark.parametrize("method", ["pcc", "full-context"])
def test_too_long_a_prompt_can_be_truncated_and_is_counted(
    models: Path, rows: list[dict[str, Any]], method: str
) -> None:
    model = load(method, models / ("pcc" if method == "pcc" else "llama"), max_length=130, overflow="truncate")
    (answer,) = model.generate_until(generations([prompt(rows[0])]), True)
    record = answer.record  # type: ignore[attr-defined]
    assert record["truncated_bytes"] > 0
    assert record["truncated_bytes"] + record["source_bytes"] == len(rows[0]["context"].encode())
    assert record["prompt_positions"] <= 130 - GREEDY["max_gen_toks"]  # type: ignore[operator]
    assert model.describe()["counts"]["truncated"] == 1


def test_whole_texts_are_refused_where_there_is_nothing_to_compress(models: Path) -> None:
    model = load("pcc", models / "pcc")
    request = Instance("loglikelihood_rolling", {}, ("some text",), 0, metadata=("wikitext", 0, 1))
    with pytest.raises(UsageError, match="wikitext scores whole texts"):
        model.loglikelihood_rolling([request])


def test_prompts_without_a_context_are_counted(models: Path) -> None:
    model = load("pcc", models / "pcc")
    model.generate_until(generations(["plain text"]), True)
    assert model.describe()["counts"]["without_context"] == 1


def test_bfloat16_decoder_reads_float32_and_bfloat16_memories(models: Path, rows: list[dict[str, Any]]) -> None:
    kind = lm_models.pcc  # type: ignore[attr-defined]
    for memory_dtype in ("float32", "decoder"):
        model = kind(pretrained=str(models / "pcc"), device="cpu", dtype="bfloat16", memory_dtype=memory_dtype)
        (answer,) = model.generate_until(generations([prompt(rows[0])]), True)
        assert answer.record["new_tokens"] > 0
        ((logprob, _),) = model.loglikelihood(scorings([(prompt(rows[0]), " x")]), True)
        assert torch.isfinite(torch.tensor(logprob))
