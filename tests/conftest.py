"""Shared fixtures: tiny random models with a real tokenizer, made once a session. Tests never touch the network."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests run in several processes, and the models are tiny

import pytest
import torch
from lm_eval.tasks import manager
from torch.utils import collect_env

from pcc_bench.core import tiny
from pcc_bench.model import checkpoint, init

# In a fork torch renews its pool of threads when it is first asked for; of several threads that ask at once, one fails.
os.register_at_fork(after_in_child=lambda: torch.set_num_threads(torch.get_num_threads()))

SAMPLE = Path(__file__).parent / "fixtures" / "sample"  # a data folder of 24 real SQuAD rows


@pytest.fixture(autouse=True)
def _one_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _lean_lm_eval(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """In this process lm-eval reads none of its own thousands of tasks, and describes the machine only once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manager, "__file__", str(tmp_path_factory.mktemp("tasks") / "manager.py"))
        patch.setattr(collect_env, "get_pretty_env_info", cache(collect_env.get_pretty_env_info))
        yield


@pytest.fixture(scope="session")
def rows() -> list[dict[str, Any]]:
    """Real SQuAD rows that ship with the project."""
    return [json.loads(line) for line in (SAMPLE / "squad" / "validation.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> Path:
    """A folder with one tiny decoder a family, a Lite encoder, and PCC checkpoints `pcc` (4x, 16x) and `pcc-large`."""
    root = tmp_path_factory.mktemp("models")
    texts = [row["context"] for row in rows]
    for family in tiny.FAMILIES:
        tokenizer = tiny.make_tokenizer(texts, 1024, adds_bos=family not in ("gpt2", "qwen2"))
        tiny.make_model(family, tokenizer, root / family, window=4096)
    tiny.make_model("gpt2", tiny.make_tokenizer(texts, 1024, adds_bos=False), root / "encoder", width=48, window=512)
    decoder = init.open_decoder(str(root / "llama"))
    lite = init.fresh(str(root / "encoder"), decoder, [4, 16], root / "pcc")
    checkpoint.save(lite, root / "pcc")
    large = init.fresh(str(root / "llama"), decoder, [4], root / "pcc-large", lora_rank=8)
    checkpoint.save(large, root / "pcc-large")
    return root
