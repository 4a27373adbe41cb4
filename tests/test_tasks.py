"""The tasks as lm-eval runs them: prompts, marks, scores, results."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lm_eval.api.model import LM
from lm_eval.caching import cache
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.utils import handle_non_serializable, make_table
from recorded import samples

import pcc_bench.tasks
from pcc_bench.core.context import Kind, Part, Prompt
from pcc_bench.core.errors import UsageError, print_usage_errors_plainly
from pcc_bench.core.questions import question_prompt
from pcc_bench.host.settings import check_spelling, task_names
from pcc_bench.host.validate import validate
from pcc_bench.tasks.rows import Dropped, Example
from pcc_bench.tasks.task import PccTask

TASKS = Path(pcc_bench.tasks.__file__).parent
DATA = Path(__file__).parent / "fixtures" / "data"
NAMES = ["pcc_squad", "pcc_hotpotqa", "pcc_hotpotqa_gold", "pcc_adversarialqa", "pcc_nq"]
MILL = "The mill at Orrin was built in 1843. It burnt down twice, and Marta Ilves paid for both repairs."
HOTPOT = {
    "pcc_hotpotqa": "Kelm\nKelm is a town on the coast. It has a lighthouse.\n\n"
    "Orrin Mill\nOrrin Mill was founded by Peep Sarv.\n\n"
    "Tamsa Ferry\nThe Tamsa Ferry ran until 1932.\n\n"
    "Peep Sarv\nPeep Sarv was a miller. He was born in Kelm.",
    "pcc_hotpotqa_gold": "Orrin Mill\nOrrin Mill was founded by Peep Sarv.\n\n"
    "Peep Sarv\nPeep Sarv was a miller. He was born in Kelm.",
}
FIRST = {  # context, question and references of the first row
    "pcc_squad": (MILL, "When was the mill built?", ["1843", "in 1843"]),
    "pcc_hotpotqa": (HOTPOT["pcc_hotpotqa"], "In which town was the founder of Orrin Mill born?", ["Kelm"]),
    "pcc_hotpotqa_gold": (HOTPOT["pcc_hotpotqa_gold"], "In which town was the founder of Orrin Mill born?", ["Kelm"]),
    "pcc_adversarialqa": (MILL, "Whose money put the mill right?", ["Marta Ilves"]),
    "pcc_nq": (
        "Orrin Mill was founded by Peep Sarv.\n\nSarv founded the mill at Orrin.",
        "who founded orrin mill",
        ["Peep Sarv", "Sarv"],
    ),
}


def manager(**metadata: Any) -> TaskManager:
    metadata = {"data": str(DATA), "population": "all", **metadata}
    return TaskManager(include_path=str(TASKS), include_defaults=False, metadata=metadata)


def load(name: str, **metadata: Any) -> PccTask:
    task = manager(**metadata).load([name])["tasks"][name]
    assert isinstance(task, PccTask)
    return task


def prompt_of(task: PccTask, doc: Any, **options: Any) -> Prompt:
    prompt = task.fewshot_context(doc, **options)
    assert isinstance(prompt, Prompt)
    return prompt


def chat_template(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
    turns = [f"<|{message['role']}|>{message['content'].strip()}<|end|>" for message in messages]
    return "".join(turns) + ("<|assistant|>" if add_generation_prompt else "")


class Answer(str):
    """An answer with an account, as the models of pcc_bench give it."""

    record: dict[str, Any]


class Parrot(LM):
    """Answers by rule; `account` says what to attach to an answer."""

    def __init__(self, account: Callable[[Prompt], dict[str, Any]] | None = None) -> None:
        super().__init__()
        self.account = account
        self.prompts: list[Prompt] = []

    def generate_until(self, requests: list[Any]) -> list[str]:
        self.prompts += [request.args[0] for request in requests]
        return [self._answer(request.args[0]) for request in requests]

    def _answer(self, prompt: Prompt) -> str:
        text = "In 1843." if "built?" in prompt else "the school, Kelm"
        if self.account is None:
            return text
        answer = Answer(text)
        answer.record = self.account(prompt)
        return answer

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        raise NotImplementedError

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        raise NotImplementedError


def evaluate(model: LM, tasks: list[str], **options: Any) -> dict[str, Any]:
    results: dict[str, Any] = lm_eval.simple_evaluate(
        model, tasks=tasks, task_manager=manager(), bootstrap_iters=0, **options
    )
    json.dumps(results, default=handle_non_serializable)
    return results


# YAML


def test_every_yaml_loads_and_nothing_else_is_a_task() -> None:
    assert {*NAMES, "pcc_rag"} <= set(manager().all_tasks)
    assert len(list(TASKS.rglob("*.yaml"))) == len(manager().all_tasks)
    for name in NAMES:
        task = load(name)
        assert isinstance(task, PccTask)
        assert task.VERSION == 1.0
        assert task.config.generation_kwargs == {"until": [], "do_sample": False, "max_gen_toks": 30}
        assert set(task.aggregation()) == {"exact_match", "f1", "contains", "compression"}


@pytest.mark.parametrize("path", sorted(TASKS.glob("*/*.yaml")), ids=lambda path: path.stem)
def test_every_yaml_says_what_a_reader_of_results_must_know(path: Path) -> None:
    config = load_yaml(path)
    metadata = config["metadata"]
    assert metadata["version"] == 1.0
    assert len(metadata["citation"]) > 30
    assert {"dataset", "split", "population_filter"} <= set(metadata)
    assert metadata["hub"] is None or metadata["hub"]["revision"]
    assert all(isinstance(metric["higher_is_better"], bool) for metric in config["metric_list"])


@pytest.mark.parametrize("page", sorted(TASKS.glob("*/README.md")), ids=lambda page: page.parent.name)
def test_every_task_stands_in_its_page_and_in_the_docs(page: Path) -> None:
    names = [load_yaml(path)["task"] for path in page.parent.glob("*.yaml")]
    shown = (Path(__file__).parent.parent / "docs" / "tasks.md").read_text("utf-8")
    for name in names:
        assert name in page.read_text("utf-8")
        assert re.search(rf"\b{_stem(name)}\b|\b{_stem(name)}_", shown), name


def _stem(name: str) -> str:
    return "_".join(name.split("_")[:2])


SMALL = {"lab_rows": 4, "documents": 20, "tokens": 40, "continuation_tokens": 20, "keys": "names", "population": "all"}
SMALL |= {"segment_length": 64, "lengths": [128], "depths": [0.5], "distances": [16], "per_cell": 1}


@pytest.mark.parametrize("data", ["lab", str(DATA)], ids=["lab", "folder"])
def test_validate_passes_for_every_task(data: str, models: Path) -> None:
    not_on_lab = ("pcc_msc", "pcc_personachat")  # groups; the others hold every task, or are one
    # nothing of pcc_ruler fits into the toy decoder's window: tests/test_ruler.py
    names = [name for name in task_names() if not re.search(r"_\d|gsm8k|sst2|wsc|ruler", name)]
    names = [name for name in names if (name in not_on_lab) == (data != "lab")]
    found = validate("pcc", f"pretrained={models / 'pcc'}", ",".join(names), json.dumps({"data": data, **SMALL}))
    assert found.holds, [check for check in found.checks if not check.holds]
    shown = set(found.examples)
    every = {
        path.stem
        for path in TASKS.glob("*/*.yaml")
        if any(n[4:] in path.stem for n in not_on_lab) != (data == "lab") and "ruler" not in path.stem
    }
    assert {name.removeprefix("pcc_") for name in shown} == every


def test_transfer_asks_questions_and_compressed_demonstrations_of_another_decoder() -> None:
    assert load_yaml(TASKS / "pcc_transfer.yaml")["task"] == ["pcc_rag", "pcc_icl_memory"]
    assert "pcc_transfer" in manager().all_groups


def test_golden_samples(tmp_path: Path) -> None:
    recorded = json.loads((Path(__file__).parent / "fixtures" / "samples_rag.json").read_text("utf-8"))
    assert sorted(recorded) == sorted(NAMES)
    assert all(len(of_task) == 3 for of_task in recorded.values())
    assert samples(list(recorded), tmp_path, lab_rows=12) == recorded


def test_group_is_the_papers_average() -> None:
    group = manager().load(["pcc_rag"])["groups"]["pcc_rag"]
    assert group.child_names == ["pcc_squad", "pcc_hotpotqa", "pcc_adversarialqa", "pcc_nq"]
    assert {metric.metric: metric.weight_by_size for metric in group.aggregate_metric_list} == {
        "exact_match": False,
        "f1": False,
        "contains": False,
    }


def test_rows_are_readers_of_one_row() -> None:
    for name in NAMES:
        reader = load(name)._read_row
        path = DATA / name.removeprefix("pcc_").removesuffix("_gold") / "validation.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert all(isinstance(reader(row), Example | Dropped) for row in rows)


# Prompts


@pytest.mark.parametrize("name", NAMES)
def test_prompt_of_a_row(name: str) -> None:
    context, question, answers = FIRST[name]
    task = load(name)
    doc = task.eval_docs[0]
    prompt = prompt_of(task, doc, num_fewshot=0)
    assert prompt == f"{context}\n\nQuestion: {question}\n\nAnswer: "
    assert prompt.parts == (
        Part(context, Kind.CONTEXT, "\n\n"),
        Part("Question: "),
        Part(question, Kind.LITERAL),
        Part("\n\nAnswer: "),
    )
    assert task.doc_to_target(doc) == doc["answers"] == answers


def test_few_shot_keeps_every_part() -> None:
    task = load("pcc_adversarialqa")
    first, second = task.eval_docs
    prompt = prompt_of(task, second, num_fewshot=1)
    assert prompt == (
        f"{MILL}\n\nQuestion: {first['question']}\n\nAnswer: Marta Ilves\n\n"
        f"{MILL}\n\nQuestion: {second['question']}\n\nAnswer: "
    )
    assert prompt.contexts == [MILL, MILL]
    literals = [part.text for part in prompt.parts if part.kind is Kind.LITERAL]
    assert literals == [first["question"], "Marta Ilves", second["question"]]


@pytest.mark.parametrize("multiturn", [True, False])
def test_chat_template_keeps_every_part(multiturn: bool) -> None:
    task = load("pcc_adversarialqa")
    prompt = prompt_of(
        task,
        task.eval_docs[0],
        num_fewshot=1,
        system_instruction="Be brief.",
        apply_chat_template=True,
        fewshot_as_multiturn=multiturn,
        chat_template=chat_template,
    )
    assert prompt.startswith("<|system|>Be brief.<|end|><|user|>")
    assert prompt.endswith("Answer:<|end|><|assistant|>")
    assert prompt.contexts == [MILL, MILL]
    assert ("<|assistant|>twice<|end|>" in prompt) is multiturn
    assert "<|assistant|>" not in "".join(part.text for part in prompt.parts if part.kind is not Kind.TEXT)


PROMPTS = {
    "official": ("Question: When was the mill built?\n\nAnswer: ", "", []),
    "short": ("Question: When was the mill built?\nShort answer (a few words):", " ", ["\n"]),
    "chat": ("Question: When was the mill built?\nAnswer with a few words.", " ", ["\n"]),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_differ_in_the_words_behind_the_context(name: str) -> None:
    words, delimiter, until = PROMPTS[name]
    task = load("pcc_squad", prompt=name)
    doc = task.eval_docs[0]
    assert prompt_of(task, doc, num_fewshot=0) == f"{MILL}\n\n{words}"
    assert question_prompt(name).asking(doc["question"]) == words
    assert task.config.generation_kwargs == {"until": until, "do_sample": False, "max_gen_toks": 30}
    assert task.config.metadata["population"]["prompt"] == name
    shot = prompt_of(task, doc, num_fewshot=1)
    words = question_prompt(name)
    begun = [f"{other['context']}\n\n{words.asking(other['question'])}{delimiter}" for other in task.eval_docs]
    assert any(map(shot.startswith, begun))


def test_the_official_prompt_is_the_default() -> None:
    task = load("pcc_nq")
    assert task.config.metadata["population"]["prompt"] == "official"
    assert (
        question_prompt().asking("Who?") == question_prompt("official").asking("Who?") == "Question: Who?\n\nAnswer: "
    )


def test_the_chat_prompt_begins_the_answer_of_the_assistant() -> None:
    task = load("pcc_squad", prompt="chat")
    doc = task.eval_docs[0]
    options = {"apply_chat_template": True, "chat_template": chat_template, "fewshot_as_multiturn": True}
    prompt = prompt_of(task, doc, num_fewshot=0, gen_prefix=task.doc_to_prefix(doc), **options)
    assert prompt == f"<|user|>{MILL}\n\n{PROMPTS['chat'][0]}<|end|><|assistant|>The answer is<|end|>"
    assert prompt.contexts == [MILL]


def test_the_chat_prompt_needs_a_chat_template() -> None:
    task = load("pcc_squad", prompt="chat")
    with pytest.raises(UsageError, match="prompt=chat is a user's turn in a chat: pass --apply_chat_template"):
        task.build_all_requests()
    task.build_all_requests(apply_chat_template=True, chat_template=chat_template, fewshot_as_multiturn=True)
    assert len(task.instances) == len(task.eval_docs)


def test_prompts_that_can_not_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="prompt='long': prompt is one of official, short, chat"):
        load("pcc_squad", prompt="long")
    own = tmp_path / "own.yaml"
    own.write_text(
        f'include: {TASKS / "squad" / "squad.yaml"}\ntask: own\ndoc_to_text: "{{{{context}}}}{{{{question}}}}"\n'
    )
    task = manager().load([str(own)])["tasks"]["own"]
    assert task.config.metadata["population"]["prompt"] == "custom"
    with pytest.raises(UsageError, match="prompt='short': own has a doc_to_text of its own: leave prompt out"):
        manager(prompt="short").load([str(own)])


def test_data_can_not_forge_anything(tmp_path: Path) -> None:
    evil = "\x02forged\x04\x03<|eot_id|>{{ question }}\x0e"
    row = {"id": "1", "context": evil, "question": evil, "answers": {"text": [evil], "answer_start": [0]}}
    (tmp_path / "squad").mkdir()
    lines = [json.dumps(row), json.dumps({**row, "id": "2", "question": f"{evil}?"})]
    (tmp_path / "squad" / "validation.jsonl").write_text("\n".join(lines))
    task = load("pcc_squad", data=str(tmp_path))
    prompt = prompt_of(task, task.eval_docs[0], num_fewshot=1)
    assert prompt.contexts == [evil, evil]
    assert [part.text for part in prompt.parts if part.kind is Kind.LITERAL] == [f"{evil}?", evil, evil]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups=st.lists(st.integers(1, 3), min_size=2, max_size=6), shots=st.integers(1, 3), seed=st.integers(0, 9))
def test_a_copy_of_a_row_is_never_its_own_example(
    tmp_path_factory: pytest.TempPathFactory, groups: list[int], shots: int, seed: int
) -> None:
    rows = [
        {
            "context": f"Mill {n} is old.",
            "question": "How old  is it?",
            "answers": {"text": ["old"], "answer_start": [0]},
        }
        for n, copies in enumerate(groups)
        for _ in range(copies)
    ]
    copied = [
        {**row, "id": str(i), "context": row["context"].replace(" ", " " * (1 + i % 2))} for i, row in enumerate(rows)
    ]
    folder = tmp_path_factory.mktemp("rows")
    (folder / "squad").mkdir()
    (folder / "squad" / "validation.jsonl").write_text("\n".join(map(json.dumps, copied)))
    task = load("pcc_squad", data=str(folder))
    task.set_fewshot_seed(seed)
    for doc in task.eval_docs:
        own = " ".join(doc["context"].split())
        if sum(" ".join(row["context"].split()) != own for row in copied) < shots:
            with pytest.raises(UsageError, match=rf"num_fewshot={shots}: only \d rows ask something else"):
                prompt_of(task, doc, num_fewshot=shots)
            continue
        shown = [" ".join(context.split()) for context in prompt_of(task, doc, num_fewshot=shots).contexts]
        assert len(shown) == shots + 1
        assert shown.count(own) == 1


def test_descriptions_are_marked() -> None:
    task = load("pcc_squad")
    task.config.description = "About: {{question}}\n\n"
    prompt = prompt_of(task, task.eval_docs[0], num_fewshot=0)
    assert prompt.startswith("About: When was the mill built?\n\nThe mill")
    assert [part.text for part in prompt.parts if part.kind is Kind.LITERAL] == ["When was the mill built?"] * 2


def test_prefixes_of_the_answer_are_marked() -> None:
    task = load("pcc_squad")
    task.config.gen_prefix = "On {{question}}:"
    prefix = task.doc_to_prefix(task.eval_docs[0])
    prompt = prompt_of(task, task.eval_docs[0], num_fewshot=0, gen_prefix=prefix)
    assert prompt.endswith("Answer: On When was the mill built?:")
    assert [part.text for part in prompt.parts if part.kind is Kind.LITERAL] == ["When was the mill built?"] * 2


def test_multiple_inputs_give_a_prompt_each() -> None:
    """As Winogrande does it: the choices are the prompts, the target is the same text after each."""
    config = load("pcc_squad").dump_config()
    config.update(
        output_type="multiple_choice",
        doc_to_text=lambda doc: 0,
        doc_to_choice="answers",
        doc_to_target="question",
        metric_list=None,
        generation_kwargs=None,
        process_results=None,
        fewshot_config=None,
        read_row=lambda row: Example("c", "q", ["one\x02", "two"]),
        metadata={**config["metadata"], "population": "all"},
    )
    task = PccTask(config)
    prompts = task.fewshot_context(task.eval_docs[0], num_fewshot=0)
    assert [prompt.parts for prompt in prompts] == [
        (Part("one\x02", Kind.LITERAL),),
        (Part("two", Kind.LITERAL),),
    ]


# Requests


def test_request_cache_keeps_parts_and_knows_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "PATH", str(tmp_path))
    fresh, cached = load("pcc_squad"), load("pcc_squad")
    fresh.build_all_requests(cache_requests=True)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(PccTask, "fewshot_context", None)  # the second one must come from the cache
    cached.build_all_requests(cache_requests=True)
    assert [i.args for i in cached.instances] == [i.args for i in fresh.instances]
    assert [i.args[0].parts for i in cached.instances] == [i.args[0].parts for i in fresh.instances]
    monkeypatch.undo()
    monkeypatch.setattr(cache, "PATH", str(tmp_path))
    load("pcc_squad", protocol="official").build_all_requests(cache_requests=True)
    assert len(list(tmp_path.iterdir())) == 2
    load("pcc_squad", prompt="short").build_all_requests(cache_requests=True)
    assert len(list(tmp_path.iterdir())) == 3


# Results


def test_results_of_a_model_without_accounts() -> None:
    model = Parrot()
    results = evaluate(model, ["pcc_rag"])
    squad = results["results"]["pcc_squad"]
    assert squad["exact_match,none"] == pytest.approx(1 / 3)  # "In 1843." alone
    assert squad["contains,none"] == pytest.approx(2 / 3)
    assert squad["sample_len"] == 3
    assert not [key for key in squad if key.startswith("compression")]
    scores = [results["results"][task]["f1,none"] for task in results["group_subtasks"]["pcc_rag"]]
    assert results["groups"]["pcc_rag"]["f1,none"] == pytest.approx(sum(scores) / 4)
    assert "compression" not in make_table(results)
    assert "pcc_rag" in make_table(results, "groups")
    population = results["configs"]["pcc_squad"]["metadata"]["population"]
    assert (population["rows_read"], population["kept"], population["dropped"]) == (4, 3, {"unanswerable": 1})
    assert all(isinstance(prompt, str) and "\x02" not in prompt for prompt in model.prompts)


def test_results_of_a_model_with_accounts() -> None:
    def account(prompt: Prompt) -> dict[str, Any]:
        return {"source_tokens": len(prompt.contexts[0]), "slots": 10, "boundary": 2}

    results = evaluate(Parrot(account), ["pcc_squad"], log_samples=True)
    contexts = [sample["doc"]["context"] for sample in results["samples"]["pcc_squad"]]
    squad = results["results"]["pcc_squad"]
    assert squad["compression,none"] == pytest.approx(sum(map(len, contexts)) / 36)
    assert squad["compression_stderr,none"] == "N/A"
    assert "compression" in make_table(results)
    assert results["higher_is_better"]["pcc_squad"]["compression"] is True
    sample = results["samples"]["pcc_squad"][0]
    assert sample["compression"] == {"source_tokens": len(MILL), "slots": 10, "boundary": 2}


def test_skipped_rows_are_in_no_score() -> None:
    def account(prompt: Prompt) -> dict[str, Any]:
        return {"skipped": len(prompt.contexts[0]) > 200, "source_tokens": 20, "slots": 5, "boundary": 0}

    results = evaluate(Parrot(account), ["pcc_squad"])
    assert results["results"]["pcc_squad"]["sample_len"] == 1
    assert results["results"]["pcc_squad"]["exact_match,none"] == 1.0
    assert results["n-samples"]["pcc_squad"] == {"original": 3, "effective": 1}
    everything = evaluate(Parrot(lambda _: {"skipped": True}), ["pcc_squad"])
    assert everything["n-samples"]["pcc_squad"] == {"original": 3, "effective": 0}
    make_table(everything)


def test_predict_only_and_few_shot_run() -> None:
    account = {"source_tokens": 20, "slots": 5, "boundary": 0}
    evaluate(Parrot(lambda _: account), ["pcc_squad"], predict_only=True, log_samples=True)
    model = Parrot()
    evaluate(model, ["pcc_squad"], num_fewshot=1)
    assert all(len(prompt.contexts) == 2 for prompt in model.prompts)
    for prompt in model.prompts:  # the row itself is no example for itself
        questions = [part.text for part in prompt.parts if part.kind is Kind.LITERAL][::2]
        assert len(set(questions)) == 2


def test_loading_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load("pcc_squad")
        evaluate(Parrot(), ["pcc_rag"])
    assert not [record.message for record in caplog.records if "pcc_" in record.message]


def test_an_uncaught_usage_error_ends_a_process_with_status_2() -> None:
    code = "from pcc_bench.core.errors import *; print_usage_errors_plainly(); raise UsageError('no\\ndata')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "pcc-bench: error: no data\n")


@pytest.mark.parametrize("name", ["dta", "protocl", "populaton", "lab_row"])
def test_a_setting_misspelt_is_refused_by_the_task_too(name: str) -> None:
    with pytest.raises(UsageError, match=f"no task has a setting '{name}': did you mean"):
        load("pcc_squad", **{name: "lab", "data": "lab"})


def test_arguments_of_models_are_no_settings_misspelt() -> None:
    check_spelling(["token", "encoder", "seeds", "tokenizer_mode", "max_length", "a_models_own"])


def test_usage_errors_are_one_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)  # typer puts its own there in other tests
    print_usage_errors_plainly()
    error = UsageError("no data folder")
    with pytest.raises(SystemExit) as ended:
        sys.excepthook(UsageError, error, None)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "pcc-bench: error: no data folder\n"
