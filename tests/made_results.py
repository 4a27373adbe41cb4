"""Result folders as lm-eval and `pcc-bench train` write them; texts, scores and accounts are invented."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from result_files import POPULATION, Task, write_run

SETS = ("squad", "hotpotqa", "adversarialqa", "nq")
# label -> method, rate, checkpoint, share of right answers
METHODS: dict[str, tuple[str, float | None, str, float]] = {
    "full": ("full-context", 1.0, "decoder", 0.8),
    "none": ("no-context", None, "decoder", 0.15),
    "lite-4": ("pcc", 4.0, "pcc-lite-4x", 0.7),
    "lite-16": ("pcc", 16.0, "pcc-lite-16x", 0.5),
    "lite-64": ("pcc", 64.0, "pcc-lite-64x", 0.3),
    "icae-4": ("icae", 4.0, "icae", 0.5),
}
HOSTILE = '<b>bold</b> </script><script>window.hacked = 1</script> <!-- \u2028 {{ 7 * 7 }} & "quoted"'
ERRORS = ("error_word", "error_number", "error_date", "error_name", "error_rare", "error_boundary")


def make(folder: Path, rows: int = 24, methods: Sequence[str] = tuple(METHODS)) -> Path:
    """Results of some methods on Table 2's sets, reconstruction and needles, and two training logs."""
    for label in methods:
        tasks = {f"pcc_{name}": _questions(label, name, rows) for name in SETS}
        if label not in ("full", "none"):
            tasks |= {"pcc_reconstruction": _reconstructions(label, rows), "pcc_needle": _needles(label)}
        write_method(folder / label, label, tasks)
    for label in set(methods) & {"lite-4", "lite-16"}:
        _training(folder / "runs" / label, METHODS[label][1] or 1.0)
    return folder


def write_method(folder: Path, label: str, tasks: dict[str, list[dict[str, Any]]]) -> Path:
    """One result file with its samples."""
    method, rate, checkpoint, _ = METHODS[label]
    files = {}
    for task, samples in tasks.items():
        metrics = [key for key in samples[0] if isinstance(samples[0][key], float)]
        scores = {key: sum(row[key] for row in samples) / len(samples) for key in metrics}
        source = sum(row["compression"]["source_tokens"] for row in samples)
        positions = sum(row["compression"]["slots"] + row["compression"]["boundary"] for row in samples)
        scores["compression"] = source / positions if positions else float("nan")
        files[task] = Task(
            scores, samples, population=POPULATION | {"fingerprint": "f00d", "population": "all", "kept": 1}
        )
    ours = {
        "method": method,
        "requested_rate": rate,
        "decoder": "decoder",
        "capabilities": {"soft": method in ("pcc", "icae"), "query_aware": False, "owns_decoder": method == "icae"},
        "fingerprints": {"checkpoint": "c0ffee", "compressor": label, "decoder_weights": "d", "code": "abcd"},
        "options": {"boundaries": "segment"},
    }
    return write_run(folder, files, ours, arguments={"model_args": {"pretrained": checkpoint}, "random_seed": 0})


def context(number: int) -> str:
    """One of the texts; the first is hostile."""
    words = [f"Person {number} lives in town {number % 7}."] + ["It rained in the valley all day."] * (3 + 4 * number)
    return (HOSTILE + " " if number == 0 else "") + " ".join(words)


def _questions(label: str, name: str, rows: int) -> list[dict[str, Any]]:
    made = []
    for row in range(rows):
        chance = random.Random(f"{label} {name} {row}").random()
        right = chance < METHODS[label][3] - 0.1 * SETS.index(name)
        answer, said = f"town {row // 2 % 7}", f"town {row // 2 % 7}" if right else "the valley"
        number = row // 2
        doc = {"context": context(number), "question": f"Where does person {number} live?", "answers": [answer]}
        scores = {"exact_match": float(right), "f1": float(right) or round(chance / 3, 3), "contains": float(right)}
        made.append(_sample(row, doc, said, scores, label))
    return made


def _reconstructions(label: str, rows: int) -> list[dict[str, Any]]:
    made = []
    for row in range(rows // 2):
        quality = min(1.0, METHODS[label][3] + random.Random(f"{label} {row}").uniform(-0.2, 0.3))
        scores = {"bleu_official": quality, "token_accuracy": quality}
        scores |= {name: (1 - quality) * (0.3 + 0.1 * i) for i, name in enumerate(ERRORS)}
        made.append(_sample(row, {"context": context(row)}, "It rained.", scores, label))
    return made


def _needles(label: str) -> list[dict[str, Any]]:
    cells = [(depth, length) for depth in (0.0, 0.5, 1.0) for length in (256, 512, 1024) for _ in range(3)]
    made = []
    for row, (depth, length) in enumerate(cells):
        found = random.Random(f"{label} {row}").random() < METHODS[label][3] + 0.3 - length / 2000
        doc = {
            "context": context(row % 5),
            "question": "Which?",
            "answers": ["a cat"],
            "depth": depth,
            "length": length,
        }
        made.append(_sample(row, doc, "a cat" if found else "", {"contains": float(found)}, label))
    return made


def _sample(row: int, doc: dict[str, Any], said: str, scores: dict[str, float], label: str) -> dict[str, Any]:
    method, rate, _, _ = METHODS[label]
    tokens = len(doc["context"].split())
    segments = -(-tokens // 64)
    rate = rate if method != "full-context" else None
    slots = round(segments * 64 / rate) if rate else tokens if method == "full-context" else 0
    boundary = 2 * segments if rate else 0
    account = {"source_tokens": tokens, "slots": slots, "boundary": boundary, "prompt_positions": slots + boundary + 12}
    account |= {"ratio": tokens / (slots + boundary) if slots else None, "compress_seconds": 0.02 if rate else 0.0}
    account |= {"prefill_seconds": 0.001 * account["prompt_positions"], "decode_seconds": 0.01}
    asked = f"{doc['context']}\n\nQuestion: {doc.get('question', '')}\n\nAnswer: "
    return {
        "doc_id": row,
        "doc": doc,
        "target": str(doc.get("answers", "")),
        "arguments": {"gen_args_0": {"arg_0": asked}},
        "resps": [[said]],
        "filtered_resps": [said],
        "filter": "none",
        **scores,
        "compression": account,
    }


def _training(folder: Path, rate: float) -> None:
    folder.mkdir(parents=True)
    steps = range(0, 401, 50)
    log = [{"step": step, "loss": 6.0, "tokens_seen": 256 * step} for step in steps]
    held_out = [{"step": s, "ae_loss": rate**0.2 + 500 / (s + 100), "bleu": s / rate / 2} for s in steps]
    for name, lines in (("log", log), ("evaluation", held_out)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", "utf-8")
