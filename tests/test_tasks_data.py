"""Where rows come from, which of them are scored, and what a user is told when something is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest
from conftest import SAMPLE
from demonstrated import REAL
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import PreTrainedTokenizerFast

import pcc_bench.tasks
from pcc_bench.core import shipped
from pcc_bench.core.errors import UsageError
from pcc_bench.host import inventory
from pcc_bench.tasks.data import fingerprint
from pcc_bench.tasks.metadata import data_source, tokenizer_name
from pcc_bench.tasks.rows import real_folder
from pcc_bench.tasks.task import PccTask

TASKS = Path(pcc_bench.tasks.__file__).parent
DATA = Path(__file__).parent / "fixtures" / "data"


def load(name: str, **metadata: Any) -> PccTask:
    """A task as lm-eval's command line loads it."""
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=metadata)
    return manager.load([name])["tasks"][name]


def population(name: str, **metadata: Any) -> dict[str, Any]:
    return load(name, **metadata).config.metadata["population"]


def write(folder: Path, dataset: str, *lines: str | Mapping[str, Any]) -> Path:
    path = folder / dataset / "validation.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def squad_row(context: str, id: str = "1") -> dict[str, Any]:
    return {"id": id, "context": context, "question": "q?", "answers": {"text": ["a", "b"], "answer_start": [0, 0]}}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tokenizer that has one token a byte, and BOS."""
    folder = tmp_path_factory.mktemp("tokenizer")
    vocabulary = {character: number for number, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(tokenizer_models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return str(folder)


# Sources


def test_sources_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "squad", squad_row("from the environment"))
    monkeypatch.setenv("PCC_DATA", str(tmp_path))
    assert load("pcc_squad", population="all").eval_docs[0]["context"] == "from the environment"
    assert load("pcc_squad", population="all", data=str(DATA)).eval_docs[0]["id"] == "s1"
    monkeypatch.delenv("PCC_DATA")
    with pytest.raises(UsageError, match="can't load rajpurkar/squad_v2 from the hub"):
        load("pcc_squad", pretrained=str(tmp_path))


def test_the_default_source_follows_from_the_model_that_is_named(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PCC_DATA", raising=False)
    (tmp_path / "config.json").write_text(json.dumps({"pcc_bench": "0.1.0", "decoder": {"name": "lab-llama"}}))
    sources = {
        "nothing, so the default checkpoint": ({}, "lab"),
        "a checkpoint of the lab": ({"pretrained": "pcc-lab-16x"}, "lab"),
        "a decoder of the lab": ({"pretrained": "lab-llama"}, "lab"),
        "its folder, as lm-eval's hf is given it": ({"pretrained": str(shipped.find("lab-llama"))}, "lab"),
        "a checkpoint read by a decoder of the lab": (
            {"pretrained": str(models / "pcc"), "decoder": "lab-llama"},
            "lab",
        ),
        "a checkpoint made for one": ({"pretrained": str(tmp_path)}, "lab"),
        "another decoder": ({"pretrained": str(models / "llama")}, "hub"),
        "another checkpoint": ({"pretrained": str(models / "pcc")}, "hub"),
        "a model behind an API": ({"model": "some-llm", "base_url": "http://localhost"}, "hub"),
        "the user's word": ({"pretrained": "lab-llama", "data": "hub"}, "hub"),
    }
    assert {name: data_source(metadata) for name, (metadata, _) in sources.items()} == {
        name: source for name, (_, source) in sources.items()
    }
    monkeypatch.setenv("PCC_DATA", str(DATA))
    assert {data_source(metadata) for metadata, _ in sources.values()} == {str(DATA), "hub"}


def test_the_default_checkpoint_says_which_tokens_count() -> None:
    assert Path(tokenizer_name({})).resolve() == shipped.find("lab-llama")
    assert Path(tokenizer_name({"pretrained": "pcc-lab-16x"})).resolve() == shipped.find("lab-llama")
    with pytest.raises(UsageError, match="nothing says which decoder to count with"):
        tokenizer_name({"model": "some-llm"})


def test_hub_rows_are_read_at_their_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def load_dataset(*args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        calls.append((args, kwargs))
        return [squad_row("from the hub")]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    task = load("pcc_adversarialqa", data="hub")
    revision = "c2d5f738db1ad21a4126a144dfbb00cb51e0a4a9"
    assert calls == [(("UCLNLP/adversarial_qa", "adversarialQA"), {"split": "validation", "revision": revision})]
    assert task.eval_docs[0]["context"] == "from the hub"
    assert task.config.metadata["population"]["hub"]["revision"] == revision


def test_hub_file_of_a_repository_with_a_loading_script(monkeypatch: pytest.MonkeyPatch) -> None:
    local = str(DATA / "nq" / "validation.jsonl")
    monkeypatch.setattr("pcc_bench.tasks.data.hf_hub_download", lambda *args, **kwargs: local)
    task = load("pcc_nq", data="hub", population="all")
    assert [doc["id"] for doc in task.eval_docs] == ["n1"]


def test_sample_rows_work(tokenizer: str) -> None:
    task = load("pcc_squad", data=str(SAMPLE), tokenizer=tokenizer)
    assert len(task.eval_docs) == 24
    assert len({doc["context"] for doc in task.eval_docs}) == 6
    assert min(len(doc["context"]) for doc in task.eval_docs) > 1300


def test_real_rows_ship(monkeypatch: pytest.MonkeyPatch) -> None:
    account = population("pcc_squad", data="real", population="all")
    assert (account["source"], account["rows_read"], account["kept"]) == ("folder", 100, 100)
    docs = load("pcc_squad", data="real", population="all").eval_docs
    assert len({doc["context"] for doc in docs}) == 40
    assert all(answer in doc["context"] for doc in docs for answer in doc["answers"])
    assert "CC BY-SA 4.0" in (real_folder() / "README.md").read_text(encoding="utf-8")
    monkeypatch.setenv("PCC_DATA", "real")
    assert inventory.data_folder() == real_folder()
    sentence("has no folder nq", name="pcc_nq", data="real", population="all")


@pytest.mark.parametrize(
    ("name", "rows"), [("pcc_squad", 5928), ("pcc_hotpotqa", 759), ("pcc_hotpotqa_gold", 759), ("pcc_nq", 1328)]
)
def test_real_rows(name: str, rows: int) -> None:
    if not (REAL / "squad" / "validation.jsonl").is_file():
        pytest.skip(f"no real data under {REAL}: set PCC_DATA to a folder with squad/validation.jsonl and so on")
    account = population(name, data=str(REAL), population="all")
    assert (account["rows_read"], account["kept"], account["dropped"]) == (rows, rows, {})


# Populations


def test_population_of_a_folder(tokenizer: str) -> None:
    task = load("pcc_squad", data=str(DATA), tokenizer=tokenizer)
    assert [doc["id"] for doc in task.eval_docs] == ["s3", "s4"]
    assert task.config.metadata["population"] == {
        "source": "folder",
        "place": str(DATA / "squad" / "validation.jsonl"),
        "dataset": "squad",
        "split": "validation",
        "hub": None,
        "protocol": "strict",
        "population": "paper",
        "filter": {"more_than": 256},
        "tokenizer": tokenizer,
        "rows_read": 4,
        "kept": 2,
        "dropped": {"unanswerable": 1, "context of 256 tokens or fewer": 1},
        "kinds": {},
        "fingerprint": fingerprint(list(task.eval_docs)),
        "prompt": "official",
    }
    json.dumps(task.dump_config()["metadata"])


def test_tokens_are_counted_with_bos_and_look_alikes_as_characters(tmp_path: Path, tokenizer: str) -> None:
    rows = [squad_row("x" * 255, "255"), squad_row("x" * 256, "256"), squad_row("<s>" * 85 + "x", "<s>")]
    write(tmp_path, "squad", *rows)
    assert [doc["id"] for doc in load("pcc_squad", data=str(tmp_path), tokenizer=tokenizer).eval_docs] == ["256", "<s>"]


def test_nq_filters_only_the_rows_of_the_papers_kind(tmp_path: Path, tokenizer: str) -> None:
    def row(length: int) -> dict[str, Any]:
        return {"query_id": str(length), "query": "q", "answers": ["a"], "positive_passages": [{"text": "x" * length}]}

    gold = {"question": "q", "answers": ["a"], "ctxs": [{"text": "short", "isgold": True}]}
    write(tmp_path, "nq", row(511), row(512), row(7999), row(8000), gold)
    task = load("pcc_nq", data=str(tmp_path), tokenizer=tokenizer)
    assert [doc["id"] for doc in task.eval_docs] == ["512", "7999", "5"]
    account = task.config.metadata["population"]
    assert account["dropped"] == {"context of 512 tokens or fewer": 1, "context of more than 8000 tokens": 1}
    assert account["kinds"] == {"positive_passages": 2, "gold_passage": 1}


def test_gold_passage_rows_need_no_tokenizer() -> None:
    account = population("pcc_nq", data=str(DATA.parent / "gold_passage"))
    assert (account["filter"], account["kinds"]) == (None, {"gold_passage": 1})


def test_fingerprint_knows_rows_protocol_and_order() -> None:
    prints = [population("pcc_squad", data=str(DATA), population="all")["fingerprint"] for _ in range(2)]
    official = population("pcc_squad", data=str(DATA), population="all", protocol="official")["fingerprint"]
    assert prints[0] == prints[1] != official
    docs = list(load("pcc_squad", data=str(DATA), population="all").eval_docs)
    assert fingerprint(docs) == prints[0] != fingerprint(docs[::-1])


def test_a_draw_asks_every_row_in_an_order_of_its_seed(tmp_path: Path) -> None:
    write(tmp_path, "squad", *(squad_row("x" * length, str(length)) for length in range(1, 41)))

    def ids(**settings: Any) -> tuple[list[str], str]:
        task = load("pcc_squad", data=str(tmp_path), population="all", **settings)
        return [doc["id"] for doc in task.eval_docs], task.config.metadata["population"]["fingerprint"]

    (in_order, plain), (drawn, first), (other, second) = ids(), ids(draw=0), ids(draw=1)
    assert in_order == [str(length) for length in range(1, 41)]
    assert sorted(drawn) == sorted(other) == sorted(in_order)
    assert len({tuple(in_order), tuple(drawn), tuple(other)}) == 3
    assert (ids(draw=0), first) == ((drawn, f"{plain}-draw-0"), f"{plain}-draw-0") and second == f"{plain}-draw-1"
    with pytest.raises(UsageError, match="draw='all': draw is a whole number of 0 or more"):
        ids(draw="all")


def test_a_checkpoint_tuned_on_another_prompt_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = {"pcc_bench": 1, "prompt": "short", "decoder": {"name": None}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    settings = {"data": str(DATA), "population": "all", "pretrained": str(tmp_path)}
    load("pcc_squad", **settings, prompt="short")
    assert not caplog.records
    load("pcc_squad", **settings)
    assert f"{tmp_path} was tuned to answer the prompt 'short', and the rows ask 'official'" in caplog.text


def test_protocols() -> None:
    def answers(name: str, protocol: str) -> list[list[str]]:
        task = load(name, data=str(DATA), population="all", protocol=protocol)
        return [doc["answers"] for doc in task.eval_docs]

    assert answers("pcc_adversarialqa", "strict") == [["Marta Ilves"], ["twice", "two"]]
    assert answers("pcc_adversarialqa", "official") == [["Marta Ilves"], ["twice"]]
    assert answers("pcc_nq", "official") == [["Peep Sarv", "Sarv"]]


def test_ids_that_are_numbers_or_missing(tmp_path: Path) -> None:
    write(tmp_path, "squad", {**squad_row("c"), "id": 0}, {**squad_row("c"), "id": ""})
    assert [doc["id"] for doc in load("pcc_squad", data=str(tmp_path), population="all").eval_docs] == ["0", "2"]


@pytest.mark.parametrize("answers", ["a", ["a"], {"text": ["a"], "answer_start": [0]}])
def test_references_of_any_shape(tmp_path: Path, answers: object) -> None:
    write(tmp_path, "squad", {**squad_row("c"), "answers": answers})
    assert load("pcc_squad", data=str(tmp_path), population="all").eval_docs[0]["answers"] == ["a"]


# Whose tokens count


def test_tokenizer_in_order(tmp_path: Path) -> None:
    assert tokenizer_name({"tokenizer": "t", "decoder": "d", "pretrained": "p"}) == "t"
    assert tokenizer_name({"decoder": "d", "pretrained": "p"}) == "d"
    assert tokenizer_name({"pretrained": "org/decoder"}) == "org/decoder"
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    assert tokenizer_name({"pretrained": str(checkpoint)}) == str(checkpoint)
    config = {"pcc_bench": 1, "decoder": {"name": "../decoder"}}
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert tokenizer_name({"pretrained": str(checkpoint)}) == "../decoder"
    (tmp_path / "decoder").mkdir()
    assert Path(tokenizer_name({"pretrained": str(checkpoint)})).resolve() == tmp_path / "decoder"


def test_checkpoint_names_the_decoder_that_counts(tmp_path: Path, tokenizer: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"pcc_bench": 1, "decoder": {"name": tokenizer}}))
    assert population("pcc_squad", data=str(DATA), pretrained=str(tmp_path))["tokenizer"] == tokenizer


@pytest.mark.parametrize(
    "files", [{}, {"memory_converter.bin": ""}, {"config.json": '{"pcc_bench": 1, "decoder": {"name": null}}'}]
)
def test_nothing_to_count_with(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    metadata = {"pretrained": str(tmp_path)} if files else {"model": "some-llm"}
    with pytest.raises(UsageError, match=r"nothing says which decoder.*\"tokenizer\".*\"population\": \"all\""):
        load("pcc_squad", data=str(DATA), **metadata)


# What a user is told


def sentence(expected: str, name: str = "pcc_squad", **metadata: Any) -> None:
    """The error is one line that holds `expected`."""
    with pytest.raises(UsageError) as caught:
        load(name, **{"population": "all", **metadata})
    message = str(caught.value)
    assert expected in message
    assert "\n" not in message


def test_lab_and_wrong_settings() -> None:
    sentence("lab_rows=0: lab_rows is a whole number of 1 or more", data="lab", lab_rows=0)
    sentence("lab_seed='x': lab_seed is a whole number of 0 or more", data="lab", lab_seed="x")
    sentence("population='some': population is one of paper, all", data="lab", population="some")
    sentence("data=lab: the lab has no split dev; it has train, validation, test", data="lab", split="dev")
    sentence("protocol='easy': protocol is one of strict, official", data=str(DATA), protocol="easy")
    sentence("population='some': population is one of paper, all", data=str(DATA), population="some")


def test_missing_folder_dataset_and_split(tmp_path: Path) -> None:
    sentence(f"no data folder {tmp_path / 'gone'}: pass data=<folder>", data=str(tmp_path / "gone"))
    (tmp_path / "nq").mkdir()
    sentence("has no folder squad (it has nq): put validation.jsonl there", data=str(tmp_path))
    (tmp_path / "squad").mkdir()
    sentence("has no file validation.jsonl (it has nothing)", data=str(tmp_path))
    (tmp_path / "squad" / "train.jsonl").write_text("")
    sentence("has no file validation.jsonl (it has train.jsonl)", data=str(tmp_path))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"id": "1", "context"', "line 3 is not valid JSON (Expecting ':' delimiter"),
        ("[1, 2]", "line 3: a row is a JSON object, not list"),
        ('{"id": "1", "question": "q", "answers": []}', None),  # not answerable, so the context is not asked for
        (
            '{"id": "1", "question": "q", "answers": ["a"]}',
            "line 3: no column or field 'context'; the row's columns are id, question, answers",
        ),
        ('{"id": "1", "context": "c", "question": "q", "answers": {}}', "line 3: no column or field 'text'"),
        ('{"id": "1", "context": 7, "question": "q", "answers": ["a"]}', "line 3: context holds int, not text"),
        ('{"id": "1", "context": "c", "question": "q", "answers": [7]}', "line 3: answers holds int, not text"),
        ('{"id": "1", "context": "c", "question": "q", "answers": 7}', "line 3: not in the data set's hub format"),
        (
            r'{"id": "1", "context": "\ud800", "question": "q", "answers": ["a"]}',
            "line 3 has half of a character",
        ),
        ('{"id": "x7", "context": " \\n", "question": "q", "answers": ["a"]}', "line 3 (id x7): the context is empty"),
    ],
)
def test_wrong_row(tmp_path: Path, line: str, expected: str | None) -> None:
    path = write(tmp_path, "squad", squad_row("fine"), "", line)
    if expected is None:
        assert population("pcc_squad", data=str(tmp_path), population="all")["dropped"] == {"unanswerable": 1}
    else:
        sentence(f"{path}, {expected}", data=str(tmp_path))


def test_wrong_rows_of_the_other_data_sets(tmp_path: Path) -> None:
    write(tmp_path, "hotpotqa", {"id": "h", "context": [["Title", ["Sentence."]]], "question": "q", "answer": "a"})
    sentence("line 1: not in the data set's hub format", "pcc_hotpotqa", data=str(tmp_path))
    write(tmp_path, "nq", {"query": "q", "answers": []})
    sentence("line 1: no column or field 'positive_passages'", "pcc_nq", data=str(tmp_path))
    write(tmp_path, "nq", {"question": "q", "answers": [], "ctxs": [{"text": "t", "isgold": True}]})
    sentence("line 1 (id 1): there is no reference answer", "pcc_nq", data=str(tmp_path))


def test_files_without_rows_or_in_another_encoding(tmp_path: Path) -> None:
    path = write(tmp_path, "squad")
    sentence(f"{path} has no row to ask (it is empty)", data=str(tmp_path))
    write(tmp_path, "squad", {**squad_row("c"), "answers": {"text": [], "answer_start": []}})
    sentence(f"{path} has no row to ask (1 unanswerable)", data=str(tmp_path))
    path.write_bytes(b'{"context": "caf\xe9"}\n')
    sentence(f"{path} is not UTF-8 text", data=str(tmp_path))
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(squad_row("c")).encode())
    assert population("pcc_squad", data=str(tmp_path), population="all")["kept"] == 1


def test_filter_that_leaves_nothing(tmp_path: Path, tokenizer: str) -> None:
    write(tmp_path, "squad", squad_row("short"))
    expected = "leaves no row of"
    sentence(expected, data=str(tmp_path), population="paper", tokenizer=tokenizer)
    sentence("1 with context of 256 tokens or fewer", data=str(tmp_path), population="paper", tokenizer=tokenizer)


def test_tokenizer_that_does_not_load(tmp_path: Path) -> None:
    sentence("can't load the tokenizer", data=str(DATA), population="paper", tokenizer=str(tmp_path / "gone"))


@pytest.mark.parametrize("error", [ConnectionError("no route"), ValueError("unknown split"), RuntimeError("script")])
def test_hub_errors(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    sentence(
        f"can't load rajpurkar/squad_v2 from the hub ({error}): check the network, or keep the rows in", data="hub"
    )
