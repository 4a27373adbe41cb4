"""The command line: every verb, a run killed and continued, and one sentence for every mistake."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval.tasks
import lm_eval.utils
import pytest
import torch
from conftest import SAMPLE
from golden_files import SHIPPED
from safetensors.torch import load_file, save_file

import pcc_bench
from pcc_bench import ContextCompressor, cli
from pcc_bench.cli import demo
from pcc_bench.core import shipped, tiny
from pcc_bench.host import evaluate, validate  # noqa: F401  # before the fixtures below replace what they import
from pcc_bench.host.responses import TABLE

TASKS = Path(__file__).parent.parent / "tasks"
ALL = '{"population": "all"}'
# lm-eval's command line with our hook, whether or not it is installed, and without lm-eval's thousands of tasks.
LM_EVAL = """
from functools import partial
from pcc_bench.host import startup
startup.install()
import lm_eval.tasks
lm_eval.tasks.TaskManager = partial(lm_eval.tasks.TaskManager, include_defaults=False)
from lm_eval.__main__ import cli_evaluate
cli_evaluate()
"""


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one line of an error; progress bars and logs come before it."""
        assert "Traceback" not in self.out + self.err
        last = self.err.strip().splitlines()[-1]
        assert last.startswith("pcc-bench: error: ")
        assert self.err.count("pcc-bench: error:") == 1
        assert self.code == 2
        return last.removeprefix("pcc-bench: error: ")


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Call `pcc-bench` in this process."""

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = 0
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture(autouse=True)
def _quick_lm_eval(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Our tasks without lm-eval's thousands, and no log handler that outlives a test's captured stream."""
    manager = lm_eval.tasks.TaskManager

    def ours(include_path: Any = None, metadata: Any = None, include_defaults: bool = False) -> Any:
        paths = [TASKS, *([include_path] if include_path and Path(include_path) != TASKS else [])]
        return manager(include_path=paths, include_defaults=False, metadata=metadata)

    monkeypatch.setattr(lm_eval.tasks, "TaskManager", ours)
    monkeypatch.setattr(lm_eval.utils, "setup_logging", lambda *_, **__: None)
    monkeypatch.setenv("PCC_DATA", str(SAMPLE))
    yield
    logging.getLogger().handlers = [h for h in logging.getLogger().handlers if "pytest" in type(h).__module__]


@pytest.fixture
def evaluation(run: Run, models: Path, tmp_path: Path) -> Run:
    """`pcc-bench eval` of the tiny checkpoint on a few sample questions; further arguments come last and win."""

    def call(model_args: str = "", *more: object, model: str = "pcc", task: str = "pcc_squad") -> Outcome:
        name = models / ("pcc" if model == "pcc" else "llama")
        given = model_args if "pretrained=" in model_args else f"pretrained={name},{model_args}".rstrip(",")
        fixed = ("--model", model, "--model-args", given, "--tasks", task, "--limit", 6, "--device", "cpu")
        return run("eval", *fixed, "--batch-size", 4, "--metadata", ALL, "--output", tmp_path / "out", *more)

    return call


def results(folder: Path) -> list[dict[str, Any]]:
    """Result files, oldest first."""
    files = sorted(folder.rglob("results_*.json"), key=lambda file: file.name)
    return [json.loads(file.read_text("utf-8")) for file in files]


def answers(folder: Path) -> list[tuple[int, str]]:
    """(row, answer) of the newest samples."""
    newest = max(folder.rglob("samples_*.jsonl"), key=lambda file: file.name)
    rows = [json.loads(line) for line in newest.read_text("utf-8").splitlines()]
    return sorted((row["doc_id"], row["resps"][0][0]) for row in rows)


# Help


