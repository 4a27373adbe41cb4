"""In-context learning: three forms of one prompt, budgets kept, scores that independent judges agree with."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import lm_eval
import numpy as np
import pytest
import torch
from demonstrated import DATA, TASKS, answers, bytes_tokenizer, load, manager, run, samples, sentence
from golden_files import SHIPPED
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api.registry import get_metric
from lm_eval.api.task import ConfigurableTask
from lm_eval.filters import build_filter_ensemble
from lm_eval.tasks._yaml_loader import load_yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from pcc_bench.baselines.controls import FullContext
from pcc_bench.core.context import Kind
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError
from pcc_bench.core.plan import PromptEncoder
from pcc_bench.host.responses import Response
from pcc_bench.tasks.demonstrations import SEPARATOR, Shots, block
from pcc_bench.tasks.icl import OptionScores, demonstration_order, score_number, score_options, seed_spread
from pcc_bench.tasks.metadata import TokenCounter

OWN = Path(lm_eval.__file__).parent / "tasks"
GOLDEN = SHIPPED / "pcc" / "seed0" / "large-4x"
GSM8K = ["pcc_gsm8k", *(f"pcc_gsm8k_{count}_{form}" for count in (4, 8) for form in ("text", "memory"))]
OPTIONS = [
    name
    for data in ("pcc_sst2", "pcc_wsc")
    for name in (data, *(f"{data}_{tokens}_{form}" for tokens in (750, 1500) for form in ("text", "memory")))
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return bytes_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def counter(models: Path) -> TokenCounter:
    """A decoder whose tokens are not bytes, and merge."""
    return TokenCounter(AutoTokenizer.from_pretrained(models / "llama"), "llama")


# Prompts


def test_golden_samples(tokenizer: str) -> None:
    recorded = json.loads((DATA.parent / "samples_icl.json").read_text("utf-8"))
    assert sorted(recorded) == sorted(GSM8K + OPTIONS)
    assert samples(list(recorded), tokenizer) == recorded


def test_the_forms_differ_in_nothing_but_the_mark(tokenizer: str) -> None:
    for data, amount in (("gsm8k", "4"), ("sst2", "750"), ("wsc", "1500")):
        alone, text, memory = (
            load(f"pcc_{data}{suffix}", tokenizer=tokenizer) for suffix in ("", f"_{amount}_text", f"_{amount}_memory")
        )
        for doc in alone.eval_docs:
            item, shown, compressed = (task.fewshot_context(doc) for task in (alone, text, memory))
            assert str(shown) == str(compressed)
            assert str(shown).endswith(SEPARATOR + item)
            assert not item.contexts
            assert not shown.contexts
            assert compressed.parts[0].kind is Kind.CONTEXT
            assert str(compressed) == compressed.contexts[0] + SEPARATOR + item


def test_the_official_protocol_compresses_the_last_separator_too(tokenizer: str) -> None:
    strict = load("pcc_wsc_750_memory", tokenizer=tokenizer)
    official = load("pcc_wsc_750_memory", tokenizer=tokenizer, protocol="official")
    doc = strict.eval_docs[0]
    assert official.fewshot_context(doc).contexts == [strict.fewshot_context(doc).contexts[0] + SEPARATOR]
    assert str(official.fewshot_context(doc)) == str(strict.fewshot_context(doc))


def test_groups_hold_every_task_once(tokenizer: str) -> None:
    groups = manager(tokenizer=tokenizer)
    members = {name: groups.load([name])["groups"][name].child_names for name in ("pcc_icl_text", "pcc_icl_memory")}
    zero = ["pcc_gsm8k", "pcc_sst2", "pcc_wsc"]
    assert sorted([*zero, *members["pcc_icl_text"], *members["pcc_icl_memory"]]) == sorted(GSM8K + OPTIONS)
    assert groups.load(["pcc_icl"])["groups"]["pcc_icl"].child_names == [*zero, *members]


# Demonstrations


@settings(deadline=None)
@given(st.integers(1, 700), st.integers(0, 10**4))
def test_random_demonstrations_are_those_of_the_papers_generator(rows: int, seed: int) -> None:
    order = list(demonstration_order([0] * rows, seed, balanced=False))
    assert sorted(order) == list(range(rows))
    for count in {1, min(rows, 4), min(rows, 30)}:
        few = rows <= 21 or rows > 21 + (4**4 if count > 5 else 0)  # where `random.sample` has one way of drawing
        if few:
            assert order[:count] == random.Random(10**6 * seed + 10**3).sample(range(rows), count)


@settings(deadline=None)
@given(st.lists(st.integers(0, 1), min_size=2, max_size=60), st.integers(0, 99))
def test_balanced_demonstrations_alternate(labels: list[int], seed: int) -> None:
    order = list(demonstration_order(labels, seed, balanced=True))
    shown = [labels[number] for number in order]
    assert len(set(order)) == len(order)
    if len(set(labels)) == 2:
        assert len(order) == 2 * min(labels.count(0), labels.count(1))
        assert shown == [0, 1] * (len(order) // 2)


def test_balanced_order_holds_the_official_window() -> None:
    labels = [0, 1] * 5
    assert list(demonstration_order(labels, 10, balanced=True)) == [
        8,
        5,
        4,
        7,
        6,
        1,
        0,
        3,
        2,
        9,
    ]  # the official demos: 6, 1, 0, 3, 2


WORDS = st.lists(st.sampled_from(["the", "river", "Kelm,", "1843", "a", "mill\n", "über", "<s>", "."]), min_size=1)
PIECES = st.lists(WORDS.map(" ".join), min_size=1, max_size=25)


@settings(deadline=None, max_examples=60)
@given(PIECES, st.integers(1, 300))
def test_a_budget_is_a_promise(counter: TokenCounter, pieces: list[str], budget: int) -> None:
    """Never over, and over with one demonstration more."""

    def tokens(count: int) -> int:
        return counter.count("".join(piece + SEPARATOR for piece in pieces[:count]))

    try:
        shown = block(iter(pieces), Shots("memory", tokens=budget), counter, "here")
    except UsageError as error:
        if "can't fit the budget" in str(error):
            assert tokens(1) > budget
        else:
            assert tokens(len(pieces)) <= budget
        return
    assert shown.tokens == tokens(shown.count) <= budget < tokens(shown.count + 1)
    assert shown.text == SEPARATOR.join(pieces[: shown.count])


def test_more_demonstrations_begin_with_the_fewer(models: Path) -> None:
    decoder = str(models / "llama")
    for data in ("sst2", "wsc"):
        texts = []
        for wanted in ({"count": 3}, {"count": 4}, {"tokens": 300}, {"tokens": 750}):
            task = load(f"pcc_{data}_750_memory", tokenizer=decoder, demonstrations=wanted)
            texts.append(task.fewshot_context(task.eval_docs[0]).contexts[0])
        texts.sort(key=len)
        assert len(set(texts)) >= 3
        assert all(more == fewer or more.startswith(fewer + SEPARATOR) for fewer, more in pairwise(texts))


def test_the_results_say_what_was_shown(models: Path) -> None:
    decoder = str(models / "llama")
    task = load("pcc_sst2_750_text", tokenizer=decoder, seeds=[0, 7])
    shown = task.config.metadata["population"]["demonstrations"]
    assert (shown["form"], shown["budget"], shown["tokenizer"], list(shown["seeds"])) == (
        "text",
        750,
        decoder,
        ["0", "7"],
    )
    assert all(690 < seed["tokens"] <= 750 for seed in shown["seeds"].values())
    other = load("pcc_sst2_750_text", tokenizer=decoder, seeds=[0, 8]).config.metadata["population"]
    assert other["fingerprint"] == task.config.metadata["population"]["fingerprint"]
    assert other["demonstrations"]["fingerprint"] != shown["fingerprint"]


# Scores


def test_scores_of_options_by_hand() -> None:
    one = OptionScores([(-4.0, 1), (-6.0, 3)], [1.0, 3.0])  # nll 4 and 2; less the content-free: 3 and -1
    two = OptionScores([(-4.0, 1), (-6.0, 3)], [4.5, 1.0])  # -0.5 and 1
    scores = score_options({"label": 1}, [one, two])
    assert scores == {"acc": 0.0, "acc_token": 1.0, "acc_calibrated": 0.5, "seed_spread": [1.0, 0.0]}
    plain = [OptionScores(s.options, None) for s in (one, two)]
    assert score_options({"label": 0}, plain) == {"acc": 1.0, "acc_token": 0.0, "seed_spread": [0.0, 0.0]}
    assert "seed_spread" not in score_options({"label": 0}, plain[:1])


def test_spread_is_the_standard_deviation_of_the_seeds_accuracies() -> None:
    rows = np.random.default_rng(0).integers(0, 2, (50, 3)).astype(float)
    assert seed_spread(rows.tolist()) == pytest.approx(float(rows.mean(0).std(ddof=1)))


def judge(yaml: str, docs: list[dict[str, Any]]) -> ConfigurableTask:
    """A task of lm-eval's own, as its YAML has it, over our rows."""
    config = load_yaml(OWN / yaml)
    for key in ("tag", "dataset_path", "dataset_name", "training_split"):
        config.pop(key, None)
    splits = {split: datasets.Dataset.from_list(docs) for split in ("validation", "test")}
    config |= {"custom_dataset": lambda **_: splits, "num_fewshot": 0, "fewshot_split": None}
    return ConfigurableTask(config=config)


