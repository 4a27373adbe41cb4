"""Any lm-eval task under compression: its prompts stay lm-eval's own, and the part that is named becomes a context."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import datasets
import lm_eval
import lm_eval.tasks
import pytest
from lm_eval.tasks import TaskManager

from pcc_bench.core.context import Prompt
from pcc_bench.core.errors import UsageError
from pcc_bench.host import startup
from pcc_bench.host.evaluate import Command
from pcc_bench.host.responses import Response
from pcc_bench.host.validate import validate
from pcc_bench.suite.spec import Settings, Suite
from pcc_bench.tasks.foreign import Mapped, chosen, mark_tasks, shipped, spans_of

THEIRS = Path(lm_eval.tasks.__path__[0])
PASSAGE = "In 1871 the mill burned down. \x02 Two years later 14 men rebuilt it in stone, <s> and it stands today."
COQA = {"input_text": ["When did it burn?", "Who rebuilt it?"]}
ROWS: dict[str, dict[str, Any]] = {  # rows of the shape that each data set has
    "drop": {
        "section_id": "s",
        "query_id": "q",
        "passage": PASSAGE,
        "question": "How many men rebuilt it?",
        "answer": {"number": "14", "date": {"day": "", "month": "", "year": ""}, "spans": []},
        "validated_answers": {"number": [], "date": [], "spans": []},
    },
    "coqa": {"id": "1", "story": PASSAGE, "questions": COQA, "answers": {"input_text": ["1871", "14 men"]}},
    "longbench_qasper": {"context": PASSAGE, "question": "Who rebuilt it?", "answers": ["14 men"], "all_classes": None},
    "longbench_gov_report": {"context": PASSAGE, "question": "", "answers": ["It burned."], "all_classes": None},
}
FOLDERS = {"drop": "drop", "coqa": "coqa", "longbench_qasper": "longbench", "longbench_gov_report": "longbench"}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]]) -> None:
    """Data sets are made of rows of the same shape."""

    def load_dataset(path: str = "", name: str | None = None, **kwargs: Any) -> datasets.DatasetDict:
        known = {"drop": "drop", "coqa": "coqa", "qasper": "longbench_qasper", "gov_report": "longbench_gov_report"}
        key = next((known[word] for word in (name, path.rpartition("/")[2]) if word in known), None)
        table = datasets.Dataset.from_list([dict(row, id=f"{i}") for i, row in enumerate(rows[:4])])
        if key is not None:
            one = ROWS[key]
            table = datasets.Dataset.from_list([one, one | {"question": one.get("question", "") + "?"}])
        return datasets.DatasetDict(dict.fromkeys(("train", "validation", "test"), table))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for missing in (
        "jieba",
        "fuzzywuzzy",
        "rouge",
        "transformers.data.metrics",
        "transformers.data.metrics.squad_metrics",
    ):
        monkeypatch.setitem(sys.modules, missing, MagicMock())  # for scores that are not looked at here


def loaded(name: str, folder: str) -> Any:
    manager = TaskManager(include_path=str(THEIRS / folder), include_defaults=False)
    return manager.load([name])["tasks"][name]


def prompt_of(task: Any, shots: int = 0, **options: Any) -> Any:
    return task.fewshot_context(next(iter(task.eval_docs)), num_fewshot=shots, **options)


@pytest.mark.parametrize("name", ROWS)
def test_the_prompt_is_lm_evals_own_and_knows_its_context(name: str, offline: None) -> None:
    plain = prompt_of(loaded(name, FOLDERS[name]))
    task = loaded(name, FOLDERS[name])
    mark_tasks({name: task}, "auto")
    prompt = prompt_of(task)
    assert isinstance(prompt, Prompt)
    assert str(prompt) == plain
    assert prompt.contexts == [PASSAGE]
    asked = {"longbench_gov_report": "", "coqa": "Who rebuilt it?"}.get(name, ROWS[name].get("question"))
    assert prompt.query == asked
    assert task.config.metadata["compress"] == {chosen("auto", name).part: ""}


def test_examples_and_chat_templates_are_split_too(offline: None) -> None:
    def chat(turns: list[dict[str, str]], **kwargs: Any) -> str:
        return "".join(f"[{turn['role']}]{turn['content'].strip()}" for turn in turns)

    for options in ({}, {"apply_chat_template": True, "chat_template": chat}):
        plain, task = loaded("drop", "drop"), loaded("drop", "drop")
        mark_tasks({"drop": task}, "passage")
        for each in (plain, task):
            each.set_fewshot_seed(1)
        prompt = prompt_of(task, 1, **options)
        assert str(prompt) == prompt_of(plain, 1, **options)
        assert prompt.contexts == [PASSAGE, PASSAGE]


def evaluated(model: str, folder: Path, task: Any, **arguments: Any) -> dict[str, Any]:
    startup.install()
    given = {"pretrained": str(folder), "dtype": "float32", "device": "cpu", "batch_size": 2, **arguments}
    found: dict[str, Any] = lm_eval.simple_evaluate(
        model, model_args=given, tasks=[task], bootstrap_iters=0, log_samples=True, gen_kwargs="max_gen_toks=6"
    )
    return found


@pytest.mark.parametrize("name", ["squadv2", "longbench_qasper"])
def test_full_context_equals_hf_and_pcc_counts_what_it_compressed(
    name: str, models: Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = FOLDERS.get(name, name)
    runs = {}
    for model in ("hf", "full-context", "truncated-context", "pcc"):
        task = loaded(name, folder)
        if name == "squadv2":  # its metric is a download
            monkeypatch.setitem(type(task).aggregation.__globals__, "_squad_agg", lambda key, items: float(len(items)))
        if model != "hf":
            mark_tasks({name: task}, "context")
        runs[model] = evaluated(model, models / ("pcc" if model == "pcc" else "llama"), task)
    answers = {
        model: [(sample["arguments"], sample["resps"]) for sample in run["samples"][name]]
        for model, run in runs.items()
    }
    texts = [[str(reply[0][0]) if isinstance(reply[0], str) else "" for reply in resps] for _, resps in answers["hf"]]
    assert texts == [
        [str(reply[0][0]) if isinstance(reply[0], str) else "" for reply in resps]
        for _, resps in answers["full-context"]
    ]
    scores = {model: run["results"][name] for model, run in runs.items()}
    own = {key: value for key, value in scores["full-context"].items() if not key.startswith("compression")}
    for key, value in scores["hf"].items():
        assert own[key] == pytest.approx(value) if isinstance(value, float) else own[key] == value
    assert scores["full-context"]["compression,none"] == 1
    assert scores["pcc"]["compression,none"] > (1.5 if name == "squadv2" else 0)
    assert scores["truncated-context"]["compression,none"] > 3 or name != "squadv2"
    assert runs["pcc"]["config"]["pcc_bench"]["counts"]["contexts"] >= 2


def test_ruler_is_split_where_its_text_lies() -> None:
    source = (THEIRS / "ruler" / "niah_utils.py").read_text("utf-8")
    (template,) = re.findall(r'TEMPLATE = """(.*?)"""', source, re.DOTALL)
    hay = "The grass is green.\nWhat a day. One of the special magic numbers for old-mill is: 7."
    filled = template.encode().decode("unicode_escape").format(type_needle_v="numbers", query="old-mill", context=hay)
    for text in (
        filled,
        filled.replace("are all", "is").replace("numbers for old-mill ment", "number for old-mill ment"),
    ):
        context, question = _cut("niah_single_1", {}, text)
        assert context == hay
        assert question.startswith("What ") and question.endswith("provided text?")
    qa = importlib.import_module("lm_eval.tasks.ruler.qa_utils")
    text = qa.TEMPLATE.format(context="Document 1:\nA mill.\n\nDocument 2:\nA road.", query="Where is it?")
    assert _cut("ruler_qa_squad", {}, text) == ["Document 1:\nA mill.\n\nDocument 2:\nA road.", "Where is it?"]
    vt = importlib.import_module("lm_eval.tasks.ruler.vt_utils")
    words = vt.CONFIG["variable_tracking"]["template"]
    text = f"{words.format(context='VAR X = 1', query=1)} Answer: X\n\n\n\n{words.format(context='VAR Y = 2', query=2)}"
    context, question = _cut("ruler_vt", {}, text)
    assert context == "VAR Y = 2"
    assert question.startswith("Question: Find all variables that are assigned the value 2")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("scrolls_qasper", "Qasper"), ("scrolls_govreport", "GovReport"), ("scrolls_contractnli", "ContractNLI")],
)
def test_scrolls_is_split_where_its_text_lies(name: str, kind: str, offline: None) -> None:
    module = importlib.import_module("lm_eval.tasks.scrolls.task")
    doc = {"id": "1", "pid": "1", "input": PASSAGE, "text": PASSAGE, "question": "Who?", "outputs": ["No"]}
    text = getattr(module, kind).doc_to_text(object.__new__(getattr(module, kind)), doc)
    assert _cut(name, doc, text) == ([PASSAGE] if name == "scrolls_govreport" else [PASSAGE, "Who?"])


def _cut(name: str, doc: dict[str, Any], text: str) -> list[str]:
    mapped = shipped().of(name)
    assert mapped is not None
    return [text[start:end] for start, end, _ in spans_of(mapped, doc, text)]


def test_bad_inputs_are_one_sentence(offline: None, tmp_path: Path) -> None:
    def refused(compress: str, message: str, name: str = "drop") -> None:
        task = loaded("drop", "drop")
        with pytest.raises(UsageError, match=message) as caught:
            mark_tasks({name: task}, compress)
            prompt_of(task)
        assert "\n" not in str(caught.value)

    refused(
        "contxt",
        r"contxt can't be found in a prompt of drop: name a field of its rows \(section_id, .*In 1871",
    )
    refused("{{question}} {{passage}}", "can't be found in a prompt of drop")
    refused("auto", "there is no map for other: pass --compress with a field", "other")
    file = tmp_path / "map.yaml"
    for text, message in (
        ("tasks: drop\npattern: '('", "maps.0: the pattern is no regular expression"),
        ("tasks: drop\npattern: 'a'", r"a pattern has a group \(\?P<context>"),
        ("tasks: drop", "either compress .* or pattern"),
        ("tasks: drop\ncompres: passage", "unknown key 'maps.0.compres'"),
        ("tasks: other\ncompress: passage", "has no map for drop: add one with tasks: drop"),
    ):
        file.write_text(text, encoding="utf-8")
        refused(str(file), message)
    file.write_text("tasks: dr*\npattern: '(?P<context>In 1871.*) (?P<question>How.*)'", encoding="utf-8")
    task = loaded("drop", "drop")
    mark_tasks({"drop": task}, str(file))
    assert prompt_of(task).contexts == [PASSAGE]
    from demonstrated import load

    with pytest.raises(UsageError, match="say themselves what is compressed: leave --compress out"):
        mark_tasks({"pcc_gsm8k": load("pcc_gsm8k")}, "auto")


def test_metadata_name_the_part_too_for_a_plain_lm_eval_and_for_validate(
    models: Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    startup.install()
    include: dict[str, Any] = {"include_path": str(THEIRS / "drop"), "include_defaults": False}
    manager = TaskManager(**include, metadata={"compress": "passage", "other": 1})
    found: Any = lm_eval.simple_evaluate(
        "pcc",
        model_args={"pretrained": str(models / "pcc"), "decoder": str(models / "llama"), "device": "cpu"},
        tasks=["drop"],
        task_manager=manager,
        bootstrap_iters=0,
        gen_kwargs="max_gen_toks=6",
    )
    assert found["results"]["drop"]["compression,none"] > 0
    metadata = found["configs"]["drop"]["metadata"]
    assert (metadata["other"], metadata["compress"]) == (1, {"passage": ""})
    assert not isinstance(prompt_of(TaskManager(**include).load(["drop"])["tasks"]["drop"]), Prompt)
    monkeypatch.setattr("lm_eval.tasks.manager.__file__", str(THEIRS / "drop" / "manager.py"))  # all there is
    arguments = f"pretrained={models / 'pcc'},decoder={models / 'llama'},device=cpu"
    report = validate("pcc", arguments, "drop", '{"compress": "passage"}')
    assert report.holds, report.checks
    (example,) = report.examples.values()
    assert [row[0] for row in example.rows].count("context") == 1
    report = validate("pcc", arguments, "drop,pcc_gsm8k", '{"compress": "passage", "data": "lab"}')
    assert [check.what for check in report.checks if not check.holds] == ["task pcc_gsm8k"]
    assert "leave --compress out" in report.checks[-1].says


def test_a_suite_names_the_part(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\ndefaults: {compress: auto}\ncells:\n"
        "- {label: a, method: pcc, tasks: [squadv2]}\n- {label: b, method: pcc, tasks: [drop], compress: passage}\n",
        encoding="utf-8",
    )
    one, two = (cell.command for cell in Suite.read(str(file)).plan(tmp_path, Settings()))
    assert (one.compress, two.compress) == ("auto", "passage")
    words = two.arguments
    assert words[words.index("--metadata") + 1] == '{"compress": "passage"}'
    both = Command("pcc", "", "drop", tmp_path, metadata='{"compress": "question"}', compress="passage")
    with pytest.raises(UsageError, match="compress is set twice, as --compress passage and in"):
        _ = both.arguments


def test_the_option_is_part_of_what_a_folder_of_answers_is_for(tmp_path: Path) -> None:
    one = Command("pcc", "", "drop", tmp_path, compress="passage")
    assert one.identity != Command("pcc", "", "drop", tmp_path).identity
    assert Mapped(compress="a").holds("anything")


def test_lm_eval_may_make_a_reference_of_the_kind_of_an_answer() -> None:
    answer = Response("14", {"slots": 3})
    reference = type(answer)(14)  # type: ignore[arg-type]  # as ConfigurableTask.process_results does
    assert (reference, reference.record) == ("14", {})
    assert answer.record == {"slots": 3}
