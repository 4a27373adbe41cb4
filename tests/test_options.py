"""Options without sense are one sentence before a model is loaded."""

import ast
import multiprocessing
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pcc_bench import tasks
from pcc_bench.cli import app, main
from pcc_bench.core import claims, documents, registry
from pcc_bench.core.errors import UsageError
from pcc_bench.host import evaluate, models
from pcc_bench.host.arguments import (
    HfOptions,
    RunnerOptions,
    joined,
    parse_arguments,
    split_options,
)
from pcc_bench.host.evaluate import Command
from pcc_bench.host.responses import Response, ResponseCache
from pcc_bench.host.settings import SETTINGS, check_settings

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("memory_gb", "x", "valid number"),
        ("memory_gb", float("nan"), "finite"),
        ("memory_gb", -1, "greater than or equal to 0"),
        ("memory_store_dtype", "int4", "'exact', 'float32'"),
        ("memory_store_dtype", "int8", "are about a memory_store"),
        ("memory_store_gib", float("inf"), "finite"),
        ("memory_store_gib", 0, "greater than 0"),
        ("memory_store_gib", "two", "valid number"),
        ("overflow", "drop", "'error', 'skip' or 'truncate'"),
        ("control", "right_memory", "'wrong_memory'"),
        ("reuse_prefix", "perhaps", "valid boolean"),
    ],
)
def test_our_own_options_have_types(name: str, value: Any, says: str) -> None:
    with pytest.raises(UsageError, match=rf"^model_args: .*{says}"):
        documents.checked(RunnerOptions, {name: value}, "model_args")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("pretraned", "x", "did you mean 'pretrained'"),
        ("max_lenght", 9, "did you mean 'max_length'"),
        ("segment_lenght", 9, "did you mean 'segment_length'"),
        ("max_length", "x", "max_length: .*valid integer"),
        ("max_length", -1, "max_length: .*greater than 0"),
        ("dtype", "junk", "dtype: a dtype is auto"),
        ("device", "junk", "device: a device is cpu"),
        ("batch_size", 0, "batch_size: a batch size is"),
        ("encoder_batch_tokens", "x", "encoder_batch_tokens: .*valid integer"),
        ("rate", "x", "rate: .*valid integer"),
    ],
)
def test_a_methods_options_and_lm_evals_are_checked(name: str, value: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        split_options(registry.get("pcc"), {name: value})


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("parallelize", "maybe", "parallelize: .*valid boolean"),
        ("add_bos_token", "zz", "add_bos_token: .*valid boolean"),
        ("trust_remote_code", 7, "trust_remote_code: .*valid boolean"),
        ("enable_thinking", "zz", "enable_thinking: .*valid boolean"),
        ("logits_cache", 3, "logits_cache: .*valid boolean"),
        ("prefix_token_id", "x", "prefix_token_id: .*valid integer"),
        ("chat_template_args", "zz", "chat_template_args: .*valid dictionary"),
        ("backend", "seq2seq", "backend: .*'default' or 'causal'"),
        ("softmax_dtype", "zz", "softmax_dtype: a dtype is"),
        ("mixed_precision_dtype", 3, "mixed_precision_dtype: a dtype is"),
        ("max_batch_size", -1, "max_batch_size: .*greater than 0"),
        ("revision", ["x"], "revision: .*valid string"),
    ],
)
def test_every_argument_of_lm_evals_hf_has_a_type(name: str, value: Any, says: str) -> None:
    with pytest.raises(UsageError, match=f"^model_args: {says}"):
        split_options(registry.get("pcc"), {name: value})


def test_arguments_of_lm_evals_hf_arrive_in_their_type() -> None:
    _, rest = split_options(registry.get("pcc"), {"parallelize": "no", "max_length": "99", "revision": 7})
    assert rest == {"parallelize": False, "max_length": 99, "revision": "7"}


BESIDE = {"batch_size": 1, "device": "cuda:0", "max_batch_size": None}  # what lm-eval's command line passes on unasked