@pytest.mark.parametrize(
    ("name", "yaml"), [("pcc_sst2", "glue/sst2/default.yaml"), ("pcc_wsc", "super_glue/wsc/default.yaml")]
)
def test_accuracy_is_that_of_lm_evals_own_task(name: str, yaml: str, tokenizer: str) -> None:
    ours = load(name, tokenizer=tokenizer, calibration=False)
    docs = [{**doc, "span2_index": 1, "span1_index": 0} for doc in ours.eval_docs]
    theirs = judge(yaml, docs)
    draws = np.random.default_rng(0)
    for _ in range(100):
        doc = docs[draws.integers(len(docs))]
        results = [(float(-draws.exponential()), False) for _ in range(2)]
        scores = ours.process_results(doc, results)
        assert scores["acc"] == theirs.process_results(doc, results)["acc"]
        assert "acc_calibrated" not in scores
        assert ours.doc_to_choice(doc) == theirs.doc_to_choice(doc)


NUMBERS = ["#### ", "####", "$", "1,234", "-18", "18.", "18", "3.50", ".", " so ", "\n", "%", "$1,000.00"]


@pytest.mark.parametrize("number", ["18", "-18", "1,234"])
def test_extraction_is_that_of_lm_evals_gsm8k(number: str) -> None:
    theirs, ours = (load_yaml(folder / "gsm8k" / "gsm8k.yaml") for folder in (OWN, TASKS))
    draws = random.Random(number)
    predictions = ["".join(draws.choices(NUMBERS, k=draws.randrange(8))) for _ in range(1000)]
    answer = f"It is {number}.\n#### {number}"
    metric = next(entry for entry in theirs["metric_list"] if entry["metric"] == "exact_match")
    arguments = {key: metric[key] for key in ("ignore_case", "ignore_punctuation", "regexes_to_ignore")}
    assert [entry["name"] for entry in ours["filter_list"][2:]] == ["pcc-number"]
    for their_filter, our_filter in zip(theirs["filter_list"], ours["filter_list"][:2], strict=True):
        found = [list(ensemble(entry, predictions)) for entry in (their_filter, our_filter)]
        assert found[0] == found[1]
        assert their_filter["name"] == our_filter["name"]
        expected = [
            get_metric("exact_match")(references=[answer], predictions=[text], **arguments)["exact_match"]
            for text in found[1]
        ]
        assert [score_number({"answer": answer}, [text])["exact_match"] for text in found[1]] == expected
        assert 0 < sum(expected) < 500