@pytest.mark.parametrize("verb", ["eval", "compress", "init", "convert", "ls", "validate", "doctor", "demo"])
def test_every_verb_teaches_by_example(run: Run, verb: str) -> None:
    outcome = run(verb, "--help")
    assert outcome.code == 0
    assert f"Example: pcc-bench {verb}" in " ".join(outcome.out.replace("│", " ").split())


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from pcc_bench import cli; print([m for m in ('torch', 'lm_eval', 'yaml') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=TASKS.parent)
    assert done.stdout.strip() == "[]"


# eval


def test_eval_writes_results_samples_and_the_command(evaluation: Run, tmp_path: Path) -> None:
    outcome = evaluation("rate=16", "--wide", "--", "--gen_kwargs", "max_gen_toks=5")
    assert outcome.code == 0
    assert "| pcc    | pcc   | pcc_squad | 6 |" in outcome.out
    assert "16.00x" in outcome.out
    assert "Filter" not in outcome.out  # lm-eval's own table
    (result,) = results(tmp_path / "out")
    assert result["configs"]["pcc_squad"]["generation_kwargs"]["max_gen_toks"] == 5
    assert len(answers(tmp_path / "out")) == 6
    command = json.loads((tmp_path / "out" / "command.json").read_text("utf-8"))
    assert command["identity"]["limit"] == 6
    assert command["runs"][0]["versions"]["lm_eval"] == result["lm_eval_version"]


def test_eval_refuses_the_folder_of_another_command(evaluation: Run) -> None:
    assert evaluation("rate=16").code == 0
    assert "this one has model_args=" in evaluation("rate=4").sentence
    again = evaluation("rate=16", "--batch-size", 1)  # decides nothing
    assert again.code == 0


def test_a_command_that_never_answered_has_no_claim_on_its_folder(evaluation: Run) -> None:
    assert "rate 5" in evaluation("rate=5").sentence
    assert evaluation("rate=4").code == 0


def test_results_that_were_not_saved_are_an_error(evaluation: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("lm_eval.loggers.evaluation_tracker.asdict", no_space)
    assert "the results can't be saved (no space left on device): make room" in evaluation().sentence


def test_results_whose_rows_were_not_saved_are_none(
    evaluation: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(path: Path, *_: object, **__: object) -> None:
        Path(path).write_text('{"doc_id": 0, "do', "utf-8")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lm_eval.loggers.evaluation_tracker.open", full, raising=False)
        assert "the results can't be saved (No space left on device): make room" in evaluation().sentence
    left = {path.name for path in tmp_path.rglob("*") if path.suffix in (".json", ".jsonl", ".part")}
    assert left == {"command.json"}
    assert evaluation().code == 0


def test_a_killed_run_goes_on_where_it_stopped(run: Run, models: Path, tmp_path: Path) -> None:
    def command(folder: str) -> list[str]:
        fixed = [
            "--model",
            "pcc",
            "--model-args",
            f"pretrained={models / 'pcc'}",
            "--tasks",
            "pcc_squad",
            "--limit",
            "12",
        ]
        place = ["--device", "cpu", "--metadata", ALL, "--output", str(tmp_path / folder)]
        return ["eval", *fixed, *place, "--", "--gen_kwargs", "max_gen_toks=60"]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "pcc_bench.cli", *command("killed")],
        cwd=TASKS.parent,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    kept = wait_for_answers(tmp_path / "killed" / "answers_rank0.db", 3, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = max(kept, count_answers(tmp_path / "killed" / "answers_rank0.db"))
    assert 3 <= kept < 12
    assert results(tmp_path / "killed") == []
    assert run(*command("killed")).code == 0
    assert run(*command("whole")).code == 0
    (continued,), (whole,) = results(tmp_path / "killed"), results(tmp_path / "whole")
    assert continued["config"]["pcc_bench"]["counts"]["cached"] == kept
    assert continued["results"] == whole["results"]
    assert answers(tmp_path / "killed") == answers(tmp_path / "whole")


def wait_for_answers(database: Path, number: int, process: subprocess.Popen[bytes]) -> int:
    for _ in range(12_000):
        if (count := count_answers(database)) >= number:
            return count
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    raise AssertionError("no answers within two minutes")


def count_answers(database: Path) -> int:
    if not database.is_file():
        return 0
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        return int(connection.execute(f"SELECT count(*) FROM {TABLE}").fetchone()[0])
    except sqlite3.OperationalError:  # the table is not there yet
        return 0
    finally:
        connection.close()


# The other verbs


def test_compress_writes_a_memory_and_prints_its_counts(
    run: Run, models: Path, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    (tmp_path / "text.txt").write_text(rows[0]["context"], "utf-8")
    out = tmp_path / "memory.safetensors"
    option = ("--option", "boundaries=once", "--device", "cpu")
    outcome = run("compress", models / "pcc", tmp_path / "text.txt", "--rate", 16, "--output", out, *option)
    assert outcome.code == 0
    for count in ("source bytes (UTF-8)", "boundary vectors", "achieved, slots only"):
        assert count in outcome.out
    assert out.is_file()


@pytest.mark.parametrize("kind", ["soft", "hard", "text"])
def test_ask_answers_from_a_memory_of_another_process_and_from_text(
    run: Run, models: Path, tmp_path: Path, rows: list[dict[str, Any]], kind: str
) -> None:
    context, question = rows[0]["context"], rows[0]["question"]
    (tmp_path / "text.txt").write_text(context, "utf-8")
    model = [models / "pcc"] if kind == "soft" else [models / "llama", "--model", "bm25-context", "--query", question]
    here = ("--device", "cpu")
    if kind == "text":
        outcome = run("ask", tmp_path / "text.txt", question, "--checkpoint", models / "pcc", *here)
    else:
        memory = tmp_path / "m.safetensors"
        words = ["compress", model[0], tmp_path / "text.txt", *model[1:], "--output", memory, *here]
        subprocess.run([sys.executable, "-m", "pcc_bench.cli", *map(str, words)], check=True)
        outcome = run("ask", memory, question, *here)
    method = "bm25-context" if kind == "hard" else None
    pcc = ContextCompressor.from_pretrained(str(model[0] if kind == "hard" else models / "pcc"), method, device="cpu")
    expected = pcc.compress(context, query=question if kind == "hard" else None).answer(question).strip()
    assert (outcome.code, outcome.out.strip()) == (0, expected)


def test_ask_explains(run: Run, tmp_path: Path) -> None:
    match("no memory file", run("ask", tmp_path / "m.safetensors", "Who?").sentence)
    match("already compressed", run("ask", tmp_path / "m.safetensors", "Who?", "--model", "pcc").sentence)
    match("can't be read", run("ask", tmp_path / "t.txt", "Who?").sentence)


def test_the_version_is_printed(run: Run) -> None:
    assert run("--version").out == f"pcc-bench {pcc_bench.__version__}\n"


def test_shipped_models_are_listed_with_size_rate_and_decoder(run: Run) -> None:
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in run("ls", "models").out.splitlines()]
    assert ["autocompressor-lab-4x", "autocompressor", "4x", "lab-llama", "0.8 MiB"] in lines
    assert ["pcc-lab-16x", "pcc", "16x", "lab-llama", "5.2 MiB"] in lines
    assert ["lab-llama", "decoder", "", "", "8.4 MiB"] in lines
    assert {line[0] for line in lines} >= {*shipped.names()}


def test_options_have_one_spelling_and_take_underscores() -> None:
    verbs: Any = cli.typer.main.get_command(cli.app)
    words = "--model_args=a_b=c --tasks t --output x_y --batch-size 2 -- --gen_kwargs a"
    group = verbs.make_context("pcc-bench", ["eval"])
    given = verbs.commands["eval"].make_context("eval", words.split(), parent=group).params
    assert (given["model_args"], given["output"], given["batch_size"]) == ("a_b=c", Path("x_y"), "2")
    assert list(given["extra"]) == ["--gen_kwargs", "a"]
    for verb, shared in {
        "eval": {"--output", "-o", "--batch-size", "--limit", "--device", "--dtype", "--data", "--metadata"},
        "run": {"--output", "-o", "--batch-size", "--limit", "--device", "--dtype", "--data"},
        "validate": {"--dtype", "--data"},
        "compress": {"--output", "-o", "--device", "--dtype"},
        "cost": {"--output", "-o", "--batch-size", "--device", "--dtype"},
        **{verb: {"--output", "-o"} for verb in ("init", "train", "convert", "report", "pack", "demo")},
    }.items():
        names = {name for option in verbs.commands[verb].params for name in option.opts}
        assert shared <= names, verb


def test_help_is_quick() -> None:
    """No verb's `--help` imports what takes long, and it takes less than half a second of a processor."""
    heavy = "{'torch', 'transformers', 'lm_eval', 'datasets', 'pandas', 'matplotlib'}"
    for verb in ("", "eval", "gate", "cost", "run", "lab", "report", "ask"):
        code = (
            "import sys, time\nfrom pcc_bench import cli\ntry: cli.main([*sys.argv[1:], '--help'])\n"
            f"except SystemExit: pass\nassert not {heavy} & {{*sys.modules}}\n"
            "print(time.process_time())"
        )
        words = [sys.executable, "-c", code, *([verb] if verb else [])]
        runs = (subprocess.run(words, check=True, capture_output=True, text=True).stdout for _ in range(3))
        assert any(float(out.splitlines()[-1]) < 0.5 for out in runs), verb


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_init_makes_a_checkpoint_that_evaluates(run: Run, models: Path, tmp_path: Path, lora_rank: int) -> None:
    encoder = models / ("llama" if lora_rank else "encoder")
    fixed = ("init", "--encoder", encoder, "--decoder", models / "llama", "--rate", 4, "--rate", 16)
    outcome = run(*fixed, "--lora-rank", lora_rank, "--output", tmp_path / "new")
    assert outcome.code == 0
    assert "| converter |" in outcome.out
    assert run("validate", "--model-args", f"pretrained={tmp_path / 'new'},rate=16", "--tasks", "").code == 0
    assert "not empty" in run(*fixed, "--output", tmp_path / "new").sentence
    assert run(*fixed, "--output", tmp_path / "new", "--force").code == 0


@pytest.mark.parametrize("name", ["pcc", "pcc-large"])
def test_convert_there_and_back_changes_no_weight(run: Run, models: Path, tmp_path: Path, name: str) -> None:
    published, own = tmp_path / "published-4x", tmp_path / "deeper" / "own"
    decoder = ("--decoder", models / "llama")
    base = ("--encoder", models / "llama") if name == "pcc-large" else ()
    assert run("convert", models / name, "--output", published, "--to", "published", *decoder, "--rate", 4).code == 0
    assert run("convert", published, "--output", own, "--to", "own", *decoder, *base).code == 0
    before, after = load_file(models / name / "model.safetensors"), load_file(own / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert run("validate", "--model-args", f"pretrained={own}").code == 0  # finds decoder and base beside itself


def test_ls_lists_methods_tasks_and_data(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = run("ls", "methods").out
    assert all(name in methods for name in ("pcc", "full-context", "soft", "a checkpoint"))
    assert "rajpurkar/squad_v2" in run("ls", "tasks").out
    assert "| squad/validation.jsonl | 24   | pcc_squad |" in run("ls", "data").out
    monkeypatch.delenv("PCC_DATA")
    assert "from the hub" in run("ls", "data").out


def test_validate_shows_a_row_in_parts(run: Run, models: Path) -> None:
    arguments = ("--model-args", f"pretrained={models / 'pcc'},rate=16", "--metadata", ALL)
    outcome = run("validate", *arguments, "--tasks", "pcc_squad")
    assert outcome.code == 0
    assert "FAIL" not in outcome.out
    assert all(f"| {kind} " in outcome.out for kind in ("context", "text", "literal"))
    assert "24 of 24 rows" in outcome.out


def test_validate_reads_published_checkpoints(run: Run) -> None:
    folder = SHIPPED / "pcc" / "seed0" / "lite-4x"
    outcome = run("validate", "--model-args", f"pretrained={folder / 'encoder'},decoder={folder / 'decoder'},rate=4")
    assert outcome.code == 0


def test_doctor_says_what_is_there(run: Run) -> None:
    outcome = run("doctor")
    assert outcome.code == 0
    for line in ("Python", "lm-eval's models  ours are known", "lm-eval's tasks   ours are known", "squad/validation"):
        assert line in outcome.out


def test_doctor_finds_a_missing_data_folder(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCC_DATA", "nowhere")
    outcome = run("doctor")
    assert outcome.code == 1
    assert "MISSING  PCC_DATA" in outcome.out
    assert "fix: export PCC_DATA=<folder>" in outcome.out


def test_demo_prints_one_table_of_trained_models(run: Run, tmp_path: Path) -> None:
    outcome = run("demo", "--output", tmp_path / "demo", "--rows", 8)
    assert outcome.code == 0
    assert outcome.out.startswith("THE LAB")
    methods = ["full-context", "pcc", "pcc", "truncated-context", "no-context"]
    for task in ("pcc_squad", "pcc_hotpotqa"):
        rows = [[cell.strip() for cell in line.split("|")] for line in outcome.out.splitlines()]
        assert [row[1] for row in rows if task in row] == methods
    assert len(results(tmp_path / "demo")) == len(methods)


def test_demo_on_real_rows_shows_answers_beside_their_passages(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder of the lab stands in for the pretrained one, which is another package's."""
    monkeypatch.setattr(demo, "DECODER", "lab-llama")
    monkeypatch.setattr(demo, "CHECKPOINT", "not-shipped")
    monkeypatch.setattr(demo, "TUNED", "not-shipped")
    outcome = run("demo", "--real", "--output", tmp_path / "demo", "--rows", 4, "--checkpoint", "pcc-lab-4x")
    assert outcome.code == 0
    assert outcome.out.startswith("REAL ROWS")
    rows = [[cell.strip() for cell in line.split("|")] for line in outcome.out.splitlines()]
    assert [row[1] for row in rows if "pcc_squad" in row] == ["full-context", "no-context", "truncated-context", "pcc"]
    assert outcome.out.count("\nQuestion: ") == outcome.out.count("\nReference: ") == 2
    assert [row[1] for row in rows if len(row) == 5].count("PCC, pcc-lab-4x") == 2
    populations = [file["configs"]["pcc_squad"]["metadata"]["population"] for file in results(tmp_path / "demo")]
    assert {(account["prompt"], account["kept"]) for account in populations} == {("short", 100)}
    outcome = run("demo", "--checkpoint", "pcc-lab-4x", "--output", tmp_path / "demo")
    assert (outcome.code, outcome.err) == (2, "pcc-bench: error: --checkpoint is for real rows: add --real\n")


def test_demos_of_any_kind_share_a_folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("DECODER", "lab-llama"), ("CHECKPOINT", "not-shipped"), ("TUNED", "not-shipped")):
        monkeypatch.setattr(demo, name, value)
    real = ("--real", "--rows", 2)
    for options in (("--rows", 2), ("--rows", 3), real, (*real, "--checkpoint", "pcc-lab-4x"), ("--rows", 2)):
        outcome = run("demo", "--output", tmp_path / "demo", *options)
        assert outcome.code == 0, outcome.err


# Bad input: one sentence each


@pytest.fixture
def broken(models: Path, tmp_path: Path) -> Callable[[Callable[[Path], None]], str]:
    """A copy of the checkpoint with something done to it, as model args."""

    def make(spoil: Callable[[Path], None]) -> str:
        folder = tmp_path / "broken"
        shutil.copytree(models / "pcc", folder)
        spoil(folder)
        return f"pretrained={folder},decoder={models / 'llama'}"

    return make


def overwrite(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 1000)


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def narrow(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["converter.dense_in.weight"] = state["converter.dense_in.weight"][:, :40].clone()
    save_file(state, folder / "model.safetensors")


def forget(folder: Path) -> None:
    tiny.make_tokenizer(["some text"], 300).save_pretrained(folder)


def garble(folder: Path) -> None:
    (folder / "config.json").write_text("{", "utf-8")


SPOILT = [
    (overwrite, "damaged or not safetensors"),
    (truncate, "damaged or not safetensors"),
    (narrow, r"dense_in.weight has shape \[64, 40\], expected \[64, 48\]"),
    (forget, "lacks 64 of the 64 memory tokens"),
    (garble, "config.json is not valid JSON"),
]


@pytest.mark.parametrize(("spoil", "says"), SPOILT)
def test_a_broken_checkpoint(
    evaluation: Run, run: Run, broken: Callable[..., str], spoil: Callable[[Path], None], says: str
) -> None:
    arguments = broken(spoil)
    match(says, evaluation(arguments).sentence)
    outcome = run("validate", "--model-args", arguments)
    assert outcome.code == 1
    match(f"FAIL .*{says}", outcome.out)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("pretrained=nowhere", "checkpoint 'nowhere' is neither a folder here nor a hub id"),
        ("decoder={models}/mistral", "made for .*fingerprint .*mistral"),
        ("decoder={models}/narrow", "width 64.*width 32|width 64.* 32"),
        ("rate=8", "rate 8 was not trained: this checkpoint declares 4x, 16x"),
        ("boundaris=once", "no option 'boundaris': did you mean 'boundaries'"),
    ],
)
def test_arguments_that_do_not_fit(evaluation: Run, run: Run, models: Path, options: str, says: str) -> None:
    if not (models / "narrow").is_dir():
        tiny.make_model("llama", tiny.make_tokenizer(["some text"], 300), models / "narrow", width=32)
    options = options.format(models=models)
    match(says, evaluation(options).sentence)
    given = options if "pretrained" in options else f"pretrained={models / 'pcc'},{options}"
    outcome = run("validate", "--model-args", given)
    assert outcome.code == 1
    assert "FAIL" in outcome.out


def test_arguments_of_values_that_are_none(evaluation: Run) -> None:
    match("overflow: Input should be 'error', 'skip' or 'truncate'", evaluation("overflow=maybe").sentence)
    match("control: Input should be 'wrong_memory'", evaluation("control=magic").sentence)


def test_metadata_that_is_not_json(evaluation: Run, run: Run) -> None:
    match("metadata .* is not valid JSON", evaluation("", "--metadata", "{data: x}").sentence)
    assert "FAIL  metadata" in run("validate", "--metadata", "{data: x}").out


def test_a_prompt_longer_than_the_window(evaluation: Run) -> None:
    match("row . of pcc_squad takes .* pass overflow=skip or overflow=truncate", evaluation("max_length=100").sentence)


def test_an_unknown_model(evaluation: Run) -> None:
    match("unknown model 'full-contxt': did you mean 'full-context'", evaluation(model="full-contxt").sentence)


def test_an_unknown_task(evaluation: Run) -> None:
    match("unknown task 'pcc_sqad': did you mean 'pcc_squad'", evaluation(task="pcc_sqad").sentence)


def test_no_free_memory(evaluation: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("pcc_bench.host.answering.generate", full)
    match("out of memory while decoding .* lower batch_size", evaluation().sentence)


def test_no_free_memory_for_compression(evaluation: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("pcc_bench.model.compressor.PccCompressor.compress", full)
    match("out of memory while compressing", evaluation().sentence)


def line(**changes: Any) -> str:
    row = {"id": "1", "context": "It rains.", "question": "Does it?", "answers": {"text": ["yes"], "answer_start": [0]}}
    return json.dumps({key: value for key, value in (row | changes).items() if value is not None}) + "\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no data folder .*nowhere"),
        ({}, "has no folder squad"),
        ({"squad/train.jsonl": line()}, r"has no file validation.jsonl \(it has train.jsonl\)"),
        ({"squad/validation.jsonl": line(context=None)}, "validation.jsonl, line 1: no column or field 'context'"),
        ({"squad/validation.jsonl": line() + "{no json\n"}, "validation.jsonl, line 2 is not valid JSON"),
        ({"squad/validation.jsonl": line() + line(context=" ")}, "validation.jsonl, line 2 .*context is empty"),
    ],
)
def test_bad_data(
    evaluation: Run,
    run: Run,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: dict[str, str] | None,
    says: str,
) -> None:
    folder = tmp_path / ("nowhere" if content is None else "data")
    for name, text in (content or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    if content is not None:
        folder.mkdir(exist_ok=True)
    monkeypatch.setenv("PCC_DATA", str(folder))
    match(says, evaluation().sentence)
    outcome = run("validate", "--model-args", f"pretrained={models / 'pcc'}", "--tasks", "pcc_squad")
    assert outcome.code == 1
    match(f"FAIL .*{says}", outcome.out)


def test_an_unmatched_mark(evaluation: Run, tmp_path: Path) -> None:
    template = r'"\x02{{question}}"'
    yaml = f"include: {TASKS / 'squad' / 'squad.yaml'}\ntask: broken_marks\ndoc_to_text: {template}\n"
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "broken.yaml").write_text(yaml, "utf-8")
    outcome = evaluation("", "--", "--include_path", tmp_path / "tasks", task="broken_marks")
    match("unmatched context mark at character 0", outcome.sentence)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("{missing}",), "missing.txt can't be read"),
        ((), "give either a file"),
        (("--text", " "), "--text is empty"),
        (("--text", "x", "--rate", "8"), "rate 8 was not trained"),
        (("--text", "x", "--dtype", "int8"), "dtype int8 is unknown"),
        (("--text", "x", "--device", "nonsense"), "device nonsense can't be used"),
        (("--text", "x", "--option", "slot=official"), "no such option: did you mean 'slots'"),
        (("--text", "x", "--option", "slots"), "is not name=value"),
    ],
)
def test_compress_explains(run: Run, models: Path, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    given = [word.format(missing=tmp_path / "missing.txt") for word in arguments]
    match(says, run("compress", models / "pcc", *given, "--output", tmp_path / "m.safetensors").sentence)
    assert not (tmp_path / "m.safetensors").exists()


def test_init_explains(run: Run, models: Path, tmp_path: Path) -> None:
    fixed = ("init", "--encoder", models / "encoder", "--output", tmp_path / "new")
    match("rate 5 does not divide", run(*fixed, "--decoder", models / "llama", "--rate", 5).sentence)
    match("decoder 'nowhere' is neither", run(*fixed, "--decoder", "nowhere", "--rate", 4).sentence)
    assert not (tmp_path / "new").exists()


def test_plain_lm_eval_explains_as_plainly(models: Path, tmp_path: Path) -> None:
    """A mistake of the model and one of the data, through lm-eval's own command line; both at once to save time."""
    (tmp_path / "squad").mkdir()
    (tmp_path / "squad" / "validation.jsonl").write_text(line() + "{no json\n", "utf-8")
    mistakes = {"rate=8": "rate 8 was not trained", "rate=4": "line 2 is not valid JSON"}
    environment = {**os.environ, "PCC_DATA": str(tmp_path), "OMP_NUM_THREADS": "1"}
    fixed = ["--model", "pcc", "--tasks", "pcc_squad", "--device", "cpu", "--metadata", ALL]
    fixed += ["--include_path", str(TASKS)]
    processes = {
        says: subprocess.Popen(
            [sys.executable, "-c", LM_EVAL, "run", *fixed, "--model_args", f"pretrained={models / 'pcc'},{options}"],
            cwd=TASKS.parent,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for options, says in mistakes.items()
    }
    for says, process in processes.items():
        _, err = process.communicate(timeout=120)
        assert process.returncode != 0
        assert "Traceback" not in err
        match(f"pcc-bench: error: .*{says}", err.strip().splitlines()[-1])


def match(pattern: str, text: str) -> None:
    assert re.search(pattern, text), f"{pattern!r} is not in {text!r}"
