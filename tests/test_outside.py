"""What it takes to add a method, a task and a table: of another package nothing here, in here a file and a row."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SAMPLE

CODE = """
from pcc_bench.baselines.hard import HardCompressor
from pcc_bench.reports.table import Cell, Column, Row, Table
from pcc_bench.tasks.rows import Example


class FirstWords(HardCompressor):
    name, label, rate = "first-words", "first words", 4

    @classmethod
    def load(cls, pretrained, decoder):
        return cls(decoder)

    def fingerprint(self):
        return "first-words"

    def shorten(self, context):
        words = context.split()
        return " ".join(words[: len(words) // 4])


def read(row):
    return Example(row["passage"], row["ask"], [row["reply"]], str(row["number"]))


def places(results):
    rows = tuple(Row(key=run.id, label=run.id, method=run.method, runs=(run.id,)) for run in results.runs)
    cells = tuple((Cell(value=float(len(run.tasks))),) for run in results.runs)
    columns = (Column(key="tasks", name="tasks"),)
    return Table(key="places", title="Tasks of a run", columns=columns, rows=rows, cells=cells)
"""
YAML = """
include: {tasks}/_rag_yaml
task: harbour
read_row: !function outside.read
metadata: {{version: 1.0, compress: {{context: " "}}, dataset: harbour, split: validation}}
"""
POINTS = """
[pcc_bench.compressors]
first-words = outside:FirstWords
[lm_eval.models]
first-words = pcc_bench.host.models:first_words
[pcc_bench.tables]
places = outside:places
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    import pcc_bench.tasks

    (tmp_path / "outside.py").write_text(CODE)
    (tmp_path / "outside-1.0.dist-info").mkdir()
    (tmp_path / "outside-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (tmp_path / "outside-1.0.dist-info" / "entry_points.txt").write_text(POINTS)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "outside.py").write_text(CODE)
    (tmp_path / "tasks" / "harbour.yaml").write_text(YAML.format(tasks=pcc_bench.tasks.__path__[0]))
    (tmp_path / "data" / "harbour").mkdir(parents=True)
    rows = [{"number": n, "passage": f"Boat {n} is red. " * 40, "ask": "What is it?", "reply": "red"} for n in range(3)]
    (tmp_path / "data" / "harbour" / "validation.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def said(folder: Path, *words: object) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "pcc_bench.cli", *map(str, words)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-2000:]
    return done.stdout


def test_a_method_a_task_and_a_table_of_another_package_need_nothing_here(folder: Path) -> None:
    assert "first-words" in said(folder, "ls", "methods")
    options = ["--model", "first-words", "--model-args", "pretrained=lab-llama,dtype=float32", "--tasks", "harbour"]
    options += ["--metadata", '{"data": "data", "population": "all"}', "--output", "out"]
    assert "harbour" in said(folder, "eval", *options, "--", "--include_path", "tasks")
    (result,) = (folder / "out").rglob("results_*.json")
    state = json.loads(result.read_text())
    assert state["config"]["pcc_bench"]["method"] == "first-words"
    assert state["results"]["harbour"]["sample_len"] == 3 and state["results"]["harbour"]["compression,none"] > 3
    assert "places" in said(folder, "report", "out", "--output", "page")
    assert "Tasks of a run" in (folder / "page" / "index.html").read_text()
    assert ",1" in (folder / "page" / "tables" / "places.csv").read_text()


def test_a_method_in_here_is_one_new_file_and_one_row(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    checkout = tmp_path / "checkout"
    for folder in ("baselines", "model", "pcc_bench", "reports", "tasks"):
        shutil.copytree(root / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__", "checkpoints"))
    (checkout / "baselines" / "first_words.py").write_text(CODE)
    registry, rows = checkout / "pcc_bench" / "core" / "registry.py", "METHODS: dict[str, str] = {\n"
    text = registry.read_text()
    assert text.count(rows) == 1
    registry.write_text(text.replace(rows, f'{rows}    "first-words": "pcc_bench.baselines.first_words:FirstWords",\n'))
    assert "first-words" in said(checkout, "ls", "methods")
    options = ["--model", "first-words", "--model-args", "pretrained=lab-llama,dtype=float32", "--limit", 4]
    options += ["--metadata", json.dumps({"data": str(SAMPLE), "population": "all"}), "--output", tmp_path / "out"]
    assert "first-words" in said(checkout, "eval", *options, "--tasks", "pcc_squad")
    said(checkout, "report", tmp_path / "out", "--output", tmp_path / "page")
    assert "first words" in (tmp_path / "page" / "tables" / "table2.md").read_text()