@pytest.mark.parametrize(
    ("given", "beside", "is_"),
    [
        ({}, {}, {"batch_size": 1, "device": "cuda:0"}),
        ({"device": "cpu"}, {}, {"batch_size": 1, "device": "cpu"}),
        ({"batch_size": 4}, {}, {"batch_size": 4, "device": "cuda:0"}),
        ({"batch_size": 4, "device": "cpu"}, {"batch_size": "4", "device": "cpu"}, {"batch_size": 4, "device": "cpu"}),
        ({"max_batch_size": 4}, {}, {"batch_size": 1, "device": "cuda:0", "max_batch_size": 4}),
    ],
)
def test_options_of_the_command_line_may_stand_in_model_args(given: Any, beside: Any, is_: Any) -> None:
    assert joined(given, {**BESIDE, **beside}) == is_


@pytest.mark.parametrize("name", ["device", "batch_size", "max_batch_size"])
def test_an_option_given_in_both_ways_is_refused(name: str) -> None:
    kind = models.pcc  # type: ignore[attr-defined]
    for create, arguments in (
        (kind.create_from_arg_obj, {name: 5, "memory_gb": 1}),
        (kind.create_from_arg_string, f"{name}=5"),
    ):
        with pytest.raises(UsageError, match=f"{name} is given twice, as --{name} 9 and as {name}=5 in model_args"):
            create(arguments, {**BESIDE, name: 9})


@pytest.mark.parametrize("name", ["self", "kwargs", "config", "device_map", "", "two words", "1"])
def test_what_names_no_argument_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"'{name}' is no argument of a model"):
        models.pcc.create_from_arg_obj({name: "x"}, BESIDE)  # type: ignore[attr-defined]


@pytest.mark.parametrize("what", ["model args", "metadata"])
def test_an_argument_that_stands_twice_is_refused(what: str) -> None:
    with pytest.raises(UsageError, match="give rate 2 times"):
        parse_arguments("rate=4,pretrained=x,rate=16", what)
    with pytest.raises(UsageError, match="the key 'rate' twice"):
        parse_arguments('{"rate": 4, "rate": 16}', what)


@pytest.mark.parametrize("what", ["model args", "metadata"])
def test_an_argument_without_a_value_is_refused(what: str) -> None:
    with pytest.raises(UsageError, match="give backend no value: write backend=VALUE, or leave it out"):
        parse_arguments("pretrained=x,backend=", what)


def test_options_with_sense_pass_as_they_are() -> None:
    given = {
        "rate": 4,
        "boundaries": "once",
        "dtype": "bfloat16",
        "attn_implementation": "eager",
        "batch_size": "auto:4",
    }
    options, rest = split_options(registry.get("pcc"), given)
    assert options == {"rate": 4, "boundaries": "once"}
    assert rest == {"dtype": "bfloat16", "attn_implementation": "eager", "batch_size": "auto:4"}


@pytest.mark.parametrize("name", registry.METHODS)
def test_every_methods_defaults_are_of_the_types_it_states(name: str) -> None:
    assert split_options(registry.get(name), {}) == ({}, {})


@given(st.one_of(st.text(max_size=8), st.integers(), st.floats(), st.none(), st.booleans()))
def test_no_value_of_an_option_is_a_traceback(value: Any) -> None:
    for name in (*RunnerOptions.model_fields, *HfOptions.model_fields):
        model = RunnerOptions if name in RunnerOptions.model_fields else HfOptions
        try:
            documents.checked(model, {name: value}, "model_args")
        except UsageError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("size", ["0", "-1", "x", "1.5", "", "auto:", "\u0663"])
def test_a_batch_size_is_a_number_or_auto(size: str) -> None:
    with pytest.raises(UsageError, match="a batch size is a number of 1 or more, or auto"):
        evaluate.check(Command("pcc", "", "pcc_squad", Path("never"), batch_size=size))


def test_settings_of_tasks_are_known_by_name() -> None:
    with pytest.raises(UsageError, match="no task has a setting 'dta': did you mean 'data'"):
        check_settings({"dta": "lab"})
    command = Command("pcc", "", "pcc_squad", Path("never"), metadata='{"dta": "lab"}')
    with pytest.raises(UsageError, match="did you mean 'data'"):
        evaluate.run(command)
    assert not Path("never").exists()


