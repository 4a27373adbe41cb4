"""A few hundred of the mutations of `benchmarks/faults/fuzz.py`: none is a traceback, nothing wrong passes."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pcc_bench.host import compressing

SCRIPTS = Path(__file__).parent.parent / "benchmarks" / "faults"
TRIES = 10
NAMES = [
    *("checkpoint: config.json", "checkpoint: weights", "checkpoint: 8-bit weights", "checkpoint: tokenizer.json"),
    *("LoRA checkpoint: config.json", "LoRA checkpoint: weights", "published: converter", "published: config.json"),
    *("decoder: config.json", "decoder: weights"),
    *(
        "autocompressor: adapter_config.json",
        "autocompressor: config.json",
        "autocompressor: adapter_model.safetensors",
    ),
    *("cocom: config.json", "cocom: model.safetensors", "icae: config.json", "icae: model.safetensors"),
    *("llmlingua2: config.json", "llmlingua2: tokenizer.json", "llmlingua2: model.safetensors"),
    *("memory file", "recipe", "suite", "policy", "store: exact", "store: int8"),
    *("results", "results: report", "samples", "samples: report", "questions", "baseline", "costs", "data rows"),
    *("option string: model_args", "option string: metadata", "option string: gen_kwargs"),
]


@pytest.fixture(scope="module")
def fuzz() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        return importlib.import_module("fuzz")


@pytest.fixture(scope="module")
def kinds(fuzz: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with compressing.quiet():
        return {kind.name: kind for kind in fuzz.all_kinds(tmp_path_factory.mktemp("fuzz"))}


def test_every_kind_is_tried(kinds: dict[str, Any]) -> None:
    assert list(kinds) and set(kinds) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_no_mutation_is_a_traceback_or_passes_in_silence(fuzz: Any, kinds: dict[str, Any], name: str) -> None:
    kinds[name].read()  # the good file is good
    tries = max(2, int(TRIES * kinds[name].share))
    done = fuzz.fuzz(kinds[name], tries, seed=1)
    assert done.tries >= tries // 2
    assert not done.wrong


def test_a_reader_that_breaks_is_noticed(fuzz: Any, kinds: dict[str, Any]) -> None:
    broken = replace(kinds["recipe"], read=lambda: [].pop())
    assert len(fuzz.fuzz(broken, 5, seed=1).tracebacks) == 5
    credulous = replace(kinds["recipe"], mutate=lambda path, draw: bool(path.write_text("x: 1")), read=lambda: None)
    assert fuzz.fuzz(credulous, 1, seed=1).silent
