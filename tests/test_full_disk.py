"""Commands whose files can't grow end with one sentence, leave the old files whole, and go on where there is room."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parent.parent / "benchmarks" / "faults"
VERBS = ("freeze", "gate", "pack", "init", "convert --to own", "convert --to published", "prompt")


@pytest.fixture(scope="module")
def full_disk() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        yield importlib.import_module("full_disk")


@pytest.fixture(scope="module")
def verbs(full_disk: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("disks")
    importlib.import_module("verbs").make_inputs(root)
    return {verb.name: verb for verb in (*full_disk.verbs(root), *full_disk.short_verbs(root))}


@pytest.fixture
def disk(full_disk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder whose files have a largest size, as anywhere a disk can't be mounted."""
    monkeypatch.setattr(full_disk.Disk, "_mount", lambda self, *words: False)
    return full_disk.Disk(tmp_path / "disk")


@pytest.mark.parametrize("name", VERBS)
def test_a_full_disk_is_one_sentence_and_costs_no_old_file(
    full_disk: Any, verbs: dict[str, Any], disk: Any, name: str
) -> None:
    old, whole, _, size = full_disk.reference(verbs[name], disk)
    assert full_disk.trial(verbs[name], disk, old, whole, size // 2) == (2, "")


def test_a_writer_that_breaks_is_noticed(full_disk: Any, verbs: dict[str, Any], disk: Any) -> None:
    verb = verbs["freeze"]
    old, whole, _, size = full_disk.reference(verb, disk)

    def torn(folder: Path) -> Any:
        (folder / "baseline.json.xz").write_text("{")
        return verb.words(folder)

    status, says = full_disk.trial(replace(verb, words=torn), disk, old, whole, size // 2)
    assert status == 2 and says == "neither old nor new: ['baseline.json.xz']"
