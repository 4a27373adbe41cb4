"""Result files of row scores that a test chooses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from result_files import POPULATION, STAMP, Task, write_run

Scores = Mapping[str, Sequence[Any]]  # metric -> a score a row: a number, or the two parts of a ratio
DEFAULTS: dict[str, str] = {"perplexity": "weighted_perplexity", "error_number": "def ratio_of_sums(counts):\n    ..."}


def write(
    folder: Path,
    method: str,
    tasks: Mapping[str, Scores],
    rate: float | None = None,
    checkpoint: str = "some/checkpoint",
    decoder: str = "some/decoder",
    per_context: int = 2,
    stamp: str = STAMP,
    date: float = 1.8e9,
    seed: int = 0,
    population: Mapping[str, Any] = POPULATION,
    zipped: bool = False,
    samples: bool = True,
    **ours: Any,
) -> Path:
    """A result file and its samples; `per_context` rows ask about the same context."""
    files = {}
    for task, scores in tasks.items():
        count = len(next(iter(scores.values())))
        lines = [
            sample(row, method, rate, {key: scores[key][row] for key in scores}, per_context) for row in range(count)
        ]
        totals = {key: aggregate(key, values) for key, values in scores.items()} | {
            f"{key}_stderr": 0.01 for key in scores
        }
        totals["compression"] = ratio([line["compression"] for line in lines])
        files[task] = Task(totals, lines if samples else (), DEFAULTS, population, count=count)
    prints = {"compressor": f"{checkpoint} {rate}", "decoder_weights": decoder, "checkpoint": checkpoint}
    reported = {"method": method, "requested_rate": rate, "decoder": decoder, "fingerprints": prints, "options": {}}
    arguments = {"model_args": {"pretrained": checkpoint}, "random_seed": seed}
    higher = {task: {key: key not in DEFAULTS for key in scores} for task, scores in tasks.items()}
    return write_run(
        folder, files, reported | ours, stamp, zipped, arguments=arguments, higher_is_better=higher, date=date
    )


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


def right(share: float, rows: int, seed: int) -> list[float]:
    """Right (1) and wrong (0) answers."""
    return np.random.default_rng(seed).binomial(1, share, rows).astype(float).tolist()


def questions(share: float, rows: int = 60, seed: int = 0) -> dict[str, Scores]:
    """Scores on Table 2's four sets."""
    sets = ("pcc_squad", "pcc_hotpotqa", "pcc_adversarialqa", "pcc_nq")
    scores = {}
    for number, name in enumerate(sets):
        exact = right(share, rows, seed + number)
        f1 = [
            max(score, 0.25 * other) for score, other in zip(exact, right(0.5, rows, seed + number + 10), strict=True)
        ]
        scores[name] = {"exact_match": exact, "f1": f1, "contains": exact}
    return scores
