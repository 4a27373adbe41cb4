"""Every command of the README and the docs runs as it is written there, on small models, or says here why not."""

from __future__ import annotations

import json
import logging
import re
import shlex
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lm_eval.tasks
import lm_eval.utils
import pytest

from pcc_bench import cli
from pcc_bench.core.documents import read_yaml
from pcc_bench.gate.policy import Policy
from pcc_bench.suite.spec import Settings, Suite
from pcc_bench.tasks.foreign import maps_of

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md")
PROGRAMS = (
    "pcc-bench",
    "lm_eval",
    "accelerate",
    "make",
    "pip",
    "pytest",
    "python",
    "curl",
    "vllm",
    "benchmarks/gpu/run.sh",
)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)

NOT_RUN = {  # what a command names: why no test runs it
    r"^make ": "builds an environment, or is all tests: what CI begins with",
    r"^pip ": "asks a package index",
    r"^pytest ": "a run of pytest in a run of pytest: tests/test_gate.py does that",
    r"^python benchmarks/": "minutes to hours of measuring: tests/test_scripts.py starts the scripts",
    r"^benchmarks/gpu/": "needs a GPU: tests/test_scripts.py runs its small form",
    r"^vllm |^curl |serve-check|backend=": "needs a server: tests/test_serving.py has one",
    r"^accelerate ": "several processes: tests/test_sharding.py",
    r"BroAlanTaps/|microsoft/|sggetao/|princeton-nlp/|naver/|meta-llama/": "published weights, which were never here",
    r"<its base>|<any token": "weights of one's own of a published method",
    r"smollm2": "a real LLM (make real) or its training: tests/test_real_decoder.py, tests/test_recipes.py",
    r"lab (build|record|ship|check)": "minutes to hours: tests/test_lab_build.py trains small parts",
    r"^pcc-bench run .*(SHARED|lab-tasks|real-(ruler|table2)|results/lab-table2$)": "hours: tests/test_suite.py",
    r"^pcc-bench cost|costs/new": "measures seconds: tests/test_cost.py",
    r" costs -o report": "reads what was measured: tests/test_cost_report.py",
    r"--compress |\"compress\"": "tasks of lm-eval read from the hub: tests/test_any_task.py has them here",
    r"pcc_needle": "long contexts: tests/test_needle.py",
    r"^pcc-bench report (runs|results/(real-)?ruler)": "reads runs that this list names",
}
DATA = ROOT / "tests" / "fixtures" / "data"
PLACES = {"CKPT": "pcc", "CHECKPOINT": "pcc", "NEW": "pcc", "DECODER": "llama", "<decoder>": "llama"}  # tiny models

RESULTS = {  # what pages have measured before
    **dict.fromkeys(("results/table2", "results/lab-table2"), ("full-context", "no-context", "PCC-4x", "PCC-16x")),
    **{"results/pretraining": ("PCC-Large-4x",), "results/pcc-4x": ("PCC-4x",), "results/pcc-16x": ("PCC-16x",)},
}


def commands(page: Path) -> list[str]:
    blocks = [text for language, text in BLOCK.findall(page.read_text("utf-8")) if language in ("", "sh", "bash")]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    words = [re.sub(r"\s+", " ", line).strip() for line in lines]
    return [line for line in words if re.sub(r"^(\w+=\S+ )+", "", line).startswith(tuple(f"{p} " for p in PROGRAMS))]


def reason(command: str) -> str | None:
    plain = re.sub(r"^(\w+=\S+ )+", "", " ".join(shlex.split(command, comments=True)))
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, plain)), None)


RUN = {page: [line for line in commands(page) if reason(line) is None] for page in PAGES}