def by_value(solution: str, answer: str) -> float:
    """Whether our own filter finds the result in a solution."""
    (entry,) = [e for e in load_yaml(TASKS / "gsm8k" / "gsm8k.yaml")["filter_list"] if e["name"] == "pcc-number"]
    doc = {"answer": answer}
    (found,) = build_filter_ensemble(entry["name"], [["pcc_number", None]]).filters[0]().apply([[solution]], [doc])
    return float(score_number(doc, found)["exact_match"])


@pytest.mark.parametrize(
    ("solution", "number"),
    [
        ("It costs $29.00.", "29"),
        ("So it is 18...", "18"),
        ("She gets 70,000 dollars ...", "70000"),
        ("She adds 3.\n#### 70000.00", "70,000"),
        ("#### -$5 and 7 others", "-5"),
        ("10-3 = 7", "7"),
        ("The answer is \u22127.", "-7"),
    ],
)
def test_a_right_number_is_right_however_it_is_written(solution: str, number: str) -> None:
    assert by_value(solution, f"It is so.\n#### {number}") == 1
    assert (
        by_value(solution.replace("7", "8").replace("9", "8").replace("5", "8").replace("18", "81"), f"#### {number}")
        == 0
    )
    assert by_value("I do not know.", f"#### {number}") == 0