def test_every_setting_that_a_task_reads_is_listed() -> None:
    """A literal key asked of the metadata, anywhere in the tasks, is one of `SETTINGS`."""
    inner = {"population", "version"}
    read = set()
    for path in Path(tasks.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id="choice" | "whole" | "_whole" | "_numbers"), args=[source, key, *_]):
                    pass
                case ast.Call(func=ast.Attribute(value=source, attr="get"), args=[key, *_]):
                    pass
                case ast.Subscript(value=source, slice=key):
                    pass
                case _:
                    continue
            if ast.unparse(source).endswith("metadata") and isinstance(key, ast.Constant):
                read.add(key.value)
    assert len(read) > 20
    assert read - inner <= set(SETTINGS)


def test_documents_are_read_in_one_place() -> None:
    """No file but `documents` parses JSON or YAML, besides round trips of our own objects."""
    own = {"pcc_bench/core/checkpoint_files.py", "pcc_bench/host/store/store.py", "pcc_bench/host/settings.py"}
    elsewhere = ("reports/", "pcc_bench/gate/")  # these have readers of their own
    calls = {"json.load", "json.loads", "yaml.safe_load", "yaml.load"}
    found = set()
    for room in ("pcc_bench", "model", "tasks", "baselines"):
        for path in (ROOT / room).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            tree = ast.parse(path.read_text("utf-8"))
            used = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
            if used & calls or any(call.endswith("model_validate_json") for call in used):
                found.add(name)
    assert {name for name in found if not name.startswith(elsewhere)} == {*own, "pcc_bench/core/documents.py"}


@pytest.mark.parametrize(
    "words",
    [
        ["init", "--encoder", "e", "--decoder", "d", "--rate", "4", "--output", "o", "--lora-rank", "-1"],
        ["init", "--encoder", "e", "--decoder", "d", "--rate", "4", "--output", "o", "--seed", str(10**30)],
        ["compress", "c", "--output", "o", "--text", "half \ud800"],
        ["cost", "--predict", "--random-weights", "tiny", "--device-peak", "1", "--bandwidth", "nan"],
        [
            "cost",
            "--predict",
            "--random-weights",
            "tiny",
            "--device-peak",
            "1",
            "--bandwidth",
            "1",
            "--overhead",
            "nan",
        ],
        ["eval", "--model", "pcc", "--tasks", "pcc_squad", "--output", "never", "--limit", "nan"],
        ["eval", "--model", "pcc", "--tasks", "pcc_squad", "--output", "never", "--batch-size", "-1"],
        ["validate", "--model", "p" * 5_000],
        ["validate", "--model-args", "pretrained=" + "p" * 5_000],
    ],
)
def test_commands_with_values_without_sense_end_with_a_sentence(words: list[str]) -> None:
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, UsageError | SystemExit) and done.exit_code in (1, 2)
    assert "Traceback" not in done.output and not Path("never").exists()


DOCUMENTS = {
    "latin-1": "name: \u00e4\n".encode("latin-1"),
    "nesting": b"a: " + b"[" * 5_000,
    "deep JSON": b"[" * 100_000,
    "no date": b"name: 2020-99-99",
    "a tag": b"!!python/object/apply:os.system [ls]",
    "NUL": b"name: a\0b",
    "digits": b"seed: " + b"1" * 5_000,
}


