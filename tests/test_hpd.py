"""Role play: what stands before a session, perplexity as a plain loop has it, wrong responses ranked."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from demonstrated import DATA, answers, bytes_tokenizer, load, manager, run, samples, sentence
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from pcc_bench.core.context import Kind
from pcc_bench.tasks.demonstrations import SEPARATOR
from pcc_bench.tasks.dialogue import Pool, Session, score_responses
from pcc_bench.tasks.metadata import TokenCounter
from pcc_bench.tasks.rows import hpd, msc, personachat

FORMS = ("0", "1_text", "1_memory", "2_text", "2_memory")
NAMES = [f"pcc_{data}_{form}" for data in ("hpd", "msc", "personachat") for form in FORMS]
HARRY = {
    "position": "Book1-chapter4",
    "speakers": ["Hagrid", "Harry"],
    "scene": ["The hut shook.", "It rained."],
    "dialogue": ["Hagrid: Budge up.", "Harry: Who are you?", "Hagrid: Keeper of keys."],
    "Positive-Response": "Harry: What keys?",
    "Negative Responses": ["I like toast.", "Harry: Never."],
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return bytes_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def session(number: int, who: str = "Harry", turns: tuple[str, ...] = ("Ron: Hm?",), **fields: Any) -> Session:
    of = {"id": f"{who}{number}", "role": who, "scene": "", "response": f"Said {number}.", "negatives": ()}
    return Session(**{**of, "who": who, "turns": turns, "position": (number,), **fields})


# Rows


def test_rows_of_harry_potter_dialogue() -> None:
    assert hpd(HARRY) == {
        "id": "",
        "role": "Harry",
        "who": "Harry",
        "scene": "Scene: The hut shook. It rained.",
        "turns": ["Hagrid: Budge up.", "Harry: Who are you?", "Hagrid: Keeper of keys."],
        "response": "What keys?",
        "negatives": ["I like toast.", "Never."],
        "position": [1, 4],
    }


def test_rows_of_msc_and_personachat() -> None:
    row = {"id": "v1", "persona": ["i surf."], "dialogue": [["hi", "hey "], ["you surf ?", "daily ."]]}
    read = msc(row)
    assert (read["turns"], read["response"]) == (["User: hi", "Assistant: hey", "User: you surf ?"], "daily .")
    assert (read["role"], read["who"], read["scene"]) == ("Assistant", "v1", "")
    assert personachat(row) == {**read, "scene": "Persona of Assistant: i surf."}


def test_published_file_is_read_as_it_is(tmp_path: Path, tokenizer: str) -> None:
    (tmp_path / "hpd").mkdir()
    for split in ("train", "test"):
        named = {f"Session-{n}": {**HARRY, "position": f"Book{n}-chapter1"} for n in range(1, 9)}
        (tmp_path / "hpd" / f"{split}.json").write_text(json.dumps(named))
    task = load("pcc_hpd_1_memory", data=str(tmp_path), tokenizer=tokenizer, demonstrations={"tokens": 300})
    assert len(task.eval_docs) == 8
    assert task.eval_docs[0]["candidates"] == ["What keys?", "I like toast.", "Never."]
    assert str(task.fewshot_context(task.eval_docs[7])).endswith(
        "Scene: The hut shook. It rained.\n\nHagrid: Budge up.\nHarry: Who are you?\nHagrid: Keeper of keys.\nHarry:"
    )


# Prompts


def test_golden_samples(tokenizer: str) -> None:
    recorded = json.loads((DATA.parent / "samples_hpd.json").read_text("utf-8"))
    assert sorted(recorded) == sorted(NAMES)
    assert samples(list(recorded), tokenizer) == recorded


def test_the_forms_ask_the_same_of_the_same_rows(tokenizer: str) -> None:
    for data in ("hpd", "msc", "personachat"):
        tasks = {form: load(f"pcc_{data}_{form}", tokenizer=tokenizer) for form in FORMS}
        prints = {task.config.metadata["population"]["fingerprint"] for task in tasks.values()}
        assert len(prints) == 1
        prompts = {form: [task.fewshot_context(doc) for doc in task.eval_docs] for form, task in tasks.items()}
        for none, one, one_m, two, two_m in zip(*prompts.values(), strict=True):
            assert (str(one), str(two)) == (str(one_m), str(two_m))
            assert one.endswith(SEPARATOR + none)
            assert two.endswith(one)  # a shot is the end of two
            assert not one.contexts
            assert one_m.parts[0].kind is Kind.CONTEXT
            assert str(one_m) == one_m.contexts[0] + SEPARATOR + none
            assert len((one_m.contexts[0] + SEPARATOR).encode()) <= 750
            assert len((two_m.contexts[0] + SEPARATOR).encode()) <= 1500


def test_groups(tokenizer: str) -> None:
    for data in ("hpd", "msc", "personachat"):
        group = manager(tokenizer=tokenizer).load([f"pcc_{data}"])["groups"][f"pcc_{data}"]
        assert sorted(group.child_names) == sorted(f"pcc_{data}_{form}" for form in FORMS)


def test_what_the_role_said_before_stands_nearest() -> None:
    asked = [session(5), session(2), session(9)]
    others = [session(1), session(7), session(4, "Ron"), session(3)]
    before = list(Pool(asked, others, 0).before(asked[0]))
    assert [(other.id, own) for other, own in before] == [
        ("Harry3", True),
        ("Harry2", True),  # a scored session, but an earlier one
        ("Harry1", True),
        ("Harry7", False),
        ("Ron4", False),
    ]


TURNS = st.lists(st.text("ab é\n", min_size=1, max_size=30).map(lambda text: f"Ron: {text}"), min_size=1, max_size=5)


@settings(deadline=None, max_examples=60)
@given(st.lists(TURNS, min_size=2, max_size=8), st.integers(10, 400))
def test_a_shot_is_a_promise(models: Path, talks: list[list[str]], budget: int) -> None:
    """Never over the budget, and over it with one turn more."""
    counter = TokenCounter(AutoTokenizer.from_pretrained(models / "llama"), "llama")
    told = [session(number, turns=tuple(turns)) for number, turns in enumerate(talks)]
    asked = session(99)
    try:
        block, own = Pool([asked], told, 0).block(asked, budget, counter)
    except ValueError as error:
        assert "budget" in str(error)
        return
    pieces = [piece for other in reversed(told) for piece in other.pieces]
    tokens = [counter.count("".join(reversed(pieces[: block.count + more]))) for more in (0, 1)]
    assert own
    assert block.tokens == tokens[0] <= budget < tokens[1]
    assert block.text + SEPARATOR == "".join(reversed(pieces[: block.count]))


# Scores


def test_scores_by_hand() -> None:
    doc = {"candidates": ["é!", "no", "never"]}
    scores = score_responses(doc, [(-6.0, 3), (-3.0, 1), (-2.0, 2)])  # mean NLL 2, 3, 1
    assert scores == {"perplexity": (-6.0, 3), "byte_perplexity": (-6.0, 3), "ranking_acc": 0.0, "mrr": 0.5}
    assert score_responses(doc, [(-6.0, 3), (-2.0, 1)])["mrr"] == 0.5  # a tie counts against the reference
    assert "mrr" not in score_responses(doc, [(-6.0, 3)])


def test_perplexity_is_that_of_a_plain_loop_and_of_hf(models: Path) -> None:
    name = "pcc_hpd_1_text"
    decoder = {"tokenizer": str(models / "llama"), "negatives": 1}
    runs = {method: run(models, method, [name], **decoder)["results"][name] for method in ("full-context", "hf")}
    memory = run(models, "full-context", ["pcc_hpd_1_memory"], **decoder)["results"]["pcc_hpd_1_memory"]
    model = AutoModelForCausalLM.from_pretrained(models / "llama", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(models / "llama")
    task = load(name, **decoder)
    nll, tokens, size = 0.0, 0, 0
    for doc in list(task.eval_docs)[:2]:
        prompt = str(task.fewshot_context(doc))
        ids = tokenizer(f"{prompt} {doc['candidates'][0]}", return_tensors="pt").input_ids
        begin = len(tokenizer(prompt).input_ids)
        with torch.no_grad():
            labels = ids.clone()
            labels[:, :begin] = -100
            nll += float(model(ids, labels=labels).loss) * (ids.shape[1] - begin)
        tokens += ids.shape[1] - begin
        size += len(doc["candidates"][0].encode())
    for results in (*runs.values(), memory):
        assert results["perplexity,none"] == pytest.approx(math.exp(nll / tokens), rel=1e-4)
        assert results["byte_perplexity,none"] == pytest.approx(math.exp(nll / size), rel=1e-4)
        assert results["ranking_acc,none"] == runs["hf"]["ranking_acc,none"]


def test_methods_differ_in_memory_form_only(models: Path) -> None:
    names = ["pcc_hpd_1_text", "pcc_hpd_1_memory"]
    decoder = {"tokenizer": str(models / "llama"), "negatives": 1}
    logprobs = {m: run(models, m, names, limit=1, **decoder) for m in ("full-context", "no-context", "pcc")}
    text = {m: float(answers(result, names[0])[0][0][0]) for m, result in logprobs.items()}
    memory = {m: float(answers(result, names[1])[0][0][0]) for m, result in logprobs.items()}
    assert text["pcc"] == pytest.approx(text["full-context"], abs=1e-3)
    assert text["no-context"] == pytest.approx(text["full-context"], abs=1e-3)
    assert len({round(value, 2) for value in memory.values()}) == 3
    account = logprobs["pcc"]["samples"][names[1]][0]["compression"]
    assert account["contexts"] == 1
    assert 600 < account["source_tokens"] <= 750


def test_rows_of_the_lab(tokenizer: str) -> None:
    task = load("pcc_hpd_2_memory", data="lab", lab_rows=64, tokenizer=tokenizer)
    assert len(task.eval_docs) == 64
    population = task.config.metadata["population"]
    assert population["fewest_candidates"] == population["most_candidates"] == 4
    assert population["demonstrations"]["rows_with_own_earlier_dialogue"] == 64


def test_however_few_rows_of_the_lab_are_asked_their_roles_have_said_enough_before(tokenizer: str) -> None:
    few, more = (load("pcc_hpd_2_memory", data="lab", lab_rows=rows, tokenizer=tokenizer) for rows in (4, 20))
    shown = few.config.metadata["population"]["demonstrations"]
    assert (shown["rows_with_own_earlier_dialogue"], shown["rows_with_other_dialogue_too"]) == (4, 0)
    for doc, same in zip(few.eval_docs, more.eval_docs, strict=False):
        assert doc == same
        scenes = [line for line in doc["demonstrations"].splitlines() if line.startswith("Scene:")]
        assert scenes
        assert all(scene.startswith(f"Scene: {doc['role']} and ") for scene in scenes)
        assert doc["session"] not in doc["demonstrations"]


# What a user is told


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"Positive-Response": None}, "no column or field 'positive_response'"),
        ({"position": None}, "no column or field 'position'"),
        ({"dialogue": []}, "not in the data set's hub format (the dialogue is empty)"),
        ({"Positive-Response": " "}, "not in the data set's hub format (a response is empty)"),
        ({"dialogue": [7]}, "turns and responses are not all text"),
    ],
)
def test_sessions_without_the_needed_fields(tmp_path: Path, change: Any, expected: str, tokenizer: str) -> None:
    row = {key: value for key, value in {**HARRY, **change}.items() if value is not None}
    (tmp_path / "hpd").mkdir()
    (tmp_path / "hpd" / "test.json").write_text(json.dumps({"Session-1": row}))
    sentence(f"row 1: {expected}" if "no column" in expected else expected, "pcc_hpd_0", data=str(tmp_path))


def test_mistakes_in_one_sentence(tmp_path: Path, tokenizer: str) -> None:
    def wanted(tokens: int) -> dict[str, Any]:
        return {"demonstrations": {"tokens": tokens}, "tokenizer": tokenizer}

    sentence("can't fit the budget of 5: pass a larger budget", "pcc_hpd_1_text", **wanted(5))
    sentence("to fill a budget of 999999 decoder tokens: provide more rows", "pcc_msc_1_text", **wanted(999999))
    sentence("demonstrations are dialogue up to a budget", "pcc_hpd_1_text", demonstrations={"count": 2})
    sentence("msc is not on the hub: keep its rows in <folder>/msc/<split>.jsonl", "pcc_msc_0", data="hub")
    sentence("negatives=-1: negatives is a whole number of 0 or more", "pcc_msc_0", negatives=-1)
    (tmp_path / "hpd").mkdir()
    (tmp_path / "hpd" / "test.json").write_text("[1]")
    sentence("not a JSON object of rows or a list of them", "pcc_hpd_0", data=str(tmp_path))
    (tmp_path / "hpd" / "test.json").write_text("{")
    sentence("is not valid JSON", "pcc_hpd_0", data=str(tmp_path))
