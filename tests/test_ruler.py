"""RULER's tasks hide what they ask for, where and as often as they say, in texts of the stated length."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from test_needle import load
from transformers import AutoTokenizer

from pcc_bench.core.errors import UsageError
from pcc_bench.tasks.ruler import score_references

KINDS = ("niah_single", "niah_multikey", "niah_multivalue", "niah_multiquery", "vt", "qa")
BY_DEPTH = ("niah_single", "niah_multikey", "qa")


def rows(kind: str, models: Path, **metadata: Any) -> list[dict[str, Any]]:
    settings = {"lengths": [700, 1500], "depths": [0, 0.5, 1], "per_cell": 1, **metadata}
    return list(load(f"pcc_ruler_{kind}", models, **settings).eval_docs)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_as_long_as_stated_and_hold_the_answers(kind: str, models: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(models / "llama")
    docs = rows(kind, models)
    assert len(docs) == 6
    for doc in docs:
        assert doc["tokens"] == len(tokenizer.encode(doc["context"], add_special_tokens=False))
        assert doc["length"] - 40 < doc["tokens"] <= doc["length"]  # less than a sentence is missing
        assert all(answer in doc["context"] for answer in doc["answers"])
        perfect = ", ".join(doc["answers"])
        assert score_references(doc, [perfect]) == {"contains": 1.0}
        assert score_references(doc, [perfect[::-1]]) == {"contains": 0.0}
        assert (doc["depth"] is None) == (kind not in BY_DEPTH)
        if doc["depth"] is not None:
            assert abs(doc["found_depth"] - doc["depth"]) < 0.1


def test_a_share_of_several_answers_is_a_share(models: Path) -> None:
    (doc, *_) = rows("niah_multivalue", models)
    assert len(doc["answers"]) == 4
    assert score_references(doc, [doc["answers"][2]]) == {"contains": 0.25}
    (doc, *_) = [doc for doc in rows("qa", models, per_cell=4) if len(doc["answers"]) > 1]
    assert score_references(doc, [doc["answers"][0]]) == {"contains": 1.0}


def test_only_the_asked_key_has_the_answer(models: Path) -> None:
    doc = rows("niah_multikey", models)[0]
    needles = [line for line in doc["context"].split(". ") if "special magic" in line]
    key = doc["question"].split(" for ")[1].split(" mentioned")[0]
    assert len(needles) == 4
    assert [doc["answers"][0] in line for line in needles if f" {key} " in line] == [True]


def test_a_chain_of_variables_can_be_followed(models: Path) -> None:
    doc = rows("vt", models)[0]
    value = doc["question"].split("the value ")[1].split(" ")[0]
    held = {value}
    for name, source in re.findall(r"VAR (\w+) = (?:VAR )?(\w+)\.", doc["context"]):  # in the order of the text
        assert source in held
        held.add(name)
    assert held == {value, *doc["answers"]}


def test_depths_differ_in_nothing_but_the_place(models: Path) -> None:
    first, second, third = rows("niah_single", models, lengths=[700])
    assert first["question"] == second["question"] == third["question"]
    texts = [doc["context"].split(". ") for doc in (first, second, third)]
    needle = next(line for line in texts[0] if "special magic" in line)
    assert [needle in line for line in texts[1]].index(True) > 5
    length = min(map(len, texts)) - 2  # the end may be a sentence shorter or longer
    assert len({tuple([line for line in text if line.strip(".") != needle][:length]) for text in texts}) == 1


def test_what_does_not_fit_is_counted_and_bad_settings_are_one_sentence(models: Path) -> None:
    task = load("pcc_ruler_qa", models, lengths=[100, 1500], depths=[0.5], per_cell=2)
    assert task.config.metadata["population"]["dropped"] == {"what is hidden is longer than 100 tokens": 2}
    for settings, says in (
        ({"lengths": [100]}, r"nothing of pcc_ruler_qa fits into lengths=\[100\]: pass longer ones"),
        ({"lengths": [8]}, "8 is no number from 64"),
        ({"lengths": "4k"}, "lengths is a list of numbers"),
        ({"lengths": [1e30]}, "1e\\+30 is no number from 64 to 1e\\+07"),
        ({"lengths": [512.5]}, r"lengths=\[512.5\]: 512.5 is no whole number"),
        ({"tokenizer": 3}, "can't load the tokenizer 3"),
        ({"tokenizer": ["llama"]}, r"tokenizer=\['llama'\]: tokenizer is a name or a path"),
        ({"tokenizer": ""}, "tokenizer='': tokenizer is a name or a path"),
        ({"depths": [2]}, "2 is no number from 0 to 1"),
        ({"depths": [float("nan")]}, "nan is no number from 0 to 1"),
        ({"per_cell": 10**12}, "per_cell is at most 10,000"),
        ({"compress": ["context"]}, r"pcc_ruler_qa says itself what is compressed: leave compress=\['context'\] out"),
    ):
        with pytest.raises(UsageError, match=says):
            load("pcc_ruler_qa", models, **settings)


def test_another_seed_draws_others(models: Path) -> None:
    one, same, other = (rows("niah_single", models, lengths=[300], seed=seed)[0] for seed in (0, 0, 1))
    assert one == same
    assert one["answers"] != other["answers"]