@pytest.fixture
def _quick_lm_eval(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Our tasks without lm-eval's thousands, and no log handler that outlives a test's captured stream."""
    manager = lm_eval.tasks.TaskManager

    def ours(include_path: Any = None, metadata: Any = None, include_defaults: bool = False) -> Any:
        return manager(include_path=str(ROOT / "tasks"), include_defaults=False, metadata=metadata)

    monkeypatch.setattr(lm_eval.tasks, "TaskManager", ours)
    monkeypatch.setattr(lm_eval.utils, "setup_logging", lambda *_, **__: None)
    yield
    logging.getLogger().handlers = [h for h in logging.getLogger().handlers if "pytest" in type(h).__module__]


def typed(command: str, models: Path) -> list[str]:
    """Arguments of `pcc-bench`, with few rows and folders here in place of the page's names; lm_eval's are eval's."""
    here = command.replace('"data": "FOLDER"', f'"data": "{DATA}"')
    for name, folder in PLACES.items():
        here = re.sub(rf"(?<![\w/]){re.escape(name)}(?![\w])", str(models / folder), here)
    program, *words = shlex.split(here, comments=True)
    words = ["eval", *words] if program == "lm_eval" else words
    if words[0] == "eval":
        place = words.index("--metadata") if "--metadata" in words else None
        metadata = {"population": "all"} | (json.loads(words[place + 1]) if place is not None else {})
        if place is not None:
            del words[place : place + 2]
        if here != command:  # models that are none of the lab's
            metadata = {"data": str(DATA)} | metadata
        words += ["--metadata", json.dumps(metadata)]
        words += [] if "--limit" in words else ["--limit", "2"]
        words += [] if "--output" in words else ["--output", f"results/{zlib.crc32(command.encode())}"]
    return words


@pytest.mark.usefixtures("_quick_lm_eval")
@pytest.mark.parametrize("page", [page for page in PAGES if RUN[page]], ids=lambda page: page.name)
def test_the_commands_of_a_page_run_one_after_the_other(
    page: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("article.txt", "book.txt"):
        Path(name).write_text("The captain is Ann Hill. She wrote it in May, in a house by the sea.", "utf-8")
    lab = Path(cli.__file__).parents[1] / "lab" / "results" / "lab-table2"
    for folder, cells in RESULTS.items():
        for cell in (cell for name in cells for cell in lab.glob(f"{name}-????????")):
            shutil.copytree(cell, tmp_path / folder / cell.name)
        for questions in lab.glob("questions_*"):
            shutil.copy(questions, tmp_path / folder)
    for command in RUN[page]:
        code: Any = 0
        try:
            cli.main(typed(command, models))
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        assert not code, f"{command}\n{said.err or said.out}"


NOT_READ = {  # blocks that are no commands, by language: why no test reads them
    "bibtex": "a reference",
    "mermaid": "a drawing: mkdocs",
    "python": "run by tests/test_readme.py",
}
OTHERS = [
    pytest.param(language, text, id=f"{page.name}-{text.splitlines()[0].split()[0]}")
    for page in PAGES
    for language, text in BLOCK.findall(page.read_text("utf-8"))
    if language not in ("", "sh", "bash", *NOT_READ)
]


@pytest.mark.parametrize(("language", "text"), OTHERS)
def test_a_file_that_a_page_shows_is_one(
    language: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert language == "yaml"
    path = tmp_path / "file.yaml"
    path.write_text(text, "utf-8")
    state = read_yaml(path)
    if "cells" in state:
        labels = [cell.label for cell in Suite.read(str(path)).plan(tmp_path / "out", Settings())]
        assert len(labels) == 5, labels
    elif "alpha" in state:
        assert Policy.read(path) == Policy()  # "these are the defaults"
    elif "pattern" in state:
        maps = maps_of(str(path))
        assert maps is not None
        assert maps.of(state["tasks"].replace("*", "1"))
    elif "jobs" in state:  # GitHub's
        (job,) = state["jobs"].values()
        called = read_yaml(ROOT / ".github" / job["uses"].split("/.github/")[1].split("@")[0])
        inputs = called.get("on", called.get(True))["workflow_call"]["inputs"]  # YAML 1.1 takes "on" for true
        required = {name for name, options in inputs.items() if options.get("required")}
        assert required <= set(job["with"]) <= set(inputs)
    else:  # GitLab's
        (job,) = state.values()
        for line in job["script"]:
            program, verb, *words = shlex.split(line)
            if program == "pip":
                continue
            with pytest.raises(SystemExit):
                cli.main([verb, "--help"])
            shown = capsys.readouterr().out
            assert all(word in shown for word in words if word.startswith("--")), line


def test_the_list_of_what_is_not_run_is_short_and_in_use() -> None:
    lines = [line for page in PAGES for line in commands(page)]
    unused = [pattern for pattern in NOT_RUN if not any(reason(line) == NOT_RUN[pattern] for line in lines)]
    assert not unused, unused
    assert sum(reason(line) is None for line in lines) >= 25
    for why in NOT_RUN.values():
        for test in re.findall(r"tests/\w+\.py", why):
            assert (ROOT / test).is_file(), test
