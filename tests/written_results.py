"""Writes result files in lm-eval's format from row scores that a test chooses."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Scores = Mapping[str, Sequence[Any]]  # metric -> a score a row: a number, or the two parts of a ratio
DEFAULTS: dict[str, str] = {"perplexity": "weighted_perplexity", "error_number": "def ratio_of_sums(counts):\n    ..."}
POPULATION = {"source": "lab", "fingerprint": "f00", "protocol": "strict", "population": "paper"}


def write(
    folder: Path,
    method: str,
    tasks: Mapping[str, Scores],
    rate: float | None = None,
    checkpoint: str = "some/checkpoint",
    decoder: str = "some/decoder",
    per_context: int = 2,
    stamp: str = "2026-01-01T00-00-00",
    date: float = 1.8e9,
    seed: int = 0,
    population: Mapping[str, Any] = POPULATION,
    zipped: bool = False,
    samples: bool = True,
    **ours: Any,
) -> Path:
    """A result file and its samples; `per_context` rows ask about the same context."""
    folder.mkdir(parents=True, exist_ok=True)
    results, configs = {}, {}
    for task, scores in tasks.items():
        count = len(next(iter(scores.values())))
        lines = [
            sample(row, method, rate, {key: scores[key][row] for key in scores}, per_context) for row in range(count)
        ]
        accounts = [line["compression"] for line in lines]
        found = {f"{key},none": aggregate(key, values) for key, values in scores.items()}
        found |= {f"{key}_stderr,none": 0.01 for key in scores}
        results[task] = {"sample_len": count, **found, "compression,none": ratio(accounts)}
        configs[task] = {
            "metadata": {"compress": {"context": "\n\n"}, "population": dict(population)},
            "metric_list": [{"metric": key, "aggregation": DEFAULTS.get(key, "mean")} for key in scores],
        }
        if samples:
            save(folder / f"samples_{task}_{stamp}.jsonl", lines, zipped)
    prints = {"compressor": f"{checkpoint} {rate}", "decoder_weights": decoder, "checkpoint": checkpoint}
    reported = {"schema_version": 1, "method": method, "control": None, "requested_rate": rate, "decoder": decoder}
    reported |= {"fingerprints": prints, "options": {}, **ours}
    config = {"model": method, "model_args": {"pretrained": checkpoint}, "random_seed": seed, "pcc_bench": reported}
    higher = {task: {key: key not in DEFAULTS for key in scores} for task, scores in tasks.items()}
    data = {"results": results, "configs": configs, "config": config, "higher_is_better": higher, "date": date}
    data |= {"versions": dict.fromkeys(tasks, 1), "n-shot": dict.fromkeys(tasks, 0)}
    path = folder / f"results_{stamp}.json"
    path.write_text(json.dumps(data), "utf-8")
    return path


def aggregate(metric: str, values: Sequence[Any]) -> float:
    """What lm-eval writes for a metric."""
    if metric in DEFAULTS:
        mean = sum(top for top, _ in values) / sum(of for _, of in values)
        return math.exp(-mean) if metric == "perplexity" else mean
    return sum(values) / len(values)


def sample(row: int, method: str, rate: float | None, scores: Mapping[str, Any], per_context: int) -> dict[str, Any]:
    """A line of samples; contexts grow with their number."""
    number = row // per_context
    tokens = 100 + number
    slots = {"full-context": tokens, "no-context": 0}.get(method, math.ceil(tokens / (rate or 1)))
    return {
        "doc_id": row,
        "doc": {"context": f"context {number}", "question": f"question {row}", "answers": [f"answer {row}"]},
        "target": f"answer {row}",
        "arguments": {"gen_args_0": {"arg_0": f"context {number}\n\nquestion {row}"}},
        "resps": [[f" said {row}"]],
        "filtered_resps": [f" said {row}"],
        "filter": "none",
        "metrics": [*scores],
        **{key: f"{key} {row}" for key in ("doc_hash", "prompt_hash", "target_hash")},
        **scores,
        "compression": {"source_tokens": tokens, "slots": slots, "boundary": 2 if rate and rate > 1 else 0},
    }


def ratio(accounts: Sequence[Mapping[str, Any]]) -> float:
    """Achieved compression as lm-eval writes it."""
    positions = sum(account["slots"] + account["boundary"] for account in accounts)
    return sum(account["source_tokens"] for account in accounts) / positions if positions else math.nan


def save(path: Path, lines: Sequence[Mapping[str, Any]], zipped: bool) -> None:
    """A file of samples, compressed or not."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    if zipped:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, "utf-8")


def right(share: float, rows: int, seed: int) -> list[float]:
    """Right (1) and wrong (0) answers."""
    return np.random.default_rng(seed).binomial(1, share, rows).astype(float).tolist()


def questions(share: float, rows: int = 60, seed: int = 0) -> dict[str, Scores]:
    """Scores on Table 2's four sets."""
    sets = ("pcc_squad", "pcc_hotpotqa", "pcc_adversarialqa", "pcc_nq")
    made = {}
    for number, name in enumerate(sets):
        exact = right(share, rows, seed + number)
        f1 = [
            max(score, 0.25 * other) for score, other in zip(exact, right(0.5, rows, seed + number + 10), strict=True)
        ]
        made[name] = {"exact_match": exact, "f1": f1, "contains": exact}
    return made
