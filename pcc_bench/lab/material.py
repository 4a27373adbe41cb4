"""What compressors of the lab learn from: text and questions of the world, the same for all of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pcc_bench.tasks.adversarialqa import rows as adversarialqa
from pcc_bench.tasks.example import Example
from pcc_bench.tasks.hotpotqa import rows as hotpotqa
from pcc_bench.tasks.lab.rows import rows
from pcc_bench.tasks.nq import rows as nq
from pcc_bench.tasks.squad import rows as squad

TEXT, TEXT_HELD_OUT, QUESTIONS = "text.jsonl", "text-held-out.jsonl", "questions.jsonl"
DOCUMENTS, ROWS = 6_000, 6_000  # of text; of each of the four question sets
HELD_OUT_DOCUMENTS = 100
TUNING_SENTENCES = (6, 26)  # contexts of the fine-tuning rows
_READERS: dict[str, Callable[[Any], Any]] = {
    "squad": squad.read,
    "adversarialqa": adversarialqa.read,
    "hotpotqa": hotpotqa.read,
    "nq": nq.read,
}


def write_data(folder: Path) -> None:
    """Write what is not there yet: `TEXT`, `TEXT_HELD_OUT` and `QUESTIONS`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, split, count in ((TEXT, "train", DOCUMENTS), (TEXT_HELD_OUT, "validation", HELD_OUT_DOCUMENTS)):
        if not (folder / name).is_file():
            _write_lines(folder / name, rows("text", split, count, seed=1))
    if not (folder / QUESTIONS).is_file():
        _write_lines(folder / QUESTIONS, _questions())


def _questions() -> Iterable[dict[str, Any]]:
    """Rows of all question sets with the context as the tasks show it, in turns."""
    sets = [
        [_READERS[name](row) for row in rows(name, "train", ROWS, seed=1, sentences=TUNING_SENTENCES)]
        for name in _READERS
    ]
    for examples in zip(*sets, strict=True):
        for example in examples:
            if isinstance(example, Example):
                yield {"context": example.context, "question": example.question, "answers": example.answers}


def _write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    partly = path.with_suffix(".partly")
    partly.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    partly.rename(path)
