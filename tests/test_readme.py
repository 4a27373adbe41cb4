"""What the README says can be typed and runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pcc_bench import cli, registry

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for line in README.splitlines() if line.startswith(("pcc-bench ", "lm_eval ", "accelerate "))]


def test_the_python_example_runs(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    code = code.replace('"DECODER"', repr(str(models / "llama"))).replace('"CHECKPOINT"', repr(str(models / "pcc")))
    exec(code, {})
    slots = capsys.readouterr().out.split()[0]
    assert slots == "64"  # one segment at 4x


def test_every_verb_and_option_of_the_readme_exists(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [shlex.split(line, comments=True) for line in COMMANDS if line.startswith("pcc-bench ")]
    assert {"eval", "compress", "validate", "ls", "train"} <= {words[1] for words in lines}
    for _, verb, *words in lines:
        with pytest.raises(SystemExit) as ended:
            cli.main([verb, "--help"])
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        for option in (word for word in words if word.startswith("--")):
            assert option in shown, f"{verb} {option}"


def test_every_method_of_the_readme_exists() -> None:
    named = {word for line in COMMANDS for word in re.findall(r"--model ([\w-]+)", line)}
    assert named
    assert named <= set(registry.names())
