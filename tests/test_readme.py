"""What the README says can be typed and runs."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from pcc_bench import cli
from pcc_bench.core import registry
from pcc_bench.host import inventory, settings
from pcc_bench.reports import report

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
README = PAGES[0].read_text(encoding="utf-8")
TEXTS = {path: path.read_text(encoding="utf-8").replace("\\\n", " ") for path in PAGES}
COMMANDS = [
    line
    for text in TEXTS.values()
    for line in map(str.strip, text.splitlines())
    if line.startswith(("pcc-bench ", "lm_eval ", "accelerate "))
]


def test_the_python_example_prints_what_the_readme_says(capsys: pytest.CaptureFixture[str]) -> None:
    ((code, output),) = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) == 5
    exec(code, {})
    assert capsys.readouterr().out == output


def test_every_verb_and_option_of_the_readme_exists(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [shlex.split(line, comments=True) for line in COMMANDS if line.startswith("pcc-bench ")]
    assert {"eval", "compress", "validate", "ls", "train", "run", "gate", "baseline"} <= {words[1] for words in lines}
    for _, verb, *words in lines:
        path = [verb, words[0]] if verb in ("baseline", "lab") else [verb]
        with pytest.raises(SystemExit) as ended:
            cli.main([*path, "--help"])
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        for option in (word for word in words if word.startswith("--")):
            assert option in shown, f"{verb} {option}"


def test_every_method_of_the_readme_exists() -> None:
    named = {word for line in COMMANDS for word in re.findall(r"--model ([\w-]+)", line)}
    assert named
    assert named <= {*registry.names(), "hf"}


def test_every_method_is_in_the_table_of_methods() -> None:
    table = README.split("## Methods")[1].split("\n\nSoft memories")[0]
    first_cells = [
        line.split("|")[1] for line in table.splitlines() if line.startswith("| `") and "--model" not in line
    ]
    assert sorted(re.findall(r"`([\w-]+)`", " ".join(first_cells))) == sorted(registry.METHODS)


def test_every_task_suite_and_recipe_that_is_named_exists() -> None:
    tasks = set(settings.task_names())
    suites = {str(row[0]) for row in inventory.suites().rows}
    recipes = {str(row[0]) for row in inventory.recipes().rows}
    for line in COMMANDS:
        words = shlex.split(line, comments=True)
        given = [words[i + 1].split(",") for i, word in enumerate(words) if word == "--tasks"]
        if "compress" not in line:  # then tasks are lm-eval's own
            assert {task for names in given for task in names} <= tasks, line
        if words[:2] == ["pcc-bench", "run"]:
            assert words[2] in suites, line
        if "train" in words and not (recipe := words[words.index("train") + 1]).endswith(".yaml"):
            assert recipe in recipes, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    headings = {
        path: [_anchor(line) for line in text.splitlines() if line.startswith("#")] for path, text in TEXTS.items()
    }
    for link in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in headings[target], f"{page.name}: {link}"


def real_rows(text: str) -> dict[str, list[str]]:
    """Cells of the rows of tables in Markdown, by the first without what is in parentheses or code."""
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return {re.sub(r" \(.*|, the ceiling", "", row[0]): row[1:] for row in rows}


def test_the_real_numbers_are_those_of_the_results_that_ship() -> None:
    known = real_rows(TEXTS[ROOT / "docs" / "real.md"])
    shipped = (ROOT / "pcc_bench" / "suites" / "results" / "real-table2").iterdir()
    folders = sorted(path for path in shipped if path.is_dir())
    assert len(folders) == 11
    for folder in folders:
        (path,) = folder.glob("*/results_*.json")
        scores = json.loads(path.read_text("utf-8"))["results"]
        label = folder.name.rsplit("-", 1)[0].replace("-", " ").replace("full context tuned", "tuned context")
        label = re.sub(" tuned$", ", tuned", label).replace("LLMLingua 2", "LLMLingua-2")
        shown = [
            f"{100 * scores[task]['f1,none']:.1f} ± {100 * scores[task]['f1_stderr,none']:.1f}"
            for task in ("pcc_squad", "pcc_adversarialqa")
        ]
        assert known[label][1:3] == shown, label


def test_the_real_numbers_of_the_readme_are_those_of_their_page() -> None:
    shown = real_rows(README.split("<!-- real:")[1].split("<!-- /real -->")[0])
    known = real_rows(TEXTS[ROOT / "docs" / "real.md"])
    shown.pop("---"), shown.pop("method")
    ceiling = float(shown["tuned context"][1].split()[0])
    assert len(shown) == 5
    for method, (achieved, f1, share) in shown.items():
        assert [achieved, f1] == known[method][:2], method
        assert round(100 * float(f1.split()[0]) / ceiling) == int(share), method


PYTHON = [
    pytest.param(code, id=f"{path.name}-{number}")
    for path, text in TEXTS.items()
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    if path.name != "README.md"
]


@pytest.mark.parametrize("code", PYTHON)
def test_python_of_the_pages_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for cell in (report.shipped() / "lab-table2").glob("PCC-*"):
        shutil.copytree(cell, tmp_path / "results" / cell.name)
    for questions in (report.shipped() / "lab-table2").glob("questions_*"):
        shutil.copy(questions, tmp_path / "results")
    exec(code, {})


def test_no_word_is_misspelt() -> None:
    codespell = pytest.importorskip("codespell_lib", reason="codespell is not installed")
    pages = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "tasks").glob("*/README.md")]
    assert codespell.main("-L", "rouge,ording", *map(str, pages)) == 0


def test_the_site_shows_every_page() -> None:
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert {path.name for path in PAGES[1:]} == set(re.findall(r"[\w-]+\.md", site))


def test_every_script_that_is_named_exists() -> None:
    scripts = {script for text in TEXTS.values() for script in re.findall(r"benchmarks/\w+\.py", text)}
    assert scripts
    assert all((ROOT / script).is_file() for script in scripts)


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lstrip("# ").lower()).replace(" ", "-")