@given(value=st.integers(-(10**7), 10**7), other=st.integers(-99, 99), marked=st.booleans(), data=st.data())
def test_numbers_are_compared_by_value(value: int, other: int, marked: bool, data: st.DataObject) -> None:
    digits = data.draw(st.sampled_from([f"{abs(value)}", f"{abs(value):,}"])) + data.draw(
        st.sampled_from(["", ".0", ".00"])
    )
    sign = data.draw(st.sampled_from(["-", "\u2212"])) if value < 0 else ""
    spelled = (
        sign
        + data.draw(st.sampled_from(["", "$"]))
        + digits
        + data.draw(st.sampled_from(["", ".", "...", " dollars", "%", "!"]))
    )
    solution = f"First {other} and 3.\n#### {spelled}\nThen 5" if marked else f"First {other}, so it is {spelled}"
    assert by_value(solution, f"#### {data.draw(st.sampled_from([f'{value}', f'{value:,}']))}") == 1
    assert by_value(solution, f"#### {value + 1}") == 0


def ensemble(entry: dict[str, Any], predictions: list[str]) -> Any:
    """What a filter of a YAML makes of predictions, one a row."""
    functions = [[f["function"], {k: v for k, v in f.items() if k != "function"}] for f in entry["filter"]]
    rows: Any = [[prediction] for prediction in predictions]
    for make in build_filter_ensemble(entry["name"], functions).filters:
        rows = make().apply(rows, [{}] * len(predictions))
    return rows


def test_what_is_extracted_keeps_the_account_of_the_answer() -> None:

    answer = Response("it is\n#### 18", {"slots": 3})
    for entry in load_yaml(TASKS / "gsm8k" / "gsm8k.yaml")["filter_list"]:
        (found,) = ensemble(entry, [answer])  # type: ignore[list-item]
        assert (found, found.record) == ("18", {"slots": 3})


# The official code's own run


@pytest.mark.parametrize("case", ["wsc_soft4_plain0_seed10_calib", "sst2_soft4_plain0_seed10_calib"])
def test_scores_are_those_of_the_official_code(case: str, tmp_path: Path) -> None:
    golden = json.loads((GOLDEN / "icl.json").read_text())[case]
    name = case.partition("_")[0]
    train = golden["dataset"]["train"]
    if name == "sst2":  # the official window begins with its fifth; ours with the first
        order = [8, 5, 4, 7]
        place = dict(zip(order, [6, 1, 0, 3], strict=True))
        rest = iter(number for number in range(10) if number not in place.values())
        train = [train[place[n]] if n in place else train[next(rest)] for n in range(10)]
        train = [{**row, "label": n % 2} if n not in place else row for n, row in enumerate(train)]
    for split, rows in (("train", train), ("validation", golden["dataset"]["test"])):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = json.loads((GOLDEN / "config.json").read_text())
    arguments = {
        "pretrained": str(GOLDEN / config["adapter"]),
        "decoder": str(GOLDEN / "decoder"),
        "encoder": str(GOLDEN / config["encoder"]),
        "rate": config["rate"],
        "segment_length": config["segment_length"],
    }
    wanted = {"data": str(tmp_path), "seeds": [10], "protocol": "official", "demonstrations": {"count": 4}}
    results = lm_eval.simple_evaluate(
        "pcc",
        model_args={**arguments, "device": "cpu", "dtype": "float32"},
        tasks=[f"pcc_{name}_750_memory"],
        task_manager=manager(**{**arguments, **wanted}),
        bootstrap_iters=0,
    )
    task = load(f"pcc_{name}_750_memory", **{**arguments, **wanted})
    assert task.fewshot_context(task.eval_docs[0]).contexts[0] == "".join(
        text.removeprefix("<|begin_of_text|>") for text in golden["compressed_chunks_text"]
    )
    for row, doc in enumerate(task.eval_docs):
        logprobs = [float(answer[0]) for answer in answers(results, f"pcc_{name}_750_memory")[row]]
        options = task.doc_to_choice(doc)
        tokens = [count for _, count in task.likelihoods(doc, options, [(0.0,)] * len(options))]
        if len(logprobs) == 4:
            free = [-total / count for total, count in zip(logprobs[2:], tokens, strict=True)]
        nlls = [-total / count - bias for total, count, bias in zip(logprobs[:2], tokens, free, strict=True)]
        assert nlls == pytest.approx(golden["scores"][row], abs=1e-4)
    scores = results["results"][f"pcc_{name}_750_memory"]
    assert scores["acc_calibrated,none"] == golden["accuracy"]


