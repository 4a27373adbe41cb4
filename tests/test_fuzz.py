"""A few hundred of the mutations of `benchmarks/fuzz.py`: none is a traceback, nothing wrong passes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pcc_bench.host import compressing

TRIES = 20


def _module() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks" / "fuzz.py"
    spec = importlib.util.spec_from_file_location("fuzz", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


fuzz = _module()


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with compressing.quiet():
        return {kind.name: kind for kind in fuzz.kinds(tmp_path_factory.mktemp("fuzz"))}


NAMES = [
    *("checkpoint: config.json", "checkpoint: weights", "checkpoint: tokenizer.json"),
    *("LoRA checkpoint: config.json", "LoRA checkpoint: weights", "published: converter", "published: config.json"),
    *("decoder: config.json", "decoder: weights", "memory file", "recipe", "suite", "policy"),
    *("store: exact", "store: int8", "results", "results: report", "samples", "baseline", "data rows"),
    *("option string: model_args", "option string: metadata", "option string: gen_kwargs"),
]


def test_every_kind_is_tried(kinds: dict[str, Any]) -> None:
    assert list(kinds) and set(kinds) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_no_mutation_is_a_traceback_or_passes_in_silence(kinds: dict[str, Any], name: str) -> None:
    kinds[name].read()  # the good file is good
    tries = 5 if name == "results: report" else TRIES  # a whole report each
    done = fuzz.fuzz(kinds[name], tries, seed=1)
    assert done.tries > tries // 2
    assert (done.tracebacks, done.silent, done.slow) == ([], [], [])


def test_a_reader_that_breaks_is_found(kinds: dict[str, Any]) -> None:
    kind = kinds["recipe"]
    broken = fuzz.Kind(kind.name, kind.path, kind.mutate, lambda: [].pop())
    assert len(fuzz.fuzz(broken, 5, seed=1).tracebacks) == 5
    taken = fuzz.Kind(kind.name, kind.path, lambda path, draw: bool(path.write_text("x: 1")), lambda: None, True)
    assert fuzz.fuzz(taken, 1, seed=1).silent
