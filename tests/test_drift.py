"""The drift tasks ask the same turn after every cycle, of conversations that grow by whole turns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_needle import load
from transformers import AutoTokenizer

from pcc_bench.core.errors import UsageError
from pcc_bench.tasks.dialogue import Conversation, candidates, joined, of_lab

CYCLES = (1, 2, 3, 4)


def rows(models: Path, cycle: int, **metadata: Any) -> list[dict[str, Any]]:
    return list(load(f"pcc_drift_{cycle}", models, **{"lab_rows": 3, "tokens": 100, **metadata}).eval_docs)


def test_a_conversation_grows_by_whole_turns_and_the_question_stays(models: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(models / "llama")
    before, asked = ["", "", ""], set()
    for cycle in CYCLES:
        docs = rows(models, cycle)
        assert [doc["id"] for doc in docs] == ["0", "1", "2"]
        for n, doc in enumerate(docs):
            text = doc["demonstrations"]
            assert text.startswith(before[n])
            assert len(tokenizer.encode(text, add_special_tokens=False)) == pytest.approx(100 * cycle, abs=40)
            assert f"{doc['role']}: {doc['candidates'][0]}" in text.splitlines()[:8]
            assert len(set(doc["candidates"])) == len(doc["candidates"]) > 1
            assert not any(wrong in text for wrong in doc["candidates"][1:])
            before[n] = text
        asked.add(tuple(tuple(doc["candidates"]) for doc in docs))
    assert len(asked) == 1


def test_wrong_statements_of_the_lab_differ_in_the_value_only() -> None:
    (conversation,) = of_lab(1, seed=0)
    said, *wrong = candidates(conversation, 3, [], 3, seed=0)
    fact = conversation.facts[3]
    assert fact.value in said
    for text in wrong:
        assert fact.value not in text
        assert len(set(text.split()) & set(said.split())) >= len(said.split()) - len(fact.value.split()) - 1


def test_sessions_of_one_conversation_are_joined_in_order() -> None:
    def docs(*names: str) -> list[dict[str, Any]]:
        return [{"who": n, "turns": [f"User: {n}"], "role": "Assistant", "response": "yes"} for n in names]

    (one,) = joined([docs("a", "b"), docs("b", "c")])
    assert one.id == "b"
    assert one.turns == ("User: b", "Assistant: yes", "User: b", "Assistant: yes")


def test_others_turns_of_like_length_are_what_was_not_said() -> None:
    one = Conversation("1", ("User: twelve chars",))
    other = Conversation("2", ("User: no", "User: twelve signs", "User: far more than twelve characters"))
    assert candidates(one, 0, [one, other], 9, seed=0) == ["twelve chars", "twelve signs"]


def test_what_cannot_be_asked_is_counted_or_one_sentence(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "msc"
    folder.mkdir()
    for split in ("session2_valid", "session3_valid", "session4_valid"):
        talks = {
            "short": [["Hi there.", "Hello."]],
            "long": [["What a long day it was.", "It was not so long for me."]] * 9,
        }
        lines = [json.dumps({"id": name, "dialogue": talk}) for name, talk in talks.items()]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    task = load("pcc_drift_2", models, data=str(tmp_path), tokens=40)
    population = task.config.metadata["population"]
    assert population["kept"] == 1
    assert population["dropped"] == {"conversations of fewer than 4 cycles of 40 tokens": 1}
    (folder / "session3_valid.jsonl").write_text('{"id": "a", "dialogue": [[1, 2]]}')
    with pytest.raises(UsageError, match=r"session3_valid.jsonl, line 1: not in the data set's hub format"):
        load("pcc_drift_1", models, data=str(tmp_path))
    (folder / "session3_valid.jsonl").write_text((folder / "session2_valid.jsonl").read_text())
    for settings, says in (
        ({"data": str(tmp_path), "tokens": 4000}, "has 4 cycles of 4000 decoder tokens: pass a smaller tokens"),
        ({"tokens": 3}, "tokens is a whole number of 16 or more"),
        ({"demonstrations": {"count": 3}}, "pcc_drift_1 has no demonstrations: tokens says how long a cycle is"),
    ):
        with pytest.raises(UsageError, match=says):
            load("pcc_drift_1", models, **settings)
