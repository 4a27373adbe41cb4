"""The controls: a budget is kept, chance is repeatable, retrieval sees its question and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command import lm_eval_run
from lm_eval.api.instance import Instance

from pcc_bench.baselines.controls import Bm25Context, RandomContext, TruncatedContext
from pcc_bench.core import registry
from pcc_bench.core.compressor import Memory
from pcc_bench.core.context import Prompt, literal, mark
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError
from pcc_bench.host import models as lm_models
from pcc_bench.model import init

ODD_TEXTS = ["", "  \n ", "Rain.", "🦜🦜🦜", "Grüße, 東京 und 🦜: naïve café.", "!" * 3000, "日本語。本当だ。" * 50]
GREEDY = {"until": [], "do_sample": False, "max_gen_toks": 4}


@pytest.fixture(scope="module")
def decoder(models: Path) -> Decoder:
    return init.open_decoder(str(models / "llama"))


@pytest.fixture(scope="module")
def texts(rows: list[dict[str, Any]]) -> list[str]:
    return sorted({row["context"] for row in rows})


def pieces_in_order(text: str, source: str) -> bool:
    """Every character of `text` comes from `source`, in order (blanks of a cut aside)."""
    rest = iter(source)
    return all(character in rest for character in text if not character.isspace())


@pytest.mark.parametrize("rate", [1, 2, 4, 16, 1000])
def test_random_drop_keeps_about_the_budget_in_order(decoder: Decoder, texts: list[str], rate: float) -> None:
    for text, memory in zip(texts, RandomContext(decoder, rate, seed=0).compress(texts), strict=True):
        assert memory.text is not None
        assert pieces_in_order(memory.text, text)
        wanted = max(1, int(memory.source_tokens / rate))
        assert wanted * 0.7 <= memory.slots <= wanted * 2.2  # neighbours of dropped tokens are tokenized anew
        assert (memory.text == text) == (rate == 1)


def test_random_drop_depends_on_text_and_seed_only(decoder: Decoder, texts: list[str]) -> None:
    first, again, other = (RandomContext(decoder, 4, seed=seed) for seed in (0, 0, 1))
    made = [memory.text for memory in first.compress(texts)]
    assert made == [memory.text for memory in again.compress(texts[::-1])][::-1]
    assert made == [again.compress([text])[0].text for text in texts]
    assert all(a != b.text for a, b in zip(made, other.compress(texts), strict=True))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()


def test_random_drop_keeps_a_token_anywhere_with_equal_chance(decoder: Decoder) -> None:
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 400)))  # each of as many tokens as the others
    kept = [RandomContext(decoder, 4, seed=seed).shorten(text) for seed in range(40)]
    halves = [sum(character in made for made in kept for character in part) for part in (text[:200], text[200:])]
    assert 0.9 < halves[0] / halves[1] < 1.1


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_odd_texts_pass_through_every_control(decoder: Decoder, text: str) -> None:
    ends = (TruncatedContext(decoder, 4, keep=keep) for keep in ("first", "last"))
    for control in (RandomContext(decoder, 4, seed=0), *ends):
        (memory,) = control.compress([text])
        assert memory.text is not None
        assert pieces_in_order(memory.text, text)
        assert control.compress([]) == []
    (memory,) = Bm25Context(decoder, 4).compress_for([text], ["本当?"])
    assert memory.text is not None
    assert pieces_in_order(memory.text, text)
    assert memory.slots <= max(1, memory.source_tokens / 4) + 2


STORY = (
    "The harbour was built in 1820. Its lighthouse burned down twice. The mayor, Ada Brook, liked herring. "
    "Fishing ended after the war. Today the museum shows nets and sails. Ferries leave each morning at six."
)


@pytest.mark.parametrize(
    ("question", "found"), [("Who was the mayor?", "Ada Brook"), ("When do ferries leave?", "each morning at six")]
)
def test_retrieval_keeps_the_sentence_that_answers(decoder: Decoder, question: str, found: str) -> None:
    kept = Bm25Context(decoder, 4).select(STORY, question)
    assert found in kept
    assert "nets and sails" not in kept


def test_retrieval_keeps_the_documents_order_and_fills_its_budget(decoder: Decoder, texts: list[str]) -> None:
    for rate in (1, 1.5, 3, 8, 1000):
        control = Bm25Context(decoder, rate)
        for text in [STORY, *texts]:
            for question in ("How does steam drive the ferries that leave?", "Who?", "zzz", "?"):
                (memory,) = control.compress_for([text], [question])
                assert memory.text is not None
                assert pieces_in_order(memory.text, text)
                wanted = max(1, int(memory.source_tokens / rate))
                assert abs(memory.slots - wanted) <= max(3, 0.05 * wanted)  # where pieces meet, tokens change


def test_retrieval_without_a_word_in_common_is_truncation(decoder: Decoder, texts: list[str]) -> None:
    cut = TruncatedContext(decoder, 4, keep="first")
    for text in texts:
        assert Bm25Context(decoder, 4).select(text, "zzz qqq").strip() == cut.shorten(text).strip()


def test_retrieval_refuses_to_work_without_a_question(decoder: Decoder) -> None:
    with pytest.raises(UsageError, match="compresses for a question, and none is given"):
        Bm25Context(decoder, 4).compress([STORY])


# The runner and the question


def load(method: str, folder: Path, **arguments: Any) -> Any:
    return getattr(lm_models, method.replace("-", "_"))(pretrained=str(folder), device="cpu", **arguments)


def requests(prompts: list[Prompt]) -> list[Instance]:
    return [Instance("generate_until", {}, (p, GREEDY), i, metadata=("t", i, 1)) for i, p in enumerate(prompts)]


def prompt(context: str, question: str) -> Prompt:
    return Prompt.parse(f"{mark(context)}Question: {literal(question)}\n\nAnswer: ")


def test_a_prompts_query_is_its_data_behind_the_last_context() -> None:
    shown = f"{mark('c1')}Question: {literal('q1')} {literal('a1')}\n{mark('c2')}Question: {literal('q2')}"
    assert Prompt.parse(shown).query == "q2"
    assert Prompt.parse(f"{literal('q')} on {mark('c')}?").query == "q"
    assert Prompt.parse(f"{mark('c')}{literal('q')} or {literal('r')}").query == "q\nr"
    assert Prompt.parse(f"{mark('c')}Repeat it.").query == ""


def test_a_query_aware_method_compresses_once_for_each_context_and_question(
    models: Path, rows: list[dict[str, Any]]
) -> None:
    model = load("bm25-context", models / "llama", batch_size=8)
    seen: list[tuple[str, str]] = []
    compress = model.compressor.compress_for

    def watched(contexts: list[str], queries: list[str]) -> list[Memory]:
        seen.extend(zip(contexts, queries, strict=True))
        return compress(contexts, queries)

    model.compressor.compress_for = watched
    prompts = [prompt(row["context"], row["question"]) for row in rows]
    answers = model.generate_until(requests([*prompts, *prompts[:5]]), True)
    pairs = {(row["context"], row["question"]) for row in rows}
    assert sorted(seen) == sorted(pairs)
    described = model.describe()
    assert described["capabilities"]["query_aware"]
    assert described["compressions"] == len(pairs) > len({row["context"] for row in rows})
    assert described["counts"]["memories_reused"] == 5
    assert all(3 < answer.record["ratio"] < 5 for answer in answers)


def test_each_prompt_reads_what_was_kept_for_its_own_question(models: Path) -> None:
    model = load("bm25-context", models / "llama", batch_size=8)
    questions = ["Who was the mayor?", "When do ferries leave?"]
    both = model.generate_until(requests([prompt(STORY, question) for question in questions]), True)
    for question, answer in zip(questions, both, strict=True):
        alone = load("full-context", models / "llama")
        kept = model.compressor.select(STORY, question)
        (expected,) = alone.generate_until(requests([prompt(kept, question)]), True)
        assert answer == expected


def test_other_methods_still_compress_once_for_each_context(models: Path, rows: list[dict[str, Any]]) -> None:
    model = load("random-context", models / "llama", batch_size=8)
    model.generate_until(requests([prompt(row["context"], row["question"]) for row in rows]), True)
    assert model.describe()["compressions"] == len({row["context"] for row in rows})


def test_a_truncated_context_is_ranked_for_its_question_too(models: Path, texts: list[str]) -> None:
    model = load("bm25-context", models / "llama", rate=1, overflow="truncate", max_length=200)
    (answer,) = model.generate_until(requests([prompt(texts[0], "What turns?")]), True)
    assert answer.record["truncated_bytes"] > 0


def test_a_prompt_without_a_question_is_refused(models: Path) -> None:
    model = load("bm25-context", models / "llama")
    with pytest.raises(UsageError, match="row 0 of t asks no question beside its context"):
        model.generate_until(requests([Prompt.parse(f"{mark(STORY)}Repeat it.")]), True)


@pytest.mark.parametrize("method", ["random-context", "bm25-context", "truncated-context"])
@pytest.mark.parametrize(
    ("rate", "message"),
    [(0.5, "rate: Input should be greater than or equal to 1"), ("x", "rate: Input should be a valid number")],
)
def test_a_rate_that_is_none_is_refused(models: Path, method: str, rate: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(method, models / "llama", rate=rate)


# The command line


@pytest.mark.parametrize("method", ["random-context", "bm25-context", "llmlingua2"])
def test_lm_eval_runs_it_on_the_sample_rows(method: str, models: Path, texts: list[str], tmp_path: Path) -> None:
    arguments = f"pretrained={models / 'llama'},rate=4"
    if method == "llmlingua2":
        from toy_classifier import make_classifier

        classifier = make_classifier("xlm-roberta", texts, tmp_path / "classifier")
        arguments = f"pretrained={classifier},decoder={models / 'llama'},rate=4"
    fixed = ("--model", method, "--model_args", arguments, "--tasks", "pcc_squad", "--device", "cpu", "--batch_size", 8)
    described = lm_eval_run(tmp_path / "out", *fixed, "--metadata", '{"population": "all"}')["config"]["pcc_bench"]
    assert described["method"] == method
    assert described["requested_rate"] == 4
    query_aware = registry.get(method).query_aware
    assert described["compressions"] == (24 if query_aware else 6)
