"""A memory that another process saved answers as one made here, whatever the method."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import toy_cocom

from pcc_bench import ContextCompressor, cli
from pcc_bench.core import registry

TEXT = "Jack Turner lives in Prague. The pet of Jack Turner is a cat. Rose Evans works as a pilot in Oslo."
QUESTION = "What is the job of Rose Evans?"
METHODS = list(registry.METHODS)
SAVE = """
import json, sys
from pcc_bench import cli
for words in json.loads(sys.argv[1]):
    try:
        cli.main(words)
    except SystemExit as end:
        if end.code:
            raise
"""


@pytest.fixture(scope="module")
def saved(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memories")
    toy_cocom.write_pisco(folder / "pisco", models / "mistral")  # no checkpoint of PISCO ships
    (folder / "text.txt").write_text(TEXT, "utf-8")
    calls = []
    for name in METHODS:
        method = registry.get(name)
        words = [
            "compress",
            method.default or str(folder / name),
            str(folder / "text.txt"),
            "--model",
            name,
            "--device",
            "cpu",
        ]
        words += ["--query", QUESTION] if method.query_aware else []
        calls.append([*words, "--output", str(folder / f"{name}.safetensors")])
    done = subprocess.run([sys.executable, "-c", SAVE, json.dumps(calls)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_ask_reads_a_memory_of_another_process(name: str, saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    method = registry.get(name)
    memory = saved / f"{name}.safetensors"
    with pytest.raises(SystemExit) as end:
        cli.main(["ask", str(memory), QUESTION, "--device", "cpu"])
    assert not end.value.code
    pcc = ContextCompressor.from_pretrained(method.default or str(saved / name), name, device="cpu")
    expected = pcc.compress(TEXT, query=QUESTION if method.query_aware else None).answer(QUESTION)
    assert capsys.readouterr().out.strip() == expected.strip()
