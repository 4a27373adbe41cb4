"""Needles stand where they are said to stand, and only there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lm_eval
import pandas as pd
import pytest
from lm_eval.tasks import TaskManager
from recorded import samples
from transformers import AutoTokenizer

import pcc_bench.tasks
from pcc_bench.core.errors import UsageError
from pcc_bench.host import models as methods
from pcc_bench.tasks.metadata import TokenCounter
from pcc_bench.tasks.needle import TOLERANCE, Place, Text, middle

TASKS = Path(pcc_bench.tasks.__file__).parent


def manager(models: Path, **metadata: Any) -> TaskManager:
    given = {"data": "lab", "tokenizer": str(models / "llama"), "documents": 60, **metadata}
    return TaskManager(include_path=str(TASKS), include_defaults=False, metadata=given)


def load(name: str, models: Path, **metadata: Any) -> Any:
    return manager(models, **metadata).load([name])["tasks"][name]


@pytest.fixture(scope="module")
def task(models: Path) -> Any:
    return load("pcc_needle", models, lengths=[256, 512, 1024], per_cell=2)


def test_a_needle_is_where_its_row_says(task: Any, models: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(models / "llama")
    for doc in task.eval_docs:
        length = len(tokenizer.encode(doc["context"], add_special_tokens=False))
        assert doc["tokens"] == length
        assert abs(length - doc["length"]) <= 2 * TOLERANCE
        assert abs(doc["found_distance"] - doc["distance"]) <= 2 * TOLERANCE
        assert doc["answers"][0] in doc["context"]
        # Found again by itself: the sentence that names the person of the question.
        person = next(word for word in _names(doc["question"]) if word in doc["context"])
        at = doc["context"].index(person)
        before = len(tokenizer.encode(doc["context"][:at], add_special_tokens=False))
        assert abs(before - doc["found_depth"] * length) < 30  # within the needle's own length


def test_no_pronoun_after_a_needle_can_be_taken_for_its_person(models: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(models / "llama")
    hay = Text("Ann sings. She has a dog. Bob has a cat. His cousin is Eve. The end.", TokenCounter(tokenizer, ""))
    starts = [hay.text[hay.places[n] :].strip().split(" ")[0] for n in hay.sentences if hay.places[n] < len(hay.text)]
    assert starts == ["Ann", "Bob", "The"]


def test_depth_is_as_wanted_where_the_distance_allows(task: Any) -> None:
    for doc in task.eval_docs:
        if doc["length"] == 1024:
            assert abs(doc["found_depth"] - doc["depth"]) <= 0.27  # ends of segments are 256 of 1,024 tokens apart
    depths = [doc["found_depth"] for doc in task.eval_docs if doc["length"] == 1024 and doc["distance"] == 64]
    assert min(depths) < 0.1 < 0.9 < max(depths)


def test_cells_differ_in_nothing_but_the_place(task: Any) -> None:
    facts: dict[str, set[tuple[str, str]]] = {}
    for doc in task.eval_docs:
        facts.setdefault(doc["id"].rsplit("-", 1)[1], set()).add((doc["question"], doc["answers"][0]))
    assert len(facts) == 2
    assert all(len(found) == 1 for found in facts.values())


def test_impossible_cells_are_counted(task: Any) -> None:
    population = task.config.metadata["population"]
    assert population["dropped"] == {"no place 0 tokens from a segment's end in 256": 10}
    assert population["kept"] == len(task.eval_docs) == 2 * 5 * 9 - 10


def test_the_same_seed_gives_the_same_rows(models: Path, task: Any) -> None:
    same, other = (load("pcc_needle", models, per_cell=2, seed=seed) for seed in (0, 1))
    prints = [one.config.metadata["population"]["fingerprint"] for one in (task, same, other)]
    assert prints[0] == prints[1] != prints[2]


def test_the_middle_keeps_its_distance_and_goes_to_the_nearest_depth() -> None:
    assert middle(Place(1024, 0.5, 0), 10, 256) == 512
    assert middle(Place(1024, 0.5, 128), 10, 256) in (384, 640)
    assert middle(Place(1024, 0.0, 64), 10, 256) == 64
    assert middle(Place(1024, 1.0, 64), 10, 256) == 960
    assert middle(Place(1024, 0.0, 0), 10, 256) == 256  # the context's own ends have no room on one side
    assert middle(Place(256, 0.5, 0), 10, 256) is None
    assert middle(Place(300, 1.0, None), 10, 256) == 295


def test_golden_samples(tmp_path: Path) -> None:
    recorded = json.loads((Path(__file__).parent / "fixtures" / "samples_needle.json").read_text("utf-8"))
    assert sorted(recorded) == ["pcc_needle", "pcc_needle_kv"]
    assert samples(list(recorded), tmp_path) == recorded


@pytest.mark.parametrize("keys", ["uuid", "names"])
def test_pairs_fill_the_length_and_the_asked_one_is_at_its_depth(keys: str, models: Path) -> None:
    task = load("pcc_needle_kv", models, lengths=[400, 1000], per_cell=2, keys=keys)
    assert len(task.eval_docs) == 2 * 5 * 2
    for doc in task.eval_docs:
        lines = doc["context"].split("\n")
        pairs = dict(line.rstrip(".").split(": ") for line in lines)
        assert len(pairs) == len(lines) == doc["pairs"]  # no key twice
        key = doc["question"].removeprefix("What is the value of the key ").removesuffix("?")
        assert pairs[key] == doc["answers"][0]
        assert abs(list(pairs).index(key) - doc["depth"] * (len(lines) - 1)) <= 0.5
        assert doc["length"] - 80 < doc["tokens"] <= doc["length"]


def test_scores_make_a_heat_map(models: Path) -> None:
    options = {"lengths": [256, 512], "depths": [0, 1], "distances": [64], "per_cell": 1}
    model = methods.full_context(pretrained=str(models / "llama"), dtype="float32", batch_size=4)
    results = lm_eval.simple_evaluate(
        model, tasks=["pcc_needle"], task_manager=manager(models, **options), bootstrap_iters=0
    )
    rows = pd.json_normalize([json.loads(json.dumps(row, default=str)) for row in results["samples"]["pcc_needle"]])
    heat = rows.pivot_table("contains", "doc.depth", "doc.length")
    assert heat.shape == (2, 2)
    assert results["results"]["pcc_needle"]["compression,none"] == 1


def test_a_folder_of_text_is_a_haystack_too(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "book.txt").write_text("It was a dark night, and the rain fell. Nobody came by.\n\n" * 400)
    task = load("pcc_needle", models, data=str(tmp_path), lengths=[300], distances=[50], depths=[0.5], per_cell=1)
    (doc,) = task.eval_docs
    assert doc["context"].count("dark night") > 5
    assert abs(doc["found_distance"] - 50) <= 2 * TOLERANCE


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"lengths": 5}, r"lengths=5: lengths is a list of numbers, 16 or more"),
        ({"depths": [2]}, r"depths=\[2\]: 2 is no number from 0 to 1"),
        ({"lengths": [256], "distances": [500]}, "no cell of pcc_needle has a place"),
        ({"lengths": [float("inf")]}, "inf is no whole number"),
        ({"lengths": [100000], "documents": 3}, "too short for these lengths: pass more documents"),
        ({"per_cell": 0}, "per_cell=0: per_cell is a whole number of 1 or more"),
    ],
)
def test_bad_input_is_one_sentence(metadata: dict[str, Any], says: str, models: Path) -> None:
    with pytest.raises(UsageError, match=says):
        load("pcc_needle", models, **metadata)


def _names(question: str) -> list[str]:
    """Runs of capitalised words behind the first word, which names of people and companies are."""
    words = question.rstrip("?").replace("'s", "").split()[1:]
    runs, run = [], []
    for word in [*words, "end"]:
        if word[0].isupper():
            run.append(word)
        elif run:
            runs.append(" ".join(run))
            run = []
    return runs