# Runs


def twin(task: Any, prompts: list[str]) -> ConfigurableTask:
    """A task's prompts as plain text in a task of lm-eval's own."""
    rows = [{"prompt": prompt, "label": doc["label"]} for prompt, doc in zip(prompts, task.eval_docs, strict=False)]
    config = {
        "task": "twin",
        "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(rows)},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "prompt",
        "doc_to_choice": task.config.doc_to_choice,
        "doc_to_target": "label",
        "num_fewshot": 0,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    return ConfigurableTask(config=config)


@pytest.mark.parametrize("name", ["pcc_sst2_750", "pcc_wsc_750"])
def test_text_form_is_hf_on_its_plain_twin(models: Path, name: str) -> None:
    wanted = {"calibration": False, "tokenizer": str(models / "llama")}
    text = f"{name}_text"
    task = load(text, **wanted)
    plain = twin(task, [str(task.fewshot_context(doc)) for doc in task.eval_docs][:2])
    hf = lm_eval.simple_evaluate(
        "hf",
        model_args={"pretrained": str(models / "llama"), "device": "cpu", "batch_size": 4},
        tasks=[plain],
        task_manager=manager(),  # or lm-eval reads its thousands of tasks
        bootstrap_iters=0,
    )
    expected = [answer[0] for row in answers(hf, "twin") for answer in row]
    for method, tasks in (("hf", [text]), ("full-context", [text, f"{name}_memory"])):
        results = run(models, method, tasks, **wanted)
        for form in tasks:
            assert [float(a[0]) for row in answers(results, form) for a in row] == pytest.approx(expected, abs=1e-4)
            assert results["results"][form]["acc,none"] == hf["results"]["twin"]["acc,none"]


def test_worked_solutions_are_the_same_text_under_hf_and_full_context(models: Path) -> None:
    texts = [
        answers(run(models, method, [name]), name)
        for method, name in (("hf", "pcc_gsm8k_4_text"), ("full-context", "pcc_gsm8k_4_text"))
    ]
    assert [str(row) for row in texts[0]] == [str(row) for row in texts[1]]


def test_a_row_counts_once_whatever_the_seeds(models: Path) -> None:
    name = "pcc_sst2_750_memory"
    results = run(models, "pcc", [name], limit=3, seeds=[0, 1], options={"rate": 4})
    scores = results["results"][name]
    assert scores["sample_len"] == 3
    sample = results["samples"][name][0]
    assert len(sample["resps"]) == 8  # 2 options, 2 seeds, and as many of the content-free input
    assert [len(sample["resps"]) for sample in results["samples"][name][1:]] == [4, 4]
    account = sample["compression"]
    assert account["contexts"] == 2
    assert account["ratio_slots"] == pytest.approx(account["source_tokens"] / account["slots"])
    each = np.array([sample["seed_spread"] for sample in results["samples"][name]])
    assert scores["acc_calibrated,none"] == pytest.approx(each.mean())
    assert scores["seed_spread,none"] == pytest.approx(each.mean(0).std(ddof=1))
    assert scores["compression,none"] == pytest.approx(
        sum(s["compression"]["source_tokens"] for s in results["samples"][name])
        / sum(s["compression"]["slots"] + s["compression"]["boundary"] for s in results["samples"][name])
    )


def test_rows_too_long_for_the_decoder_are_in_no_score(models: Path) -> None:
    options = {"max_length": 64, "overflow": "skip"}
    results = run(models, "full-context", ["pcc_sst2_750_text"], options=options, calibration=False)
    assert "acc,none" not in results["results"]["pcc_sst2_750_text"]
    assert results["config"]["pcc_bench"]["skipped"] == {"pcc_sst2_750_text": [0, 1]}


def test_tokens_of_an_answer_are_those_the_model_scores(models: Path) -> None:

    model = AutoModelForCausalLM.from_pretrained(models / "llama", dtype=torch.float32)
    decoder = Decoder(model, AutoTokenizer.from_pretrained(models / "llama"), "llama")
    encoder = PromptEncoder(FullContext(decoder))
    task = load("pcc_wsc_750_text", tokenizer=str(models / "llama"))
    for doc in task.eval_docs:
        for option in task.doc_to_choice(doc):
            _, ids = encoder.encode_pair(task.fewshot_context(doc), [], f" {option}")
            assert task.likelihoods(doc, [option], [(0.0,)]) == [(0.0, len(ids))]


@pytest.mark.parametrize("name", ["pcc_gsm8k_8_memory", "pcc_sst2_1500_memory", "pcc_wsc_1500_memory"])
def test_rows_of_the_lab(name: str, tokenizer: str) -> None:
    task = load(name, data="lab", lab_rows=100, tokenizer=tokenizer)
    assert len(task.eval_docs) == 100
    assert task.config.metadata["population"]["source"] == "lab"


def test_however_few_rows_of_the_lab_are_asked_there_are_demonstrations_for_any_budget(models: Path) -> None:
    decoder = str(models / "llama")
    few, more = (
        load("pcc_wsc_1500_memory", data="lab", lab_rows=rows, tokenizer=decoder).config.metadata["population"]
        for rows in (2, 50)
    )
    assert (few["kept"], more["kept"]) == (2, 50)
    assert few["demonstrations"] == more["demonstrations"]


# What a user is told


def test_mistakes_in_one_sentence(tmp_path: Path, tokenizer: str) -> None:
    def wanted(**amount: Any) -> dict[str, Any]:
        return {"demonstrations": amount, "tokenizer": tokenizer}

    memory = "pcc_wsc_750_memory"
    sentence("can't fit the budget of 20: pass a larger budget or another seed", memory, **wanted(tokens=20))
    sentence("too few demonstrations (24) to fill a budget of 99999", memory, **wanted(tokens=99999))
    sentence("has 24 demonstrations, 30 are wanted: ask for fewer", memory, **wanted(count=30))
    sentence('pass {"count": 30} or {"tokens": 750}, one of them', memory, **wanted(count=3, tokens=3))
    sentence("a whole number of 1 or more", memory, **wanted(tokens=0))
    sentence("this task has no demonstrations", "pcc_wsc", **wanted(tokens=750))
    sentence("can't load the tokenizer", memory, tokenizer=str(tmp_path))
    sentence("seeds='many': seeds is a list of different whole numbers", memory, seeds="many", tokenizer=tokenizer)
    sentence("has no folder wsc", memory, data=str(tmp_path), tokenizer=tokenizer)


def test_a_label_outside_the_set_in_one_sentence(tmp_path: Path, tokenizer: str) -> None:
    (tmp_path / "sst2").mkdir()
    (tmp_path / "sst2" / "validation.jsonl").write_text('{"sentence": "fine .", "label": 2}\n')
    expected = "line 1: not in the data set's hub format (label 2 is outside the set 0 (negative), 1 (positive))"
    sentence(expected, "pcc_sst2", data=str(tmp_path), tokenizer=tokenizer)


def test_wrong_settings_in_one_sentence(tokenizer: str) -> None:
    task = load("pcc_wsc", tokenizer=tokenizer, calibration="yes")
    with pytest.raises(UsageError, match="calibration is true or false"):
        task.fewshot_context(task.eval_docs[0])
    with pytest.raises(UsageError, match="brings its own demonstrations: leave num_fewshot out"):
        task.fewshot_context(task.eval_docs[0], num_fewshot=5)
    task = load("pcc_wsc_750_memory", tokenizer=tokenizer, protocol="easy")
    with pytest.raises(UsageError, match="protocol is one of strict, official"):
        task.fewshot_context(task.eval_docs[0])
