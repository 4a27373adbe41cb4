"""What `pcc-bench eval` changes about lm-eval's run, and the defaults that it shares with `validate`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lm_eval.tasks
import lm_eval.utils
import pytest

from pcc_bench import cli
from pcc_bench.core import shipped
from pcc_bench.core.errors import UsageError
from pcc_bench.host import evaluate, validate
from pcc_bench.host.evaluate import Command, kept_answers, with_setting


@pytest.fixture
def managers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[bool]]:
    """Outside a repository, without PCC_DATA: whether each TaskManager of lm-eval reads lm-eval's own tasks."""
    seen: list[bool] = []
    initialise = lm_eval.tasks.TaskManager.__init__

    def note(self: Any, *args: Any, include_defaults: bool = True, **kwargs: Any) -> None:
        seen.append(include_defaults)
        initialise(self, *args, include_defaults=include_defaults, **kwargs)

    monkeypatch.setattr(lm_eval.tasks.TaskManager, "__init__", note)
    monkeypatch.setattr(lm_eval.utils, "setup_logging", lambda *_, **__: None)
    monkeypatch.delenv("PCC_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    yield seen
    logging.getLogger("lm_eval.api.model").filters.clear()


def test_an_evaluation_reads_our_tasks_only_and_is_named_by_its_checkpoint(
    managers: list[bool], tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    words = ["eval", "--model", "pcc", "--tasks", "pcc_squad", "--limit", "2", "--device", "cpu", "-o", "out"]
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        assert ended.value.code == 0
    assert managers == [False, False]
    assert {path.parent.name for path in (tmp_path / "out").rglob("results_*.json")} == {shipped.DEFAULT}
    said = caplog.text + "".join(capfd.readouterr())
    assert "not a git repository" not in said
    assert "Cached requests:" not in said
    assert kept_answers(tmp_path / "out") == 2


def test_an_interrupted_run_says_what_is_kept(
    managers: list[bool], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(command: Command) -> list[Path]:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "run", interrupt)
    with pytest.raises(SystemExit) as ended:
        cli.main(["eval", "--model", "pcc", "--tasks", "pcc_squad", "-o", "out"])
    assert ended.value.code == 130
    assert "stopped: 0 answers are kept in out; the same command goes on" in capsys.readouterr().err


def test_validate_takes_the_defaults_of_an_evaluation(managers: list[bool]) -> None:
    report = validate.validate("pcc", "", "pcc_squad")
    assert report.holds
    says = {check.what: check.says for check in report.checks}
    assert shipped.DEFAULT in says["checkpoint"]
    assert "the lab's squad" in says["task pcc_squad"]


def test_settings_join_in_either_form() -> None:
    assert with_setting(None, "data", "lab") == "data=lab"
    assert with_setting("a=b", "data", "lab") == "a=b,data=lab"
    assert with_setting('{"a": 1}', "data", "lab") == '{"a": 1, "data": "lab"}'
    assert with_setting("a=b", "data", None) == "a=b"
    for text in ("data=hub", '{"data": "hub"}'):
        with pytest.raises(UsageError, match="data is set twice"):
            with_setting(text, "data", "lab")
