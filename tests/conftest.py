"""Shared fixtures: tiny random models with a real tokenizer, made once a session. Tests never touch the network."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

from pcc_bench.model import checkpoint, init, tiny

SAMPLE = Path(__file__).parent.parent / "tasks" / "sample"


@pytest.fixture(autouse=True)
def _one_seed() -> None:
    torch.manual_seed(0)


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