@pytest.mark.parametrize("content", DOCUMENTS.values(), ids=DOCUMENTS.keys())
@pytest.mark.parametrize(
    "words", [("run", "F", "-o", "never"), ("train", "F", "--dry-run"), ("gate", "F", "--against", "F")]
)
def test_documents_on_the_command_line_end_with_a_sentence(
    tmp_path: Path, words: tuple[str, ...], content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "f.yaml").write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        main([word.replace("F", str(tmp_path / "f.yaml")) for word in words])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.startswith("pcc-bench: error: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ("compress", "pcc-lab-4x", "--text", "x", "-o", "never", "--option", "boundaries={"),
        ("train", "lite-4x", "--dry-run", "--set", "optimisation={"),
        ("train", "lite-4x", "--dry-run", "--set", "optimisation.steps=" + "[" * 5_000),
    ],
)
def test_values_on_the_command_line_are_documents_too(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2 and "Traceback" not in capsys.readouterr().err


# Claims


def _hold(folder: str, ready: Any, end: Any) -> None:
    with claims.claimed(Path(folder)):
        ready.set()
        end.wait()


def test_a_second_command_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    refused = pytest.raises(UsageError, match=rf"in use by '.*process {os.getpid()} on ")
    with claims.claimed(tmp_path / "out"), refused, claims.claimed(tmp_path / "out"):
        pass
    with claims.claimed(tmp_path / "out"):
        assert all(map(claims.is_claim, (tmp_path / "out").iterdir()))


def test_a_killed_command_blocks_nobody(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, end = context.Event(), context.Event()
    child = context.Process(target=_hold, args=(str(tmp_path), ready, end))
    child.start()
    assert ready.wait(30)
    with pytest.raises(UsageError, match=f"process {child.pid} on "), claims.claimed(tmp_path):
        pass
    child.kill()
    child.join()
    with claims.claimed(tmp_path):
        pass


def test_parts_of_a_folder_are_held_side_by_side(tmp_path: Path) -> None:
    with claims.claimed(tmp_path, "one"), claims.claimed(tmp_path, "two"):
        pass


@pytest.mark.parametrize(
    ("words", "held"),
    [
        (("eval", "--model", "pcc", "--tasks", "pcc_squad", "--data", "lab", "-o", "OUT"), ("", "")),
        (("run", "lab-table2", "-o", "OUT"), ("", "")),
        (("train", "lite-4x", "-o", "OUT"), ("", "")),
        (("lab", "build", "lab-llama", "-o", "OUT"), ("work", "lab-llama")),
    ],
    ids=lambda words: " ".join(words),
)
def test_the_second_of_two_commands_on_a_folder_is_refused(
    tmp_path: Path, words: tuple[str, ...], held: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "out"
    with claims.claimed(place / held[0], held[1]), pytest.raises(SystemExit) as ended:
        main([word.replace("OUT", str(place)) for word in words])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1
    assert re.search(rf"in use by '.*' \(process {os.getpid()} on .*\): wait for its end, or choose another", error)
    assert all(map(claims.is_claim, (path for path in place.rglob("*") if path.is_file())))


def test_evaluations_hold_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = Command("pcc", "pretrained=x", "pcc_squad", tmp_path)
    monkeypatch.setattr(evaluate, "_run_lm_eval", lambda *_: evaluate.run(command))
    with pytest.raises(UsageError, match="in use by"):
        evaluate.run(command)


# Full disks


def test_a_full_disk_under_the_answers_is_one_sentence(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "answers.db", "f")
    cache.put([("a", Response("1", {}))])
    cache._connection.execute("PRAGMA max_page_count = 3")
    with pytest.raises(
        UsageError, match=r"answers\.db can't be read or written \(database or disk is full\): make room"
    ):
        cache.put([("b", Response("x" * 100_000, {}))])
    again = ResponseCache(tmp_path / "answers.db", "f")
    assert (again.get("a"), again.get("b")) == ("1", None)


def test_answers_that_are_no_database_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "answers.db").write_bytes(b"no database" * 1000)
    with pytest.raises(UsageError, match="not a database"):
        ResponseCache(tmp_path / "answers.db", "f")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), Exception("No space left (os error 28)")])
def test_files_of_a_folder_appear_together_or_not_at_all(tmp_path: Path, error: Exception) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(UsageError, match="No space left"), documents.filled(tmp_path) as part:
        (part / "a").write_text("new")
        raise error
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "old"
    with documents.filled(tmp_path) as part:
        (part / "a").write_text("new")
    assert (tmp_path / "a").read_text() == "new"
