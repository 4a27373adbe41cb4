"""The project's scores load as `evaluate` modules from their folder, without a network, and say what the tasks say."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import evaluate
import pytest

from pcc_bench.tasks.metrics.gsm8k_answers.gsm8k_answers import EXTRACTIONS
from pcc_bench.tasks.pretraining import CLASSES, score_text

METRICS = Path(__file__).parent.parent / "tasks" / "metrics"
NAMES = sorted(path.name for path in METRICS.iterdir() if (path / f"{path.name}.py").is_file())
INPUTS: dict[str, dict[str, Any]] = {
    "achieved_compression": {"predictions": [96, 4], "boundary": [4, 1], "references": [400, 10]},
    "gsm8k_answers": {"predictions": ["So it is 18..."], "references": ["9 + 9 = 18\n#### 18"]},
    "perplexity": {"predictions": [-6.0, -2.0], "tokens": [3, 1], "references": ["Prag\u00fce", "cat"]},
    "squad_answers": {"predictions": ["Marta"], "references": [["Ilves", "the Marta"]]},
    "text_overlap": {"predictions": ["Rose is a pilot in Oslo."], "references": ["Rose is a pilot in Rome."]},
}
ELSEWHERE = """
import json, sys, evaluate
print(json.dumps(evaluate.load(sys.argv[1]).compute(**json.loads(sys.argv[2]))))
assert "pcc_bench" not in sys.modules
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_of_the_folder_loads_offline_without_this_package(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(METRICS / name, tmp_path / name)
    settings = {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", ELSEWHERE, str(folder), json.dumps(INPUTS[name])]
    ended = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == load(name).compute(**INPUTS[name])


def load(name: str) -> Any:
    return evaluate.load(str(METRICS / name))


def test_protocols_differ_in_the_references() -> None:
    metric = load("squad_answers")
    assert metric.compute(**INPUTS["squad_answers"]) == {"exact_match": 1.0, "f1": 1.0, "contains": 1.0}
    assert metric.compute(**INPUTS["squad_answers"], protocol="official")["exact_match"] == 0.0
    with pytest.raises(ValueError, match="one of strict, official"):
        metric.compute(**INPUTS["squad_answers"], protocol="offcial")


def test_extractions_differ_in_what_is_a_number() -> None:
    metric = load("gsm8k_answers")
    right = {name: metric.compute(**INPUTS["gsm8k_answers"], extraction=name)["exact_match"] for name in EXTRACTIONS}
    assert right == {"strict-match": 0.0, "flexible-extract": 0.0, "pcc-number": 1.0}
    with pytest.raises(ValueError, match="one of strict-match"):
        metric.compute(**INPUTS["gsm8k_answers"], extraction="last")


def test_texts_score_as_in_the_reconstruction_task() -> None:
    (answer,), (reference,) = INPUTS["text_overlap"].values()
    task = score_text({"document": reference, "classes": {name: [] for name in CLASSES}}, [answer])
    own = load("text_overlap").compute(**INPUTS["text_overlap"])
    assert {name: own[name] for name in ("bleu_sentence", "bleu_official", "rougeL")} == {
        name: task[name] for name in ("bleu_sentence", "bleu_official", "rougeL")
    }
    assert 50 < own["bleu"] < 100


def test_perplexity_and_compression_by_hand() -> None:
    assert load("perplexity").compute(**INPUTS["perplexity"]) == {
        "perplexity": pytest.approx(math.exp(8 / 4)),
        "byte_perplexity": pytest.approx(math.exp(8 / 10)),
    }
    assert load("achieved_compression").compute(**INPUTS["achieved_compression"]) == {"compression": 410 / 105}


def test_the_readme_of_the_scores_prints_what_it_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (METRICS / "README.md").read_text("utf-8")
    ((code, output),) = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(METRICS.parent.parent)
    exec(code, {})
    assert capsys.readouterr().out == output
    assert sorted(re.findall(r"^\| `(\w+)`", text, re.MULTILINE)) == NAMES
